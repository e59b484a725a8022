"""The real Kafka and the real Cassandra of the tests: started once, for all that needs them, and stopped at the end.

Several test runs of one checkout share one pair; `deploy/local/servers.py run` counts them, and ends the pair even when
this process is killed. Names (keyspaces, topics, groups) are to be unique to a run. DTS_TEST_SERVERS: another folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Servers(NamedTuple):
    """Where they are; `folder` holds their state, for tests that stop one (with a folder of their own)."""

    folder: Path
    kafka: str  # bootstrap.servers
    cassandra: tuple[str, int]


_run: tuple[subprocess.Popen[str], Servers] | None = None


def folder() -> Path:
    """Where the shared pair has its state."""
    name = f"dts-test-servers-{os.getuid()}-{zlib.crc32(str(ROOT).encode()):08x}"
    return Path(os.environ.get("DTS_TEST_SERVERS") or Path(tempfile.gettempdir()) / name)


def servers() -> Servers:
    """Starts them if need be; both answer on return. Raises RuntimeError when they cannot be started."""
    global _run
    if _run is None:
        command = [sys.executable, str(ROOT / "deploy/local/servers.py"), "run", str(folder()), "--fresh"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = dict(line.strip().split("=", 1) for line in (process.stdout.readline() for _ in range(3)) if line)
        if len(told) != 3:
            process.communicate()
            raise RuntimeError("Kafka and Cassandra could not be started: the reason is above")
        cassandra = (told["CASSANDRA_HOSTS"], int(told["CASSANDRA_PORT"]))
        _run = process, Servers(folder(), told["KAFKA_BROKERS"], cassandra)
    return _run[1]


def stop() -> None:
    """Lets go of them; the last test run that used them stops them."""
    global _run
    if _run is not None:
        _run[0].communicate()
        _run = None
