"""What the three services of a cluster share: Kafka, Cassandra, who else is there, and the API over them."""

from __future__ import annotations

import logging
import platform
import uuid
from collections.abc import Sequence

from dts import __version__
from dts.adapters.cassandra import CassandraStore
from dts.adapters.kafka.members import Members
from dts.adapters.kafka.settings import KafkaSettings, Topics, shard_of
from dts.adapters.kafka.store import KafkaStore
from dts.adapters.live import RemoteLive
from dts.api.execution_methods import ExecutionMethods
from dts.api.job_methods import JobMethods
from dts.api.live import LiveServicer
from dts.api.methods import services
from dts.api.scheduler_methods import SchedulerMethods
from dts.api.views import pause_words
from dts.api.workers import OutputServicer
from dts.config import Config
from dts.errors import DtsError, Unavailable
from dts.model import Command, ShardId, routed_by
from dts.server.listeners import Listeners, address
from dts.server.migrations import FOLDER, Done, migrator
from dts.server.waiting import Starting
from dts.services.audit import AuditService
from dts.services.clock import Clock
from dts.services.clockcheck import ClockCheck
from dts.services.executions import ExecutionService
from dts.services.explain import ExplainService
from dts.services.jobs import JobService
from dts.services.publication import Promise, Publication, Publisher

log = logging.getLogger("dts.server")

LOOPBACK = ("localhost", "127.0.0.1", "::1")
REPLICATION = (
    1  # of a keyspace that a service has to make; in production it is made before: dts migrate --replication 3
)


def advertised(config: Config, port: int) -> str:
    """Where others reach this process: DTS_ADVERTISE, else this machine's name; what listens on the loopback is local."""
    if config.advertise:
        return address(config.advertise, port)
    return address("localhost" if config.listen in LOOPBACK else platform.node(), port)


def kafka_settings(config: Config, client: str) -> KafkaSettings:
    """The settings of all Kafka clients; `client`: what others read of this process in a group."""
    kafka = config.kafka
    topics = Topics(kafka.job_topic, kafka.command_topic, kafka.scheduler_topic, kafka.execution_topic)
    return KafkaSettings(",".join(kafka.brokers), config.cluster, topics, client=client)


class Cluster:
    """The servers, and what every service builds over them. `advertise`: where others reach this one."""

    def __init__(self, config: Config, advertise: str, kafka: KafkaStore, cassandra: CassandraStore) -> None:
        self.config = config
        self.advertise = advertise
        self.clock = Clock()
        self.kafka = kafka
        self.cassandra = cassandra
        self.shards: Sequence[ShardId] = range(kafka.partitions)
        self.members = Members(kafka.settings, [kafka.settings.group, kafka.settings.history_group])
        self.live = RemoteLive(lambda: self.members.of(kafka.settings.group), self.shards, self._shard_of, kafka.feed)
        self.clock_check = ClockCheck(lambda: cassandra.clock_apart(self.clock.now), self.clock.now)
        self.publisher = Publisher(cassandra.jobs, kafka.feed)
        self.publication = Publication(
            kafka.feed,
            self.clock.now,
            Promise(cassandra.intents, self.publisher, uuid.uuid4().hex),
            [self.clock_check.check, self._need_kafka],
        )

    @classmethod
    async def open(cls, config: Config, starting: Starting, advertise: str, *, need_cassandra: bool = True) -> Cluster:
        """Waits for the servers. Without a need for Cassandra it is reached when it can be."""
        settings = kafka_settings(config, advertise)
        kafka = await starting.wait_for(f"Kafka at {settings.brokers}", lambda: KafkaStore.open(settings))
        try:
            cassandra = await _cassandra(config, starting) if need_cassandra else _later(config)
        except BaseException:
            await kafka.close()
            raise
        cluster = cls(config, advertise, kafka, cassandra)
        await cluster.members.look()
        return cluster

    def schedulers(self) -> list[str]:
        """Addresses of the Scheduler instances, for workers."""
        return sorted(self.members.of(self.kafka.settings.group))

    def recorders(self) -> list[str]:
        """Addresses of the Execution Services, for workers' output."""
        return sorted(self.members.of(self.kafka.settings.history_group))

    def listeners(self, workers: OutputServicer, live: LiveServicer | None = None) -> Listeners:
        """Every service answers the whole API: all of it stands on what they share."""
        cassandra, now = self.cassandra, self.clock.now
        jobs = JobService(
            cassandra.jobs, self.kafka.feed, self.live, cassandra.history, now, self.publication, self._count_jobs
        )
        executions = ExecutionService(
            cassandra.jobs, self.live, cassandra.history, cassandra.outputs, now, projected=self.shards
        )
        audit = AuditService(cassandra.jobs, self.live, cassandra.history, self.shards)
        explain = ExplainService(cassandra.jobs, self.live, cassandra.history, now, pause_words, self.shards)
        served = services(
            JobMethods(jobs), SchedulerMethods(jobs, self.live), ExecutionMethods(executions, audit, explain)
        )
        return Listeners(served, workers, __version__, self.config.allowed_origins, live)

    async def check(self) -> str:
        """Why the servers cannot be used now, or empty."""
        if self.members.problem:
            return self.members.problem
        try:
            await self.cassandra.check()
        except DtsError as error:
            return str(error)
        return ""

    async def close(self) -> None:
        """Ends everything."""
        await self.publication.close()
        await self.live.close()
        await self.kafka.close()
        await self.cassandra.close()

    def _shard_of(self, command: Command) -> ShardId:
        return shard_of(routed_by(command), self.kafka.partitions)

    def _need_kafka(self) -> None:
        """A change that cannot be published is refused before anything is stored."""
        if self.members.problem:
            raise Unavailable(self.members.problem)

    async def _count_jobs(self) -> int:
        shards, _, _ = await self.live.status()
        return sum(shard.jobs for shard in shards)


async def _cassandra(config: Config, starting: Starting) -> CassandraStore:
    """A session over a migrated keyspace: of several services that start at once one migrates."""
    of = config.cassandra

    async def migrated() -> None:
        def told(done: Done) -> None:
            log.info("migrated: %d %s (%.1f s)", done.version, done.title, done.seconds)

        async with migrator(of, FOLDER, REPLICATION, told) as moving:
            await moving.up()

    async def opened() -> CassandraStore:
        store = await CassandraStore.open(
            of.hosts, of.port, of.keyspace, retention_days=config.retention_days, output_days=config.output_days
        )
        try:
            await store.check()
        except BaseException:
            await store.close()
            raise
        return store

    where = f"Cassandra at {','.join(of.hosts)}"
    await starting.wait_for(where, migrated)
    return await starting.wait_for(where, opened)


def _later(config: Config) -> CassandraStore:
    of = config.cassandra
    return CassandraStore.later(
        of.hosts, of.port, of.keyspace, retention_days=config.retention_days, output_days=config.output_days
    )
