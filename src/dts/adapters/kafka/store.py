"""What a process opens: the topics checked, ledger and feed over one set of settings."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from dts.adapters.kafka.feed import KafkaFeed
from dts.adapters.kafka.group import Membership
from dts.adapters.kafka.ledger import KafkaLedger, Sampled, no_samples
from dts.adapters.kafka.settings import KafkaSettings
from dts.adapters.kafka.topics import prepare
from dts.adapters.kafka.transactions import Probe, no_probe

THREADS = 64  # what blocks on brokers at once: one a shard owned


class KafkaStore:
    """`ledger` and `feed`; the ledger joins the group when its `ownership` is asked for."""

    def __init__(
        self, settings: KafkaSettings, partitions: int, probe: Probe = no_probe, sampled: Sampled = no_samples
    ) -> None:
        self.settings = settings
        self.partitions = partitions
        self._pool = ThreadPoolExecutor(THREADS, "kafka")
        self._membership = Membership(settings)
        self.ledger = KafkaLedger(settings, self._membership, self._pool, probe, sampled)
        self.feed = KafkaFeed(settings, partitions)

    @classmethod
    async def open(cls, settings: KafkaSettings, probe: Probe = no_probe, sampled: Sampled = no_samples) -> KafkaStore:
        """Makes or checks the topics. Raises ConfigError with all that is wrong, Unavailable. `sampled` is told the brokers' time."""
        partitions = await asyncio.to_thread(prepare, settings)
        return cls(settings, partitions, probe, sampled)

    async def leave(self) -> None:
        """Leaves the group: the others take the shards over, without waiting for a session to end."""
        await self._membership.close()

    async def close(self) -> None:
        """Leaves the group, lets the shards go, ends the threads."""
        await self._membership.close()
        await self.ledger.close()
        await self.feed.close()
        self._pool.shutdown()
