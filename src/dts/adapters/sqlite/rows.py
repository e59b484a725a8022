"""What a commit leaves in history: rows of ended executions, attempts, ranges and terms."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from dts.adapters.ended import ended_as
from dts.adapters.sqlite.bulk import Insert, Row
from dts.model import NO_END, Block, Cause, Close, End, Execution, Key, Range, ShardId, Status, Term

_ended_blocks = Insert("INSERT INTO ended_blocks", 11)
_executions = Insert("INSERT INTO executions", 13)
_attempts = Insert("INSERT OR IGNORE INTO attempts", 14)
_ranges = Insert("INSERT OR REPLACE INTO ranges", 6)
_terms = Insert("INSERT OR REPLACE INTO terms", 7)

# Columns of an Execution, from executions or attempts (as e) joined with ended_blocks (as b).
EXECUTION = (
    "e.job, e.at, e.nonce, e.revision, e.status, b.cause, b.queued, b.placed, b.not_before, b.worker,"
    " b.fencing, b.reason, b.retry_of, e.started, e.ended, e.code, e.error, e.result, e.kind, e.enforced"
)


def write_ended(conn: sqlite3.Connection, blocks: Sequence[Block], first: int) -> None:
    """Executions that reached their verdict; rows of ended_blocks are numbered from `first`. Raises sqlite3.Error."""
    shared: list[Row] = []
    rows: list[Row] = []
    for id, block in enumerate(blocks, first):
        status, last = int(block.status), max(key.at for key in block.keys)
        if block.ends:
            rows += [
                (key[1], key[0], key[2], revision, status, id, *end)
                for key, revision, end in zip(block.keys, block.revisions, block.ends, strict=True)
            ]
            last = max(last, *(end[1] for end in block.ends))
        else:
            rows += [
                (key[1], key[0], key[2], revision, status, id, 0, 0, 0, "", "", "", "")
                for key, revision in zip(block.keys, block.revisions, strict=True)
            ]
        shared.append(_shared_row(id, last, block))
    _ended_blocks(conn, shared)
    _executions(conn, rows)


def write_attempts(conn: sqlite3.Connection, blocks: Sequence[Block], first: int) -> None:
    """Attempts that were not their execution's last; the first record of an attempt stands. Raises sqlite3.Error."""
    shared: list[Row] = []
    rows: list[Row] = []
    for id, block in enumerate(blocks, first):
        ends: Sequence[End] = block.ends or [NO_END] * len(block.keys)
        status = ended_as(block)
        for key, revision, end in zip(block.keys, block.revisions, ends, strict=True):
            rows.append((key.at, key.job, key.nonce, block.attempt, revision, status, id, *end))
        shared.append(_shared_row(id, max(*(key.at for key in block.keys), *(end.ended for end in ends)), block))
    _ended_blocks(conn, shared)
    _attempts(conn, rows)


def _shared_row(id: int, last: int, block: Block) -> Row:
    return (
        id,
        last,
        block.attempt,
        str(block.cause.value),
        block.queued,
        block.placed,
        block.not_before,
        block.worker.id if block.worker else "",
        block.fencing,
        block.reason,
        block.retry_of,
    )


def write_ranges(conn: sqlite3.Connection, ranges: Sequence[Range]) -> None:
    """Raises sqlite3.Error."""
    _ranges(conn, [(each.until, each.job, each.revision, each.after, each.size, each.reason) for each in ranges])


def write_terms(conn: sqlite3.Connection, shard: ShardId, opened: Sequence[Term], closed: Sequence[Close]) -> None:
    """Raises sqlite3.Error."""
    _terms(conn, [(*term, shard) for term in opened])
    if closed:
        sql = (
            "UPDATE terms SET until = c.value ->> 2 FROM json_each(?) AS c"
            " WHERE job = c.value ->> 0 AND revision = c.value ->> 1"
        )
        conn.execute(sql, (json.dumps(closed),))


CAUSES = {cause.value: cause for cause in Cause}
STATUSES = {int(status): status for status in Status}


def execution_of(
    row: tuple[str, int, str, int, int, str, int, int, int, str, int, str, str, int, int, int, str, str, str, str],
    attempt: int,
) -> Execution:
    """From a row of EXECUTION."""
    job, at, nonce, revision, status, cause, queued, placed, not_before, worker, fencing, reason, retry_of = row[:13]
    return Execution(
        Key(job, at, nonce),
        revision,
        STATUSES[status],
        attempt,
        CAUSES[cause],
        queued,
        placed,
        not_before,
        worker,
        fencing,
        reason,
        retry_of,
        End(*row[13:]),
    )
