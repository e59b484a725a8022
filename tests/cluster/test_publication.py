"""A change is two writes, into Cassandra and into Kafka: whatever dies between them, it arrives or was never acknowledged (law 8)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import uuid4

import pytest

from dts import bounds
from dts.adapters.cassandra import CassandraStore
from dts.adapters.cassandra.session import REQUEST_TIMEOUT_S, Session
from dts.adapters.kafka.feed import KafkaFeed
from dts.adapters.kafka.settings import KafkaSettings
from dts.adapters.kafka.topics import prepare
from dts.codec import definition_in
from dts.errors import OutcomeUnknown, RevisionConflict, Unavailable
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Command, Definition, Intent, JobState, Revision
from dts.services.clockcheck import ClockCheck
from dts.services.intents import Sweeper
from dts.services.publication import Promise, Publication, Publisher
from tests.cluster.publisher import Where, now
from tests.conformance import keyspace
from tests.conformance.kafkaworld import fresh_settings, records
from tests.conformance.values import revision
from tests.servers import ROOT, Servers

Wait = Callable[[], Awaitable[None]]


class Feed:
    """A feed that keeps what it is told, in order. `down`: it is not there."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.down = False
        self.before: Wait | None = None  # what happens once, before the next publication

    async def publish(self, changes: Sequence[Definition | Command]) -> Sequence[Command]:
        if self.before is not None:
            before, self.before = self.before, None
            await before()
        if self.down:
            raise Unavailable("no broker")
        self.told += [(each.job, each.revision) for each in changes if isinstance(each, Definition)]
        return ()

    def changes(self, shard: int, after: tuple[int, int]) -> AsyncIterator[Sequence[object]]:
        raise NotImplementedError


class Service:
    """One Job Service's way of changes, and a sweeper's. `ns`: its steady clock."""

    def __init__(self, store: CassandraStore) -> None:
        self.store = store
        self.feed = Feed()
        self.ns = 0
        self.name = uuid4().hex
        self.publisher = Publisher(store.jobs, self.feed, lambda: self.ns)  # type: ignore[arg-type]
        promise = Promise(store.intents, self.publisher, self.name)
        self.publication = Publication(self.feed, now, promise)  # type: ignore[arg-type]
        self.sweeper = Sweeper(store.intents, self.publisher, now)

    async def create(self, *revisions: Revision) -> None:
        await self.publication.make(revisions, self.store.jobs.create)
        await self.publication.close()  # so that its last look comes before what follows

    async def change(self, *revisions: Revision) -> None:
        await self.publication.make(revisions, self.store.jobs.change)

    async def intents(self) -> Sequence[Intent]:
        await self.publication.close()
        found = await self.store.intents.scan(0, now() + 1, 100)
        return [each for each in found if each.incarnation == self.name]

    async def leave(self, *revisions: Revision, age_ms: int, written: bool = True) -> Intent:
        """What a service leaves that died right after its store write, or before it."""
        named = tuple((each.definition.job, each.definition.revision) for each in revisions)
        intent = Intent(self.name, uuid4().bytes, now() - age_ms, named)
        await self.store.intents.write(intent)
        if written:
            made = self.store.jobs.create if named[0][1] == 1 else self.store.jobs.change
            await made(revisions)
        return intent


@pytest.fixture
async def store(servers: Servers) -> AsyncIterator[CassandraStore]:
    host, port = servers.cassandra
    made = await CassandraStore.open([host], port, await keyspace.name())
    yield made
    await made.close()
    await asyncio.to_thread(keyspace.empty)


@pytest.fixture
def service(store: CassandraStore) -> Service:
    return Service(store)


@pytest.fixture
def job() -> str:
    return f"p-{uuid4()}"


async def test_an_intent_is_there_until_the_change_is_published(service: Service, job: str) -> None:
    seen: list[int] = []

    async def look() -> None:
        found = await service.store.intents.scan(0, now() + 1, 100)
        seen.append(len([each for each in found if each.incarnation == service.name]))

    service.feed.before = look
    await service.create(revision(job), revision(f"{job}-b"))
    service.feed.before = look
    await service.change(revision(job, 2))
    assert seen == [1, 1]
    assert await service.intents() == []
    assert service.feed.told == [(job, 1), (f"{job}-b", 1), (job, 2)]


async def test_a_higher_revision_that_came_first_is_published_after_ours(service: Service, job: str) -> None:
    other = Service(service.store)
    await service.create(revision(job, request="f"))

    async def rival() -> None:
        await other.change(revision(job, 3))

    service.feed.before = rival
    await service.change(revision(job, 2))
    assert await service.intents() == []
    assert other.feed.told == [(job, 3)]
    assert service.feed.told == [(job, 1), (job, 2), (job, 3)]


async def test_a_feed_that_is_down_leaves_it_to_the_sweeper(service: Service, job: str) -> None:
    service.feed.down = True
    with pytest.raises(OutcomeUnknown, match="is stored, and is carried out"):
        await service.create(revision(job, request="f"))
    with pytest.raises(OutcomeUnknown):
        await service.change(revision(job, 2))
    assert len(await service.intents()) == 2
    later = now() + bounds.INTENT_LOOK_MS + 1
    with pytest.raises(Unavailable):
        await service.sweeper.sweep(later)
    service.feed.down = False
    await service.sweeper.sweep(later)
    assert service.feed.told == [(job, 1), (job, 2), (job, 2)]
    await service.sweeper.sweep(later + 1)
    assert len(service.feed.told) == 3  # a sweeper publishes it once
    assert len(await service.intents()) == 2
    await service.sweeper.sweep(now() + bounds.INTENT_KEPT_MS + 1)
    assert await service.intents() == []


async def test_what_was_never_written_goes_by_its_age(service: Service, job: str) -> None:
    young = await service.leave(revision(job), age_ms=bounds.INTENT_LOOK_MS + 1_000, written=False)
    await service.leave(revision(f"{job}-b"), age_ms=bounds.INTENT_KEPT_MS + 1_000, written=False)
    await service.sweeper.sweep(now())
    assert await service.intents() == [young]
    await service.store.jobs.create([revision(job)])  # it stood still, and goes on
    await Service(service.store).sweeper.sweep(now())
    await service.sweeper.sweep(now() + bounds.INTENT_KEPT_MS)
    assert service.feed.told == [(job, 1)]
    assert await service.intents() == []


async def test_several_sweepers_are_as_one(service: Service, job: str) -> None:
    left = [revision(f"{job}-{n}", request="f") for n in range(30)]
    for each in left:
        await service.leave(each, age_ms=bounds.INTENT_KEPT_MS + 1_000)
    sweepers = [Service(service.store) for _ in range(3)]
    await asyncio.gather(*(each.sweeper.sweep(now()) for each in sweepers))
    told = {name for each in sweepers for name in each.feed.told}
    assert told == {(each.definition.job, 1) for each in left}
    assert await service.intents() == []


async def test_revisions_between_are_published_but_none_that_a_deletion_came_after(service: Service, job: str) -> None:
    await service.leave(revision(job, request="f"), age_ms=bounds.INTENT_KEPT_MS + 1_000)
    await service.store.jobs.change([revision(job, 2)])
    await service.sweeper.sweep(now())
    assert service.feed.told == [(job, 1), (job, 2)]
    service.feed.told.clear()
    await service.leave(revision(job, 3), age_ms=bounds.INTENT_KEPT_MS + 1_000)
    await service.store.jobs.change([revision(job, 4, state=JobState.DELETED)])
    await Service(service.store).sweeper.sweep(now() - bounds.INTENT_KEPT_MS)  # too young for it
    await Sweeper(service.store.intents, service.publisher, now).sweep(now())
    assert service.feed.told == [(job, 4)]
    service.feed.told.clear()
    await service.leave(revision(job, 5, request="g"), age_ms=bounds.INTENT_KEPT_MS + 1_000, written=False)
    await service.store.jobs.create([revision(job, 5, request="g")])
    await service.store.jobs.change([revision(job, 6)])
    await service.publisher.catch_up({job: 0})
    assert service.feed.told == [(job, 5), (job, 6)]


async def test_what_was_taken_back_is_published(service: Service, job: str) -> None:
    a, b = f"{job}-a", f"{job}-b"
    await service.create(revision(a, request="f"), revision(b, request="f"))
    await service.store.jobs.change([revision(b, 2)])
    store, looked = service.store.jobs, asyncio.Event()
    real = store._name

    async def rival(jobs: Sequence[str]) -> None:
        if not looked.is_set():
            looked.set()
            await store.change([revision(b, 3, name="rival")])
        await real(jobs)

    store._name = rival  # type: ignore[method-assign]
    with pytest.raises(RevisionConflict):
        await service.change(revision(a, 2), revision(b, 3))
    assert await service.intents() == []
    assert [each for each in service.feed.told if each[0] == a] == [(a, 1), (a, 2), (a, 3)]
    assert (b, 3) in service.feed.told


async def test_a_process_that_stood_still_reads_again_before_it_publishes(service: Service, job: str) -> None:
    await service.create(revision(job, request="f"))

    async def stand_still(revisions: Sequence[Revision]) -> None:
        await service.store.jobs.change(revisions)
        await service.store.jobs.change([revision(job, 3, state=JobState.DELETED)])
        service.ns += (bounds.PUBLISH_FRESH_MS + 1) * 1_000_000

    await service.publication.make([revision(job, 2)], stand_still)
    assert await service.intents() == []
    assert set(service.feed.told) == {(job, 1), (job, 3)}


async def test_an_intent_that_took_long_is_made_anew(service: Service, job: str) -> None:
    write, slow = service.store.intents.write, [True]

    async def slowly(intent: Intent) -> None:
        await write(intent)
        if slow and slow.pop():
            service.ns += (bounds.STORE_WRITE_MS + 1) * 1_000_000

    service.store.intents.write = slowly  # type: ignore[method-assign]
    await service.create(revision(job))
    assert len(await service.intents()) == 1  # the first one: the sweepers'
    assert service.feed.told == [(job, 1)]


async def test_no_intent_no_change(service: Service, job: str) -> None:
    async def fail(intent: Intent) -> None:
        raise OutcomeUnknown("no answer")

    service.store.intents.write = fail  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="nothing was changed"):
        await service.create(revision(job))
    assert await service.store.jobs.get([job]) == {}


@pytest.mark.parametrize("off", [300_000, -300_000])
async def test_a_job_service_whose_clock_is_five_minutes_off_changes_nothing(
    service: Service, job: str, off: int
) -> None:
    def wrong() -> int:
        return now() + off

    check = ClockCheck(lambda: service.store.clock_apart(wrong), wrong)
    await check.sample()
    feed: Feed = service.feed
    publication = Publication(feed, wrong, refusals=[check.check])  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="over 2 s apart"):
        await publication.make([revision(job)], service.store.jobs.create)
    assert await service.store.jobs.get([job]) == {}
    right = ClockCheck(lambda: service.store.clock_apart(now), now)
    await right.sample()
    right.check()


# ---- killed


@pytest.fixture
def settings(servers: Servers) -> KafkaSettings:
    made = fresh_settings()
    prepare(made)
    return made


async def published(settings: KafkaSettings) -> list[tuple[str, int]]:
    values = [each for each in await records(settings, settings.topics.jobs) if each not in (b"", b"1")]
    found = [definition_in(log.Definition.FromString(each)) for each in values]
    return [(each.job, each.revision) for each in found]


async def killed_at(settings: KafkaSettings, servers: Servers, point: str, *orders: str) -> list[str]:
    """Gives orders, kills it at the point; what it said."""
    host, port = servers.cassandra
    given = Where(settings, [host], port, await keyspace.name())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.cluster.publisher", given.out(), point),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("".join(f"{each}\n" for each in orders).encode())
    said: list[str] = []
    try:
        while not said or not said[-1].startswith("at "):
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line, "it ended"
            said.append(line.decode().strip())
    finally:
        process.kill()
        await process.wait()
    return said


@pytest.mark.parametrize("point", ["intended", "written", "published"])
@pytest.mark.parametrize("several", [False, True])
async def test_a_job_service_killed_between_its_two_writes(
    store: CassandraStore, servers: Servers, settings: KafkaSettings, job: str, point: str, several: bool
) -> None:
    jobs = [f"{job}-{n}" for n in range(4 if several else 1)]
    said = await killed_at(settings, servers, point, f"create {' '.join(jobs)}")
    assert said == ["ready", f"at {point}"]  # never acknowledged
    written = [] if point == "intended" else [(each, 1) for each in jobs]
    assert sorted(await store.jobs.get(jobs)) == [each for each, _ in written]
    assert await published(settings) == (written if point == "published" else [])
    feed = KafkaFeed(settings, 1)
    sweeper = Sweeper(store.intents, Publisher(store.jobs, feed), now)
    await sweeper.sweep(now() + bounds.INTENT_LOOK_MS + 1)
    found = await published(settings)
    assert found == (written * 2 if point == "published" else written)
    await sweeper.sweep(now() + bounds.INTENT_KEPT_MS + 1)
    assert await store.intents.scan(0, now() + 1, 10) == []
    await feed.close()


async def test_a_session_bounds_a_write_as_the_sweepers_believe(servers: Servers) -> None:
    """What they wait for rests on it."""
    assert REQUEST_TIMEOUT_S * 1_000 <= bounds.STORE_WRITE_MS
    assert Session.connect.__defaults__ == (REQUEST_TIMEOUT_S,)
