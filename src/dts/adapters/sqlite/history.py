"""History: written by the ledger in the commit's own transaction, read and forgotten here."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence

from dts.adapters.sqlite.ledger import SqliteLedger
from dts.adapters.sqlite.reader import Reader
from dts.adapters.sqlite.rows import EXECUTION, execution_of
from dts.adapters.sqlite.writer import Writer
from dts.model import Execution, ExecutionQuery, Instant, Key, Range, ShardId, Status, Term

PAGE = 2_000  # rows in one page of the audit
JOBS_AT_ONCE = 2_000  # jobs looked at for one page of the audit
NO_END_OF_TIME = 2**62  # an instant after all others

_JOIN = "JOIN ended_blocks AS b ON b.id = e.block"
_EXECUTIONS = f"SELECT {EXECUTION}, b.attempt FROM executions AS e {_JOIN}"
_ATTEMPTS = (
    f"SELECT {EXECUTION}, e.attempt FROM attempts AS e {_JOIN}"
    " WHERE e.job = ? AND e.at = ? AND e.nonce = ? ORDER BY e.attempt"
)


def _execution(row: tuple[object, ...]) -> Execution:
    return execution_of(row[:-1], row[-1])  # type: ignore[arg-type]  # STRICT tables hold the columns' types


def _where(query: ExecutionQuery) -> tuple[str, list[str | int]]:
    where, values = ["e.at >= ? AND e.at < ?"], [query.start, query.until or NO_END_OF_TIME]
    found: list[str | int] = [*values]
    if query.job:
        where.append("e.job = ?")
        found.append(query.job)
    ended = sorted(int(status) for status in query.statuses if status.terminal)
    if query.statuses:
        where.append(f"e.status IN ({', '.join(map(str, ended))})")
        if Status.COMPLETED not in query.statuses:
            where.append("e.status > 4")  # the words of the index of failures
    return " AND ".join(where), found


class SqliteHistory:
    """The port History over one file."""

    def __init__(self, writer: Writer, reader: Reader, ledger: SqliteLedger) -> None:
        self._writer = writer
        self._reader = reader
        self._ledger = ledger

    async def execution(self, key: Key) -> tuple[Execution, Sequence[Execution]] | None:
        """See ports.History."""

        def run(conn: sqlite3.Connection) -> tuple[Execution, Sequence[Execution]] | None:
            row = conn.execute(f"{_EXECUTIONS} WHERE e.job = ? AND e.at = ? AND e.nonce = ?", key).fetchone()
            if row is None:
                return None
            return _execution(row), [_execution(each) for each in conn.execute(_ATTEMPTS, key)]

        return await self._reader.read(run)

    async def attempts(self, key: Key) -> Sequence[Execution]:
        """See ports.History."""
        rows = await self._reader.read(lambda conn: conn.execute(_ATTEMPTS, key).fetchall())
        return [_execution(row) for row in rows]

    async def executions(self, query: ExecutionQuery, before: Key | None, limit: int) -> Sequence[Execution]:
        """See ports.History."""
        where, values = _where(query)
        if before is not None:
            where += " AND (e.at, e.job, e.nonce) < (?, ?, ?)"
            values += [before.at, before.job, before.nonce]
        sql = f"{_EXECUTIONS} WHERE {where} ORDER BY e.at DESC, e.job DESC, e.nonce DESC LIMIT ?"
        rows = await self._reader.read(lambda conn: conn.execute(sql, (*values, limit)).fetchall())
        return [_execution(row) for row in rows]

    async def count(self, query: ExecutionQuery, limit: int) -> int:
        """See ports.History."""
        where, values = _where(query)
        sql = f"SELECT count(*) FROM (SELECT 1 FROM executions AS e WHERE {where} LIMIT ?)"
        found: int = await self._reader.read(lambda conn: conn.execute(sql, (*values, limit)).fetchone()[0])
        return found

    async def last_ended(self, jobs: Sequence[str]) -> dict[str, Execution]:
        """See ports.History."""
        sql = f"{_EXECUTIONS} WHERE e.job = ? ORDER BY e.at DESC, e.nonce DESC LIMIT 1"

        def run(conn: sqlite3.Connection) -> dict[str, Execution]:
            rows = [(job, conn.execute(sql, (job,)).fetchone()) for job in jobs]
            return {job: _execution(row) for job, row in rows if row is not None}

        return await self._reader.read(run)

    async def ranges(
        self, job: str, start: Instant, until: Instant, after: Range | None, limit: int
    ) -> Sequence[Range]:
        """See ports.History. `until` 0: no upper end."""
        cursor = (after.until, after.job, after.revision) if after else (-1, "", 0)
        one = "job = ?" if job else "? = ''"
        sql = (
            f"SELECT job, revision, after, until, size, reason FROM ranges WHERE {one} AND until >= ? AND after < ?"
            " AND (until, job, revision) > (?, ?, ?) ORDER BY until, job, revision LIMIT ?"
        )
        values = (job, start, until - 1 if until else NO_END_OF_TIME, *cursor, limit)
        rows = await self._reader.read(lambda conn: conn.execute(sql, values).fetchall())
        return [Range(*row) for row in rows]

    async def scheduled(self, job: str, after: Instant, until: Instant) -> AsyncIterator[Sequence[Execution]]:
        """See ports.History."""
        last: tuple[str, Instant] | None = (job, after)
        while last is not None:
            start = last

            def run(
                conn: sqlite3.Connection, start: tuple[str, Instant] = start
            ) -> tuple[list[Execution], tuple[str, Instant] | None]:
                return _scheduled_page(conn, start, bool(job), after, until)

            page, last = await self._reader.read(run)
            if page:
                yield page

    async def terms(self, job: str, after: Instant, until: Instant) -> AsyncIterator[Sequence[Term]]:
        """See ports.History."""
        one = "job = ?" if job else "? = ''"
        sql = (
            f"SELECT job, revision, since, in_force, until, rules FROM terms WHERE {one} AND (job, revision) > (?, ?)"
            " AND since < ? AND (until IS NULL OR until > ?) ORDER BY job, revision LIMIT ?"
        )
        last = ("", 0)
        while True:
            values = (job, *last, until, after, PAGE)
            rows = await self._reader.read(lambda conn, values=values: conn.execute(sql, values).fetchall())  # type: ignore[misc]
            if rows:
                yield [Term(*row) for row in rows]
            if len(rows) < PAGE:
                return
            last = (rows[-1][0], rows[-1][1])

    async def complete_until(self, shard: ShardId) -> Instant:
        """See ports.History: as far as the ledger, since both are one transaction."""
        sql = "SELECT watermark_at FROM shard WHERE id = ?"
        row = await self._reader.read(lambda conn: conn.execute(sql, (shard,)).fetchone())
        return row[0] if row else 0

    async def forget(self, before: Instant, limit: int) -> int:
        """See ports.History. Ended terms go too; open ones stay."""
        await self._ledger.purge(before)
        return await self._writer.write(lambda conn: _forget(conn, before, limit))


def _scheduled_page(
    conn: sqlite3.Connection, start: tuple[str, Instant], one: bool, after: Instant, until: Instant
) -> tuple[list[Execution], tuple[str, Instant] | None]:
    """Up to PAGE executions from a place on, and the place to go on from (None: all are read)."""
    of_job = f"{_EXECUTIONS} WHERE e.job = ? AND e.at > ? AND e.at <= ? AND e.nonce = '' ORDER BY e.at LIMIT ?"
    page: list[Execution] = []
    job, at = start
    for _ in range(JOBS_AT_ONCE):
        wanted = PAGE - len(page)
        found = [_execution(row) for row in conn.execute(of_job, (job, at, until, wanted))] if job else []
        page += found
        if len(found) == wanted:
            return page, (job, found[-1].key.at)
        if one:
            return page, None
        job = conn.execute("SELECT min(job) FROM executions WHERE job > ?", (job,)).fetchone()[0] or ""
        if not job:
            return page, None
        at = after
    return page, (job, at)


def _forget(conn: sqlite3.Connection, before: Instant, limit: int) -> int:
    deletions = (
        ("executions", "at, job, nonce", "at < ? AND ended < ?", (before, before)),
        ("attempts", "at, job, nonce, attempt", "at < ? AND ended < ?", (before, before)),
        ("ranges", "until, job, revision, after", "until < ?", (before,)),
        ("terms", "job, revision", "until < ?", (before,)),
        ("ended_blocks", "id", "last < ?", (before,)),  # last: nothing refers to them when all before is gone
    )
    gone = 0
    for table, key, where, values in deletions:
        if gone >= limit:
            break
        wanted = f"SELECT {key} FROM {table} WHERE {where} LIMIT ?"
        gone += conn.execute(f"DELETE FROM {table} WHERE ({key}) IN ({wanted})", (*values, limit - gone)).rowcount
    return gone
