"""What `dts export --cluster` reads and `dts import --cluster` writes: jobs and history in Cassandra, the shards' state in their
logs, and what is imported on its way to the schedulers as every change of a job is."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from dts.adapters.cassandra import CassandraStore
from dts.adapters.cassandra.moving import CassandraMoving
from dts.adapters.kafka.fold import fold
from dts.adapters.kafka.store import KafkaStore
from dts.config import Config
from dts.core.shard import folded
from dts.errors import FailedPrecondition
from dts.model import Instant
from dts.ports import History
from dts.server.cluster import kafka_settings
from dts.server.movingfile import Source, Target, now
from dts.services.moving import State
from dts.services.publication import Promise, Publication, Publisher

LAG_WAIT_S = 60.0  # for history to reach what the schedulers have decided
LAG_LOOK_S = 0.5


@asynccontextmanager
async def _servers(config: Config) -> AsyncIterator[tuple[KafkaStore, CassandraStore]]:
    async with AsyncExitStack() as stack:
        kafka = await KafkaStore.open(kafka_settings(config, "dts-move"))
        stack.push_async_callback(kafka.close)
        of = config.cassandra
        cassandra = await CassandraStore.open(
            of.hosts, of.port, of.keyspace, retention_days=config.retention_days, output_days=config.output_days
        )
        stack.push_async_callback(cassandra.close)
        await cassandra.check()
        yield kafka, cassandra


@asynccontextmanager
async def source(config: Config) -> AsyncIterator[Source]:
    """The cluster of the settings, running or not. Raises Unavailable, ConfigError, FailedPrecondition."""
    async with _servers(config) as (kafka, cassandra):
        state = State()
        reached: dict[int, Instant] = {}
        for shard in range(kafka.partitions):
            commits = (await asyncio.to_thread(fold, kafka.settings, shard)).commits
            if commits:
                found = await asyncio.to_thread(folded, shard, commits)
                reached[shard] = found.watermark[0]
                state.add(found)
        await _recorded(cassandra.history, reached)
        yield Source("cluster", state, cassandra.jobs, cassandra.history, cassandra.outputs)


async def _recorded(history: History, reached: dict[int, Instant]) -> None:
    """Waits until history holds what the schedulers had decided. Raises FailedPrecondition."""
    deadline = time.monotonic() + LAG_WAIT_S
    while True:
        lags = [until - await history.complete_until(shard) for shard, until in reached.items()]
        if max(lags, default=0) <= 0:
            return
        if time.monotonic() > deadline:
            raise FailedPrecondition(
                f"history is {max(lags) / 1000:.0f} s behind the schedulers: let an Execution Service run until it is not"
            )
        await asyncio.sleep(LAG_LOOK_S)


@asynccontextmanager
async def target(config: Config) -> AsyncIterator[Target]:
    """The cluster of the settings, running or not. Raises Unavailable, ConfigError, FailedPrecondition."""
    async with _servers(config) as (kafka, cassandra):
        promise = Promise(cassandra.intents, Publisher(cassandra.jobs, kafka.feed), uuid.uuid4().hex)
        publication = Publication(kafka.feed, now, promise)
        try:
            yield Target(cassandra.jobs, CassandraMoving(cassandra), publication)
        finally:
            await publication.close()
