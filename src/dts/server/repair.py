"""`dts repair jobs`: the topic `jobs` compared with Cassandra, and made right."""

from __future__ import annotations

import asyncio
import time

from dts.adapters.cassandra import CassandraStore
from dts.adapters.kafka.feed import KafkaFeed
from dts.adapters.kafka.notices import KafkaNotices
from dts.adapters.kafka.topics import prepare
from dts.config import Config
from dts.model import Instant
from dts.server.cluster import kafka_settings
from dts.services.publication import Publisher
from dts.services.tidying import Repair, Tidier

__all__ = ["Repair", "repair_jobs"]


def _now() -> Instant:
    return time.time_ns() // 1_000_000


async def repair_jobs(config: Config, *, dry_run: bool) -> Repair:
    """Once. Raises Unavailable, ConfigError, FailedPrecondition (a keyspace that is not migrated)."""
    settings = kafka_settings(config, "dts-repair")
    partitions = await asyncio.to_thread(prepare, settings)
    of = config.cassandra
    store = await CassandraStore.open(of.hosts, of.port, of.keyspace)
    feed = KafkaFeed(settings, partitions)
    try:
        await store.check()
        publisher = Publisher(store.jobs, feed)
        return await Tidier(store.jobs, KafkaNotices(settings, partitions), publisher, _now).repair(dry_run)
    finally:
        await feed.close()
        await store.close()
