"""OutputStore: a row an attempt, dated by how much was written, so that the longest wins whoever writes it and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from dts.adapters.cassandra.session import Session, Value, in_flight
from dts.adapters.output import Followers, empty, extend
from dts.model import Instant, Key, Output

CACHED = 1_024  # outputs that this process wrote last: who appends to one need not read it first
POLL_S = 0.5  # what another process writes is noticed so late
DAY_S = 86_400

_GET = "SELECT attempt, head, tail, size, complete FROM outputs WHERE job = ? AND at = ? AND nonce = ?"


class CassandraOutputs:
    """The port OutputStore over a keyspace."""

    def __init__(self, session: Session, days: int) -> None:
        self._session = session
        self._ttl = days * DAY_S
        self._written: dict[tuple[Key, int], Output] = {}
        self._turns: dict[tuple[Key, int], asyncio.Lock] = {}
        self._followers = Followers()

    async def put(self, key: Key, attempt: int, offset: int, data: bytes, last: bool) -> None:
        """See ports.OutputStore."""
        name = (key, attempt)
        turn = self._turns.setdefault(name, asyncio.Lock())
        async with turn:
            old = self._written.get(name)
            if old is None or old.size != offset:
                old = await self.get(key, attempt)
            new = extend(old or empty(attempt), offset, data, last)
            if new != old:
                await self._write(key, old, new)
                self._written.pop(name, None)
                if not new.complete:
                    self._written[name] = new
                while len(self._written) > CACHED:
                    del self._written[next(iter(self._written))]
        if self._turns.get(name) is turn and not turn.locked():
            del self._turns[name]
        self._followers.tell(key)

    async def _write(self, key: Key, old: Output | None, new: Output) -> None:
        values: list[Value] = [*key, new.attempt, new.size, new.complete]
        columns = "job, at, nonce, attempt, size, complete"
        if old is None or old.head != new.head:
            columns, values = f"{columns}, head", [*values, new.head]
        if old is None or old.tail != new.tail:
            columns, values = f"{columns}, tail", [*values, new.tail]
        marks = ", ".join("?" * len(values))
        cql = f"INSERT INTO outputs ({columns}) VALUES ({marks}) USING TIMESTAMP ? AND TTL ?"
        await self._session.write(cql, [*values, 2 * new.size + new.complete + 1, self._ttl])

    async def take(self, outputs: Sequence[tuple[Key, Output]]) -> None:
        """Whole outputs from elsewhere; of one that is there, the longer one stays."""
        await in_flight(outputs, lambda each: self._write(each[0], None, each[1]))

    async def get(self, key: Key, attempt: int) -> Output | None:
        """See ports.OutputStore."""
        one, values = "", list[Value](key)
        if attempt:
            one, values = " AND attempt = ?", [*values, attempt]
        rows = await self._session.rows(f"{_GET}{one} LIMIT 1", values)
        if not rows:
            return None
        number, head, tail, size, complete = rows[0]
        head, tail, size = head or b"", tail or b"", size or 0
        return Output(number, head, tail, size - len(head) - len(tail), size, bool(complete))

    async def wait(self, key: Key, attempt: int, size: int, timeout_s: float) -> Output | None:
        """See ports.OutputStore. What another process writes is noticed within POLL_S."""
        polling = asyncio.ensure_future(self._poll(key))
        try:
            return await self._followers.wait(key, lambda: self.get(key, attempt), size, timeout_s)
        finally:
            polling.cancel()
            with suppress(asyncio.CancelledError):
                await polling

    async def _poll(self, key: Key) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self._followers.tell(key)

    async def forget(self, before: Instant, limit: int) -> int:
        """See ports.OutputStore: nothing to do, each row ends by its TTL."""
        del before, limit
        return 0
