"""What the workers have and what is taken of it: one Fleet an instance, over all its shards. Book-keeping, no choices.

Rules:
- Capacity belongs to a worker id, what is taken to its incarnations: a new incarnation does not free its predecessor's attempts.
- `taken` of a worker = the demands of its placed executions + those held for commits under way. Released exactly once.
- A demand of slots alone may also wait in a worker's backlog, nothing else may.
"""

from __future__ import annotations

from collections.abc import Iterable

from dts.core import selector
from dts.model import Demand, WorkerInfo, WorkerRef

NOTHING = Demand(slots=0)
Amounts = tuple[int, int, int, int]  # cpu, memory, storage, slots


def amounts(demand: Demand) -> Amounts:
    """A demand's fixed dimensions."""
    return demand.cpu, demand.memory, demand.storage, demand.slots


def needs(demand: Demand) -> dict[str, int]:
    """What one execution asks for, by the resource's name; what it does not ask for is left out."""
    fixed = zip(("cpu", "memory", "storage", "slots"), amounts(demand), strict=True)
    return {name: need for name, need in (*fixed, *demand.custom) if need}


class Member:
    """One worker id: the capacity of the incarnation that gets new work, and what all its incarnations hold."""

    __slots__ = ("custom", "here", "info", "labels", "leaving", "taken")

    def __init__(self, info: WorkerInfo) -> None:
        self.here: dict[WorkerRef, WorkerInfo] = {}  # attached incarnations, the last to come is last
        self.taken = [0, 0, 0, 0]
        self.custom: dict[str, int] = {}
        self.use(info, leaving=False)

    @property
    def attached(self) -> bool:
        """Whether any incarnation is."""
        return bool(self.here)

    def use(self, info: WorkerInfo, *, leaving: bool) -> None:
        """This incarnation is the one that gets new work, unless it is leaving."""
        self.info, self.labels, self.leaving = info, dict(info.labels), leaving

    def fits(self, demand: Demand) -> int:
        """How many executions of a demand find room now."""
        total = self.info.total
        if demand.slots > total.slots:
            return 0  # it would wait in the backlog for ever
        slots = total.slots + (self.info.backlog if demand.slots_only else 0)
        room = (slots - self.taken[3]) // max(demand.slots, 1)
        if not demand.slots_only:
            for have, used, need in zip(amounts(total)[:3], self.taken[:3], amounts(demand)[:3], strict=True):
                if need:
                    room = min(room, (have - used) // need)
            have_custom = dict(total.custom)
            for name, need in demand.custom:
                if need:
                    room = min(room, (have_custom.get(name, 0) - self.custom.get(name, 0)) // need)
        return max(room, 0)

    def has(self, demand: Demand) -> Iterable[tuple[str, int]]:
        """How much there is, when nothing else runs, of each resource that a demand asks for."""
        total = self.info.total
        fixed = {"cpu": total.cpu, "memory": total.memory, "storage": total.storage, "slots": total.slots}
        have = {**dict(total.custom), **fixed}
        return [(name, have.get(name, 0)) for name in needs(demand)]

    def free(self, demand: Demand) -> Iterable[tuple[str, int]]:
        """How much of each resource that a demand asks for is not taken. Slots alone may wait in the backlog."""
        cpu, memory, storage, slots = self.taken
        used = {**self.custom, "cpu": cpu, "memory": memory, "storage": storage, "slots": slots}
        backlog = self.info.backlog if demand.slots_only else 0
        return [
            (name, have + (backlog if name == "slots" else 0) - used.get(name, 0)) for name, have in self.has(demand)
        ]

    def add(self, demand: Demand, count: int) -> None:
        """Takes (or, with a negative count, gives back) room for `count` executions."""
        for dimension, need in enumerate(amounts(demand)):
            self.taken[dimension] += need * count
        assert min(self.taken) >= 0, f"worker {self.info.ref.id}: more was released than taken"
        for name, need in demand.custom:
            self.custom[name] = self.custom.get(name, 0) + need * count
            assert self.custom[name] >= 0, f"worker {self.info.ref.id}: more {name} was released than taken"


class Fleet:
    """The attached workers and what is taken of each."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._leaving: set[WorkerRef] = set()  # until they are buried; also such that have not attached yet

    def attach(self, info: WorkerInfo) -> None:
        """A worker's stream began. A new incarnation replaces the old one's capacity, not what it holds."""
        member = self.members.get(info.ref.id)
        if member is None:
            member = self.members[info.ref.id] = Member(info)
        member.here.pop(info.ref, None)
        member.here[info.ref] = info
        self._choose(member)

    def detach(self, worker: WorkerRef) -> None:
        """Its stream ended: nothing new goes there."""
        member = self.members.get(worker.id)
        if member is not None and member.here.pop(worker, None) is not None:
            self._choose(member)
            self._forget(worker.id)

    def leave(self, worker: WorkerRef) -> None:
        """It drains: nothing new goes there, also if it comes (again) later."""
        self._leaving.add(worker)
        member = self.members.get(worker.id)
        if member is not None:
            self._choose(member)

    def bury(self, worker: WorkerRef) -> None:
        """It is dead."""
        self.detach(worker)
        self._leaving.discard(worker)

    def _choose(self, member: Member) -> None:
        """New work goes to the last incarnation that came and is not leaving: one of an earlier server may come late."""
        here = list(member.here.values())
        staying = [info for info in here if info.ref not in self._leaving]
        info = (staying or here or [member.info])[-1]
        member.use(info, leaving=not staying)

    def take(self, worker: WorkerRef, demand: Demand, count: int) -> None:
        """Placed executions found at a take-over; their worker may not have attached yet."""
        member = self.members.get(worker.id)
        if member is None:
            member = self.members[worker.id] = Member(WorkerInfo(worker, NOTHING, 0))
        member.add(demand, count)

    def release(self, worker: WorkerRef, demand: Demand, count: int) -> None:
        """Ends of a committed commit, or placements of a refused one."""
        self.members[worker.id].add(demand, -count)
        self._forget(worker.id)

    def _forget(self, id: str) -> None:
        member = self.members[id]
        if not member.attached and not any(member.taken) and not any(member.custom.values()):
            del self.members[id]

    def open(self, demand: Demand) -> Iterable[Member]:
        """The members that may get an execution of this demand, if they have room."""
        for member in self.members.values():
            if member.attached and not member.leaving and selector.matches(demand.selector, member.labels):
                yield member

    def room(self, demand: Demand) -> int:
        """At most so many executions of a demand could be placed now."""
        return sum(member.fits(demand) for member in self.open(demand))

    def taken(self, id: str) -> Demand:
        """What is taken of a worker."""
        member = self.members.get(id)
        if member is None:
            return Demand(slots=0)
        cpu, memory, storage, slots = member.taken
        return Demand(cpu, memory, storage, slots, tuple(sorted(member.custom.items())))
