"""MoveTarget over one file that no server uses: history into its tables, jobs with a past that the feed does not tell.

A revision's `pos` is its place in the feed, which begins at 1. Those that are to be told to nobody lie at or below 0.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from dts.adapters.moving import earlier_blocks, last_blocks
from dts.adapters.sqlite.rows import write_attempts, write_ended, write_ranges, write_terms
from dts.adapters.sqlite.store import SqliteStore
from dts.model import MovedExecution, Range, Revision, Term

SHARD = 0  # one file is one shard

_KNOWN = (
    "SELECT e.job, e.at, e.nonce FROM json_each(?) AS k CROSS JOIN executions AS e"
    " ON e.at = k.value ->> 1 AND e.job = k.value ->> 0 AND e.nonce = k.value ->> 2"
)
_OUTPUT = "INSERT OR IGNORE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?)"


class SqliteMoving:
    """The port MoveTarget over one file."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def record(
        self, executions: Sequence[MovedExecution], ranges: Sequence[Range], terms: Sequence[Term]
    ) -> None:
        """See ports.MoveTarget."""
        await self._store.writer.write(lambda conn: _record(conn, executions, ranges, terms))

    async def adopt(self, jobs: Sequence[Sequence[Revision]]) -> None:
        """See ports.MoveTarget."""
        await self._store.jobs.adopt(jobs)


def _record(
    conn: sqlite3.Connection, executions: Sequence[MovedExecution], ranges: Sequence[Range], terms: Sequence[Term]
) -> None:
    keys = json.dumps([each.execution.key for each in executions])
    known = set(conn.execute(_KNOWN, (keys,)).fetchall())
    new = [each for each in executions if tuple(each.execution.key) not in known]
    first = conn.execute("SELECT coalesce(max(id), 0) + 1 FROM ended_blocks").fetchone()[0]
    last, earlier = last_blocks(new), earlier_blocks(new)
    if last:
        write_ended(conn, last, first)
    if earlier:
        write_attempts(conn, earlier, first + len(last))
    if ranges:
        write_ranges(conn, ranges)
    if terms:
        write_terms(conn, SHARD, terms, ())
    for each in new:
        name, written = str(each.execution.key), max(each.execution.key.at, each.execution.end.ended)
        rows = [(name, of.attempt, of.head, of.tail, of.size, of.complete, written) for of in each.outputs]
        conn.executemany(_OUTPUT, rows)
