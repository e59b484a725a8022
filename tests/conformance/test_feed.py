"""JobFeed: everything that was published after a position, once, in order, for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from dts.model import Change, Command, Definition, Position, Revision, Run
from tests.conformance.values import commit, definition, revision
from tests.conformance.worlds import WITH_KAFKA, WORLDS, Store, World, opened

KINDS = WITH_KAFKA


def run_now(number: int) -> Run:
    return Run(b"id-%012d" % number, "a", 1_000, 90_000, 1, b"arguments")


async def take(feed: AsyncIterator[Sequence[Change]], count: int) -> list[Change]:
    got: list[Change] = []
    while len(got) < count:
        got += await asyncio.wait_for(anext(feed), 20)
    return got


def reach(changes: Sequence[Change]) -> Position:
    return max(change.position[0] for change in changes), max(change.position[1] for change in changes)


def named(changes: Sequence[Change]) -> list[tuple[str, int] | bytes]:
    """Definitions first: there is no order between the two kinds."""
    definitions = [change.value for change in changes if isinstance(change.value, Definition)]
    commands = [change.value for change in changes if isinstance(change.value, Command)]
    return [*((each.job, each.revision) for each in definitions), *(each.id for each in commands)]


async def create(store: Store, *revisions: Revision) -> None:
    """As the use case does it: durable first, then published."""
    await store.jobs.create(revisions)
    await store.feed.publish([each.definition for each in revisions])


async def test_what_was_written_comes_first_then_what_is_written(world: World) -> None:
    async with opened(world) as store:
        await create(store, revision("a"), revision("b"))
        await store.feed.publish([run_now(1)])
        feed = store.feed.changes(0, (0, 0))
        got = await take(feed, 3)
        assert named(got) == [("a", 1), ("b", 1), run_now(1).id]
        values = [change.value for change in got]
        assert definition("a") in values
        assert run_now(1) in values
        await store.jobs.change([revision("a", 2)])
        await store.feed.publish([run_now(2), definition("a", 2)])
        more = await take(feed, 2)
        assert named(more) == [("a", 2), run_now(2).id]
        positions = [change.position for change in got + more]
        assert sorted(set(positions)) == sorted(positions)
        assert all(min(position) == 0 for position in positions)
    async with opened(world) as store:
        half = store.feed.changes(0, reach(got))
        assert named(await take(half, 2)) == [("a", 2), run_now(2).id]


@pytest.mark.parametrize("world", sorted(WORLDS), indirect=True)
async def test_a_known_command_is_not_published_again(world: World) -> None:
    async with opened(world) as store:
        await store.feed.publish([run_now(1), run_now(2), run_now(1)])
        await store.feed.publish([run_now(2), run_now(3)])
        got = await take(store.feed.changes(0, (0, 0)), 3)
        assert named(got) == [run_now(1).id, run_now(2).id, run_now(3).id]
        epoch, _ = await store.ledger.open(0)
        ids = [run_now(1).id, run_now(2).id]
        await store.ledger.commit(commit(epoch, 1, commands=ids, applied=(0, got[1].position[1])))
        await store.feed.publish([run_now(1), run_now(4)])
        assert named(await take(store.feed.changes(0, (0, got[1].position[1])), 2)) == [run_now(3).id, run_now(4).id]
    async with opened(world) as store:
        await store.feed.publish([run_now(2), run_now(5)])
        assert named(await take(store.feed.changes(0, (0, got[2].position[1])), 2)) == [run_now(4).id, run_now(5).id]
        _, commits = await store.ledger.open(0)
        assert {id for one in [each async for each in commits] for id in one.commands} == set(ids)


async def test_many_writers_and_two_readers_without_gap_or_repeat(world: World) -> None:
    count = 300
    async with opened(world) as store:

        async def write(start: int) -> None:
            for n in range(start, count, 3):
                await create(store, revision(f"j{n:04d}"))
                await store.feed.publish([run_now(n)])

        async def read() -> list[Change]:
            return await take(store.feed.changes(0, (0, 0)), 2 * count)

        early = asyncio.ensure_future(read())
        writers = [asyncio.ensure_future(write(start)) for start in range(3)]
        await writers[0]
        late = await read()
        first = await early
        for got in (first, late):
            definitions = [change for change in got if isinstance(change.value, Definition)]
            commands = [change for change in got if isinstance(change.value, Command)]
            assert sorted(named(definitions)) == [(f"j{n:04d}", 1) for n in range(count)]
            assert sorted(named(commands)) == [run_now(n).id for n in range(count)]
            for kind in (definitions, commands):
                positions = [change.position for change in kind]
                assert positions == sorted(set(positions))
