"""What a backfill must be, seen from outside: the commits' executions against the schedule and against what it counts itself."""

from __future__ import annotations

from collections import Counter

from dts import bounds
from dts.core.shard import Shard
from dts.model import ENDS, BackfillState, Key
from tests.simulation.book import Book, Violation, instants


def check(shard: Shard, book: Book) -> None:
    """Each has made the first of its instants, once each, no more at a time than it may, and counts how they ended."""
    opened = Counter(key.nonce for key in shard.open if key.nonce in shard.backfills)
    if len(shard.backfills) > bounds.BACKFILLS_KNOWN:
        raise Violation(f"{len(shard.backfills)} backfills are known")
    for nonce, each in shard.backfills.items():
        made = sorted(key.at for key in book.status if key.nonce == nonce and key.job == each.job)
        if not each.open == opened[nonce] <= each.parallel:
            raise Violation(f"{each} says that {each.open} are open, it is {opened[nonce]}; at most {each.parallel}")
        if made != sorted(instants(each.schedules, each.after, each.until))[: each.started]:
            raise Violation(
                f"{each} made {len(made)} executions, {each.started} by its own word; or not its first ones"
            )
        ended = Counter(book.status[Key(each.job, at, nonce)] for at in made)
        if each.tally != tuple(ended[status] for status in ENDS):
            raise Violation(f"{each} counts {each.tally}, it is {ended}")
        if each.state is BackfillState.DONE and each.started != each.size:
            raise Violation(f"{each} is done after {each.started} of {each.size}")


def finished(shard: Shard) -> None:
    """None is left over."""
    for each in shard.backfills.values():
        if each.state is BackfillState.RUNNING or each.open:
            raise Violation(f"{each} never ends: {each}")
