"""What the guard holds by looking: memory where no cgroup does, and the size of scratch folders."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from dts.worker import cgroups, processes, scratch
from dts.worker.cgroups import MIB
from dts.worker.trees import Tree

MEMORY_S = 0.05  # how often memory is looked at
STORAGE_S = 0.5  # how often a scratch folder is measured anew
SHARE = 20  # looking takes a 20th of the guard's time at most: with many trees it is rarer

Over = tuple[Tree, str, int]  # a tree, why it must end, MiB used


class Sampler:
    """Looks at trees that have limits; the guard asks it at each turn of its loop."""

    def __init__(self, by_cgroup: Collection[str]) -> None:
        self._memory_by_cgroup = "memory" in by_cgroup
        self._next = 0.0
        self._next_storage = 0.0

    def enforced(self, tree: Tree, by_cgroup: Collection[str]) -> str:
        """How its requests are held, as model.End.enforced says it."""
        held = by_cgroup if tree.cgroup is not None else ()
        ways = {
            "cpu": tree.limits.cpu and ("cgroup" if "cpu" in held else "none"),
            "memory": tree.limits.memory
            and ("cgroup" if "memory" in held else "sampled" if processes.SEEN else "none"),
            "storage": tree.limits.storage and ("sampled" if tree.scratch is not None else "none"),
        }
        return ",".join(f"{name}={way}" for name, way in ways.items() if way)

    def wait_s(self, trees: Iterable[Tree]) -> float | None:
        """How long until it wants to look again; None: there is nothing to look at."""
        return max(self._next - time.monotonic(), 0.0) if any(map(self._watched, trees)) else None

    def look(self, trees: Iterable[Tree], own: Collection[int]) -> list[Over]:
        """Those that are over a limit; nothing if it is too early."""
        begin = time.monotonic()
        if begin < self._next:
            return []
        found: list[Over] = []
        for tree in [each for each in trees if self._watched(each)]:
            if self._samples_memory(tree) and (used := memory_of(tree, own)) > tree.limits.memory:
                found.append((tree, "memory", used))
            elif tree.limits.storage and tree.scratch is not None and (used := self._size(tree)) > tree.limits.storage:
                found.append((tree, "scratch", used))
        now = time.monotonic()
        if now >= self._next_storage:
            self._next_storage = now + STORAGE_S
        self._next = now + max(MEMORY_S, SHARE * (now - begin))
        return found

    def _watched(self, tree: Tree) -> bool:
        if tree.kill_at:
            return False
        return self._samples_memory(tree) or bool(tree.limits.storage and tree.scratch is not None)

    def _samples_memory(self, tree: Tree) -> bool:
        return bool(tree.limits.memory) and not (self._memory_by_cgroup and tree.cgroup is not None)

    def _size(self, tree: Tree) -> int:
        """MiB in its scratch folder as far as the present round has counted."""
        assert tree.scratch is not None
        if tree.measuring is None:
            if time.monotonic() < self._next_storage:
                return 0
            tree.measuring = scratch.measure(tree.scratch)
        size = next(tree.measuring, None)
        if size is None:
            tree.measuring = None
            return 0
        return size // MIB


def memory_of(tree: Tree, own: Collection[int]) -> int:
    """MiB that a tree uses: what its processes hold, counted fairly when a quick look says that it is too much."""
    pids = [tree.pid, *tree.members(own)]
    used = sum(map(processes.own_memory, pids))
    if used > tree.limits.memory * MIB:
        used = sum(map(processes.fair_memory, pids)) or used
    return used // MIB


def memory_at_end(tree: Tree) -> int:
    """MiB that a tree used at most when its cgroup ended it for that; 0: it did not."""
    if tree.cgroup is None or not cgroups.out_of_memory(tree.cgroup):
        return 0
    return max(cgroups.peak(tree.cgroup) // MIB, tree.limits.memory)
