"""What `dts export` and `dts import` read and write: both ends of a move, and the embedded file as either of them."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from dts.adapters.sqlite import SqliteStore, lock
from dts.adapters.sqlite.export import backup
from dts.adapters.sqlite.moving import SHARD, SqliteMoving
from dts.core.shard import folded
from dts.model import Instant
from dts.ports import History, JobStore, MoveTarget, OutputStore
from dts.services.moving import State
from dts.services.publication import Publication


class Source(NamedTuple):
    """What an export reads."""

    name: str
    state: State
    jobs: JobStore
    history: History
    outputs: OutputStore


class Target(NamedTuple):
    """What an import writes."""

    jobs: JobStore
    moving: MoveTarget
    publication: Publication


def now() -> Instant:
    """The wall clock."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def source(database: Path, out: Path) -> AsyncIterator[Source]:
    """A consistent copy, in the folder of the export, of a file that may be in use."""
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".dts-export-") as folder:
        copy = Path(folder) / "copy.db"
        await asyncio.to_thread(backup, database, copy)
        store = await SqliteStore.open(copy, synchronous="OFF")
        try:
            state = State()
            _, commits = await store.ledger.open(SHARD)
            state.add(folded(SHARD, [commit async for commit in commits]))
            yield Source("embedded", state, store.jobs, store.history, store.outputs)
        finally:
            await store.close()


@asynccontextmanager
async def target(database: Path) -> AsyncIterator[Target]:
    """A file that no server uses, made if it is not there. Raises StoreBusy naming the server, StoreDamaged, Unavailable."""
    held = lock.ServerLock(database)
    held.acquire(datetime.fromtimestamp(now() / 1000, UTC).isoformat(timespec="seconds"), {})
    try:
        store = await SqliteStore.open(database)
        try:
            yield Target(store.jobs, SqliteMoving(store), Publication(store.feed, now))
        finally:
            await store.close()
    finally:
        held.release()
