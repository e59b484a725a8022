"""What /proc tells of a process's tree, and signals. Where there is no /proc, process groups alone are known."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def mark(execution: str, attempt: str) -> bytes:
    """What the environment of every process of an attempt contains, unless it clears it."""
    return f"DTS_EXECUTION_ID={execution}\0DTS_ATTEMPT={attempt}".encode() if execution else b""


def children(pid: int) -> list[int]:
    """Direct children, those of all its threads."""
    found: list[int] = []
    try:
        for thread in (PROC / str(pid) / "task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        pass
    return found


def descendants(pid: int) -> list[int]:
    """All below a process, nearest first."""
    found = children(pid)
    for each in found:
        found += children(each)
    return found


def parent(pid: int) -> int:
    """Of a process; 0: it is gone."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0
    state, ppid = stat.rpartition(")")[2].split()[:2]
    return 0 if state in "ZX" else int(ppid)


def group_of(pid: int) -> int:
    """The process group of a process; 0: it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def marked(pid: int, mark: bytes) -> bool:
    """Whether the environment that a process was started with carries a mark."""
    try:
        environ = b"\0" + (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return all(b"\0" + part + b"\0" in environ for part in mark.split(b"\0"))


def orphans(group: int, mark: bytes, known: set[int]) -> list[int]:
    """Processes that came to us, the subreaper, from a tree with this process group or mark."""
    strangers = [pid for pid in children(os.getpid()) if pid not in known]
    return [pid for pid in strangers if group_of(pid) == group or (mark and marked(pid, mark))]


def members(pid: int, mark: bytes, known: set[int]) -> list[int]:
    """What is left of a tree: its first process's descendants, its orphans and theirs."""
    found = descendants(pid)
    for orphan in orphans(pid, mark, known):
        found += [orphan, *descendants(orphan)]
    return found


def signal_group(group: int, number: int | None) -> bool:
    """Signals a process group (None: only looks). False: it has no member."""
    try:
        os.killpg(group, number or 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # there is one, of another user
    return True


def signal_one(pid: int, number: int) -> None:
    """Signals a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def drain(fd: int) -> None:
    """Empties a pipe that only wakes."""
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
