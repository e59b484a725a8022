"""Who runs it: one Fleet an instance, over all its shards.

Rules:
- Capacity belongs to a worker id, what is taken to its incarnations: a new incarnation does not free its predecessor's attempts.
- `taken` of a worker = the demands of its placed executions + those held for commits under way. Released exactly once.
- By priority, then age; a demand of slots alone may also wait in a worker's backlog, nothing else may.
- Slots alone spread over workers (most room first); anything else goes where it fits best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from dts.core import selector
from dts.core.draft import Draft, Placement
from dts.model import Block, Demand, ShardId, WorkerInfo, WorkerRef

Eligible = Callable[[ShardId, WorkerRef], int | None]  # number of the worker's last report to the shard; None: not yet

NOTHING = Demand(slots=0)
Amounts = tuple[int, int, int, int]  # cpu, memory, storage, slots


def amounts(demand: Demand) -> Amounts:
    """A demand's fixed dimensions."""
    return demand.cpu, demand.memory, demand.storage, demand.slots


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

    def could(self, demand: Demand) -> str:
        """'' when an empty worker of this kind could run it, else what it lacks."""
        if not selector.matches(demand.selector, self.labels):
            return f"lack the labels ({demand.selector})"
        names = ("cpu", "memory", "storage", "slots")
        for name, have, need in zip(names, amounts(self.info.total), amounts(demand), strict=True):
            if need > have:
                return f"lack {name} (need {need}, have {have})"
        have_custom = dict(self.info.total.custom)
        for name, need in demand.custom:
            if need > have_custom.get(name, 0):
                return f"lack {name} (need {need}, have {have_custom.get(name, 0)})"
        return ""

    def add(self, demand: Demand, count: int) -> None:
        """Takes (or, with a negative count, gives back) room for `count` executions."""
        for dimension, need in enumerate(amounts(demand)):
            self.taken[dimension] += need * count
        assert min(self.taken) >= 0, f"worker {self.info.ref.id}: more was released than taken"
        for name, need in demand.custom:
            self.custom[name] = self.custom.get(name, 0) + need * count
            assert self.custom[name] >= 0, f"worker {self.info.ref.id}: more {name} was released than taken"


def spread(rooms: Sequence[int], count: int) -> list[int]:
    """How many of `count` go to each of several rooms, largest first, when each goes to where the most room is left."""
    level, extra, used, total = 0, 0, len(rooms), 0
    for number, room in enumerate(rooms, 1):
        total += room
        following = rooms[number] if number < len(rooms) else 0
        if total - number * following >= count:  # the first `number` take them all, down to a common level of room
            level, extra = divmod(total - count, number)
            used = number
            break
    return [room - level - (place >= used - extra) if place < used else 0 for place, room in enumerate(rooms)]


def packed(rooms: Sequence[int], count: int) -> list[int]:
    """How many of `count` go to each of several rooms when the first are filled first."""
    sizes = []
    for room in rooms:
        sizes.append(min(room, count))
        count -= sizes[-1]
    return sizes


class Wish(NamedTuple):
    """A ready block that looks for places."""

    shard: ShardId
    ready: int  # index into its draft's ready blocks
    block: Block


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

    def _open(self, demand: Demand) -> Iterable[Member]:
        for member in self.members.values():
            if member.attached and not member.leaving and selector.matches(demand.selector, member.labels):
                yield member

    def room(self, demand: Demand) -> int:
        """At most so many executions of a demand could be placed now."""
        return sum(member.fits(demand) for member in self._open(demand))

    def place(self, drafts: Sequence[Draft], eligible: Eligible) -> dict[ShardId, list[Placement]]:
        """Places for what is ready, held at once: by priority, then age."""
        wishes = [Wish(draft.shard, index, block) for draft in drafts for index, block in enumerate(draft.ready)]
        wishes.sort(key=lambda wish: (-wish.block.demand.priority, wish.block.queued))
        found: dict[ShardId, list[Placement]] = {draft.shard: [] for draft in drafts}
        full: set[tuple[ShardId, int]] = set()  # demands that found nothing more in this round
        for wish in wishes:
            if (wish.shard, id(wish.block.demand)) in full:
                continue
            left = self._place(wish, eligible, found[wish.shard])
            if left:
                full.add((wish.shard, id(wish.block.demand)))
        return found

    def _place(self, wish: Wish, eligible: Eligible, found: list[Placement]) -> int:
        demand, left = wish.block.demand, len(wish.block.keys)
        members = [
            (room, report, member)
            for member in self._open(demand)
            if (report := eligible(wish.shard, member.info.ref)) is not None and (room := member.fits(demand)) > 0
        ]
        if demand.slots_only:
            members.sort(key=lambda each: -each[0])
            sizes = spread([room for room, _, _ in members], left)
        else:
            members.sort(key=lambda each: sum(amounts(each[2].info.total)[:2]) - sum(each[2].taken[:2]))
            sizes = packed([room for room, _, _ in members], left)
        for (_, report, member), size in zip(members, sizes, strict=True):
            if size:
                member.add(demand, size)
                found.append(Placement(wish.ready, member.info.ref, size, report, not member.info.timed))
                left -= size
        return left

    def why_not(self, demand: Demand) -> str:
        """Why an execution of this demand waits, for a person: '3 workers: 2 lack memory (need 4096, have 1024), 1 is full'."""
        if not self.members:
            return "no worker is attached"
        reasons: dict[str, int] = {}
        for member in self.members.values():
            reason = self._why_not(member, demand)
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
        if not reasons:
            return "it is about to be placed"
        count = len(self.members)
        listed = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
        return f"{count} worker{'s' if count > 1 else ''}: {listed}"

    def _why_not(self, member: Member, demand: Demand) -> str:
        if not member.attached:
            return "not attached"
        if member.leaving:
            return "draining"
        lacks = member.could(demand)
        if lacks:
            return lacks
        return "" if member.fits(demand) else "full"

    def taken(self, id: str) -> Demand:
        """What is taken of a worker."""
        member = self.members.get(id)
        if member is None:
            return Demand(slots=0)
        cpu, memory, storage, slots = member.taken
        return Demand(cpu, memory, storage, slots, tuple(sorted(member.custom.items())))
