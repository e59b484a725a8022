"""Is the service of this container ready? Exit code 0: yes. A container runs one service, or all of them (`dts up`)."""

import os
import sys
from urllib.request import urlopen

from dts.config import load

TIMEOUT_S = 1.5  # a service; all three within the health check's 5 s


def ready(port: int) -> bool:
    """Whether what listens there says so."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> int:
    """One that answers is enough."""
    ports = load(os.environ).ports
    return 0 if any(map(ready, (ports.job_http, ports.scheduler_http, ports.execution_http))) else 1


if __name__ == "__main__":
    sys.exit(main())
