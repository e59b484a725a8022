"""JobStore: every revision of every job, all or none, with cursors that stay stable."""

from __future__ import annotations

import pytest

from dts.errors import AlreadyExists, NotFound, RevisionConflict
from dts.model import Definition, JobState, StoredJob
from tests.conformance.values import definition, revision
from tests.conformance.worlds import WITH_CASSANDRA, World, collect, opened

KINDS = WITH_CASSANDRA

ALL = frozenset[int]()
HOSTILE = "Robert'); DROP TABLE jobs;-- <b>\u0000 \U0001f600 ÄÖ"


async def test_created_jobs_come_back_as_they_were(world: World) -> None:
    made = revision("a", name=HOSTILE, tags=("x", HOSTILE), request="f" * 40)
    async with opened(world) as store:
        await store.jobs.create([made, revision("b")])
    async with opened(world) as store:
        got = await store.jobs.get(["a", "b", "nobody", HOSTILE])
        assert got["a"] == StoredJob("a", 1, 500, 1_000, JobState.ACTIVE, None, b"a/1", "f" * 40)
        assert set(got) == {"a", "b"}
        assert await store.jobs.revisions("a", 0, 10) == [made]
        assert await store.jobs.count() == 2


async def test_create_is_all_or_none(world: World) -> None:
    async with opened(world) as store:
        await store.jobs.create([revision("b")])
        with pytest.raises(AlreadyExists, match="'b'"):
            await store.jobs.create([revision("a"), revision("b"), revision("c")])
        with pytest.raises(AlreadyExists, match="'d'"):
            await store.jobs.create([revision("d"), revision("d")])
        assert set(await store.jobs.get(["a", "b", "c", "d"])) == {"b"}
        assert await store.jobs.count() == 1


async def test_a_deleted_job_may_be_created_again_with_a_higher_revision(world: World) -> None:
    async with opened(world) as store:
        await store.jobs.create([revision("a", tags=("old",))])
        with pytest.raises(AlreadyExists):
            await store.jobs.create([revision("a", 2)])
        await store.jobs.change([revision("a", 2, state=JobState.DELETED)])
        assert await store.jobs.count() == 0
        assert (await store.jobs.get(["a"]))["a"].state is JobState.DELETED
        for taken in (1, 2, 4):
            with pytest.raises(AlreadyExists):
                await store.jobs.create([revision("a", taken)])
        await store.jobs.create([revision("a", 3, tags=("new",)), revision("b")])
        assert await store.jobs.count() == 2
        assert await store.jobs.list("", 10, ALL, tag="old") == []
        assert [job.id for job in await store.jobs.list("", 10, ALL, tag="new")] == ["a"]


async def test_a_change_must_follow_the_current_revision(world: World) -> None:
    async with opened(world) as store:
        await store.jobs.create([revision("a"), revision("b")])
        await store.jobs.change([revision("a", 2), revision("a", 3)])
        with pytest.raises(RevisionConflict, match="revision 3, not 1"):
            await store.jobs.change([revision("b", 2), revision("a", 2)])
        with pytest.raises(RevisionConflict):
            await store.jobs.change([revision("b", 3)])
        with pytest.raises(NotFound, match="nobody"):
            await store.jobs.change([revision("b", 2), revision("nobody", 2)])
        assert {id: job.revision for id, job in (await store.jobs.get(["a", "b"])).items()} == {"a": 3, "b": 1}
        assert [each.definition.revision for each in await store.jobs.revisions("a", 3, 10)] == [2, 1]
        assert [each.definition.revision for each in await store.jobs.revisions("a", 0, 2)] == [3, 2]


async def test_list_filters_and_pages(world: World) -> None:
    jobs = [f"j{n:02d}" for n in range(30)]
    async with opened(world) as store:
        await store.jobs.create(
            [revision(job, name=f"Größe {n}", tags=("even",) if n % 2 == 0 else ()) for n, job in enumerate(jobs)]
        )
        await store.jobs.change([revision("j03", 2, state=JobState.DELETED), revision("j04", 2, state=JobState.PAUSED)])
        alive = [job for job in jobs if job != "j03"]
        seen: list[str] = []
        while page := await store.jobs.list(seen[-1] if seen else "", 7, ALL):
            seen += [job.id for job in page]
            now = (await store.jobs.get(seen[:1]))[seen[0]].revision
            await store.jobs.change([revision(seen[0], now + 1)])  # rows that change do not move
        assert seen == alive
        paused = await store.jobs.list("", 10, frozenset({JobState.PAUSED}))
        assert [job.id for job in paused] == ["j04"]
        assert [job.id for job in await store.jobs.list("j02", 3, ALL, tag="even")] == ["j06", "j08", "j10"]
        assert [job.id for job in await store.jobs.list("", 3, ALL, name="GRÖSSE 2")] == ["j02", "j20", "j21"]
        assert await store.jobs.list("", 3, ALL, name="%") == []
        assert [job.id for job in await store.jobs.list("", 3, frozenset({JobState.DELETED}))] == ["j03"]


async def test_definitions_for_the_audit(world: World) -> None:
    async with opened(world) as store:
        await store.jobs.create([revision("b", since=10), revision("a", since=20)])
        await store.jobs.change([revision("a", 2, since=30)])
        everything: list[Definition] = await collect(store.jobs.definitions("", 100))
        assert everything == [definition("a", 1, 20), definition("a", 2, 30), definition("b", 1, 10)]
        assert await collect(store.jobs.definitions("", 30)) == [definition("a", 1, 20), definition("b", 1, 10)]
        assert await collect(store.jobs.definitions("a", 100)) == everything[:2]
        assert await collect(store.jobs.definitions("nobody", 100)) == []


async def test_ten_thousand_at_once(world: World) -> None:
    async with opened(world) as store:
        await store.jobs.create([revision(f"j{n:05d}") for n in range(10_000)])
        assert await store.jobs.count() == 10_000
        everything: list[Definition] = await collect(store.jobs.definitions("", 2_000))
        assert [each.job for each in everything] == [f"j{n:05d}" for n in range(10_000)]
