"""History: what a commit ended can be found by execution, job, time and status, and is forgotten when it is old."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dts.model import Cause, Close, End, Execution, ExecutionQuery, Key, Range, Status, Term
from tests.conformance.values import WORKER, block, commit
from tests.conformance.worlds import WITH_CASSANDRA, Store, World, collect, make_world, opened

KINDS = WITH_CASSANDRA

JOBS = ("a", "b", "c")
ENDED = (Status.COMPLETED, Status.FAILED, Status.SKIPPED, Status.CANCELLED, Status.LOST)


async def fill(store: Store) -> list[Execution]:
    """Five instants of three jobs, each with another verdict, and a run by hand; newest first."""
    epoch, _ = await store.ledger.open(0)
    for n, status in enumerate(ENDED, 1):
        keys = [Key(job, 1_000 * n) for job in JOBS]
        await store.ledger.commit(
            commit(epoch, n, blocks=[block(keys, status, 1, reason=f"why {n}", queued=n, placed=n)])
        )
    by_hand = block([Key("b", 2_500, "0f")], Status.COMPLETED, 1, cause=Cause.MANUAL, retry_of="b@x", fencing=6)
    await store.ledger.commit(commit(epoch, 6, blocks=[by_hand]))
    return list(await store.history.executions(ExecutionQuery(), None, 100))


async def test_one_execution_with_its_attempts(world: World) -> None:
    key, other = Key("a", 1_000), Key("b", 1_000)
    async with opened(world) as store:
        epoch, _ = await store.ledger.open(0)
        both = [key, other]
        ends = [End(1, 2, 3, "first", "", "timeout", "cpu=none"), End(4, 5, 6, "other", "")]
        await store.ledger.commit(commit(epoch, 1, blocks=[block(both, Status.QUEUED)]))
        await store.ledger.commit(commit(epoch, 2, blocks=[block(both, Status.PLACED, 1, fencing=2)]))
        await store.ledger.commit(commit(epoch, 3, blocks=[block(both, Status.RETRYING, 1, ends=ends, failures=1)]))
        await store.ledger.commit(commit(epoch, 4, blocks=[block([key], Status.PLACED, 2, fencing=4)]))
        await store.ledger.commit(commit(epoch, 5, blocks=[block([key], Status.QUEUED, 2, losses=1, reason="gone")]))
        await store.ledger.commit(commit(epoch, 6, blocks=[block([key], Status.PLACED, 3, fencing=6)]))
        assert await store.history.execution(key) is None
        assert [(each.attempt, each.status) for each in await store.history.attempts(key)] == [
            (1, Status.FAILED),
            (2, Status.LOST),
        ]
        assert list(await store.history.attempts(Key("a", 999))) == []
        last = block([key], Status.COMPLETED, 3, fencing=6, placed=9, queued=8)
        await store.ledger.commit(commit(epoch, 7, blocks=[last]))
    async with opened(world) as store:
        found = await store.history.execution(key)
        assert found is not None
        execution, attempts = found
        assert execution == Execution(
            key, 1, Status.COMPLETED, 3, queued=8, placed=9, worker=WORKER.id, fencing=6, end=last.ends[0]
        )
        assert [(each.attempt, each.status, each.end) for each in attempts] == [
            (1, Status.FAILED, ends[0]),
            (2, Status.LOST, End()),
        ]
        assert attempts[1].reason == "gone"
        assert await store.history.execution(other) is None
        assert await store.history.execution(Key("a", 1_000, "0f")) is None


async def test_pages_are_newest_first_without_gap_or_repeat(world: World) -> None:
    async with opened(world) as store:
        everything = await fill(store)
        order = [(each.key.at, each.key.job, each.key.nonce) for each in everything]
        assert order == sorted(order, reverse=True)
        assert len(order) == 16
        seen: list[Execution] = []
        while page := await store.history.executions(ExecutionQuery(), seen[-1].key if seen else None, 3):
            seen += page
        assert seen == everything
        assert await store.history.last_ended(["a", "b", "nobody"]) == {
            "a": next(each for each in everything if each.key.job == "a"),
            "b": next(each for each in everything if each.key.job == "b"),
        }
        assert await store.history.complete_until(0) == 6_000


QUERIES = st.builds(
    ExecutionQuery,
    job=st.sampled_from(["", "a", "b", "nobody"]),
    statuses=st.frozensets(st.sampled_from(list(Status)), max_size=3),
    start=st.sampled_from([0, 1_000, 2_500, 2_501]),
    until=st.sampled_from([0, 1_001, 2_500, 4_000]),
)


@pytest.fixture
def filled_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world that is filled once, for all examples."""
    made = make_world(request.param)

    async def body() -> None:
        async with opened(made) as store:
            await fill(store)

    asyncio.run(body())
    yield made
    made.remove()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(queries=st.lists(QUERIES, min_size=1, max_size=20), place=st.integers(0, 15), limit=st.integers(1, 20))
def test_every_query_finds_what_it_says(
    filled_world: World, queries: list[ExecutionQuery], place: int, limit: int
) -> None:
    async def body() -> None:
        async with opened(filled_world) as store:
            everything = list(await store.history.executions(ExecutionQuery(), None, 100))
            for query in queries:
                wanted = [
                    each
                    for each in everything
                    if query.job in ("", each.key.job)
                    and (not query.statuses or each.status in query.statuses)
                    and query.start <= each.key.at < (query.until or 9_999)
                ]
                assert await store.history.executions(query, None, limit) == wanted[:limit]
                assert await store.history.count(query, limit) == min(limit, len(wanted))
                rest = [each for each in wanted if everything.index(each) > place]
                assert await store.history.executions(query, everything[place].key, 100) == rest

    asyncio.run(body())


async def test_ranges_that_touch_a_span(world: World) -> None:
    first, second = Range("a", 1, 1_000, 2_000, 5, "paused"), Range("b", 1, 1_500, 2_000, 2, "outage")
    third = Range("a", 2, 2_000, 5_000, 9, "skipped")
    async with opened(world) as store:
        epoch, _ = await store.ledger.open(0)
        await store.ledger.commit(commit(epoch, 1, ranges=[third, second, first]))
        assert await store.history.ranges("", 0, 0, None, 10) == [first, second, third]
        assert await store.history.ranges("", 0, 0, first, 1) == [second]
        assert await store.history.ranges("a", 0, 0, None, 10) == [first, third]
        assert await store.history.ranges("a", 2_000, 2_002, None, 10) == [first, third]
        assert await store.history.ranges("", 2_001, 0, None, 10) == [third]
        assert await store.history.ranges("", 0, 1_501, None, 10) == [first]  # the first instant of `second` is 1 501


async def test_what_the_audit_reads(world: World) -> None:
    async with opened(world) as store:
        await fill(store)
        epoch, _ = await store.ledger.open(0)
        terms = [Term("a", 1, 500, 600, None, "r"), Term("b", 1, 500, 600, None, "r")]
        await store.ledger.commit(commit(epoch, 7, opened=terms))
        await store.ledger.commit(
            commit(epoch, 8, opened=[Term("a", 2, 900, 901, None, "r")], closed=[Close("a", 1, 900)])
        )
        all_: list[Execution] = await collect(store.history.scheduled("", 1_000, 3_000))
        assert [each.key for each in all_] == [Key(job, at) for job in JOBS for at in (2_000, 3_000)]
        one: list[Execution] = await collect(store.history.scheduled("b", 0, 2_500))
        assert [each.key for each in one] == [Key("b", 1_000), Key("b", 2_000)]
        assert [each.reason for each in one] == ["why 1", "why 2"]
        closed = terms[0]._replace(until=900)
        assert await collect(store.history.terms("", 0, 9_999)) == [closed, Term("a", 2, 900, 901, None, "r"), terms[1]]
        assert await collect(store.history.terms("a", 900, 9_999)) == [Term("a", 2, 900, 901, None, "r")]
        assert await collect(store.history.terms("", 0, 500)) == []


async def test_forget_deletes_what_is_old_in_slices(deleting_world: World) -> None:
    async with opened(deleting_world) as store:
        await fill(store)
        epoch, _ = await store.ledger.open(0)
        old, young = Range("a", 1, 0, 1_999, 1, "x"), Range("a", 1, 1_999, 2_000, 1, "x")
        late = block([Key("a", 1_001)], Status.FAILED, 1, ends=[End(1_001, 7_000, 1, "slow", "")])
        terms = [Term("a", 1, 1, 1, 1_500, "r"), Term("a", 2, 1_500, 1_500, None, "r")]
        await store.ledger.commit(commit(epoch, 7, ranges=[old, young], blocks=[late], opened=terms))
        deleted = []
        while count := await store.history.forget(2_000, 2):
            deleted.append(count)
        assert max(deleted) == 2
        left = await store.history.executions(ExecutionQuery(), None, 100)
        assert [each.key.at for each in left if each.key.at < 2_000] == [1_001]  # it ended later
        assert len(left) == 16 - 3 + 1
        assert await store.history.ranges("", 0, 0, None, 10) == [young]
        assert await collect(store.history.terms("", 0, 9_999)) == [terms[1]]


async def test_an_audit_of_many_pages(world: World) -> None:
    async with opened(world) as store:
        epoch, _ = await store.ledger.open(0)
        keys = [Key(f"j{n:04d}", 1_000) for n in range(2_500)]
        for n in range(3):
            moved = [key._replace(at=1_000 + n) for key in keys]
            await store.ledger.commit(commit(epoch, n + 1, blocks=[block(moved, Status.COMPLETED, 1)]))
        found: list[Execution] = await collect(store.history.scheduled("", 1_000, 1_002))
        assert [each.key for each in found] == [Key(key.job, at) for key in keys for at in (1_001, 1_002)]
