"""Ledger: a commit is one operation of the writer, its fence the shard row's epoch and seq, checked inside it.

The file holds a snapshot of which each commit rewrites only the rows that changed; `open` yields it as one commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from dts.adapters.ended import ended_as
from dts.adapters.sqlite.blocks import OpenBlocks, Plan
from dts.adapters.sqlite.reader import Reader
from dts.adapters.sqlite.rows import write_attempts, write_ended, write_ranges, write_terms
from dts.adapters.sqlite.shapes import COLUMNS, definition_of
from dts.adapters.sqlite.writer import Writer
from dts.codec import (
    backfill_in,
    backfill_out,
    command_in,
    command_out,
    debt_in,
    debt_out,
    gaps_in,
    gaps_out,
    streak_in,
    streak_out,
)
from dts.errors import Bug, OutcomeUnknown, OwnershipLost, QueueFull, StoreDamaged, Unavailable
from dts.gen.log.v1 import log_pb2 as log
from dts.model import (
    LAST_JOB,
    Backfill,
    BackfillState,
    Commit,
    Definition,
    Instant,
    JobState,
    Outcome,
    ShardId,
    Streak,
    Term,
)

SHARD: ShardId = 0  # one file is one shard
COMMANDS_AT_ONCE = 64  # ids marked by one statement
FORGOTTEN_AT_ONCE = 256  # expired commands deleted in one commit

_MARK = f"UPDATE commands SET applied = 1 WHERE id IN ({', '.join('?' * COMMANDS_AT_ONCE)})"
_FENCED = (
    "UPDATE shard SET seq = ?, now = ?, watermark_at = ?, watermark_job = ?, definitions = ?, commands = ?, gaps = ?,"
    " waiting = ? WHERE id = ? AND epoch = ? AND seq = ?"
)


class SqliteLedger:
    """The port Ledger over one file."""

    def __init__(self, path: Path, writer: Writer, reader: Reader) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._open: dict[ShardId, OpenBlocks] = {}
        self._ended = 0  # the last row of ended_blocks
        self.closing = asyncio.Event()

    async def ownership(self) -> AsyncIterator[frozenset[ShardId]]:
        """See ports.Ledger: the file's one shard until the store is closed, then none."""
        yield frozenset({SHARD})
        await self.closing.wait()
        yield frozenset()

    async def open(self, shard: ShardId) -> tuple[int, AsyncIterator[Commit]]:
        """See ports.Ledger. The commit's seq is that of the last one; a new shard's is 0."""
        epoch = await self._writer.write(lambda conn: _raise_epoch(conn, shard))
        commit, blocks, ended = await self._reader.read(lambda conn: _load(conn, shard))
        if commit.epoch != epoch:
            raise self._lost(shard, epoch, commit.epoch)
        self._open[shard] = blocks
        self._ended = ended

        async def commits() -> AsyncIterator[Commit]:
            yield commit

        return epoch, commits()

    async def commit(self, commit: Commit) -> Outcome:
        """See ports.Ledger. REFUSED: the reason is in the store's `health`."""
        blocks = self._open.get(commit.shard)
        if blocks is None:
            raise Bug(f"shard {commit.shard} was not opened")

        def run(conn: sqlite3.Connection) -> tuple[Plan, int]:
            return self._write(conn, commit, blocks)

        def kept(done: tuple[Plan, int]) -> None:
            plan, ended = done
            blocks.apply(plan)
            self._ended = ended

        try:
            await self._writer.write(run, kept=kept)
        except OutcomeUnknown:
            return Outcome.UNKNOWN
        except (Unavailable, QueueFull, StoreDamaged):
            return Outcome.REFUSED
        return Outcome.COMMITTED

    async def resolve(self, commit: Commit) -> Outcome:
        """See ports.Ledger."""
        try:
            await self._writer.settle()
        except (Unavailable, OutcomeUnknown) as error:
            raise OwnershipLost(f"the store was closed before commit {commit.seq} was known: {error}") from error
        sql = "SELECT epoch, seq FROM shard WHERE id = ?"
        epoch, seq = await self._reader.read(lambda conn: conn.execute(sql, (commit.shard,)).fetchone())
        if epoch != commit.epoch:
            raise self._lost(commit.shard, commit.epoch, epoch)
        return Outcome.COMMITTED if seq == commit.seq else Outcome.REFUSED

    def wants_snapshot(self, shard: ShardId) -> bool:
        """See ports.Ledger: the file holds state, not a log."""
        del shard
        return False

    async def snapshot(self, commits: Sequence[Commit]) -> None:
        """See ports.Ledger: there is nothing to shorten."""

    async def purge(self, before: Instant) -> None:
        """Before history forgets executions of instants before `before`: their keys leave the open blocks' rows."""
        for blocks in list(self._open.values()):

            def run(conn: sqlite3.Connection, blocks: OpenBlocks = blocks) -> Plan:
                plan = blocks.plan_purge(before)
                blocks.write(conn, plan)
                return plan

            await self._writer.write(run, kept=blocks.apply)

    def _write(self, conn: sqlite3.Connection, commit: Commit, blocks: OpenBlocks) -> tuple[Plan, int]:
        self._fence(conn, commit)
        plan = blocks.plan(commit.blocks)
        blocks.write(conn, plan)
        told = [block for block in commit.blocks if block.keys and ended_as(block)]
        ended = [block for block in told if block.status.terminal]
        tried = [block for block in told if not block.status.terminal]
        first = self._ended + 1
        if ended:
            write_ended(conn, ended, first)
        if tried:
            write_attempts(conn, tried, first + len(ended))
        if commit.ranges:
            write_ranges(conn, commit.ranges)
        if commit.opened or commit.closed:
            write_terms(conn, commit.shard, commit.opened, commit.closed)
        for job, owed in commit.owed:
            if owed:
                debt = debt_out(job, owed).SerializeToString()
                conn.execute("INSERT OR REPLACE INTO owed VALUES (?, ?, ?)", (commit.shard, job, debt))
            else:
                conn.execute("DELETE FROM owed WHERE shard = ? AND job = ?", (commit.shard, job))
        if commit.streaks:
            _write_streaks(conn, commit.shard, commit.streaks)
        if commit.backfills:
            _write_backfills(conn, commit.shard, commit.backfills)
        if commit.commands:
            _mark(conn, commit.commands, commit.now)
        return plan, self._ended + len(ended) + len(tried)

    def _fence(self, conn: sqlite3.Connection, commit: Commit) -> None:
        waiting = log.Commands(commands=[command_out(each) for each in commit.waiting])
        values = (
            commit.seq,
            commit.now,
            *commit.watermark,
            *commit.applied,
            gaps_out(commit.gaps).SerializeToString(),
            waiting.SerializeToString(),
            commit.shard,
            commit.epoch,
            commit.seq - 1,
        )
        if conn.execute(_FENCED, values).rowcount == 1:
            return
        epoch, seq = conn.execute("SELECT epoch, seq FROM shard WHERE id = ?", (commit.shard,)).fetchone()
        if epoch != commit.epoch:
            raise self._lost(commit.shard, commit.epoch, epoch)
        raise Bug(f"commit {commit.seq} of shard {commit.shard} follows {seq}")

    def _lost(self, shard: ShardId, own: int, now: int) -> OwnershipLost:
        return OwnershipLost(f"another server took over {self._path} (shard {shard}: epoch {now}, ours was {own})")


def _raise_epoch(conn: sqlite3.Connection, shard: ShardId) -> int:
    new = "INSERT OR IGNORE INTO shard VALUES (?, 0, 0, 0, 0, ?, 0, 0, x'', x'')"
    conn.execute(new, (shard, LAST_JOB))
    conn.execute("UPDATE shard SET epoch = epoch + 1 WHERE id = ?", (shard,))
    epoch: int = conn.execute("SELECT epoch FROM shard WHERE id = ?", (shard,)).fetchone()[0]
    return epoch


def _mark(conn: sqlite3.Connection, ids: Sequence[bytes], now: Instant) -> None:
    for at in range(0, len(ids), COMMANDS_AT_ONCE):
        some = list(ids[at : at + COMMANDS_AT_ONCE])
        conn.execute(_MARK, some + some[-1:] * (COMMANDS_AT_ONCE - len(some)))
    old = "SELECT pos FROM commands WHERE applied = 1 AND expires < ? LIMIT ?"
    conn.execute(f"DELETE FROM commands WHERE pos IN ({old})", (now, FORGOTTEN_AT_ONCE))


def _write_streaks(conn: sqlite3.Connection, shard: ShardId, streaks: Sequence[Streak]) -> None:
    for each in streaks:
        if each == Streak(each.job):
            conn.execute("DELETE FROM streaks WHERE shard = ? AND job = ?", (shard, each.job))
        else:
            row = (shard, each.job, streak_out(each).SerializeToString())
            conn.execute("INSERT OR REPLACE INTO streaks VALUES (?, ?, ?)", row)


def _write_backfills(conn: sqlite3.Connection, shard: ShardId, backfills: Sequence[Backfill]) -> None:
    for each in backfills:
        if each.state is BackfillState.FORGOTTEN:
            conn.execute("DELETE FROM backfills WHERE shard = ? AND nonce = ?", (shard, each.nonce))
        else:
            row = (shard, each.nonce, each.began, backfill_out(each).SerializeToString())
            conn.execute("INSERT OR REPLACE INTO backfills VALUES (?, ?, ?, ?)", row)


def _load(conn: sqlite3.Connection, shard: ShardId) -> tuple[Commit, OpenBlocks, int]:
    """The whole state of a shard, from one snapshot."""
    conn.execute("BEGIN")
    try:
        sql = "SELECT epoch, seq, now, watermark_at, watermark_job, definitions, commands, gaps, waiting FROM shard WHERE id = ?"
        epoch, seq, now, at, job, definitions, commands, gaps, waiting = conn.execute(sql, (shard,)).fetchone()
        last, ended = conn.execute(
            "SELECT (SELECT coalesce(max(id), 0) FROM open_blocks), (SELECT coalesce(max(id), 0) FROM ended_blocks)"
        ).fetchone()
        open_blocks = OpenBlocks(shard, last + 1)
        blocks = open_blocks.load(conn)
        opened, in_force = _load_terms(conn, shard)
        current = {(term.job, term.revision) for term in opened}
        debts = conn.execute("SELECT debt FROM owed WHERE shard = ?", (shard,))
        owed = [debt_in(log.Debt.FromString(debt)) for (debt,) in debts]
        streaks = conn.execute("SELECT streak FROM streaks WHERE shard = ?", (shard,)).fetchall()
        backfills = conn.execute("SELECT backfill FROM backfills WHERE shard = ? ORDER BY began, nonce", (shard,))
        commit = Commit(
            shard=shard,
            epoch=epoch,
            seq=seq,
            now=now,
            watermark=(at, job),
            applied=(definitions, commands),
            blocks=blocks,
            opened=opened,
            definitions=in_force,
            kept=_load_revisions(conn, sorted(open_blocks.revisions() - current)),
            owed=owed,
            gaps=gaps_in(log.Gaps.FromString(gaps)),
            commands=[id for (id,) in conn.execute("SELECT id FROM commands WHERE applied = 1")],
            waiting=[command_in(each) for each in log.Commands.FromString(waiting).commands],
            backfills=[backfill_in(log.Backfill.FromString(each)) for (each,) in backfills],
            streaks=[streak_in(log.Streak.FromString(each)) for (each,) in streaks],
        )
    finally:
        conn.execute("COMMIT")
    return commit, open_blocks, ended


def _columns(since: str) -> str:
    """Of a revision (as r), but for `since`: that is as it was applied, earlier or later than the revision says."""
    return ", ".join(since if name == "since" else f"r.{name}" for name in COLUMNS.split(", "))


def _load_terms(conn: sqlite3.Connection, shard: ShardId) -> tuple[list[Term], list[Definition]]:
    sql = (
        f"SELECT t.since, t.in_force, t.rules, {_columns('t.since')} FROM terms AS t INDEXED BY terms_open"
        " JOIN revisions AS r ON r.job = t.job AND r.revision = t.revision"
        " WHERE t.shard = ? AND t.until IS NULL AND r.state <> ? ORDER BY t.job, t.revision"
    )
    terms, definitions = [], []
    rules: dict[str, str] = {}
    for row in conn.execute(sql, (shard, JobState.DELETED)):
        definition = definition_of(row[3:])
        definitions.append(definition)
        same = rules.setdefault(row[2], row[2])
        terms.append(Term(definition.job, definition.revision, row[0], row[1], None, same))
    return terms, definitions


def _load_revisions(conn: sqlite3.Connection, wanted: Sequence[tuple[str, int]]) -> list[Definition]:
    sql = (
        f"SELECT {_columns('coalesce(t.since, r.since)')} FROM revisions AS r"
        " LEFT JOIN terms AS t ON t.job = r.job AND t.revision = r.revision WHERE r.job = ? AND r.revision = ?"
    )
    found = (conn.execute(sql, each).fetchone() for each in wanted)
    return [definition_of(row) for row in found if row is not None]
