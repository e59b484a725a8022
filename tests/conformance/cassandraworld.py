"""Cassandra as a world: jobs, history and outputs in a keyspace of the run; ledger and feed are in memory.

The history is a projection: each commit that is durable is written to it before the next thing happens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from dts.adapters.cassandra import CassandraStore
from dts.adapters.memory import Fate, MemoryFeed, MemoryLedger, MemoryStore
from dts.model import Commit, Outcome, ShardId
from tests.conformance import keyspace
from tests.servers import servers


class CassandraWorld:
    """See worlds.World."""

    def __init__(self) -> None:
        self.now = 0
        self._fate = Fate.COMMITTED
        self._log = MemoryStore(self._draw)

    def _draw(self, commit: Commit) -> Fate:
        del commit
        fate, self._fate = self._fate, Fate.COMMITTED
        return fate

    async def open(self) -> ProjectedStore:
        host, port = servers().cassandra
        store = await CassandraStore.open([host], port, await keyspace.name(), clock=lambda: self.now)
        return ProjectedStore(self._log, store)

    def next_fate(self, fate: Fate) -> None:
        self._fate = fate

    def remove(self) -> None:
        keyspace.empty()


class ProjectedStore:
    """What the suites see."""

    def __init__(self, log: MemoryStore, store: CassandraStore) -> None:
        self.store = store
        self.ledger = ProjectedLedger(log.ledger, store)
        self.feed: MemoryFeed = log.feed
        self.jobs = store.jobs
        self.history = store.history
        self.outputs = store.outputs

    async def close(self) -> None:
        await self.store.close()


class ProjectedLedger:
    """Commits to the log, then projects."""

    def __init__(self, log: MemoryLedger, store: CassandraStore) -> None:
        self._log, self._history = log, store.history
        self.wants_snapshot, self.snapshot = log.wants_snapshot, log.snapshot

    def ownership(self) -> AsyncIterator[frozenset[ShardId]]:
        return self._log.ownership()

    async def open(self, shard: ShardId) -> tuple[int, AsyncIterator[Commit]]:
        return await self._log.open(shard)

    async def commit(self, commit: Commit) -> Outcome:
        return await self._projected(commit, await self._log.commit(commit))

    async def resolve(self, commit: Commit) -> Outcome:
        return await self._projected(commit, await self._log.resolve(commit))

    async def _projected(self, commit: Commit, outcome: Outcome) -> Outcome:
        if outcome is Outcome.COMMITTED:
            await self._history.write([commit])
        return outcome
