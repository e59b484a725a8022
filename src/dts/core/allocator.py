"""Who runs it: places for ready executions on the workers of a fleet.

Rules:
- By priority, then age, then best fit (core/round.py).
- Who waits rises: by one each AGING_MS; who has waited FIRST_AFTER_MS comes before all who have not. So nothing starves.
- An execution that no worker has room for is passed over for BYPASS_MS. From then on room for it is kept free at one worker, the
  one that lacks least: what ends there is no longer given to others, unless they come before it. So large ones do not starve.
- At most one worker of KEPT_SHARE (one at least) keeps room free, for the first in order; each for one demand.
- The same inputs give the same places: workers are taken by id, nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple

from dts.bounds import AGING_MS, BYPASS_MS, FIRST_AFTER_MS, KEPT_SHARE
from dts.core import selector
from dts.core.draft import Draft, Placement
from dts.core.fleet import Fleet, Member, needs
from dts.core.round import Numbers, Round
from dts.model import Block, Demand, Instant, Obstacle, Outlook, ShardId, WorkerRef

Eligible = Callable[[ShardId, WorkerRef], int | None]  # number of the worker's last report to the shard; None: not yet
Order = tuple[int, int, Instant]  # who comes first is less


def order(demand: Demand, queued: Instant, now: Instant) -> Order:
    """Where an execution that waits since `queued` stands among all."""
    waited = max(now - queued, 0)
    if waited >= FIRST_AFTER_MS:
        return 0, 0, queued
    return 1, -(demand.priority + waited // AGING_MS), queued


class Wish(NamedTuple):
    """A ready block that looks for places, or (`block` None) what waits and has no draft: it may only keep room free."""

    order: Order
    demand: Demand
    shard: ShardId
    ready: int  # index into its draft's ready blocks
    block: Block | None


class Allocator:
    """Chooses places in a fleet, and remembers where it keeps room free. A round is begun, asked for `room`, and placed."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.kept: dict[Demand, str] = {}  # where room is kept free for what waits long: worker ids
        self._round: Round | None = None

    def begin(self) -> None:
        """A round begins: what is free is looked at anew."""
        self._round = None

    @property
    def round(self) -> Round:
        """The round that was begun."""
        if self._round is None:
            self._round = Round(self.fleet.members.values())
        return self._round

    def room(self, demand: Demand) -> int:
        """At most so many executions of a demand could be placed in this round."""
        return self.round.room(demand)

    def place(
        self,
        drafts: Sequence[Draft],
        eligible: Eligible,
        now: Instant = 0,
        waiting: Iterable[tuple[ShardId, Demand, Instant]] = (),
    ) -> dict[ShardId, list[Placement]]:
        """Places for what is ready, held at once. `waiting`: of what waits, each demand's oldest, whether it is ready or not."""
        found: dict[ShardId, list[Placement]] = {draft.shard: [] for draft in drafts}
        wishes = [
            Wish(order(block.demand, block.queued, now), block.demand, draft.shard, index, block)
            for draft in drafts
            for index, block in enumerate(draft.ready)
        ]
        if not wishes:
            self._forget(waiting)
            return found
        offered = {(wish.shard, wish.demand) for wish in wishes}
        late = [each for each in waiting if now - each[2] >= BYPASS_MS and each[:2] not in offered]
        wishes += [Wish(order(demand, queued, now), demand, shard, 0, None) for shard, demand, queued in late]
        wishes.sort(key=itemgetter(0))  # equal ones stay in order
        numbers: dict[ShardId, Numbers] = {}
        full: set[tuple[ShardId, Demand]] = set()  # found nothing more in this round
        kept: dict[Demand, str] = {}
        for wish in wishes:
            if (wish.shard, wish.demand) in full or (wish.block is None and wish.demand in kept):
                continue
            if wish.shard not in numbers:
                numbers[wish.shard] = [eligible(wish.shard, member.info.ref) for member in self.round.members]
            if wish.block is not None and self._place(wish, wish.block, numbers[wish.shard], found[wish.shard]):
                continue
            full.add((wish.shard, wish.demand))
            if now - wish.order[2] >= BYPASS_MS and wish.demand not in kept:
                self._keep(wish.demand, numbers[wish.shard], kept)
        self.kept = kept
        self._round = None
        return found

    def _place(self, wish: Wish, block: Block, numbers: Numbers, found: list[Placement]) -> bool:
        """Whether all of a block found places."""
        left = len(block.keys)
        for worker, size in self.round.place(wish.demand, left, numbers).items():
            info, number = self.round.members[worker].info, numbers[worker]
            assert number is not None, "a worker that has not reported gets nothing"
            found.append(Placement(wish.ready, info.ref, size, number, not info.timed))
            left -= size
        return not left

    def _forget(self, waiting: Iterable[tuple[ShardId, Demand, Instant]]) -> None:
        """What waits no more needs no room kept free."""
        if self.kept:
            left = {demand for _, demand, _ in waiting}
            self.kept = {demand: id for demand, id in self.kept.items() if demand in left}

    def _keep(self, demand: Demand, numbers: Numbers, kept: dict[Demand, str]) -> None:
        """Keeps room free for one execution: where it was kept in the last round, or where least is lacking.

        Only at workers that its shard has heard of: none of them has room for it, so nobody who asks for the same is kept out.
        """
        members = self.round.members
        if len(kept) >= max(len(members) // KEPT_SHARE, 1):
            return
        taken, former = set(kept.values()), self.kept.get(demand)
        lacking = self.round.lacking(demand)
        able = [
            worker
            for worker in self.round.suitable(demand)
            if numbers[worker] is not None and members[worker].info.ref.id not in taken
        ]
        if able:
            best = min(able, key=lambda worker: (members[worker].info.ref.id != former, lacking[worker], worker))
            kept[demand] = members[best].info.ref.id
            self.round.keep(best, demand)

    # --- for people

    def outlook(self, demand: Demand, heard: Callable[[WorkerRef], bool] = lambda worker: True) -> Outlook:
        """Which workers would take an execution of this demand now, and why the others would not.

        `heard`: whether the worker has reported to the execution's shard.
        """
        members = self.fleet.members.values()
        holders = {id: other for other, id in self.kept.items() if other != demand}
        obstacles: dict[tuple[str, str, int, str], Obstacle] = {}
        for member in members:
            found = _obstacle(member, demand, heard, holders.get(member.info.ref.id))
            if found is not None:
                name = (found.kind, found.resource, found.need, found.detail)
                known = obstacles.get(name, found._replace(workers=0))
                obstacles[name] = known._replace(workers=known.workers + 1, have=max(known.have, found.have))
        fitting = len(members) - sum(each.workers for each in obstacles.values())
        listed = tuple(sorted(obstacles.values(), key=lambda each: -each.workers))
        return Outlook(len(members), fitting, listed, kept=self.kept.get(demand, ""))

    def why_not(self, demand: Demand) -> str:
        """Why an execution of this demand waits, for a person: '3 workers: 2 lack memory (need 4096, free 1024), 1 is draining'."""
        return self.outlook(demand).text


def _obstacle(
    member: Member, demand: Demand, heard: Callable[[WorkerRef], bool], holder: Demand | None
) -> Obstacle | None:
    if not member.attached:
        return Obstacle("detached", 1)
    if member.leaving:
        return Obstacle("draining", 1)
    if member.cordoned:
        return Obstacle("cordoned", 1)
    if not selector.matches(demand.selector, member.labels):
        return Obstacle("labels", 1, detail=demand.selector)
    asked = needs(demand)
    for name, have in member.has(demand):
        if asked[name] > have:
            return Obstacle("lacks", 1, name, asked[name], have)
    free = dict(member.free(demand))
    for name, need in asked.items():
        if need > free[name]:
            return Obstacle("full", 1, name, need, max(free[name], 0))
    if holder is not None:
        kept = needs(holder)
        if any(need > free[name] - kept.get(name, 0) for name, need in asked.items()):
            return Obstacle("reserved", 1, detail=_words(holder))
    return None if heard(member.info.ref) else Obstacle("silent", 1)


def _words(demand: Demand) -> str:
    return "what waits longer: " + ", ".join(f"{name} {need}" for name, need in needs(demand).items())
