"""Who runs it: places for ready executions on the workers of a fleet.

Rules:
- By priority, then age.
- Slots alone spread over workers (most room first); anything else goes where it fits best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dts.core import selector
from dts.core.draft import Draft, Placement
from dts.core.fleet import Fleet, Member, amounts, needs
from dts.model import Block, Demand, Obstacle, Outlook, ShardId, WorkerRef

Eligible = Callable[[ShardId, WorkerRef], int | None]  # number of the worker's last report to the shard; None: not yet


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


class Allocator:
    """Chooses places in a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

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
            for member in self.fleet.open(demand)
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

    def outlook(self, demand: Demand, heard: Callable[[WorkerRef], bool] = lambda worker: True) -> Outlook:
        """Which workers would take an execution of this demand now, and why the others would not.

        `heard`: whether the worker has reported to the execution's shard.
        """
        members = self.fleet.members.values()
        obstacles: dict[tuple[str, str, int, str], Obstacle] = {}
        for member in members:
            found = _obstacle(member, demand, heard)
            if found is not None:
                name = (found.kind, found.resource, found.need, found.detail)
                known = obstacles.get(name, found._replace(workers=0))
                obstacles[name] = known._replace(workers=known.workers + 1, have=max(known.have, found.have))
        fitting = len(members) - sum(each.workers for each in obstacles.values())
        return Outlook(len(members), fitting, tuple(sorted(obstacles.values(), key=lambda each: -each.workers)))

    def why_not(self, demand: Demand) -> str:
        """Why an execution of this demand waits, for a person: '3 workers: 2 lack memory (need 4096, have 1024), 1 draining'."""
        return self.outlook(demand).text


def _obstacle(member: Member, demand: Demand, heard: Callable[[WorkerRef], bool]) -> Obstacle | None:
    if not member.attached:
        return Obstacle("detached", 1)
    if member.leaving:
        return Obstacle("draining", 1)
    if member.cordoned:
        return Obstacle("cordoned", 1)
    if not selector.matches(demand.selector, member.labels):
        return Obstacle("labels", 1, detail=demand.selector)
    free = dict(member.free(demand))
    for name, have in member.has(demand):
        need = needs(demand)[name]
        if need > have:
            return Obstacle("lacks", 1, name, need, have)
    for name, need in needs(demand).items():
        if need > free[name]:
            return Obstacle("full", 1, name, need, max(free[name], 0))
    return None if heard(member.info.ref) else Obstacle("silent", 1)
