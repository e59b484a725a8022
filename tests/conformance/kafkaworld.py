"""Kafka as a world: topics of its own with one partition, on the real broker. What Kafka does not keep is kept in memory.

Its faults are real ones. Refused: a record that its topic does not take goes into the transaction, so the broker makes it
abort. Unknown: the first answer is not waited for.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Sequence

from confluent_kafka import KafkaError, TopicPartition

from dts.adapters.kafka.reading import bounds_of, reader, take
from dts.adapters.kafka.settings import KafkaSettings, Topics
from dts.adapters.kafka.store import KafkaStore
from dts.adapters.kafka.transactions import Transactions
from dts.adapters.memory import Fate, MemoryHistory, MemoryJobs, MemoryOutputs, MemoryStore
from dts.model import Commit, Outcome, ShardId
from dts.ports import JobFeed, Ledger
from tests import servers

logging.getLogger("dts.kafka.client").setLevel(logging.CRITICAL + 1)  # fenced producers are what these tests are about

_numbers = itertools.count()
NO_TIME_S = 0.001


def fresh_settings(partitions: int = 1) -> KafkaSettings:
    """Topics, group and transactional ids that nothing else uses."""
    name = f"t{os.getpid()}-{next(_numbers)}"
    topics = Topics(*(f"{name}-{each}" for each in Topics()))
    return KafkaSettings(servers.servers().kafka, name, topics, partitions)


class Told:
    """The ledger; what is committed is told to a history, as the projector would do it."""

    def __init__(self, ledger: Ledger, history: MemoryHistory) -> None:
        self._ledger, self._history = ledger, history
        self.ownership, self.open = ledger.ownership, ledger.open
        self.wants_snapshot, self.snapshot = ledger.wants_snapshot, ledger.snapshot

    async def commit(self, commit: Commit) -> Outcome:
        return self._tell(commit, await self._ledger.commit(commit))

    async def resolve(self, commit: Commit) -> Outcome:
        return self._tell(commit, await self._ledger.resolve(commit))

    def _tell(self, commit: Commit, outcome: Outcome) -> Outcome:
        if outcome is Outcome.COMMITTED:
            self._history.record(commit)
        return outcome


class KafkaWorldStore:
    """What the suites see."""

    def __init__(self, store: KafkaStore, rest: MemoryStore) -> None:
        self.store = store
        self.feed: JobFeed = store.feed
        self.ledger: Ledger = Told(store.ledger, rest.history)
        self.jobs: MemoryJobs = rest.jobs
        self.history: MemoryHistory = rest.history
        self.outputs: MemoryOutputs = rest.outputs

    async def close(self) -> None:
        await self.store.close()


class KafkaWorld:
    """See worlds.World."""

    def __init__(self) -> None:
        self.now = 0
        self.settings = fresh_settings()
        self._rest = MemoryStore(clock=lambda: self.now)
        self._fate = Fate.COMMITTED

    async def open(self) -> KafkaWorldStore:
        return KafkaWorldStore(await KafkaStore.open(self.settings, self._probe), self._rest)

    def _probe(self, point: str, transactions: Transactions) -> None:
        if point == "produced" and self._fate is not Fate.COMMITTED:
            if self._fate in (Fate.REFUSED, Fate.UNKNOWN_REFUSED):
                # Without a key: a compacted topic does not take it.
                transactions.producer.produce(self.settings.topics.jobs, b"poison", partition=0)
            if self._fate is not Fate.REFUSED:
                transactions.wait_s = NO_TIME_S
        if point == "committed":
            transactions.wait_s, self._fate = 5.0, Fate.COMMITTED

    def next_fate(self, fate: Fate) -> None:
        self._fate = fate

    def remove(self) -> None:
        pass


async def records(settings: KafkaSettings, topic: str, shard: ShardId = 0) -> Sequence[bytes]:
    """The committed values of a partition."""

    def read() -> list[bytes]:
        consumer = reader(settings, eof=True)
        found: list[bytes] = []
        try:
            low, _ = bounds_of(consumer, topic, shard)
            consumer.assign([TopicPartition(topic, shard, low)])
            while True:
                for message in take(consumer, 1_000, 1):
                    error = message.error()
                    if error is None:
                        found.append(message.value() or b"")
                    elif error.code() == KafkaError._PARTITION_EOF:
                        return found
        finally:
            consumer.close()

    return await asyncio.to_thread(read)
