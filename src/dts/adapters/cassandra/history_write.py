"""The projector's end of history: what commits say becomes rows. Every write may be repeated, in any order of the repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dts.adapters.cassandra.history_rows import (
    BUCKET_MS,
    COLUMNS,
    DAY_MS,
    EXECUTION,
    Ended,
    Part,
    Retention,
    dated,
    ended,
    part_of,
    slot,
    values,
)
from dts.adapters.cassandra.session import Session, Value, in_flight
from dts.model import Close, Commit, Instant, Range, ShardId, Term

EXECUTION_DAYS, RANGE_DAYS = 0, 1  # kinds of history_days
BATCH_ROWS = 40  # rows of one partition that go together
PACKED_PARTITIONS = (
    10  # short partitions that go together, as many as a server takes without a warning: a third of its work
)
PACKED_BYTES = 4_000  # of these; likewise
ROW_BYTES = 150  # of a row without its texts
TOGETHER = 48  # batches under way at once: more would only wait, and time out, at the server
KNOWN = 200_000  # index rows (buckets, days, jobs) that this process has written already

_MARKS = ", ".join("?" * COLUMNS)
_DATED = "USING TIMESTAMP ? AND TTL ?"
_BY_JOB = f"INSERT INTO executions_by_job (job, day, at, nonce, number, {EXECUTION}) VALUES (?, ?, ?, ?, ?, {_MARKS}) {_DATED}"
_BY_TIME = (
    f"INSERT INTO executions_by_time (class, bucket, shard, at, job, nonce, {EXECUTION})"
    f" VALUES (?, ?, ?, ?, ?, ?, {_MARKS}) {_DATED}"
)
_BUCKET = "INSERT INTO execution_buckets (class, day, bucket, shard) VALUES (?, ?, ?, ?) USING TTL ?"
_DAY = "INSERT INTO history_days (kind, day) VALUES (?, ?) USING TTL ?"
_JOB = "INSERT INTO history_jobs (slot, job) VALUES (?, ?)"
_RANGE_BY_DAY = (
    f"INSERT INTO ranges_by_day (day, until, job, revision, after, size, reason) VALUES (?, ?, ?, ?, ?, ?, ?) {_DATED}"
)
_RANGE_BY_JOB = (
    f"INSERT INTO ranges_by_job (job, until, revision, after, size, reason) VALUES (?, ?, ?, ?, ?, ?) {_DATED}"
)
_OPEN_TERM = "INSERT INTO terms (job, revision, since, in_force, rules) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
_ENDED_TERM = f"INSERT INTO terms (job, revision, since, in_force, rules, until) VALUES (?, ?, ?, ?, ?, ?) {_DATED}"
_TERM = "SELECT since, in_force, rules FROM terms WHERE job = ? AND revision = ?"
_PROGRESS = "INSERT INTO history_progress (shard, watermark) VALUES (?, ?) USING TIMESTAMP ?"

Write = tuple[str, list[Value]]
Index = tuple[str, tuple[Value, ...]]


class HistoryWriter:
    """Turns commits into rows of a keyspace."""

    def __init__(self, session: Session, retention_days: int, clock: Callable[[], Instant]) -> None:
        self._session = session
        self._kept_ms = retention_days * DAY_MS
        self._clock = clock
        self._known: dict[Index, None] = {}

    async def write(self, commits: Sequence[Commit]) -> int:
        """Commits in the order in which they were made (of several shards, mixed as they like); how many rows.

        When it returns, `complete_until` says so. Raises Unavailable or OutcomeUnknown: the whole call is to be repeated.
        """
        keep = Retention(self._kept_ms, self._clock())
        terms = _Terms(self._session, keep)
        index: dict[Index, int] = {}
        groups: dict[tuple[Value, ...], list[Write]] = {}
        for commit in commits:
            for each in ended(commit):
                self._execution(each, commit.shard, keep, index, groups)
            for range_ in commit.ranges:
                self._range(range_, keep, index, groups)
            for term in commit.opened:
                terms.open(term)
            for close in commit.closed:
                terms.close(close)
            for job in {term.job for term in commit.opened} | {range_.job for range_ in commit.ranges}:
                index[_JOB, (slot(job), job)] = 0
        await self._add_index(index)
        batches = list(_packed(groups.values()))
        await in_flight(batches, self._write, TOGETHER)
        rows = sum(map(len, batches)) + await terms.write()
        await self._advance(commits)
        return rows

    def _execution(
        self,
        each: Ended,
        shard: ShardId,
        keep: Retention,
        index: dict[Index, int],
        groups: dict[tuple[Value, ...], list[Write]],
    ) -> None:
        execution, key = each.execution, each.execution.key
        ttl = keep.ttl(max(key.at, execution.end.ended))
        if ttl is None:
            return
        columns, day = values(execution), key.at // DAY_MS
        date: list[Value] = [dated(key.at, each.number), ttl]
        row: Write = (_BY_JOB, [key.job, day, key.at, key.nonce, each.number, *columns, *date])
        groups.setdefault((key.job, day), []).append(row)
        index[_JOB, (slot(key.job), key.job)] = 0
        _need(index, (_DAY, (EXECUTION_DAYS, day)), ttl)
        if each.final:
            part = part_of(execution, shard)
            _need(index, (_BUCKET, (part.kind, day, part.bucket, part.shard)), ttl)
            by_time: Write = (_BY_TIME, [*part, key.at, key.job, key.nonce, *columns, *date])
            groups.setdefault(part, []).append(by_time)

    def _range(
        self, of: Range, keep: Retention, index: dict[Index, int], groups: dict[tuple[Value, ...], list[Write]]
    ) -> None:
        ttl = keep.ttl(of.until)
        if ttl is None:
            return
        date: list[Value] = [dated(of.until, 0), ttl]
        day = of.until // DAY_MS
        _need(index, (_DAY, (RANGE_DAYS, day)), ttl)
        rest: list[Value] = [of.revision, of.after, of.size, of.reason]
        groups.setdefault(("ranges", day), []).append((_RANGE_BY_DAY, [day, of.until, of.job, *rest, *date]))
        groups.setdefault(("ranges", of.job), []).append((_RANGE_BY_JOB, [of.job, of.until, *rest, *date]))

    async def _add_index(self, index: dict[Index, int]) -> None:
        """What says where rows are, before the rows."""
        new = [(name, ttl) for name, ttl in index.items() if name not in self._known]
        groups: dict[tuple[Value, ...], list[Write]] = {}
        for (cql, key), ttl in new:
            row: Write = (cql, [*key] if cql == _JOB else [*key, ttl])
            groups.setdefault((cql, key[0]) if cql == _JOB else (cql, *key), []).append(row)
        await in_flight(_packed(groups.values()), self._write, TOGETHER)
        if len(self._known) + len(new) > KNOWN:
            self._known.clear()
        self._known.update((name, None) for name, _ in new)

    async def _write(self, rows: Sequence[Write]) -> None:
        statements = [await self._session.bind(cql, list(row)) for cql, row in rows]
        await _send(self._session, statements)

    async def _advance(self, commits: Sequence[Commit]) -> None:
        reached: dict[ShardId, Instant] = {}
        for commit in commits:
            reached[commit.shard] = max(reached.get(commit.shard, 0), commit.watermark[0])
        known = [(shard, watermark) for shard, watermark in reached.items() if watermark]
        await in_flight(known, lambda each: self._session.write(_PROGRESS, [*each, 1_000 * each[1] + 1]))


class _Terms:
    """Terms that commits open and end: those that ended get a TTL, and their other columns with it."""

    def __init__(self, session: Session, keep: Retention) -> None:
        self._session = session
        self._keep = keep
        self._opened: dict[tuple[str, int], Term] = {}
        self._closed: dict[tuple[str, int], Close] = {}

    def open(self, term: Term) -> None:
        self._opened[term.job, term.revision] = term

    def close(self, close: Close) -> None:
        self._closed[close.job, close.revision] = close

    async def write(self) -> int:
        """How many rows."""
        still = [term for name, term in self._opened.items() if name not in self._closed and term.until is None]
        over = [
            (term, term.until)
            for name, term in self._opened.items()
            if name not in self._closed and term.until is not None
        ]
        before = [close for name, close in self._closed.items() if name not in self._opened]
        over += [(self._opened[name], close.until) for name, close in self._closed.items() if name in self._opened]
        found = await in_flight(before, self._read)
        over += [(term, close.until) for term, close in zip(found, before, strict=True) if term is not None]
        await in_flight(
            still,
            lambda term: self._session.write(
                _OPEN_TERM, [term.job, term.revision, term.since, term.in_force, term.rules, 1_000 * term.since + 1]
            ),
        )
        await in_flight(over, lambda each: self._end(*each))
        return len(still) + len(over)

    async def _read(self, close: Close) -> Term | None:
        rows = await self._session.rows(_TERM, [close.job, close.revision])
        return Term(close.job, close.revision, rows[0][0], rows[0][1], None, rows[0][2]) if rows else None

    async def _end(self, term: Term, until: Instant) -> None:
        ttl = self._keep.ttl(until)
        row: list[Value] = [term.job, term.revision, term.since, term.in_force, term.rules, until]
        # An old one that is over goes at the next second: it may be there without a TTL.
        await self._session.write(_ENDED_TERM, [*row, 1_000 * term.since + 2, 1 if ttl is None else ttl])


def _need(index: dict[Index, int], name: Index, ttl: int) -> None:
    """An index row lives as long as the last of what it names; rows of its bucket that come later may live a bucket longer."""
    margin = max(BUCKET_MS.values()) // 1_000 + DAY_MS // 1_000
    index[name] = max(index.get(name, 0), ttl + margin) if ttl else 0


def _packed(groups: Iterable[Sequence[Write]]) -> Iterator[Sequence[Write]]:
    """Rows of one partition each in batches; those of short partitions together."""
    pack: list[Write] = []
    partitions = size = 0
    for rows in groups:
        if len(rows) >= PACKED_PARTITIONS:
            for start in range(0, len(rows), BATCH_ROWS):
                yield rows[start : start + BATCH_ROWS]
            continue
        bytes_ = sum(_size(row) for row in rows)
        if pack and (partitions == PACKED_PARTITIONS or size + bytes_ > PACKED_BYTES):
            yield pack
            pack, partitions, size = [], 0, 0
        pack += rows
        partitions, size = partitions + 1, size + bytes_
    if pack:
        yield pack


def _size(row: Write) -> int:
    return ROW_BYTES + sum(len(value) for value in row[1] if isinstance(value, str))


async def _send(session: Session, statements: Sequence[Any]) -> None:
    if len(statements) == 1:
        await session.execute(statements[0])
    else:
        await session.batch(statements, atomic=False)


__all__ = ["EXECUTION_DAYS", "RANGE_DAYS", "HistoryWriter", "Part"]
