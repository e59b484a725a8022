"""JobFeed: definitions are in the file already when they are published (JobStore wrote them); commands are written here.

A reader of the feed gets what the file holds after its position, then what is written from then on, without gap or
repeat: it listens before it reads, and leaves out what it has read already. One that falls behind reads the file again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Sequence

from dts import bounds
from dts.adapters.sqlite.reader import Reader
from dts.adapters.sqlite.shapes import COLUMNS, definition_of
from dts.adapters.sqlite.writer import Writer
from dts.codec import command_in, command_out
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Change, Command, Definition, Position, ShardId

PAGE = 5_000  # feed records read from the file at once


class _Listener:
    """What came since a reader began to listen; `missed`: more than it may hold, so the file must be read again."""

    def __init__(self) -> None:
        self.waiting: deque[Change] = deque()
        self.missed = False
        self.news = asyncio.Event()

    def push(self, changes: Sequence[Change]) -> None:
        if len(self.waiting) + len(changes) > bounds.INBOX_CHANGES:
            self.waiting.clear()
            self.missed = True
        elif not self.missed:
            self.waiting.extend(changes)
        self.news.set()


class Feed:
    """The port JobFeed over one file."""

    def __init__(self, writer: Writer, reader: Reader, last: Position) -> None:
        self._writer = writer
        self._reader = reader
        self._definitions, self._commands = last
        self._listeners: set[_Listener] = set()

    def take_definitions(self, count: int) -> int:
        """The first of `count` new positions (in the writer's thread; positions of refused writes stay unused)."""
        first = self._definitions + 1
        self._definitions += count
        return first

    def push(self, changes: Sequence[Change]) -> None:
        """To all who listen; what is pushed is durable."""
        for listener in self._listeners:
            listener.push(changes)

    async def publish(self, changes: Sequence[Definition | Command]) -> Sequence[Command]:
        """See ports.JobFeed."""
        commands = [change for change in changes if not isinstance(change, Definition)]
        known: list[Command] = []
        if not commands:
            return known

        def run(conn: sqlite3.Connection) -> list[Change]:
            known.clear()
            return self._insert(conn, commands, known)

        await self._writer.write(run, landed=self.push)
        return known

    def _insert(self, conn: sqlite3.Connection, commands: Sequence[Command], known: list[Command]) -> list[Change]:
        new = []
        for command in commands:
            pos = self._commands + 1
            row = (pos, command.id, command.expires, command_out(command).SerializeToString())
            sql = "INSERT OR IGNORE INTO commands (pos, id, expires, applied, command) VALUES (?, ?, ?, 0, ?)"
            if conn.execute(sql, row).rowcount == 1:
                self._commands = pos
                new.append(Change((0, pos), command))
            else:
                (blob,) = conn.execute("SELECT command FROM commands WHERE id = ?", (command.id,)).fetchone()
                known.append(command_in(log.Command.FromString(blob)))
        return new

    async def changes(self, shard: ShardId, after: Position) -> AsyncIterator[Sequence[Change]]:
        """See ports.JobFeed. A definition's position is (n, 0), a command's (0, n): the greater of each counts."""
        del shard  # one file is one shard
        listener = _Listener()
        self._listeners.add(listener)
        try:
            while True:
                listener.waiting.clear()
                listener.missed = False
                async for page in self._stored(after):
                    after = _reach(after, page)
                    yield page
                while not listener.missed:
                    await listener.news.wait()
                    listener.news.clear()
                    live = [change for change in listener.waiting if _beyond(change.position, after)]
                    listener.waiting.clear()
                    if live:
                        after = _reach(after, live)
                        yield live
        finally:
            self._listeners.discard(listener)

    async def _stored(self, after: Position) -> AsyncIterator[list[Change]]:
        definitions, commands = after
        while True:
            start = definitions
            page = await self._reader.read(lambda conn, start=start: _read_definitions(conn, start))  # type: ignore[misc]
            if page:
                definitions = page[-1].position[0]
                yield page
            if len(page) < PAGE:
                break
        while True:
            start = commands
            page = await self._reader.read(lambda conn, start=start: _read_commands(conn, start))  # type: ignore[misc]
            if page:
                commands = page[-1].position[1]
                yield page
            if len(page) < PAGE:
                break


def _beyond(position: Position, after: Position) -> bool:
    return position[0] > after[0] or position[1] > after[1]


def _reach(after: Position, changes: Sequence[Change]) -> Position:
    return (
        max(after[0], *(change.position[0] for change in changes)),
        max(after[1], *(change.position[1] for change in changes)),
    )


def _read_definitions(conn: sqlite3.Connection, after: int) -> list[Change]:
    sql = f"SELECT pos, {COLUMNS} FROM revisions WHERE pos > ? ORDER BY pos LIMIT ?"
    return [Change((row[0], 0), definition_of(row[1:])) for row in conn.execute(sql, (after, PAGE))]


def _read_commands(conn: sqlite3.Connection, after: int) -> list[Change]:
    sql = "SELECT pos, command FROM commands WHERE pos > ? AND applied = 0 ORDER BY pos LIMIT ?"
    rows = conn.execute(sql, (after, PAGE))
    return [Change((0, pos), command_in(log.Command.FromString(blob))) for pos, blob in rows]
