"""The adapters under test, each behind the same few handles: open, close and reopen, and the fate of the next commit."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from dts.adapters.memory import Fate, MemoryStore
from dts.adapters.sqlite import SqliteStore
from dts.model import Commit
from dts.ports import History, JobFeed, JobStore, Ledger, OutputStore

T = TypeVar("T")


class Store(Protocol):
    """One adapter's ports over one store."""

    @property
    def ledger(self) -> Ledger: ...
    @property
    def jobs(self) -> JobStore: ...
    @property
    def feed(self) -> JobFeed: ...
    @property
    def history(self) -> History: ...
    @property
    def outputs(self) -> OutputStore: ...
    async def close(self) -> None: ...


class World(Protocol):
    """A store that outlives the processes (here: objects) that open it. `now` is what its clock says."""

    now: int

    async def open(self) -> Store: ...
    def next_fate(self, fate: Fate) -> None: ...
    def remove(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.now = 0
        self._fate = Fate.COMMITTED
        self._store = MemoryStore(self._draw, lambda: self.now)

    def _draw(self, commit: Commit) -> Fate:
        del commit
        fate, self._fate = self._fate, Fate.COMMITTED
        return fate

    async def open(self) -> Store:
        return self._store

    def next_fate(self, fate: Fate) -> None:
        self._fate = fate

    def remove(self) -> None:
        pass


class DiskError(sqlite3.OperationalError):
    sqlite_errorcode = sqlite3.SQLITE_IOERR


class SqliteWorld:
    """Its faults: an error before or after COMMIT, and one more when the outcome is to be settled."""

    def __init__(self) -> None:
        self.now = 0
        self._folder = Path(tempfile.mkdtemp(prefix="dts-world-"))
        self._faults: list[str] = []

    async def open(self) -> SqliteStore:
        path = self._folder / "dts.db"
        return await SqliteStore.open(path, synchronous="OFF", faults=self._fault, clock=lambda: self.now)

    def _fault(self, point: str) -> None:
        if self._faults and self._faults[0] == point:
            self._faults.pop(0)
            raise DiskError(f"disk I/O error (injected at {point})")

    def next_fate(self, fate: Fate) -> None:
        self._faults = {
            Fate.COMMITTED: [],
            Fate.REFUSED: ["begin"],
            Fate.UNKNOWN_COMMITTED: ["committed", "settle", "settle"],
            Fate.UNKNOWN_REFUSED: ["commit", "settle", "settle"],
        }[fate]

    def remove(self) -> None:
        shutil.rmtree(self._folder)


WORLDS: dict[str, Callable[[], World]] = {"sqlite": SqliteWorld, "memory": MemoryWorld}
KAFKA = "kafka"
WITH_KAFKA = (*sorted(WORLDS), KAFKA)  # the kinds of a ledger and of a feed
CASSANDRA = "cassandra"
WITH_CASSANDRA = (*sorted(WORLDS), CASSANDRA)  # the kinds of a job store, a history and an output store


def make_world(kind: str) -> World:
    """A fresh one. "kafka" and "cassandra" start the servers unless they run."""
    if kind == KAFKA:
        from tests.conformance.kafkaworld import KafkaWorld

        return KafkaWorld()
    if kind == CASSANDRA:
        from tests.conformance.cassandraworld import CassandraWorld

        return CassandraWorld()
    return WORLDS[kind]()


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[Store]:
    """A store that is closed at the end."""
    store = await world.open()
    try:
        yield store
    finally:
        await store.close()


async def collect(pages: AsyncIterator[Sequence[T]]) -> list[T]:
    """All items of all pages."""
    return [item async for page in pages for item in page]
