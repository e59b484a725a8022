"""Which folders belong to a guard that lives: it holds an OS lock on each of its own, which ends with it, whatever ends it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

TRIES = 5  # a folder may be taken for a dead guard's between its making and its lock


def make(name: Callable[[], Path]) -> Path:
    """Makes a folder of a new name and holds it as long as this process lives. Raises OSError."""
    for _ in range(TRIES):
        path = name()
        path.mkdir(mode=0o700)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            continue
        if path.exists():
            return path  # the descriptor stays open
        os.close(fd)
    raise BlockingIOError("a new folder is taken for a dead guard's, again and again")


def abandoned(path: Path) -> bool:
    """Whether nobody holds a folder; where that cannot be known, somebody does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
