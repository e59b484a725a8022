"""`python -m dts.worker`: options as JSON on standard input."""

import sys

from dts.worker.main import run
from dts.worker.options import WorkerOptions

if __name__ == "__main__":
    options = WorkerOptions.from_json(sys.stdin.buffer.read())
    sys.exit(run(options))
