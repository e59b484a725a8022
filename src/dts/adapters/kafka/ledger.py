"""Ledger: a commit is one Kafka transaction of its records in the shard's log and of its events.

Who may write is decided by the fencing of producers and by the fold, never by the consumer group. All that blocks runs
in threads; of one shard one thing is under way at a time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from dts.adapters.commitcodec import Encoded, slices
from dts.adapters.kafka import settings as s
from dts.adapters.kafka.fold import FORMAT, Folded, fold
from dts.adapters.kafka.group import Membership
from dts.adapters.kafka.settings import KafkaSettings
from dts.adapters.kafka.transactions import Probe, Transactions, no_probe
from dts.errors import Bug, OwnershipLost, Unavailable
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Commit, Instant, Outcome, ShardId

logger = logging.getLogger("dts.kafka")

T = TypeVar("T")
OPEN_PAUSE_S = 1.0  # between two tries to take over while the brokers do not answer
SAMPLE_NS = 500_000_000  # a commit that took longer says too little about the broker's clock

Sampled = Callable[[ShardId, Instant, int], None]


def no_samples(shard: ShardId, at: Instant, took_ns: int) -> None:
    """Is told of commits: the broker's append time (ms) and how long ago, at most, the commit began."""
    del shard, at, took_ns


def steady_ns() -> int:
    """Ns of a clock that only grows and counts suspend, where there is one."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Owner:
    """One ownership of a shard: its producer, and how far its log is. Methods block; who calls them holds `busy`, and
    waits for that in `order` on the event loop."""

    transactions_class = Transactions

    def __init__(self, settings: KafkaSettings, shard: ShardId, probe: Probe) -> None:
        self.busy = threading.Lock()
        self.order = asyncio.Lock()
        self.transactions = self.transactions_class(settings, shard, probe)
        self.epoch = 0
        self.seq = 0
        self._settings = settings
        self._shard = shard
        self._sizes = Folded([], 0, 0, 0, 0, 0, 0)
        self._pending: tuple[int, int] = (0, 0)  # seq and size of the commit under way

    def take_over(self, least: int, over: threading.Event | None = None) -> list[Commit]:
        """Fences the former owner and folds. The new epoch is above `least`. Raises OwnershipLost once it is `over`: it is
        not wanted any more, and should fence nobody."""
        over = over or threading.Event()
        self._wanted(over)
        begun = time.monotonic()
        self.transactions.initialise()
        fenced = time.monotonic()
        self._wanted(over)
        found = fold(self._settings, self._shard)
        took = fenced - begun, time.monotonic() - fenced
        logger.info(
            "shard %d: fenced in %.3f s, %d commits read in %.3f s", self._shard, took[0], len(found.commits), took[1]
        )
        self.epoch, self.seq = max(found.epoch, least) + 1, found.seq
        self._sizes = found._replace(commits=[])
        return found.commits

    def _wanted(self, over: threading.Event) -> None:
        if over.is_set():
            raise OwnershipLost(f"shard {self._shard}: the take-over was called off")

    def commit(self, commit: Commit) -> Outcome:
        """Writes it. Raises OwnershipLost."""
        if commit.seq != self.seq + 1:
            raise Bug(f"commit {commit.seq} of shard {commit.shard} follows {self.seq}")
        encoded = Encoded(commit)
        whole = encoded.whole()
        self._pending = commit.seq, len(whole)
        return self._done(self.transactions.commit(list(_records(commit, whole)), encoded.events()))

    def resolve(self, commit: Commit) -> Outcome:
        """What became of it. Raises OwnershipLost."""
        if self.transactions.unknown:
            self._done(self.transactions.resolve())
        return Outcome.COMMITTED if self.seq == commit.seq else Outcome.REFUSED

    def wants_snapshot(self) -> bool:
        """See ports.Ledger."""
        sizes = self._sizes
        if sizes.tail == 0:
            return False
        least = s.SNAPSHOT_FACTOR * max(sizes.snapshot, s.SNAPSHOT_LEAST_BYTES)
        return sizes.tail > least or sizes.last - sizes.since > s.SNAPSHOT_AGE_MS

    def snapshot(self, commits: Sequence[Commit]) -> int:
        """Writes the whole state in one transaction. The offset of its first record; -1: refused, the log stays longer."""
        if commits[-1].seq != self.seq:
            raise Bug(f"a snapshot of commit {commits[-1].seq} of shard {self._shard}, after {self.seq}")
        records: list[bytes] = []
        size = 0
        for piece, commit in enumerate(commits):
            whole = Encoded(commit).whole()
            size += len(whole)
            records += _records(commit, whole, piece, len(commits))
        outcome = self.transactions.commit(records, ())
        if outcome is Outcome.UNKNOWN:
            outcome = self.transactions.resolve()
        if outcome is Outcome.REFUSED:
            self._sizes = self._sizes._replace(tail=0)  # asked for again when the log has grown as much once more
            return -1
        reports = self.transactions.reports
        self._sizes = self._sizes._replace(snapshot=size, tail=0, since=reports.at, last=reports.at)
        logger.info("shard %d: snapshot of commit %d, %d bytes", self._shard, self.seq, size)
        return reports.first

    def _done(self, outcome: Outcome) -> Outcome:
        if outcome is Outcome.COMMITTED:
            self.seq, size = self._pending
            at = self.transactions.reports.at
            self._sizes = self._sizes._replace(tail=self._sizes.tail + size, last=at, since=self._sizes.since or at)
        return outcome


def _records(commit: Commit, whole: bytes, piece: int = 0, pieces: int = 0) -> Iterator[bytes]:
    if len(whole) > s.COMMIT_BYTES:
        raise Bug(f"commit {commit.seq} of shard {commit.shard} has {len(whole)} bytes: bounded by {s.COMMIT_BYTES}")
    parts = list(slices(whole, s.RECORD_BYTES))
    for part, each in enumerate(parts):
        yield log.Record(
            format=FORMAT,
            epoch=commit.epoch,
            seq=commit.seq,
            part=part,
            parts=len(parts),
            piece=piece,
            pieces=pieces,
            slice=each,
        ).SerializeToString()


class KafkaLedger:
    """The port Ledger."""

    def __init__(
        self,
        settings: KafkaSettings,
        membership: Membership,
        pool: ThreadPoolExecutor,
        probe: Probe = no_probe,
        sampled: Sampled = no_samples,
    ) -> None:
        self.probe = probe
        self.sampled = sampled
        self._settings = settings
        self._membership = membership
        self._pool = pool
        self._owners: dict[ShardId, Owner] = {}
        self._epochs: dict[ShardId, int] = {}  # the last one that was given
        self._order: dict[ShardId, asyncio.Lock] = {}  # of take-overs
        self._opening: dict[asyncio.Task[tuple[Owner, list[Commit]]], threading.Event] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def ownership(self) -> AsyncIterator[frozenset[ShardId]]:
        """See ports.Ledger: what the group suggests, until the store is closed, then none."""
        async for shards in self._membership.shards():
            for shard in self._owners.keys() - shards:
                self._leave(shard)
            yield shards

    async def open(self, shard: ShardId) -> tuple[int, AsyncIterator[Commit]]:
        """See ports.Ledger. Tries again while the brokers do not answer; raises StoreDamaged for a log that is not right.

        Cancelled, it ends at its next step, in the background; the next `open` of the shard waits for that.
        """
        over = threading.Event()
        opening = asyncio.get_running_loop().create_task(self._open(shard, over))
        self._opening[opening] = over
        opening.add_done_callback(self._opened)
        try:
            owner, commits = await asyncio.shield(opening)
        except asyncio.CancelledError:
            over.set()
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                self._leave(shard)
            raise

        async def each() -> AsyncIterator[Commit]:
            for commit in commits:
                yield commit

        return owner.epoch, each()

    async def commit(self, commit: Commit) -> Outcome:
        """See ports.Ledger."""
        owner = self._owner(commit)
        async with owner.order:
            begun = steady_ns()
            outcome: Outcome = await self._thread(_under, owner, lambda: owner.commit(commit))
            if outcome is Outcome.COMMITTED and (took := steady_ns() - begun) < SAMPLE_NS:
                self.sampled(commit.shard, owner.transactions.reports.at, took)
            return outcome

    async def resolve(self, commit: Commit) -> Outcome:
        """See ports.Ledger."""
        owner = self._owner(commit)
        async with owner.order:
            return await self._thread(_under, owner, lambda: owner.resolve(commit))

    def wants_snapshot(self, shard: ShardId) -> bool:
        """See ports.Ledger."""
        owner = self._owners.get(shard)
        return owner is not None and owner.wants_snapshot()

    async def snapshot(self, commits: Sequence[Commit]) -> None:
        """See ports.Ledger."""
        owner = self._owner(commits[-1])
        async with owner.order:
            first = await self._thread(_under, owner, lambda: owner.snapshot(commits))
        if first >= 0:  # beside the next commits: it is acknowledged, whoever owns the shard now
            await self._thread(self._trim, commits[-1].shard, first)

    async def close(self) -> None:
        """Lets all shards go, after what is under way."""
        self._closed = True
        for over in self._opening.values():
            over.set()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for shard in list(self._owners):
            self._leave(shard)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _trim(self, shard: ShardId, first: int) -> None:
        """Deletes what lies before a snapshot's first record. Not done: the next snapshot does it."""
        place = TopicPartition(self._settings.topics.log, shard, first)
        admin = AdminClient(self._settings.common())  # must live until it has answered
        try:
            admin.delete_records([place], request_timeout=s.REQUEST_WAIT_S)[place].result()
        except KafkaException as error:
            logger.warning("shard %d: the log was not trimmed: %s", shard, error.args[0].str())

    async def _open(self, shard: ShardId, over: threading.Event) -> tuple[Owner, list[Commit]]:
        async with self._order.setdefault(shard, asyncio.Lock()):
            self._leave(shard)
            owner, commits = await self._taken(shard, over)
            self._epochs[shard] = owner.epoch
            self._owners[shard] = owner
            if over.is_set():
                self._leave(shard)
            return owner, commits

    def _opened(self, task: asyncio.Task[tuple[Owner, list[Commit]]]) -> None:
        over = self._opening.pop(task)
        if over.is_set() and not task.cancelled() and (error := task.exception()) is not None:
            logger.info("%s", error)  # nobody waits for it

    async def _taken(self, shard: ShardId, over: threading.Event) -> tuple[Owner, list[Commit]]:
        while True:
            try:
                return await self._thread(self._take_over, shard, over)
            except Unavailable as error:
                logger.warning("%s", error)
                await asyncio.sleep(OPEN_PAUSE_S)

    def _take_over(self, shard: ShardId, over: threading.Event) -> tuple[Owner, list[Commit]]:
        owner = Owner(self._settings, shard, self.probe)
        try:
            commits = owner.take_over(self._epochs.get(shard, 0), over)
        except Exception:
            owner.transactions.close()
            raise
        return owner, commits

    def _leave(self, shard: ShardId) -> None:
        """Lets a shard go: in the background, after what is under way; who takes it over meanwhile fences that."""
        owner = self._owners.pop(shard, None)
        if owner is not None:
            leaving = asyncio.get_running_loop().create_task(self._thread(_under, owner, owner.transactions.close))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def _owner(self, commit: Commit) -> Owner:
        owner = self._owners.get(commit.shard)
        if owner is None:
            if self._closed or commit.shard in self._epochs:
                raise OwnershipLost(f"shard {commit.shard} was let go")
            raise Bug(f"shard {commit.shard} was not opened")
        if commit.epoch != owner.epoch:
            raise OwnershipLost(f"shard {commit.shard}: epoch {owner.epoch}, ours was {commit.epoch}")
        return owner

    async def _thread(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)


def _under(owner: Owner, work: Callable[[], T]) -> T:
    with owner.busy:
        return work()
