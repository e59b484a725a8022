"""OutputStore: one row an attempt, its head and tail; who follows an output waits in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from dts.adapters.output import Followers, empty, extend
from dts.adapters.sqlite.reader import Reader
from dts.adapters.sqlite.writer import Writer
from dts.model import Instant, Key, Output

_COLUMNS = "attempt, head, tail, size, complete"
Stored = tuple[int, bytes, bytes, int, int]


class SqliteOutputs:
    """The port OutputStore over one file. `clock` gives the present instant: outputs are kept by when they were written."""

    def __init__(self, writer: Writer, reader: Reader, clock: Callable[[], Instant]) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._followers = Followers()

    async def put(self, key: Key, attempt: int, offset: int, data: bytes, last: bool) -> None:
        """See ports.OutputStore."""
        name, now = str(key), self._clock()

        def run(conn: sqlite3.Connection) -> None:
            output = extend(_get(conn, name, attempt) or empty(attempt), offset, data, last)
            row = (name, attempt, output.head, output.tail, output.size, output.complete, now)
            conn.execute("INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?)", row)

        await self._writer.write(run, landed=lambda _: self._followers.tell(key))

    async def get(self, key: Key, attempt: int) -> Output | None:
        """See ports.OutputStore."""
        name = str(key)
        return await self._reader.read(lambda conn: _get(conn, name, attempt))

    async def wait(self, key: Key, attempt: int, size: int, timeout_s: float) -> Output | None:
        """See ports.OutputStore."""
        return await self._followers.wait(key, lambda: self.get(key, attempt), size, timeout_s)

    async def forget(self, before: Instant, limit: int) -> int:
        """See ports.OutputStore."""
        old = "SELECT key, attempt FROM outputs WHERE updated < ? LIMIT ?"
        sql = f"DELETE FROM outputs WHERE (key, attempt) IN ({old})"
        return await self._writer.write(lambda conn: conn.execute(sql, (before, limit)).rowcount)


def _get(conn: sqlite3.Connection, name: str, attempt: int) -> Output | None:
    which = "attempt = ?" if attempt else "attempt > ?"
    sql = f"SELECT {_COLUMNS} FROM outputs WHERE key = ? AND {which} ORDER BY attempt DESC LIMIT 1"
    row: Stored | None = conn.execute(sql, (name, attempt)).fetchone()
    if row is None:
        return None
    number, head, tail, size, complete = row
    return Output(number, head, tail, size - len(head) - len(tail), size, bool(complete))
