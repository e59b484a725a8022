"""Control groups, version 2: one for each attempt that has requests, below the worker's own.

A worker uses the cgroup that it runs in if that is its own to divide: delegated by systemd, writable without being root, or the
root of what it can see (a container's). Memory is a limit, cpu a share (docs/adr/0011). Without controllers a cgroup still says which
processes are an attempt's, whatever they did to hide, and ends all of them at once.

    <own>/dts-home              the worker, its guard and its pool: a cgroup with controllers below it may hold no process itself
    <own>/dts-<pid>-<any>       one guard's attempts
    <own>/dts-<pid>-<any>/<n>   one attempt
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from secrets import token_hex

from dts.worker import holds, processes

HOME = "dts-home"
PREFIX = "dts-"
WANTED = ("cpu", "memory")
MIB = 1024 * 1024
WEIGHT = (1, 10_000)  # least and most that cpu.weight takes
MILLICORES_PER_WEIGHT = 10  # a core is 100, the default weight
EVACUATIONS = 5  # tries to empty the own cgroup while processes start in it
REMOVE_S = 1.0  # how long a killed cgroup may take to become empty


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True


def weight(millicores: int) -> int:
    """The cpu.weight that is a share of so much."""
    return max(WEIGHT[0], min(millicores // MILLICORES_PER_WEIGHT, WEIGHT[1]))


def own(proc: Path = processes.PROC) -> Path | None:
    """The cgroup v2 that this process runs in; None: there is none, or it cannot be divided."""
    line = next((each for each in _read(proc / "self/cgroup").splitlines() if each.startswith("0::/")), "")
    if not line:
        return None
    for mount in _read(proc / "self/mountinfo").splitlines():
        before, _, after = mount.partition(" - ")
        fields = before.split()
        if after.startswith("cgroup2 ") and len(fields) > 4 and line[3:].startswith(fields[3].rstrip("/") + "/"):
            path = Path(fields[4]) / line[3:].removeprefix(fields[3].rstrip("/")).lstrip("/")
            path = path.parent if path.name == HOME else path
            return path if _ours(path, at_top=path == Path(fields[4])) else None
    return None


def _ours(path: Path, at_top: bool) -> bool:
    if not (os.access(path, os.W_OK) and os.access(path / "cgroup.procs", os.W_OK)):
        return False
    return at_top or os.geteuid() != 0 or any(_marked(path, name) for name in ("user.delegate", "trusted.delegate"))


def _marked(path: Path, name: str) -> bool:
    try:
        return os.getxattr(path, name) == b"1"
    except (OSError, AttributeError):
        return False


def pids(path: Path) -> list[int]:
    """The processes of a cgroup itself."""
    return [int(each) for each in _read(path / "cgroup.procs").split()]


def populated(path: Path) -> bool:
    """Whether a cgroup holds a process, or one below it does."""
    return "populated 1" in _read(path / "cgroup.events")


def kill(path: Path) -> None:
    """KILL for all of a cgroup, and of those below it."""
    if not _write(path / "cgroup.kill", "1"):  # Linux 5.14
        for each in [path, *(below for below in path.iterdir() if below.is_dir())]:
            for pid in pids(each):
                processes.signal_one(pid, 9)


def out_of_memory(path: Path) -> bool:
    """Whether the kernel ended something of it for want of memory."""
    words = _read(path / "memory.events").split()
    return any(int(count) for name, count in zip(words[::2], words[1::2], strict=True) if name == "oom_kill")


def peak(path: Path) -> int:
    """Bytes that it used at most; 0: not known (Linux before 5.19)."""
    return int(_read(path / "memory.peak") or 0)


def remove(path: Path) -> bool:
    """Removes a cgroup and those below it, once nothing is in them. False: something is."""
    try:
        for below in [each for each in path.iterdir() if each.is_dir()]:
            remove(below)
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Cgroups:
    """One guard's attempts. `held`: the controllers that hold what they request."""

    def __init__(self, path: Path, held: frozenset[str]) -> None:
        self.path = path
        self.held = held

    @classmethod
    def open(cls, setting: str, total_cpu: int) -> Cgroups | None:
        """As `setting` says: `auto`, `off`, or the path of a cgroup that is ours to divide. None: there is none.

        `total_cpu`: the millicores that all attempts together may request. Ends what dead guards left.
        """
        parent = None if setting == "off" else own() if setting == "auto" else Path(setting)
        if parent is None or not (parent / "cgroup.procs").exists():
            return None
        try:
            sweep(parent)
            path = holds.make(lambda: parent / f"{PREFIX}{os.getpid()}-{token_hex(4)}")
        except OSError:
            return None
        if not _enterable(path):
            end(path)
            return None
        held = _enable(path) if _enable(parent) else frozenset[str]()
        if "cpu" in held:
            _write(path / "cpu.weight", str(max(weight(total_cpu), weight(1_000))))
        return cls(path, held)

    def make(self, name: str, cpu: int, memory: int) -> Path | None:
        """A cgroup for an attempt that requests so many millicores and MiB. None: it cannot be made."""
        path = self.path / name
        try:
            path.mkdir()
        except OSError:
            return None
        done = True
        if memory and "memory" in self.held:
            _write(path / "memory.swap.max", "0")  # there is none without swap
            _write(path / "memory.oom.group", "1")
            done = _write(path / "memory.max", str(memory * MIB))
        if cpu and "cpu" in self.held:
            done = _write(path / "cpu.weight", str(weight(cpu))) and done
        if not done:
            remove(path)
            return None
        return path

    def close(self) -> None:
        """Kills and removes all of it."""
        end(self.path)


def end(path: Path) -> None:
    """Kills and removes a cgroup with those below it; gives up after REMOVE_S (what is in the kernel's hands dies by itself)."""
    until = time.monotonic() + REMOVE_S
    while path.exists() and not remove(path) and time.monotonic() < until:
        kill(path)
        time.sleep(0.005)


def sweep(parent: Path) -> None:
    """Ends the cgroups of guards that are dead."""
    for path in parent.glob(f"{PREFIX}*-*"):
        if holds.abandoned(path):
            end(path)


def _enterable(path: Path) -> bool:
    """Whether a process of this one's can be moved there: the kernel asks for the right to write all the way between the two."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _write(path / "cgroup.procs", "0") else 1)
    return os.waitpid(pid, 0)[1] == 0


def _enable(path: Path) -> frozenset[str]:
    """Gives the cgroups below this one the controllers that there are: which they have."""
    there = [name for name in WANTED if name in _read(path / "cgroup.controllers").split()]
    on = " ".join(f"+{name}" for name in there)
    for _ in range(EVACUATIONS):
        if not there or _write(path / "cgroup.subtree_control", on):
            break
        home = path / HOME  # no controllers below a cgroup that holds processes
        home.mkdir(exist_ok=True)
        for pid in pids(path):
            _write(home / "cgroup.procs", str(pid))
    have = _read(path / "cgroup.subtree_control").split()
    return frozenset(name for name in there if name in have)
