"""One SQLite file behind five ports."""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from dts.adapters.sqlite.check import check_file
from dts.adapters.sqlite.feed import Feed
from dts.adapters.sqlite.history import SqliteHistory
from dts.adapters.sqlite.jobs import Jobs
from dts.adapters.sqlite.ledger import SqliteLedger
from dts.adapters.sqlite.outputs import SqliteOutputs
from dts.adapters.sqlite.problems import explain
from dts.adapters.sqlite.reader import Reader
from dts.adapters.sqlite.schema import SYNCHRONOUS, connect, migrate, prepare_writer
from dts.adapters.sqlite.writer import Faults, Writer
from dts.errors import ConfigError, Unavailable
from dts.model import Instant, Position


def _system_clock() -> Instant:
    return time.time_ns() // 1_000_000


class SqliteStore:
    """`ledger`, `jobs`, `feed`, `history` and `outputs` over one file; `file_id` was drawn when the file was made.

    One process at a time (lock.ServerLock says so to a person; the shard's epoch is what fences).
    """

    def __init__(
        self, path: Path, conn: sqlite3.Connection, faults: Faults | None, clock: Callable[[], Instant]
    ) -> None:
        self.path = path
        self.file_id: str = conn.execute("SELECT value FROM meta WHERE name = 'file_id'").fetchone()[0]
        last = _last_position(conn)
        self.writer = Writer(conn, path, faults)
        self.reader = Reader(path)
        self.ledger = SqliteLedger(path, self.writer, self.reader)
        self.feed = Feed(self.writer, self.reader, last)
        self.jobs = Jobs(self.writer, self.reader, self.feed)
        self.history = SqliteHistory(self.writer, self.reader, self.ledger)
        self.outputs = SqliteOutputs(self.writer, self.reader, clock)

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        synchronous: str = "FULL",
        faults: Faults | None = None,
        clock: Callable[[], Instant] = _system_clock,
    ) -> SqliteStore:
        """Opens or makes the file. Raises StoreDamaged, Unavailable (cannot be opened or written) or ConfigError (another
        program's file, a later version's, an unknown `synchronous`); then the file is as it was."""
        if synchronous.upper() not in SYNCHRONOUS:
            raise ConfigError(f"synchronous is {synchronous!r}, not one of {', '.join(SYNCHRONOUS)}")
        file = Path(path)
        conn = await asyncio.get_running_loop().run_in_executor(None, _connect, file, synchronous.upper())
        return cls(file, conn, faults, clock)

    @property
    def health(self) -> str:
        """'' or why the last write failed."""
        return self.writer.health

    async def close(self) -> None:
        """Finishes what is queued; the file is marked as cleanly closed."""
        self.ledger.closing.set()
        await self.writer.close()
        await self.reader.close()


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_file(path)
    except OSError as error:
        raise Unavailable(f"cannot open {path} ({error.strerror}): make its folder readable and writable") from error
    try:
        conn = connect(path, "mode=rwc")
        try:
            prepare_writer(conn, synchronous)
            migrate(conn, uuid.uuid4().hex)
            conn.execute("UPDATE state SET clean = 0")
        except BaseException:
            conn.close()
            raise
    except sqlite3.Error as error:
        raise explain(error, path) from error
    return conn


def _last_position(conn: sqlite3.Connection) -> Position:
    """Of all that the feed ever gave out."""
    found = conn.execute(
        "SELECT max((SELECT coalesce(max(pos), 0) FROM revisions), (SELECT coalesce(max(definitions), 0) FROM shard)),"
        " max((SELECT coalesce(max(pos), 0) FROM commands), (SELECT coalesce(max(commands), 0) FROM shard))"
    ).fetchone()
    return found[0], found[1]
