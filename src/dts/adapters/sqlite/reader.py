"""Reads: a small pool of connections, each on a snapshot of the write-ahead log, in threads of their own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dts.adapters.sqlite.problems import explain
from dts.adapters.sqlite.schema import CACHE_KIB, connect
from dts.errors import Unavailable

READERS = 2  # threads, each with one connection

T = TypeVar("T")


class Reader:
    """Runs functions over a reading connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(READERS, "dts-sqlite-reader")
        self._mine = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._closed = False

    async def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """What `run` gives. It sees everything that was durable before the call. Raises Unavailable or StoreDamaged."""
        if self._closed:
            raise Unavailable(f"{self._path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, run)

    def _run(self, run: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return run(self._connection())
        except sqlite3.Error as error:
            raise explain(error, self._path) from error

    def _connection(self) -> sqlite3.Connection:
        conn: sqlite3.Connection | None = getattr(self._mine, "conn", None)
        if conn is None:
            conn = connect(self._path, "mode=rw")
            conn.execute("PRAGMA query_only=1")
            conn.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            self._mine.conn = conn
            self._all.append(conn)
        return conn

    async def close(self) -> None:
        """Waits for reads that are under way, then closes the connections."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        for conn in self._all:
            conn.close()
