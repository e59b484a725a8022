"""The topic `jobs` against Cassandra: falling revisions, records that are gone, deletions that are long past."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from dts import bounds
from dts.adapters.cassandra import CassandraStore
from dts.adapters.cassandra.jobs import CassandraJobs
from dts.adapters.kafka.feed import KafkaFeed
from dts.adapters.kafka.notices import KafkaNotices
from dts.adapters.kafka.reading import bounds_of, reader
from dts.adapters.kafka.settings import KafkaSettings, shard_of
from dts.adapters.kafka.topics import prepare
from dts.codec import definition_in
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Definition, JobState, Notice, Revision
from dts.services.publication import Publisher
from dts.services.tidying import Repair, Tidier, due_of
from tests.cluster.publisher import now
from tests.conformance import keyspace
from tests.conformance.kafkaworld import fresh_settings, records
from tests.conformance.values import revision
from tests.servers import ROOT, Servers

SHARDS = 2
OLD = 1_000  # an instant long ago


class Site:
    """A keyspace and topics, and what tidies them at `now`."""

    def __init__(self, store: CassandraStore, settings: KafkaSettings) -> None:
        self.store, self.settings = store, settings
        self.feed = KafkaFeed(settings, SHARDS)
        self.notices = KafkaNotices(settings, SHARDS)
        self.now = now()
        self.tidier = Tidier(store.jobs, self.notices, Publisher(store.jobs, self.feed), lambda: self.now)

    async def publish(self, *revisions: Revision) -> None:
        for each in revisions:
            await self.feed.publish([each.definition])

    async def told(self) -> dict[str, list[tuple[int, bool]]]:
        """What the topic has of each job, in order: (revision, first)."""
        found: dict[str, list[tuple[int, bool]]] = {}
        for shard in range(SHARDS):
            for value in await records(self.settings, self.settings.topics.jobs, shard):
                if value and not value.isdigit():
                    each = definition_in(log.Definition.FromString(value))
                    found.setdefault(each.job, []).append((each.revision, each.first))
        return found

    async def lose_records(self) -> None:
        """All that the topic has, as if a retention had been set by mistake."""

        def work() -> None:
            consumer = reader(self.settings)
            topic = self.settings.topics.jobs
            ends = [TopicPartition(topic, shard, bounds_of(consumer, topic, shard)[1]) for shard in range(SHARDS)]
            consumer.close()
            admin = AdminClient(self.settings.common())
            _policy(admin, topic, "delete")
            deadline = time.monotonic() + 30
            while not _deleted(admin, ends):  # the policy reaches the partitions a moment later
                assert time.monotonic() < deadline
                time.sleep(0.1)
            _policy(admin, topic, "compact")

        await asyncio.to_thread(work)


def _deleted(admin: AdminClient, ends: list[TopicPartition]) -> bool:
    try:
        for future in admin.delete_records(ends).values():
            future.result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.POLICY_VIOLATION:
            raise
        return False
    return True


def _policy(admin: AdminClient, topic: str, value: str) -> None:
    entry = ConfigEntry("cleanup.policy", value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


@pytest.fixture
async def site(servers: Servers) -> AsyncIterator[Site]:
    host, port = servers.cassandra
    store = await CassandraStore.open([host], port, await keyspace.name())
    settings = fresh_settings(SHARDS)
    await asyncio.to_thread(prepare, settings)
    made = Site(store, settings)
    yield made
    await made.feed.close()
    await store.close()
    await asyncio.to_thread(keyspace.empty)


async def test_falling_revisions_are_told_again(site: Site) -> None:
    jobs = [f"f-{n}" for n in range(6)]
    await site.store.jobs.create([revision(job) for job in jobs])
    for number in (2, 3):
        await site.store.jobs.change([revision(job, number) for job in jobs[:4]])
    await site.publish(*(revision(job) for job in jobs))
    await site.publish(*(revision(job, 3) for job in jobs[:4]))
    await site.publish(*(revision(job, 2) for job in jobs[:3]))  # who published it was overtaken
    dry = await site.tidier.repair(dry_run=True)
    assert dry == Repair(jobs=6, lower=3)
    done = await site.tidier.repair()
    assert (done.lower, done.renewed) == (3, 3)
    told = await site.told()
    assert [told[job] for job in jobs[:3]] == [[(1, True), (3, True), (2, True), (3, False)]] * 3
    assert told[jobs[3]] == [(1, True), (3, True)]
    assert (await site.tidier.repair()).clean


async def test_records_that_are_gone_are_rebuilt_from_cassandra(site: Site) -> None:
    jobs = [f"g-{n}" for n in range(30)]
    await site.store.jobs.create([revision(job) for job in jobs])
    await site.store.jobs.change([revision(job, 2) for job in jobs[:10]])
    await site.store.jobs.change([revision(jobs[0], 3, state=JobState.DELETED)])
    await site.store.jobs.change([revision(jobs[1], 3, since=site.now - 3_600_000, state=JobState.DELETED)])
    await site.publish(*(revision(job) for job in jobs))
    await site.lose_records()
    assert await site.told() == {}
    assert await site.tidier.repair(dry_run=True) == Repair(jobs=28, missing=29)
    assert (await site.tidier.repair()).renewed == 29
    told = await site.told()
    assert jobs[0] not in told  # deleted long ago: nobody knows it any more
    assert told[jobs[1]] == [(3, False)]
    assert [told[job] for job in jobs[2:]] == [[(2, False)]] * 8 + [[(1, False)]] * 20
    seen: list[Definition] = []
    async for page in site.feed.changes(0, (0, 0)):
        seen += [each.value for each in page if isinstance(each.value, Definition)]
        if {each.job for each in seen} == {job for job in told if shard_of(job, SHARDS) == 0}:
            break
    assert not any(each.first for each in seen)


async def test_what_is_being_published_for_the_first_time_is_left_alone(site: Site) -> None:
    young = site.now - bounds.RENEW_AFTER_MS + 5_000
    await site.store.jobs.create([revision("y", since=young), revision("z", since=young - 10_000)])
    assert await site.tidier.repair() == Repair(jobs=2, missing=1, renewed=1)
    assert await site.told() == {"z": [(1, False)]}


async def test_a_deletion_stays_for_a_week_then_the_job_leaves_the_topic(site: Site) -> None:
    await site.store.jobs.create([revision("d"), revision("e"), revision("f")])
    gone = [revision(job, 2, state=JobState.DELETED) for job in "def"]
    await site.store.jobs.change(gone)
    await site.publish(*gone)
    site.now += bounds.TOMBSTONE_AFTER_MS - 60_000
    assert await site.tidier.repair() == Repair()
    site.now += 120_000
    assert await site.tidier.repair(dry_run=True) == Repair(overdue=3)
    real = CassandraJobs.above

    async def made_anew(jobs: CassandraJobs, known: dict[str, int], *, settled: bool) -> dict[str, Definition]:
        """Right before the look `f` is made anew; between it and the tombstone `e` is, and told."""
        if known.get("f") == 0:
            await site.store.jobs.create([revision("f", 3, request="f")])
        found = await real(jobs, known, settled=settled)
        if known.get("e") == 0:
            await site.store.jobs.create([revision("e", 3, request="f")])
            await site.publish(revision("e", 3))
        return found

    CassandraJobs.above = made_anew  # type: ignore[method-assign,assignment]
    try:
        assert (await site.tidier.repair()).buried == 2
    finally:
        CassandraJobs.above = real  # type: ignore[method-assign]
    last: dict[str, Notice] = {}
    for shard in range(SHARDS):
        last |= await site.notices.last(shard)
    assert {job: each.revision for job, each in last.items()} == {"e": 3, "f": 2}
    assert await site.tidier.repair() == Repair(jobs=2, lower=1, renewed=1)
    assert (await site.tidier.repair()).clean


async def test_an_old_backup_is_told_to_a_person(site: Site) -> None:
    await site.store.jobs.create([revision("a"), revision("b")])
    await site.publish(revision("a", 4), revision("b"), revision("stranger"))
    found = await site.tidier.repair()
    assert (found.ahead, found.ahead_count, found.renewed) == (["a", "stranger"], 2, 0)
    assert not found.clean


def test_what_is_due() -> None:
    at = 10**12
    notices = {
        "same": Notice(0, 2, JobState.ACTIVE, OLD),
        "lower": Notice(0, 1, JobState.ACTIVE, OLD),
        "ahead": Notice(1, 9, JobState.ACTIVE, OLD),
        "dead": Notice(1, 2, JobState.DELETED, at - bounds.TOMBSTONE_AFTER_MS),
        "dying": Notice(1, 2, JobState.DELETED, at - bounds.TOMBSTONE_AFTER_MS + 1),
    }
    numbers = {job: (2, notice.state, OLD) for job, notice in notices.items()}
    numbers |= {
        "missing": (2, JobState.PAUSED, OLD),
        "deleted": (2, JobState.DELETED, at - bounds.DELETION_OWED_MS + 1),
        "forgotten": (2, JobState.DELETED, at - bounds.DELETION_OWED_MS),
        "young": (2, JobState.ACTIVE, at - bounds.RENEW_AFTER_MS + 1),
    }
    due = due_of(notices, numbers, at)
    assert due.renew == {"lower": 1, "missing": 0, "deleted": 0}
    assert due.bury == {"dead": notices["dead"]}
    assert due.ahead == {"ahead": 9}


async def _dts(site: Site, servers: Servers, *arguments: str) -> tuple[int, Sequence[str]]:
    host, port = servers.cassandra
    topics = site.settings.topics
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DTS_", "KAFKA_", "CASSANDRA_"))},
        "PYTHONPATH": str(ROOT / "src"),
        "KAFKA_BROKERS": servers.kafka,
        "KAFKA_JOB_TOPIC": topics.jobs,
        "KAFKA_COMMAND_TOPIC": topics.commands,
        "KAFKA_SCHEDULER_TOPIC": topics.log,
        "KAFKA_EXECUTION_TOPIC": topics.events,
        "CASSANDRA_HOSTS": host,
        "CASSANDRA_PORT": str(port),
        "CASSANDRA_KEYSPACE": await keyspace.name(),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dts", *arguments, stdout=subprocess.PIPE, env=env, cwd=ROOT / "tests"
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode().splitlines()


async def test_the_command(site: Site, servers: Servers) -> None:
    name = f"c-{uuid4()}"
    await site.store.jobs.create([revision(name), revision("d")])
    await site.publish(revision("d"))
    code, said = await _dts(site, servers, "repair", "jobs", "--dry-run")
    assert (code, said[0], said[1], said[-1]) == (
        1,
        "Jobs in Cassandra: 2",
        "Not in the topic: 1",
        "Nothing was done (--dry-run).",
    )
    assert name not in await site.told()
    code, said = await _dts(site, servers, "repair", "jobs")
    assert (code, said[-1]) == (0, "Told again: 1; removed: 0")
    assert (await site.told())[name] == [(1, False)]
    code, _ = await _dts(site, servers, "repair", "jobs", "--dry-run")
    assert code == 0
