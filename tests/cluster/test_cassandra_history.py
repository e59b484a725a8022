"""History over Cassandra: replays are harmless, rows end by themselves, and a store that stands still holds nobody up."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator

import pytest

from dts.adapters.cassandra import CassandraStore
from dts.adapters.cassandra.session import Session
from dts.errors import FailedPrecondition, OutcomeUnknown, Unavailable
from dts.model import Close, Commit, End, ExecutionQuery, Key, Output, Range, Status, Term
from tests.conformance import keyspace
from tests.conformance.values import block, commit
from tests.servers import Servers

DAY = 86_400_000
EVERYTHING = ExecutionQuery()


def _at(world: World) -> tuple[list[str], int]:
    host, port = world.where
    return [host], port


class World:
    """A store with a clock."""

    def __init__(self, servers: Servers, name: str) -> None:
        self.now = 10 * DAY
        self.where, self._keyspace = servers.cassandra, name
        self.opened: list[CassandraStore] = []

    async def open(self, days: int = 30, timeout_s: float = 10.0) -> CassandraStore:
        host, port = self.where
        store = await CassandraStore.open(
            [host], port, self._keyspace, retention_days=days, clock=lambda: self.now, request_timeout_s=timeout_s
        )
        self.opened.append(store)
        return store


@pytest.fixture
async def world(servers: Servers) -> AsyncIterator[World]:
    made = World(servers, await keyspace.name())
    yield made
    for store in made.opened:
        await store.close()
    await asyncio.to_thread(keyspace.empty)


@pytest.fixture
async def session(servers: Servers, world: World) -> AsyncIterator[Session]:
    host, port = servers.cassandra
    made = await Session.connect([host], port, await keyspace.name())
    yield made
    await made.close()


def life(shard: int, seqs: int) -> list[Commit]:
    """Commits of one shard: each ends some, and something of the one before failed once."""
    made = []
    for n in range(1, seqs + 1):
        at = 5 * DAY + 400_000 * n
        keys = [Key(f"s{shard}j{k}", at) for k in range(4)]
        blocks = [
            block(keys[:2], Status.COMPLETED, 1),
            block(keys[2:3], Status.RETRYING, 1, ends=[End(at, at + 5, 1, "x", "")]),
            block(keys[2:3], Status.FAILED, 2),
            block(keys[3:], Status.SKIPPED, reason="overlap"),
        ]
        ranges = [Range(f"s{shard}j9", 1, at - 99, at, 3, "paused")]
        terms = [Term(f"s{shard}j0", n, at, at, None, "r")]
        closed = [Close(f"s{shard}j0", n - 1, at)] if n > 1 else []
        more = {"shard": shard, "watermark": (at, "~"), "blocks": blocks, "ranges": ranges}
        made.append(commit(1, n, opened=terms, closed=closed, **more))
    return made


async def everything(store: CassandraStore) -> list[object]:
    found: list[object] = [await store.history.executions(EVERYTHING, None, 1_000)]
    found.append(await store.history.ranges("", 0, 0, None, 1_000))
    found.append([page async for page in store.history.terms("", 0, 20 * DAY)])
    found.append([page async for page in store.history.scheduled("", 0, 20 * DAY)])
    found.append(await store.history.execution(Key("s1j2", 5 * DAY + 800_000)))
    return [*found, [await store.history.complete_until(shard) for shard in (1, 2)]]


async def test_replays_in_any_slices_by_any_process_change_nothing(world: World) -> None:
    store = await world.open()
    commits = [*life(1, 8), *life(2, 8)]
    await store.history.write(commits)
    before = await everything(store)
    chance = random.Random(7)
    for _ in range(3):
        again = await world.open()
        start = chance.randrange(len(commits))
        await asyncio.gather(again.history.write(commits[start:]), store.history.write(commits[: start + 3]))
        assert await everything(again) == before
    executions = before[0]
    assert isinstance(executions, list)
    assert len(executions) == 64
    assert before[-1] == [5 * DAY + 3_200_000] * 2


async def test_rows_end_when_the_retention_says(world: World, session: Session) -> None:
    store = await world.open(days=2)
    old, middle, young = (Key("a", world.now - age) for age in (2 * DAY, DAY, 0))
    late = End(old.at, world.now - DAY, 0, "", "")  # scheduled long ago, it ended yesterday
    blocks = [block([key], Status.FAILED, 1, ends=[End()]) for key in (old, middle, young)]
    blocks.append(block([Key("b", old.at)], Status.COMPLETED, 1, ends=[late]))
    ranges = [Range("a", 1, 0, key.at, 1, "x") for key in (old, young)]
    terms = [Term("a", 1, 1, 1, None, "r"), Term("a", 2, 2, 2, None, "r")]
    closed = [Close("a", 1, world.now - DAY)]
    await store.history.write([commit(1, 1, blocks=blocks, ranges=ranges, opened=terms, closed=closed)])

    async def ttls(cql: str) -> list[float | None]:
        return [row[0] and round(row[0] / 3_600) for row in await session.rows(cql)]

    assert sorted(filter(None, await ttls("SELECT TTL(status) FROM executions_by_job"))) == [24, 24, 48]
    assert sorted(filter(None, await ttls("SELECT TTL(status) FROM executions_by_time"))) == [24, 24, 48]
    assert await ttls("SELECT TTL(reason) FROM ranges_by_day") == [48]
    assert await ttls("SELECT TTL(reason) FROM ranges_by_job") == [48]
    assert sorted(await ttls("SELECT TTL(since) FROM terms"), key=str) == [24, None]
    assert [each.key for each in await store.history.executions(EVERYTHING, None, 9)] == [
        young,
        middle,
        Key("b", old.at),
    ]
    columns = await session.rows("SELECT * FROM executions_by_job")
    assert all(value is not None for row in columns for value in row)


async def test_a_row_is_gone_when_its_time_is_over(world: World) -> None:
    store = await world.open(days=1)
    key = Key("a", world.now - DAY + 1_500)
    await store.history.write([commit(1, 1, blocks=[block([key], Status.FAILED, 1, ends=[End()])])])
    deadline = time.monotonic() + 20
    while await store.history.execution(key) is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert await store.history.executions(EVERYTHING, None, 9) == []


async def test_retention_for_ever_leaves_no_ttl(world: World, session: Session) -> None:
    store = await world.open(days=0)
    await store.history.write([commit(1, 1, blocks=[block([Key("a", 5)], Status.FAILED, 1)])])
    for table, column in (("executions_by_job", "status"), ("executions_by_time", "status")):
        assert await session.rows(f"SELECT TTL({column}) FROM {table}") == [(None,)]


async def test_how_far_it_has_come_never_falls(world: World) -> None:
    store = await world.open()
    commits = [commit(1, n, shard=shard) for shard in (3, 4) for n in (1, 2, 3)]
    await store.history.write(commits)
    await store.history.write(commits[:1])
    assert [await store.history.complete_until(shard) for shard in (3, 4, 5)] == [3_000, 3_000, 0]


async def test_output_of_two_services_is_that_of_the_longer(world: World, session: Session) -> None:
    one, other = await world.open(), await world.open()
    key = Key("a", 1)
    await one.outputs.put(key, 1, 0, b"hello ", False)
    await other.outputs.put(key, 1, 6, b"world", False)
    await one.outputs.put(key, 1, 0, b"hello ", False)
    await one.outputs.put(key, 1, 11, b"!", True)
    assert await other.outputs.get(key, 1) == Output(1, b"hello world!", b"", 0, 12, True)
    assert [round(row[0] / 86_400) for row in await session.rows("SELECT TTL(size) FROM outputs")] == [7]
    waiting = asyncio.ensure_future(one.outputs.wait(Key("a", 2), 1, 0, 20))
    await other.outputs.put(Key("a", 2), 1, 0, b"news", False)
    told = await waiting
    assert told is not None
    assert told.head == b"news"


async def test_a_store_says_whether_it_is_fit_and_what_time_it_is(world: World) -> None:
    store = await world.open()
    await store.check()
    world.now = time.time_ns() // 1_000_000
    assert abs(await store.clock_apart()) < 2_000
    world.now += 300_000
    assert 298_000 < await store.clock_apart() < 302_000
    other = CassandraStore(await Session.connect(*_at(world), "system"), 30, 7, lambda: 0)
    world.opened.append(other)
    with pytest.raises(FailedPrecondition, match="dts migrate up"):
        await other.check()
    with pytest.raises(FailedPrecondition, match="dts migrate up"):
        await Session.connect(*_at(world), "nobodys_keyspace")


async def test_a_node_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable, match=rf"127\.0\.0\.1, port {port} cannot be reached"):
        await CassandraStore.open(["127.0.0.1"], port, "dts")


async def test_a_store_that_stands_still_blocks_nobody_and_is_caught_up(world: World, servers: Servers) -> None:
    store = await world.open(timeout_s=1.0)
    commits = life(1, 4)
    await store.history.write(commits[:1])
    pid, longest = int((servers.folder / "cassandra.pid").read_text()), 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    beating = asyncio.ensure_future(beat())
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises((OutcomeUnknown, Unavailable)):
                await store.history.write(commits)
    finally:
        os.kill(pid, signal.SIGCONT)
        beating.cancel()
    assert longest < 0.9  # below the time-out: nothing waited in the loop's thread
    deadline = time.monotonic() + 60
    while True:
        try:
            await store.history.write(commits)
            break
        except (OutcomeUnknown, Unavailable):
            assert time.monotonic() < deadline
    assert len(await store.history.executions(EVERYTHING, None, 99)) == 16
    assert await store.history.complete_until(1) == commits[-1].watermark[0]
