"""Who runs it: places for ready executions on the workers of a fleet.

Rules:
- By priority, then age.
- Slots alone spread over workers (most room first); anything else goes where it fits best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dts.core.draft import Draft, Placement
from dts.core.fleet import Fleet, Member, amounts
from dts.model import Block, Demand, ShardId, WorkerRef

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

    def why_not(self, demand: Demand) -> str:
        """Why an execution of this demand waits, for a person: '3 workers: 2 lack memory (need 4096, have 1024), 1 is full'."""
        if not self.fleet.members:
            return "no worker is attached"
        reasons: dict[str, int] = {}
        for member in self.fleet.members.values():
            reason = self._why_not(member, demand)
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
        if not reasons:
            return "it is about to be placed"
        count = len(self.fleet.members)
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
