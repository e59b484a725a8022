"""Taking a shard over: from its log alone, fast, and the log stays short; and the group that suggests who does it."""

from __future__ import annotations

import asyncio
import time

import pytest

from dts.adapters.commitcodec import commit_in
from dts.adapters.kafka import settings as bounds
from dts.adapters.kafka.reading import bounds_of, reader
from dts.adapters.kafka.settings import KafkaSettings
from dts.adapters.kafka.store import KafkaStore
from dts.core.instance import Instance
from dts.core.snapshot import snapshot
from dts.model import Change, Commit, Key, Outcome, ScheduleSpec, ShardId, Status
from tests.cluster.owners import log_of
from tests.conformance.kafkaworld import fresh_settings, records
from tests.conformance.values import block, commit, definition

pytestmark = pytest.mark.usefixtures("servers")
NOW = 1_800_000_000_000
JOBS = 6_250  # of 100 000 on 16 shards


async def settle(core: Instance, store: KafkaStore, until: int) -> None:
    """Steps until there is nothing to decide."""
    for commit_ in iter(lambda: next(iter(core.step(until)), None), None):
        assert await store.ledger.commit(commit_) is Outcome.COMMITTED
        core.settle(commit_, Outcome.COMMITTED, until)


async def adopt(store: KafkaStore, now: int) -> Instance:
    core = Instance()
    epoch, commits = await store.ledger.open(0)
    core.adopt(0, epoch, [each async for each in commits], now)
    return core


@pytest.mark.parametrize("shortened", [False, True])
async def test_a_shard_of_6250_jobs_is_taken_over_within_3_s(shortened: bool) -> None:
    settings = fresh_settings()
    store = await KafkaStore.open(settings)
    core = await adopt(store, NOW)
    schedules = [(ScheduleSpec(f"{n} * * * *", "Europe/Berlin"),) for n in range(60)]
    made = [
        definition(f"job-{n:05d}-0190a1b2-c3d4-7e5f-8a9b", since=NOW)._replace(schedules=schedules[n % 60])
        for n in range(JOBS)
    ]
    assert core.receive_changes(0, [Change((n + 1, 0), each) for n, each in enumerate(made)])
    await settle(core, store, NOW + 1_000)
    await settle(core, store, NOW + 3_600_000)  # everything fires once: 6 250 executions are open
    before = core.desks[0].shard
    assert (len(before.definitions), len(before.open)) == (JOBS, JOBS)
    if shortened:
        await store.ledger.snapshot(snapshot(before, 5_000))
    other = await KafkaStore.open(settings)
    begun = time.monotonic()
    core = await adopt(other, NOW + 3_700_000)
    folded = time.monotonic()
    first = core.step(NOW + 3_700_000)[0]
    assert await other.ledger.commit(first) is Outcome.COMMITTED
    took = time.monotonic() - begun
    print(f"take-over of {JOBS} jobs and as many open executions: {took:.2f} s, of it fold {folded - begun:.2f} s")
    after = core.desks[0].shard
    assert after.definitions == before.definitions
    assert after.open.keys() == before.open.keys()
    assert after.timetable.next_due() == before.timetable.next_due()
    assert took < 3
    await store.close()
    await other.close()


async def test_the_log_is_cut_to_its_last_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SNAPSHOT_LEAST_BYTES", 1_000)
    monkeypatch.setattr(bounds, "RECORD_BYTES", 300)  # everything is in parts
    settings = fresh_settings()
    store = await KafkaStore.open(settings)
    epoch, _ = await store.ledger.open(0)
    done, longest, snapshots = 0, 0, 0
    for seq in range(1, 61):
        keys = [Key(f"job-{n}", seq) for n in range(20)]
        assert await store.ledger.commit(commit(epoch, seq, blocks=[block(keys, Status.SKIPPED)])) is Outcome.COMMITTED
        if store.ledger.wants_snapshot(0):
            await store.ledger.snapshot([commit(epoch, seq - 1), commit(epoch, seq)])
            snapshots += 1
        if seq % 10 == 0:
            found = await asyncio.to_thread(log_of, settings)
            longest = max(longest, found.tail + found.snapshot)
            done = found.seq
    assert (done, epoch) == (60, 1)
    assert snapshots >= 2
    assert longest < 8_000
    low, high = await asyncio.to_thread(ends, settings)
    assert low > 0
    assert high - low < 60
    await store.close()


def ends(settings: KafkaSettings) -> tuple[int, int]:
    consumer = reader(settings)
    try:
        return bounds_of(consumer, settings.topics.log, 0)
    finally:
        consumer.close()


async def test_the_events_of_a_commit_are_there_when_it_is_and_not_else() -> None:
    settings = fresh_settings()
    store = await KafkaStore.open(settings)
    epoch, _ = await store.ledger.open(0)
    keys = [Key(f"j{n:04d}", 1) for n in range(1_200)]
    assert await store.ledger.commit(commit(epoch, 1, blocks=[block(keys, Status.QUEUED)])) is Outcome.COMMITTED
    told = [commit_in(each) for each in await records(settings, settings.topics.events)]
    assert [len(one.blocks[0].keys) for one in told] == [500, 500, 200]
    assert [key for one in told for each in one.blocks for key in each.keys] == keys
    await store.close()


class Member:
    """One instance's view of the group."""

    def __init__(self, store: KafkaStore) -> None:
        self.store = store
        self.shards: frozenset[ShardId] = frozenset()
        self.changed = asyncio.Event()
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for shards in self.store.ledger.ownership():
            self.shards = shards
            self.changed.set()

    async def close(self) -> None:
        await self.store.close()
        await self.task


async def until_shared(members: list[Member], count: int) -> None:
    """Until each shard has exactly one member and each member its share."""
    async with asyncio.timeout(40):
        while True:
            given = [shard for each in members for shard in each.shards]
            if sorted(given) == list(range(count)) and all(each.shards for each in members):
                return
            waiting = [asyncio.ensure_future(each.changed.wait()) for each in members]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in waiting:
                each.cancel()
            for member in members:
                member.changed.clear()


async def test_the_group_shares_the_shards_and_moves_them_when_a_member_leaves() -> None:
    settings = fresh_settings(4)
    first = Member(await KafkaStore.open(settings))
    await until_shared([first], 4)
    second = Member(await KafkaStore.open(settings))
    await until_shared([first, second], 4)
    assert {len(first.shards), len(second.shards)} == {2}
    epoch, _ = await second.store.ledger.open(min(second.shards))
    shard = min(second.shards)
    one = Commit(shard, epoch, 1, 5, (5, "~"), (0, 0))
    assert await second.store.ledger.commit(one) is Outcome.COMMITTED
    begun = time.monotonic()
    await second.close()
    await until_shared([first], 4)
    assert time.monotonic() - begun < 5  # it said that it leaves: no session has to end
    _, commits = await first.store.ledger.open(shard)
    assert [each.seq async for each in commits] == [1]
    await first.close()
