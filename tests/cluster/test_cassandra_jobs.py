"""The job store over Cassandra: rivals, answers that never came, rows that are no jobs, and what is about to be published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any
from uuid import uuid4

import pytest

from dts.adapters.cassandra import CassandraStore
from dts.adapters.cassandra.jobs import slot
from dts.adapters.cassandra.session import Session, Value
from dts.errors import AlreadyExists, OutcomeUnknown, RevisionConflict, Unavailable
from dts.model import Intent, JobState
from tests.conformance import keyspace
from tests.conformance.values import revision
from tests.servers import Servers

ALL = frozenset[int]()
Step = Callable[[], Awaitable[None]]


class Faulty(Session):
    """A session some of whose answers are lost: `plan` says of the next batches whether they are applied before. `rival` comes
    between the look and the write."""

    plan: list[bool]
    rival: Step | None

    async def write(self, cql: str, values: Sequence[Value] = ()) -> None:
        await super().write(cql, values)
        if "job_ids" in cql:
            await self._named()

    async def batch(self, statements: Iterable[Any], atomic: bool) -> Any:
        if atomic and self.plan:
            if self.plan.pop(0):
                await super().batch(statements, atomic)
            raise OutcomeUnknown("the answer was lost")
        result = await super().batch(statements, atomic)
        if not atomic:
            await self._named()
        return result

    async def _named(self) -> None:
        if self.rival is not None:
            rival, self.rival = self.rival, None
            await rival()


@pytest.fixture
async def session(servers: Servers) -> AsyncIterator[Faulty]:
    host, port = servers.cassandra
    made = await Faulty.connect([host], port, await keyspace.name())
    assert isinstance(made, Faulty)
    made.plan, made.rival = [], None
    yield made
    await made.close()


@pytest.fixture
def store(session: Faulty) -> CassandraStore:
    return CassandraStore(session, 30, 7, lambda: 0)


@pytest.fixture
def job() -> str:
    """An id that no other test uses."""
    return f"r-{uuid4()}"


async def test_of_rivals_for_one_id_one_creates(store: CassandraStore, job: str) -> None:
    rivals = [revision(job, name=f"rival {n}", request=f"{n}") for n in range(20)]
    results = await asyncio.gather(*(store.jobs.create([each]) for each in rivals), return_exceptions=True)
    won = [n for n, result in enumerate(results) if result is None]
    assert len(won) == 1
    assert {type(result) for result in results} == {type(None), AlreadyExists}
    assert await store.jobs.revisions(job, 0, 10) == [rivals[won[0]]]


async def test_of_rivals_for_one_revision_one_changes(store: CassandraStore, job: str) -> None:
    await store.jobs.create([revision(job, request="f")])
    for number in range(2, 7):
        rivals = [store.jobs.change([revision(job, number, name=f"{n}")]) for n in range(8)]
        results = await asyncio.gather(*rivals, return_exceptions=True)
        assert all(isinstance(each, RevisionConflict | Unavailable) for each in results if each is not None)
        assert results.count(None) == 1
        assert (await store.jobs.revisions(job, 0, 1))[0].name == str(results.index(None))
    found = await store.jobs.revisions(job, 0, 10)
    assert [each.definition.revision for each in found] == [6, 5, 4, 3, 2, 1]


async def test_a_plain_create_that_is_repeated_late_changes_nothing(store: CassandraStore, job: str) -> None:
    first = revision(job)
    await store.jobs.create([first])

    async def repeat() -> None:
        for _ in range(60):
            await store.jobs._add_plain(first)

    async def change() -> None:
        for number in range(2, 22):
            await store.jobs.change([revision(job, number)])

    await asyncio.gather(repeat(), change(), repeat())
    row = (await store.jobs.get([job]))[job]
    assert row.revision == 21
    assert await store.jobs.revisions(job, 2, 9) == [first]
    assert await store.jobs.above({job: 20}, settled=True) == {job: revision(job, 21).definition}
    assert await store.jobs.above({job: 21}, settled=True) == {}


@pytest.mark.parametrize("applied", [True, False])
async def test_an_answer_that_was_lost_is_looked_up(
    store: CassandraStore, session: Faulty, job: str, applied: bool
) -> None:
    session.plan = [applied]
    await store.jobs.create([revision(job, request="f")])
    session.plan = [applied]
    await store.jobs.change([revision(job, 2)])
    assert [each.definition.revision for each in await store.jobs.revisions(job, 0, 9)] == [2, 1]


async def test_a_rival_that_came_while_the_answer_was_lost(store: CassandraStore, session: Faulty, job: str) -> None:
    await store.jobs.create([revision(job, request="f")])

    async def rival() -> None:
        await store.jobs.change([revision(job, 2, name="rival")])
        await store.jobs.change([revision(job, 3, name="rival again")])
        session.plan = [False]

    session.rival = rival
    with pytest.raises(RevisionConflict, match="revision 3, not 1"):
        await store.jobs.change([revision(job, 2, name="ours")])


async def test_ours_is_known_again_under_a_later_change(store: CassandraStore, session: Faulty, job: str) -> None:
    await store.jobs.create([revision(job, request="f")])
    real = Session.batch

    async def applied_then_changed(statements: Iterable[Any], atomic: bool) -> Any:
        await real(session, statements, atomic)
        session.batch = lambda statements, atomic: real(session, statements, atomic)  # type: ignore[method-assign]
        await store.jobs.change([revision(job, 3, name="later")])
        raise OutcomeUnknown("the answer was lost")

    session.batch = applied_then_changed  # type: ignore[method-assign]
    await store.jobs.change([revision(job, 2, name="ours")])
    assert [each.name for each in await store.jobs.revisions(job, 0, 9)] == ["later", "ours", f"Name of {job}"]


async def test_a_change_of_several_that_loses_one_takes_back_the_others(
    store: CassandraStore, session: Faulty, job: str
) -> None:
    a, b, c = f"{job}-a", f"{job}-b", f"{job}-c"
    await store.jobs.create([revision(a, request="f"), revision(b, request="f")])

    async def rival() -> None:
        await store.jobs.change([revision(b, 2, name="rival")])

    session.rival = rival
    with pytest.raises(RevisionConflict, match="revision 2, not 1"):
        await store.jobs.change([revision(a, 2, since=2_000, name="ours"), revision(b, 2, name="ours")])
    back = (await store.jobs.revisions(a, 0, 1))[0]
    assert (back.name, back.definition.revision, back.definition.since) == (f"Name of {a}", 3, 2_000)

    async def other() -> None:
        await store.jobs.create([revision(c, request="other")])

    session.rival = other
    with pytest.raises(AlreadyExists, match=c):
        await store.jobs.create([revision(f"{job}-d", request="f"), revision(c, request="f")])
    assert (await store.jobs.get([f"{job}-d"]))[f"{job}-d"].state is JobState.DELETED
    assert (await store.jobs.get([c]))[c].request == "other"


async def test_an_id_without_a_job_is_no_job(store: CassandraStore, session: Faulty, job: str) -> None:
    await session.write("INSERT INTO job_ids (slot, job) VALUES (?, ?)", [slot(job), job])
    await session.write("INSERT INTO job_revisions (job, revision, name) VALUES (?, 1, 'ghost')", [job])
    before = await store.jobs.count()
    assert await store.jobs.get([job]) == {}
    assert await store.jobs.revisions(job, 0, 9) == []
    assert job not in [each.id for each in await store.jobs.list(job[:-1], 5, ALL)]
    await store.jobs.create([revision(job, request="f")])
    assert await store.jobs.count() == before + 1


async def test_intents_are_found_until_they_are_removed(store: CassandraStore) -> None:
    start = int(uuid4().int % 10**6) * 86_400_000
    made = [
        Intent(f"service-{n % 2}", uuid4().bytes, start + 40_000 * n, ((f"a{n}", n + 1), ("b", 2))) for n in range(6)
    ]
    for each in made:
        await store.intents.write(each)
        await store.intents.write(each)
    found = await store.intents.scan(start, start + 10**6, 100)
    assert sorted(found, key=lambda each: each.at) == made
    assert await store.intents.scan(start + 40_000, start + 120_000, 100) == made[1:3]
    assert len(await store.intents.scan(start, start + 10**6, 2)) == 2
    for each in made[:4]:
        await store.intents.remove(each)
    assert sorted(await store.intents.scan(start, start + 10**6, 100)) == sorted(made[4:])
