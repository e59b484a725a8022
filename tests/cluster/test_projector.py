"""History from Kafka: several share the shards, none loses its place, whatever is away and for how long (law 7)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from confluent_kafka import Producer

from dts.adapters.cassandra import CassandraStore
from dts.adapters.kafka import settings as bounds
from dts.adapters.kafka.events import KafkaEvents
from dts.adapters.kafka.settings import KafkaSettings
from dts.adapters.kafka.store import KafkaStore
from dts.errors import Unavailable
from dts.model import Commit, ExecutionQuery, Key, Outcome, Range, Status, Told
from dts.services.projector import Projector
from tests.conformance import keyspace
from tests.conformance.kafkaworld import fresh_settings
from tests.conformance.values import block, commit
from tests.servers import Servers

SHARDS = 4
WAIT_S = 60.0


def now() -> int:
    return time.time_ns() // 1_000_000


async def until(true: Callable[[], Awaitable[bool] | bool], what: str, timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        found = true()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


class Record:
    """History, or nothing at all: `down`."""

    def __init__(self, store: CassandraStore | None = None) -> None:
        self._store = store
        self.down = False
        self.commits: list[tuple[int, int]] = []  # (shard, seq)
        self.tries = 0

    async def write(self, commits: Sequence[Commit]) -> int:
        self.tries += 1
        if self.down:
            raise Unavailable("no node")
        rows = await self._store.history.write(commits) if self._store else 0
        self.commits += [(each.shard, each.seq) for each in commits]
        return rows


class Owners:
    """The shards' owner, one for all."""

    def __init__(self, store: KafkaStore) -> None:
        self.settings = store.settings
        self._ledger = store.ledger
        self._at: dict[int, tuple[int, int]] = {}  # epoch, seq

    async def commit(self, shard: int, **more: object) -> int:
        """One commit; its seq."""
        if shard not in self._at:
            self._at[shard] = ((await self._ledger.open(shard))[0], 0)
        epoch, seq = self._at[shard][0], self._at[shard][1] + 1
        self._at[shard] = epoch, seq
        of = {"now": now(), "watermark": (now(), "~"), **more}
        made = Commit(shard=shard, epoch=epoch, seq=seq, applied=(0, 0), **of)  # type: ignore[arg-type]
        assert await self._ledger.commit(made) is Outcome.COMMITTED
        return seq


@pytest.fixture
async def owners(servers: Servers) -> AsyncIterator[Owners]:
    store = await KafkaStore.open(fresh_settings(SHARDS))
    yield Owners(store)
    await store.close()


@pytest.fixture
async def cassandra(servers: Servers) -> AsyncIterator[CassandraStore]:
    host, port = servers.cassandra
    made = await CassandraStore.open([host], port, await keyspace.name())
    yield made
    await made.close()
    await asyncio.to_thread(keyspace.empty)


class Reading:
    """A projector that runs."""

    def __init__(self, settings: KafkaSettings, record: Record) -> None:
        self.events = KafkaEvents(settings, now)
        self.projector = Projector(self.events, record, now)
        self.task = asyncio.ensure_future(self.projector.run())

    def lag(self) -> int | None:
        return self.projector.progress().lag_ms

    async def end(self) -> None:
        self.task.cancel()
        await self.events.close()


@asynccontextmanager
async def projecting(settings: KafkaSettings, record: Record) -> AsyncIterator[Reading]:
    reading = Reading(settings, record)
    try:
        yield reading
    finally:
        await reading.end()


async def test_what_ended_is_in_history_and_keep_alives_move_the_record_on(
    owners: Owners, cassandra: CassandraStore
) -> None:
    day = now()
    for shard in range(SHARDS):
        keys = [Key(f"j{shard}-{n}", day + n) for n in range(700)]  # more than one event
        await owners.commit(shard, blocks=[block(keys, Status.QUEUED)])
        await owners.commit(shard, blocks=[block(keys, Status.COMPLETED, 1)])
        await owners.commit(shard, ranges=[Range(f"j{shard}-0", 1, day - 9_000, day - 1_000, 4, "missed")])
    async with projecting(owners.settings, Record(cassandra)) as reading:
        await until(lambda: reading.lag() == 0, "it catches up")
        assert await cassandra.history.count(ExecutionQuery(), 5_000) == SHARDS * 700
        assert len(await cassandra.history.ranges("", 0, 0, None, 10)) == SHARDS
        assert (await cassandra.history.execution(Key("j2-699", day + 699))) is not None
        before = await cassandra.history.complete_until(2)
        assert before > 0
        mark = now() + 1
        await owners.commit(2, watermark=(mark, "~"))  # nothing in it

        async def moved() -> bool:
            return await cassandra.history.complete_until(2) == mark

        await until(moved, "a keep-alive is told")
        progress = reading.projector.progress()
        assert progress.rows > SHARDS * 1_400
        assert not progress.trouble


async def test_two_share_the_shards_and_one_that_goes_is_followed(owners: Owners) -> None:
    a, b = Record(), Record()
    async with projecting(owners.settings, a) as first:
        await until(lambda: first.lag() is not None, "it reads")
        for shard in range(SHARDS):
            await owners.commit(shard)
        await until(lambda: len(a.commits) == SHARDS, "the first reads all")
        async with projecting(owners.settings, b) as second:
            await until(lambda: len(second.events._places) == len(first.events._places) == SHARDS // 2, "they share")
            for shard in range(SHARDS):
                await owners.commit(shard)
            await until(lambda: len(set(a.commits + b.commits)) == 2 * SHARDS, "both read on")
            assert {shard for shard, _ in b.commits} == set(second.events._places)
            assert sorted(b.commits) == sorted(set(b.commits))
            await second.end()
            for shard in range(SHARDS):
                await owners.commit(shard)
            await until(lambda: len(set(a.commits + b.commits)) == 3 * SHARDS, "the first reads all again")
    assert {seq for _, seq in a.commits} == {1, 2, 3}


async def test_who_begins_again_goes_on_at_its_place(owners: Owners) -> None:
    record = Record()
    await owners.commit(0)
    async with projecting(owners.settings, record):
        await until(lambda: record.commits == [(0, 1)], "the first")
    await owners.commit(0)
    async with projecting(owners.settings, record) as reading:
        await until(lambda: len(record.commits) == 2, "the second")
        await until(lambda: reading.lag() == 0, "it is at the end")
    assert record.commits == [(0, 1), (0, 2)]


async def test_what_was_read_and_not_written_is_read_again(owners: Owners) -> None:
    record = Record()
    record.down = True
    for _ in range(3):
        await owners.commit(0)
    async with projecting(owners.settings, record) as reading:
        await until(lambda: record.tries > 1 and reading.events._places[0].read > 0, "it is read")
    record.down = False
    async with projecting(owners.settings, record):
        await until(lambda: record.commits == [(0, 1), (0, 2), (0, 3)], "the next one reads it again")


async def _record_away(owners: Owners, away_s: float) -> None:
    """Keeps its shards and its place while the record is away for longer than a member may be silent."""
    record, other = Record(), Record()
    record.down = True
    async with projecting(owners.settings, record) as reading, projecting(owners.settings, other) as beside:
        await until(lambda: len(beside.events._places) == len(reading.events._places) == SHARDS // 2, "they share")
        ours = set(reading.events._places)
        begun, seq = time.monotonic(), 0
        while time.monotonic() < begun + away_s:
            for shard in range(SHARDS):
                seq = await owners.commit(shard)
            await asyncio.sleep(0.2)
        assert set(reading.events._places) == ours
        progress = reading.projector.progress()
        assert progress.trouble == "no node"
        assert progress.lag_ms is not None
        assert progress.lag_ms >= (away_s - 2) * 1_000
        assert beside.lag() is not None
        assert record.tries > 2
        record.down = False
        await until(lambda: reading.lag() == 0, "it catches up")
        assert sorted(record.commits) == sorted((shard, each) for shard in ours for each in range(1, seq + 1))
        assert not reading.projector.progress().trouble


async def test_a_record_that_is_away_for_long(owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "EVENTS_SESSION_MS", 6_000)
    monkeypatch.setattr(bounds, "EVENTS_WAITING_BYTES", 2_000)  # soon paused
    monkeypatch.setattr(bounds, "EVENTS_TAKEN_BYTES", 500)
    await _record_away(owners, 8)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_record_that_is_away_for_longer_than_a_poll_may_take(owners: Owners) -> None:
    await _record_away(owners, 330)


async def test_no_more_waits_than_the_bound(owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "EVENTS_WAITING_BYTES", 100_000)
    monkeypatch.setattr(bounds, "EVENTS_BATCH", 10)
    record = Record()
    record.down = True
    for number in range(100):
        keys = [Key(f"a-{number}-{n}-{'x' * 20}", now()) for n in range(100)]
        await owners.commit(0, blocks=[block(keys, Status.COMPLETED, 1)])
    async with projecting(owners.settings, record) as reading:
        # What the projector took first waits there for good: then it fills up again.
        full = 100_000
        await until(lambda: record.tries > 1 and reading.events._paused and reading.events._bytes > full, "it pauses")
        seen = reading.events._bytes
        tries = record.tries
        await until(lambda: record.tries > tries + 2, "time passes")
        assert reading.events._bytes == seen
        assert seen < full + 10 * 20_000
        record.down = False
        await until(lambda: len(record.commits) == 100, "all of it")
    assert record.commits == [(0, n) for n in range(1, 101)]


async def test_what_is_no_event_is_passed_over(owners: Owners) -> None:
    producer = Producer(owners.settings.common())
    producer.produce(owners.settings.topics.events, b"\xff none of ours", partition=0)
    assert producer.flush(30) == 0
    await owners.commit(0)
    record = Record()
    async with projecting(owners.settings, record):
        await until(lambda: record.commits == [(0, 1)], "what follows is read")


async def test_a_shard_that_moved_on_is_not_dated_back(owners: Owners) -> None:
    """What is told done of a shard that is no more ours changes nothing."""
    record = Record()
    async with projecting(owners.settings, record) as reading:
        await owners.commit(0)
        await until(lambda: record.commits == [(0, 1)], "it is read")
        reading.events.done(Told([commit(1, 1)], [(99, 7, now())]))
        reading.events.done(Told([commit(1, 1)], [(0, 0, now())]))
        assert reading.events._places[0].done > 0
