"""MoveTarget: jobs with a past and history that is over, taken in as often as it is sent, read back through the other ports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dts.adapters.sqlite import SqliteStore
from dts.adapters.sqlite.moving import SqliteMoving
from dts.errors import AlreadyExists
from dts.model import (
    Cause,
    Change,
    Definition,
    End,
    Execution,
    ExecutionQuery,
    JobState,
    Key,
    MovedExecution,
    Output,
    Range,
    Status,
    Term,
)
from dts.ports import MoveTarget
from tests.conformance.values import revision
from tests.conformance.worlds import CASSANDRA, Store, World, collect, opened

KINDS = ("sqlite", CASSANDRA)
EVER = 1 << 50

LAST = Execution(
    Key("a", 5_000), 3, Status.COMPLETED, 3, Cause.SCHEDULE, 5_001, 5_002, 0, "w", 7, "", "", End(1, 2, 0, "", "r")
)
FIRST = LAST._replace(status=Status.FAILED, attempt=1, fencing=5, not_before=5_500, end=End(1, 2, 3, "exit 3", ""))
SECOND = LAST._replace(status=Status.LOST, attempt=2, fencing=6, end=End())
RETRY = Execution(
    Key("b", 7_000, "0123456789ab"), 1, Status.CANCELLED, 0, Cause.RETRY, 7_000, reason="moved", retry_of="x"
)
OUTPUTS = (Output(1, b"head", b"tail", 100, 108, True), Output(3, b"short", b"", 0, 5, False))
MOVED = [MovedExecution(LAST, (FIRST, SECOND), OUTPUTS), MovedExecution(RETRY)]
RANGES = [Range("a", 3, 5_000, 6_000, 4, "outage"), Range("b", 1, 5_000, 6_000, 1, "moved")]
TERMS = [Term("a", 2, 1_000, 1_100, 2_000, "2026a"), Term("a", 3, 2_000, 2_000, 6_000, "2026a")]
PAST = [
    revision("a", 1),
    revision("a", 2, 1_500, JobState.PAUSED),
    revision("a", 3, 2_000, tags=("x", "y"), request="f"),
]
GONE = [revision("b", 4), revision("b", 5, 3_000, JobState.DELETED)]


@asynccontextmanager
async def both(world: World) -> AsyncIterator[tuple[Store, MoveTarget]]:
    async with opened(world) as store:
        if isinstance(store, SqliteStore):
            yield store, SqliteMoving(store)
        else:
            from dts.adapters.cassandra.moving import CassandraMoving
            from tests.conformance.cassandraworld import ProjectedStore

            assert isinstance(store, ProjectedStore)
            yield store, CassandraMoving(store.store)


async def check_history(store: Store) -> None:
    assert await store.history.executions(ExecutionQuery(), None, 9) == [RETRY, LAST]
    assert await store.history.execution(LAST.key) == (LAST, [FIRST, SECOND])
    assert await store.history.execution(RETRY.key) == (RETRY, [])
    assert await store.history.ranges("", 0, 0, None, 9) == RANGES
    assert await store.history.ranges("a", 0, 0, None, 9) == RANGES[:1]
    assert await collect(store.history.terms("", 0, EVER)) == TERMS
    assert [await store.outputs.get(LAST.key, attempt) for attempt in (1, 2, 3)] == [OUTPUTS[0], None, OUTPUTS[1]]
    assert await store.history.last_ended(["a", "b"]) == {"a": LAST, "b": RETRY}


async def test_history_is_as_it_was_however_often_it_comes(world: World) -> None:
    async with both(world) as (store, target):
        await target.record(MOVED, RANGES, TERMS)
        await target.record(MOVED, RANGES, TERMS)
        await target.record([], [], [])
        await target.record(MOVED[1:], [], TERMS[:1])
        await check_history(store)
    async with opened(world) as store:
        await check_history(store)


async def test_jobs_come_with_their_past(world: World) -> None:
    async with both(world) as (store, target):
        await target.adopt([PAST, GONE])
    async with opened(world) as store:
        assert await store.jobs.revisions("a", 0, 9) == PAST[::-1]
        assert await store.jobs.revisions("b", 0, 9) == GONE[::-1]
        assert [row.id for row in await store.jobs.list("", 9, frozenset())] == ["a"]
        assert [row.id for row in await store.jobs.list("", 9, frozenset(), tag="y")] == ["a"]
        rows = await store.jobs.get(["a", "b", "c"])
        assert {id: (row.revision, row.state, row.request) for id, row in rows.items()} == {
            "a": (3, JobState.ACTIVE, "f"),
            "b": (5, JobState.DELETED, ""),
        }
        assert await store.jobs.count() == 1
        definitions = await collect(store.jobs.definitions("", EVER))
        assert definitions == [each.definition for each in (*PAST, *GONE)]
        await store.jobs.change([revision("a", 4, 9_000)])
        await store.jobs.create([revision("b", 6, 9_000)])
        assert await store.jobs.count() == 2


async def test_a_job_that_is_there_is_left_alone(world: World) -> None:
    async with both(world) as (store, target):
        await store.jobs.create([revision("a", 1, request="mine")])
        for _ in range(2):
            with pytest.raises(AlreadyExists, match="'a'"):
                await target.adopt([GONE, PAST])
        assert await store.jobs.revisions("a", 0, 9) == [revision("a", 1, request="mine")]
        assert await store.jobs.revisions("b", 0, 9) == []


async def test_a_long_past(world: World) -> None:
    past = [revision("a", number, 1_000 + number) for number in range(2, 180)]
    async with both(world) as (store, target):
        await target.adopt([past])
        assert [each.definition.revision for each in await store.jobs.revisions("a", 0, 500)] == [*range(179, 1, -1)]


async def test_of_the_past_the_feed_hears_nothing() -> None:
    """Embedded, where what is stored is what is told: only the last revision, and of a deleted job none."""
    from tests.conformance.worlds import SqliteWorld

    world = SqliteWorld()
    try:
        async with opened(world) as store:
            await store.jobs.create([revision("first", 1)])
            assert isinstance(store, SqliteStore)
            await SqliteMoving(store).adopt([PAST, GONE])
            await store.jobs.create([revision("last", 1)])
        for _ in range(2):
            async with opened(world) as store:
                told = [each.value async for page in _soon(store.feed.changes(0, (0, 0))) for each in page]
                names = [(each.job, each.revision) for each in told if isinstance(each, Definition)]
                assert names == [("first", 1), ("a", 3), ("last", 1)]
    finally:
        world.remove()


async def _soon(changes: AsyncIterator[list[Change]]) -> AsyncIterator[list[Change]]:
    """What is there already."""
    with contextlib.suppress(TimeoutError):
        while True:
            yield await asyncio.wait_for(anext(changes), 0.5)
