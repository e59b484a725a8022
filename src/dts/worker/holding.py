"""A worker's holdings: its state for each shard, and its ends as blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dts.bounds import BEATS_PER_LEASE, KILL_GRACE_S, LEASE_MESSAGE_KEYS, LEASE_MS
from dts.model import Block, Demand, End, Held, Key, Status
from dts.worker.attempts import Attempt

TERM_PART = 6  # TERM comes L / TERM_PART before a timed lease ends, but KILL_GRACE_S at most
KILL_PART = 60  # KILL comes L / KILL_PART before it: the guard, which acts at the end itself, has nothing left to do
BEATS_KEPT = 2 * BEATS_PER_LEASE  # sent beats whose answer may still renew
ENDS_BYTES = 1024 * 1024  # of errors and results in one message

assert TERM_PART < KILL_PART

_NO_DEMAND = Demand()


class Holding:
    """What this worker holds of one shard, and what it promised to its owner."""

    __slots__ = (
        "beat",
        "beat_at",
        "deadline",
        "ended",
        "epoch",
        "fence",
        "fresh",
        "held",
        "lease_ms",
        "leased",
        "number",
        "reported",
        "sent",
        "stage",
        "stream",
    )

    def __init__(self) -> None:
        self.epoch = 0
        self.number = 0
        self.stream: int | None = None
        self.reported = 0  # when the last full report was sent
        self.lease_ms = LEASE_MS
        self.beat = 0
        self.beat_at = 0
        self.sent: dict[int, int] = {}
        self.deadline = 0  # of timed leases; 0: none given yet
        self.stage = 0  # of a lease running out: 1 TERM sent, 2 KILL sent
        self.held: dict[Held, Attempt] = {}
        self.ended: dict[Held, tuple[Status, End]] = {}  # unacknowledged
        self.fresh: list[Held] = []  # of those: not sent on the present stream
        self.fence = 0  # the highest fencing number seen, and what was leased with it
        self.leased: set[Held] = set()

    @property
    def term_at(self) -> int:
        return self.deadline - min(self.lease_ms // TERM_PART, int(KILL_GRACE_S * 1000))

    @property
    def kill_at(self) -> int:
        return self.deadline - self.lease_ms // KILL_PART


def blocks(ends: Iterable[tuple[Held, Status, End]]) -> Iterator[Block]:
    """Ends as blocks of one attempt number and status, each small enough for one message."""
    groups: dict[tuple[int, Status], tuple[list[Key], list[End]]] = {}
    sizes: dict[tuple[int, Status], int] = {}
    for held, status, end in ends:
        kind = (held.attempt, status)
        group = groups.get(kind)
        if group is None:
            group = groups[kind] = ([], [])
            sizes[kind] = 0
        group[0].append(held.key)
        group[1].append(end)
        sizes[kind] += len(end.error) + len(end.result)
        if len(group[0]) >= LEASE_MESSAGE_KEYS or sizes[kind] >= ENDS_BYTES:
            yield _block(*kind, *groups.pop(kind))
    for kind, group in groups.items():
        yield _block(*kind, *group)


def _block(attempt: int, status: Status, keys: list[Key], ends: list[End]) -> Block:
    return Block(keys, (), _NO_DEMAND, status, attempt, ends=ends)
