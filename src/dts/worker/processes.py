"""What /proc tells of a process's tree, and signals. Where there is no /proc, process groups alone are known."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")  # in a second: the unit of a process's start
KIB = 1024
PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 0.002  # between two looks at processes that were told to end
STUCK_S = 5.0  # after KILL: what has not died by then is in the kernel's hands
SEEN = (PROC / "self/status").exists()  # whether memory of processes can be seen


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


def began(pid: int) -> int:
    """When a process began, in ticks since the machine's start; 0: it is gone, or a zombie. With the pid it is its identity."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def now_ticks() -> int:
    """The present on the clock of `began`."""
    return int(time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) * TICKS)


def own_memory(pid: int) -> int:
    """Bytes that a process holds and no file does: anonymous and shared memory. 0: it is gone. Cheap; what several processes
    share counts for each of them."""
    return _sum_kib(pid, "status", (b"RssAnon:", b"RssShmem:"))


def fair_memory(pid: int) -> int:
    """The same with what is shared divided among those who share it. Reads the process's whole memory map."""
    return _sum_kib(pid, "smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:"))


def _sum_kib(pid: int, file: str, names: tuple[bytes, ...]) -> int:
    try:
        lines = (PROC / str(pid) / file).read_bytes().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * KIB for line in lines if line.startswith(names))


def deaf_to_term(pid: int) -> bool:
    """Whether a process ignores TERM, so that no grace time helps it."""
    try:
        lines = (PROC / str(pid) / "status").read_bytes().splitlines()
    except OSError:
        return True
    mask = next((int(line.split()[1], 16) for line in lines if line.startswith(b"SigIgn:")), 0)
    return bool(mask >> 14 & 1)


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


def naming(variable: bytes) -> list[int]:
    """All processes of this machine with this variable in the environment that they were started with."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), os.getppid()):
            try:
                environ = b"\0" + (entry / "environ").read_bytes()
            except OSError:
                continue  # gone, or another user's
            if b"\0" + variable + b"\0" in environ:
                found.append(int(entry.name))
    return found


def orphans(group: int, mark: bytes, known: Collection[int]) -> list[int]:
    """Processes that came to us, the subreaper, from a tree with this process group or mark."""
    strangers = [pid for pid in children(os.getpid()) if pid not in known]
    return [pid for pid in strangers if group_of(pid) == group or (mark and marked(pid, mark))]


def members(pid: int, mark: bytes, known: Collection[int]) -> list[int]:
    """What is left of a tree: its first process's descendants, its orphans and theirs."""
    found = descendants(pid)
    for orphan in orphans(pid, mark, known):
        found += [orphan, *descendants(orphan)]
    return found


def become_subreaper() -> None:
    """What loses its parent below this process becomes its child. Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def has_children() -> bool:
    """Whether this process has any, living or not yet waited for. One system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_below(grace_s: float) -> None:
    """TERM for all below this process, a subreaper; KILL after `grace_s`, or once all that are left ignore TERM. Blocks."""
    kill_at = time.monotonic() + grace_s
    told: set[int] = set()
    while time.monotonic() < kill_at + STUCK_S:
        _reap_all()
        pids = descendants(os.getpid())
        if not pids:
            return
        hurry = time.monotonic() >= kill_at or all(map(deaf_to_term, pids))
        for pid in pids:
            if hurry or pid not in told:
                signal_one(pid, signal.SIGKILL if hurry else signal.SIGTERM)
        told.update(pids)
        time.sleep(LOOK_S)


def _reap_all() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


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
