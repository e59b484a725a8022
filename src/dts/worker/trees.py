"""What the guard knows of one started process and all that came of it, and who of the living belongs to it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dts.worker import cgroups, processes


class Limits(NamedTuple):
    """What an attempt requests, as the guard holds it: millicores, MiB, MiB; 0: nothing."""

    cpu: int = 0
    memory: int = 0
    storage: int = 0


class Tree:
    """One started process and all that came of it."""

    __slots__ = (
        "cgroup",
        "ended",
        "grace",
        "id",
        "kill_at",
        "known",
        "limits",
        "mark",
        "measuring",
        "pid",
        "scratch",
        "shard",
        "started",
        "status",
        "ticks",
        "timeout_at",
        "used",
        "why",
    )

    def __init__(self, id: int, shard: int, pid: int, mark: bytes, ticks: int) -> None:
        self.id = id
        self.shard = shard
        self.pid = pid
        self.mark = mark
        self.ticks = ticks  # nothing of it began before (processes.began); 0: not known
        self.started = time.time_ns()
        self.ended = 0
        self.status: int | None = None  # of waitpid; None: the first process lives
        self.timeout_at = 0.0  # monotonic; 0: none
        self.grace = 0.0
        self.kill_at = 0.0  # monotonic; 0: not told to stop
        self.why = ""  # timeout | stop | lease | memory | scratch; '': ended by itself
        self.used = 0  # MiB, when that is why
        self.limits = Limits()
        self.cgroup: Path | None = None
        self.scratch: Path | None = None
        self.measuring: Iterator[int] | None = None  # of the scratch folder, under way
        self.known: dict[int, int] = {}  # processes seen in it -> when they began: they may lose parent, group and mark

    def members(self, own: Collection[int]) -> list[int]:
        """All living processes of it, its first one aside; `own`: children of this process that are no orphans."""
        found = set(processes.members(self.pid, self.mark, own))
        if self.cgroup is not None:
            found.update(cgroups.pids(self.cgroup))
        for pid, began in list(self.known.items()):
            if processes.began(pid) == began:
                found.update((pid, *processes.descendants(pid)))
            else:
                del self.known[pid]
        found.discard(self.pid)
        self.adopt(found)
        return [pid for pid in found if pid in self.known]

    def adopt(self, pids: Iterable[int]) -> None:
        """These are its processes, too."""
        for pid in pids:
            if pid not in self.known and (began := processes.began(pid)):
                self.known[pid] = began

    def leftovers(self, own: Collection[int]) -> bool:
        """Whether something of it lives, once its first process is dead."""
        return (
            processes.signal_group(self.pid, None)
            or (self.cgroup is not None and cgroups.populated(self.cgroup))
            or any(processes.began(pid) == began for pid, began in self.known.items())
            or bool(processes.orphans(self.pid, self.mark, own))
        )


def strays(own: Collection[int], trees: Collection[Tree]) -> list[int]:
    """Orphans that none of these trees can have started: all of them began later."""
    orphans = [(pid, processes.began(pid)) for pid in processes.children(os.getpid()) if pid not in own]
    return [pid for pid, began in orphans if began and all(tree.ticks > began for tree in trees)]
