"""What the tasks of the crash tests do, in files of their own: the record that the server's own is compared with.

On the PYTHONPATH of the worker. `lines`: 'execution attempt pid nanoseconds', one for each start. `violations`: starts that found
another run of the same execution alive (each holds a lock of its own while it runs).
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from pathlib import Path

LONGEST_S = 0.3
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

# The same as `hold`, for a shell: $$ spreads the durations.
SHELL = (
    'exec 9>>"$CRASH/locks/$DTS_EXECUTION_ID"; line="$DTS_EXECUTION_ID $DTS_ATTEMPT $$ 0"; '
    'flock -n 9 || echo "$line" >>"$CRASH/violations"; echo "$line" >>"$CRASH/lines"; '
    "n=$((1000 + $$ * 7 % 300)); sleep 0.${n#1}"
)


def _append(name: str, line: str) -> None:
    fd = os.open(Path(os.environ["CRASH"]) / name, APPEND, 0o600)
    os.write(fd, line.encode())
    os.close(fd)


def note() -> None:
    """Only the line."""
    now = time.time_ns()
    _append("lines", f"{os.environ['DTS_EXECUTION_ID']} {os.environ['DTS_ATTEMPT']} {os.getpid()} {now}\n")


def hold() -> None:
    """Holds the execution's lock for up to LONGEST_S."""
    now = time.time_ns()
    line = f"{os.environ['DTS_EXECUTION_ID']} {os.environ['DTS_ATTEMPT']} {os.getpid()} {now}\n"
    lock = os.open(Path(os.environ["CRASH"]) / "locks" / os.environ["DTS_EXECUTION_ID"], APPEND, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _append("violations", line)
    _append("lines", line)
    time.sleep(random.uniform(0, LONGEST_S))
    os.close(lock)
