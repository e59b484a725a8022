"""What the workers have and what is taken of it: one Fleet an instance, over all its shards. Book-keeping, no choices.

Rules:
- Capacity belongs to a worker id, what is taken to its incarnations: a new incarnation does not free its predecessor's attempts.
- `taken` of a worker = the demands of its placed executions + those held for commits under way. Released exactly once.
- A demand of slots alone may also wait in a worker's backlog, nothing else may.
- Of a worker that serves several Scheduler instances this one uses what it is credited (core/credits.py), what it has already
  placed there included; `has` speaks of the whole worker.
- A cordon belongs to a worker id: a new incarnation is cordoned too, until somebody uncordons it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice

from dts.amounts import SLOTS, Vector, demand_of, least, plus, times, within, zero
from dts.amounts import need as vector_of
from dts.core import selector
from dts.core.credits import GATHER_WORKERS, WANT_DEMANDS, WANT_EVERY_MS, WANT_WORKERS, Credit, Returned, Want
from dts.model import Demand, Instant, ShardId, WorkerInfo, WorkerRef

NOTHING = Demand(slots=0)
MAX_CORDONED = 10_000  # worker ids remembered as cordoned
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

    __slots__ = (
        "backlog",
        "cordoned",
        "credit",
        "credits",
        "custom",
        "held",
        "here",
        "info",
        "labels",
        "leaving",
        "ours",
        "ours_custom",
        "taken",
    )

    def __init__(self, info: WorkerInfo) -> None:
        self.here: dict[WorkerRef, WorkerInfo] = {}  # attached incarnations, the last to come is last
        self.credits: dict[WorkerRef, Credit] = {}  # of those that credit what may be used
        self.taken = [0, 0, 0, 0]
        self.custom: dict[str, int] = {}
        self.held: dict[Demand, int] = {}  # how many of each demand that spreads over a label
        self.cordoned = False
        self.use(info, leaving=False)

    @property
    def attached(self) -> bool:
        """Whether any incarnation is."""
        return bool(self.here)

    def use(self, info: WorkerInfo, *, leaving: bool) -> None:
        """This incarnation is the one that gets new work, unless it is leaving."""
        self.info, self.labels, self.leaving = info, dict(info.labels), leaving
        self.credit = self.credits.get(info.ref)
        self.recount()

    def recount(self) -> None:
        """What this instance may use of it has changed."""
        total = self.info.total
        if self.credit is None:
            self.ours: Amounts = amounts(total)
            self.backlog = self.info.backlog
            self.ours_custom = dict(total.custom)
        else:
            cpu, memory, storage, slots, self.backlog, *custom = self.credit.limit
            self.ours = (cpu, memory, storage, slots)
            self.ours_custom = dict(zip(self.credit.names, custom, strict=True))

    @property
    def open(self) -> bool:
        """Whether anything new may go there."""
        return bool(self.here) and not self.leaving and not self.cordoned

    def fits(self, demand: Demand) -> int:
        """How many executions of a demand find room now."""
        if demand.slots > self.info.total.slots:
            return 0  # it would wait in the backlog for ever
        slots = self.ours[3] + (self.backlog if demand.slots_only else 0)
        room = (slots - self.taken[3]) // max(demand.slots, 1)
        if not demand.slots_only:
            for have, used, each in zip(self.ours[:3], self.taken[:3], amounts(demand)[:3], strict=True):
                if each:
                    room = min(room, (have - used) // each)
            for name, each in demand.custom:
                if each:
                    room = min(room, (self.ours_custom.get(name, 0) - self.custom.get(name, 0)) // each)
        return max(room, 0)

    def vector(self, credit: Credit) -> Vector:
        """What is taken, as one of the worker's vectors: slots and backlog together in slots."""
        return (*self.taken, 0, *(self.custom.get(name, 0) for name in credit.names))

    def has(self, demand: Demand) -> Iterable[tuple[str, int]]:
        """How much there is, when nothing else runs, of each resource that a demand asks for."""
        total = self.info.total
        fixed = {"cpu": total.cpu, "memory": total.memory, "storage": total.storage, "slots": total.slots}
        have = {**dict(total.custom), **fixed}
        return [(name, have.get(name, 0)) for name in needs(demand)]

    def free(self, demand: Demand) -> Iterable[tuple[str, int]]:
        """How much of each resource that a demand asks for this instance may use and has not taken. Slots alone may wait in the backlog."""
        cpu, memory, storage, slots = self.taken
        used = {**self.custom, "cpu": cpu, "memory": memory, "storage": storage, "slots": slots}
        cpu, memory, storage, slots = self.ours
        slots += self.backlog if demand.slots_only else 0
        have = {**self.ours_custom, "cpu": cpu, "memory": memory, "storage": storage, "slots": slots}
        return [(name, have.get(name, 0) - used.get(name, 0)) for name in needs(demand)]

    def add(self, demand: Demand, count: int) -> None:
        """Takes (or, with a negative count, gives back) room for `count` executions."""
        taken = self.taken
        taken[0] += demand.cpu * count
        taken[1] += demand.memory * count
        taken[2] += demand.storage * count
        taken[SLOTS] += demand.slots * count
        assert min(self.taken) >= 0, f"worker {self.info.ref.id}: more was released than taken"
        for name, each in demand.custom:
            self.custom[name] = self.custom.get(name, 0) + each * count
            assert self.custom[name] >= 0, f"worker {self.info.ref.id}: more {name} was released than taken"
        if demand.spread:
            held = self.held[demand] = self.held.get(demand, 0) + count
            if not held:
                del self.held[demand]


class Fleet:
    """The attached workers and what is taken of each."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._leaving: set[WorkerRef] = set()  # until they are buried; also such that have not attached yet
        self._cordoned: dict[str, str] = {}  # worker ids, with the incarnation that was cordoned
        self._credits: dict[WorkerRef, Member] = {}  # that credit what may be used
        self._short: set[WorkerRef] = set()  # of those: of which there is more than this instance may use
        self._owing: set[WorkerRef] = set()  # ... and that may have something to get back
        self._wants_at: Instant = 0
        self._wanting: set[WorkerRef] = set()  # that know of something that waits
        self._turn = 0

    def attach(self, info: WorkerInfo) -> None:
        """A worker's stream began. A new incarnation replaces the old one's capacity, not what it holds."""
        member = self.members.get(info.ref.id)
        if member is None:
            member = self.members[info.ref.id] = Member(info)
        member.here.pop(info.ref, None)
        member.here[info.ref] = info
        self._end_credit(member, info.ref)
        if info.credited:
            member.credits[info.ref] = Credit(info)
            self._credits[info.ref] = member
            self._short.add(info.ref)
        known = self._cordoned.get(info.ref.id)
        if info.cordoned or known == info.ref.incarnation:
            self.cordon(info.ref, info.cordoned)
        member.cordoned = info.ref.id in self._cordoned
        self._choose(member)

    def detach(self, worker: WorkerRef) -> None:
        """Its stream ended: nothing new goes there."""
        member = self.members.get(worker.id)
        if member is not None and member.here.pop(worker, None) is not None:
            self._end_credit(member, worker)
            self._choose(member)
            self._forget(worker.id)

    def leave(self, worker: WorkerRef) -> None:
        """It drains: nothing new goes there, also if it comes (again) later."""
        self._leaving.add(worker)
        member = self.members.get(worker.id)
        if member is not None:
            self._choose(member)

    def cordon(self, worker: WorkerRef, cordoned: bool) -> None:
        """Nothing new goes to this worker id, or something again."""
        self._cordoned.pop(worker.id, None)
        if cordoned:
            self._cordoned[worker.id] = worker.incarnation
            if len(self._cordoned) > MAX_CORDONED:
                del self._cordoned[next(iter(self._cordoned))]
        member = self.members.get(worker.id)
        if member is not None:
            member.cordoned = cordoned

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

    # --- credits

    def _end_credit(self, member: Member, worker: WorkerRef) -> None:
        member.credits.pop(worker, None)
        self._credits.pop(worker, None)
        self._short.discard(worker)
        self._owing.discard(worker)
        self._wanting.discard(worker)

    def _changed(self, member: Member, credit: Credit) -> None:
        (self._short.add if credit.short else self._short.discard)(credit.ref)
        if member.credit is credit:
            member.recount()

    def credit(self, worker: WorkerRef, number: int, share: Vector, returns: int) -> bool:
        """A worker says what of it this instance may use. True: it may be more than before."""
        member = self._credits.get(worker)
        if member is None:
            return False
        credit = member.credits[worker]
        before = credit.limit
        credit.receive(number, share, returns)
        self._owing.add(worker)
        self._changed(member, credit)
        return not within(credit.limit, before)

    def hand_over(self, shard: ShardId, worker: WorkerRef, demand: Demand, count: int) -> None:
        """Placed executions whose shard is another's now: their part of the credit goes with them."""
        member = self.members[worker.id]
        credit = member.credits.get(worker)
        if credit is not None:
            credit.moved(shard, times(vector_of(demand, credit.names), count))
            self._owing.add(worker)
            self._changed(member, credit)
        self.release(worker, demand, count)

    def returns(self) -> list[Returned]:
        """What goes back to workers now."""
        found: list[Returned] = []
        for worker in list(self._owing):
            member = self._credits[worker]
            credit = member.credits[worker]
            back = credit.settle(member.vector(credit))
            if back is not None:
                found.append(back)
                self._changed(member, credit)
            if within(credit.limit, credit.share):
                self._owing.discard(worker)
        return found

    def wants(self, waiting: Mapping[Demand, int], now: Instant) -> list[Want]:
        """What waits in vain, as the workers that could run it, and are not all this instance's, are to be told.
        `waiting`: how many of each demand; the first WANT_DEMANDS of them count. Looked at every WANT_EVERY_MS."""
        if now < self._wants_at or not (self._wanting or (waiting and self._short)):
            return []
        self._wants_at = now + WANT_EVERY_MS
        more: dict[WorkerRef, Vector] = {}
        one: dict[WorkerRef, Vector] = {}
        for demand, count in islice(waiting.items(), WANT_DEMANDS):
            self._ask(demand, count, more, one)
        found = []
        for worker in more.keys() | self._wanting:
            credit = self._credits[worker].credits[worker]
            nothing = zero(credit.whole)
            want = credit.want(more.get(worker, nothing), one.get(worker, nothing), now)
            if want is not None:
                found.append(want)
                (self._wanting.add if any(want.more) else self._wanting.discard)(worker)
        return found

    def wants_at(self, waits: bool) -> Instant | None:
        """When `wants` is worth a call, if something waits or not."""
        return self._wants_at if self._wanting or (waits and self._short) else None

    def _ask(self, demand: Demand, count: int, more: dict[WorkerRef, Vector], one: dict[WorkerRef, Vector]) -> None:
        """Adds what a demand wants of the workers; where there are many, of others each time."""
        asked = needs(demand)
        members = [member for member in self.open(demand) if member.credit is not None and member.credit.short]
        start = self._turn % len(members) if len(members) > WANT_WORKERS else 0
        self._turn += WANT_WORKERS
        for member in islice(chain(members[start:], members[:start]), WANT_WORKERS):
            credit = member.credit
            assert credit is not None
            single = vector_of(demand, credit.names)
            if any(have < asked[name] for name, have in member.has(demand)) or member.fits(demand) >= count:
                continue
            wanted = times(single, count)
            if demand.slots_only:
                wanted = (*wanted[:4], wanted[3], *wanted[5:])
            wanted = least(credit.whole, plus(more.get(credit.ref, zero(wanted)), wanted))
            more[credit.ref] = wanted
            if credit.ref not in one and len(one) < GATHER_WORKERS and not within(single, credit.limit):
                one[credit.ref] = single

    def credit_of(self, id: str) -> Demand | None:
        """What this instance may use of a worker; None: all of it."""
        member = self.members.get(id)
        credit = member.credit if member is not None else None
        return demand_of(credit.limit, credit.names) if credit is not None else None

    # --- what is taken

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
            if member.open and selector.matches(demand.selector, member.labels):
                yield member

    def taken(self, id: str) -> Demand:
        """What is taken of a worker."""
        member = self.members.get(id)
        if member is None:
            return Demand(slots=0)
        cpu, memory, storage, slots = member.taken
        return Demand(cpu, memory, storage, slots, tuple(sorted(member.custom.items())))
