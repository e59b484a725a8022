"""A worker's credit at a Scheduler instance: how much of the worker this instance may use, so that several may share it.

Rules (worker/shares.py is the other end):
- `limit` is the bound for all that this instance has placed there. A Credit raises it at once; it is lowered only by ourselves, and
  each time the worker is told (`Returned`), so the worker always counts at least what we believe.
- A Credit below the limit asks for the rest: what is not used goes back at once, what is used as it becomes free.
- The credit of what a shard has placed goes with the shard: who drops it gives it back, the worker counts it at the next owner.
  A Credit that was sent before the worker knew of that raises nothing.
- A credit ends with its stream: the next one begins with nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from dts.amounts import BACKLOG, SLOTS, Vector, in_use, least, minus, most, names_of, offer, within, zero
from dts.model import Instant, ShardId, WorkerInfo, WorkerRef

WANT_EVERY_MS = 200  # a worker is told at most so often what is wanted of it
WANT_DEMANDS = 8  # waiting demands looked at in one round
WANT_WORKERS = 64  # workers asked for one demand at once
GATHER_WORKERS = 4  # ... of which so many gather for a large one


class Returned(NamedTuple):
    """With credit `number` known, this instance uses no more than `kept`."""

    worker: WorkerRef
    number: int
    kept: Vector
    shards: tuple[ShardId, ...] = ()  # that are not ours any more: what runs of them is not either


class Want(NamedTuple):
    """What this instance would use besides what it has; all 0: nothing waits any more."""

    worker: WorkerRef
    more: Vector
    one: Vector


class Credit:
    """What one incarnation of a worker credits to this instance."""

    __slots__ = (
        "asked_at",
        "gone",
        "limit",
        "moves",
        "names",
        "number",
        "owes",
        "ref",
        "returns",
        "share",
        "wanted",
        "whole",
    )

    def __init__(self, info: WorkerInfo) -> None:
        self.ref = info.ref
        self.names = names_of(info.total)
        self.whole = offer(info.total, info.backlog)
        self.limit = self.share = zero(self.whole)
        self.number = 0
        self.owes = False  # an answer to the last Credit
        self.returns = 0  # how many were sent
        self.gone: set[ShardId] = set()  # shards that went away, of which it is still to be told
        self.moves = 0  # the last of them that told of a shard that went away
        self.wanted: tuple[Vector, Vector] = (self.limit, self.limit)  # as it was told last
        self.asked_at: Instant = 0

    @property
    def short(self) -> bool:
        """Whether there is more of the worker than this instance may use."""
        return self.limit != self.whole

    def receive(self, number: int, share: Vector, returns: int) -> None:
        """A Credit came, sent when the worker had got so many Returns."""
        if number <= self.number:
            return
        self.number, self.share = number, share
        if returns < self.moves:
            self.owes, self.share = True, least(self.share, self.limit)
            return
        self.owes = self.owes or not within(self.limit, share)
        self.limit = most(self.limit, share)

    def moved(self, shard: ShardId, amount: Vector) -> None:
        """A shard that had so much placed there is another's now. What of it waited in the backlog is not known: both sink."""
        self.gone.add(shard)
        slots = amount[SLOTS]
        self.limit = minus(self.limit, (*amount[:BACKLOG], slots, *amount[BACKLOG + 1 :]))
        self.share = least(self.share, self.limit)
        self.owes = True
        self.moves = self.returns + 1

    def settle(self, taken: Vector) -> Returned | None:
        """What goes back now that so much is taken (slots and backlog together), as the worker is to be told."""
        if not self.owes and within(self.limit, self.share):
            return None
        kept = least(self.limit, most(self.share, in_use(taken, 0, self.limit)))
        if kept == self.limit and not self.owes:
            return None
        self.limit, self.owes = kept, False
        self.returns += 1
        shards = tuple(sorted(self.gone))
        self.gone.clear()
        return Returned(self.ref, self.number, kept, shards)

    def want(self, more: Vector, one: Vector, now: Instant) -> Want | None:
        """What the worker is to be told of what waits, unless it knows, or was told only just now."""
        if (more, one) == self.wanted or now < self.asked_at + WANT_EVERY_MS:
            return None
        self.wanted, self.asked_at = (more, one), now
        return Want(self.ref, more, one)
