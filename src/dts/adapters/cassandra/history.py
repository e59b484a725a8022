"""History: by job and day for one job's past, by time for everybody's. What has no rows costs nothing: the days, buckets and
jobs that have some are written down."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from dts.adapters.cassandra.history_rows import (
    BUCKET_MS,
    COMPLETED,
    DAY_MS,
    EXECUTION,
    OTHERS,
    RANKS,
    SLOTS,
    Part,
    class_of,
    execution_of,
)
from dts.adapters.cassandra.history_write import EXECUTION_DAYS, RANGE_DAYS, HistoryWriter
from dts.adapters.cassandra.session import Row, Session, in_flight
from dts.model import Cause, Commit, Execution, ExecutionQuery, Instant, Key, Range, ShardId, Status, Term

PAGE = 2_000  # rows in one page of the audit
JOBS_AT_ONCE = 500  # jobs looked at for one page of the audit
READ_PAGE = 500  # rows of one partition read at once
END_OF_TIME = 2**53

_ONE = f"SELECT number, {EXECUTION} FROM executions_by_job WHERE job = ? AND day = ? AND at = ? AND nonce = ?"
_OF_DAY = (
    f"SELECT at, nonce, number, {EXECUTION} FROM executions_by_job WHERE job = ? AND day = ? AND at >= ? AND at < ?"
)
_OF_PART = (
    f"SELECT at, job, nonce, {EXECUTION} FROM executions_by_time WHERE class = ? AND bucket = ? AND shard = ?"
    " AND at >= ? AND at < ?"
)
_DAYS = "SELECT day FROM history_days WHERE kind = ? AND day >= ? AND day <= ?"
_BUCKETS = "SELECT bucket, shard FROM execution_buckets WHERE class = ? AND day = ? AND bucket >= ? AND bucket <= ?"
_RANGES_OF_DAY = "SELECT job, revision, after, until, size, reason FROM ranges_by_day WHERE day = ? AND until >= ?"
_RANGES_OF_JOB = "SELECT job, revision, after, until, size, reason FROM ranges_by_job WHERE job = ? AND until >= ?"
_JOBS = "SELECT job FROM history_jobs WHERE slot = ? AND job > ?"
_TERMS = "SELECT job, revision, since, in_force, until, rules FROM terms WHERE job = ?"


def _final(number: int) -> bool:
    return (number - 1) % RANKS + 1 >= Status.COMPLETED


def _earlier(key: Key, rows: Sequence[Row]) -> list[Execution]:
    """What the rows of one execution say of attempts that were not its last."""
    found = [execution_of(key, row[1:]) for row in rows if not _final(row[0])]
    earlier = {each.attempt: each for each in found}
    return [earlier[number] for number in sorted(earlier)]


class CassandraHistory:
    """The port History over a keyspace; `write` is the projector's."""

    def __init__(self, session: Session, retention_days: int, clock: Callable[[], Instant]) -> None:
        self._session = session
        self._writer = HistoryWriter(session, retention_days, clock)

    async def write(self, commits: Sequence[Commit]) -> int:
        """See HistoryWriter.write."""
        return await self._writer.write(commits)

    async def execution(self, key: Key) -> tuple[Execution, Sequence[Execution]] | None:
        """See ports.History."""
        rows = await self._one(key)
        if not rows or not _final(rows[0][0]):
            return None
        return execution_of(key, rows[0][1:]), _earlier(key, rows)

    async def attempts(self, key: Key) -> Sequence[Execution]:
        """See ports.History."""
        return _earlier(key, await self._one(key))

    async def _one(self, key: Key) -> Sequence[Row]:
        return await self._session.rows(_ONE, [key.job, key.at // DAY_MS, key.at, key.nonce])

    async def executions(self, query: ExecutionQuery, before: Key | None, limit: int) -> Sequence[Execution]:
        """See ports.History."""
        found: list[Execution] = []
        async for each in self._newest_first(query, before):
            found.append(each)
            if len(found) == limit:
                break
        return found

    async def count(self, query: ExecutionQuery, limit: int) -> int:
        """See ports.History. Reads what it counts."""
        return len(await self.executions(query, None, limit))

    async def last_ended(self, jobs: Sequence[str]) -> dict[str, Execution]:
        """See ports.History."""
        days = await self._days(EXECUTION_DAYS, 0, END_OF_TIME)

        async def last(job: str) -> Execution | None:
            async for each in self._of_job(job, days, 0, END_OF_TIME, size=8):
                return each
            return None

        found = await in_flight(jobs, last)
        return {job: each for job, each in zip(jobs, found, strict=True) if each is not None}

    async def ranges(
        self, job: str, start: Instant, until: Instant, after: Range | None, limit: int
    ) -> Sequence[Range]:
        """See ports.History."""
        edge = (after.until, after.job, after.revision) if after else (-1, "", 0)
        first = max(start, edge[0], 0)
        found: list[Range] = []
        async for row in self._range_rows(job, first):
            each = Range(*row)
            if (each.until, each.job, each.revision) > edge and (not until or each.after < until - 1):
                found.append(each)
                if len(found) == limit:
                    break
        return found

    async def scheduled(self, job: str, after: Instant, until: Instant) -> AsyncIterator[Sequence[Execution]]:
        """See ports.History."""
        days = await self._days(EXECUTION_DAYS, after + 1, until)

        async def all_of(job: str) -> list[Execution]:
            found = [each async for each in self._of_job(job, days, after + 1, until + 1, READ_PAGE)]
            return [each for each in reversed(found) if each.cause is Cause.SCHEDULE and not each.key.nonce]

        async for jobs in self._jobs(job):
            page: list[Execution] = []
            for found in await in_flight(jobs, all_of):
                page += found
                if len(page) >= PAGE:
                    yield page
                    page = []
            if page:
                yield page

    async def terms(self, job: str, after: Instant, until: Instant) -> AsyncIterator[Sequence[Term]]:
        """See ports.History."""
        async for jobs in self._jobs(job):
            found = await in_flight(jobs, lambda each: self._session.rows(_TERMS, [each]))
            terms = [Term(*row) for rows in found for row in rows if row[2] is not None]
            page = [term for term in terms if term.since < until and (term.until is None or term.until > after)]
            if page:
                yield page

    async def complete_until(self, shard: ShardId) -> Instant:
        """See ports.History."""
        rows = await self._session.rows("SELECT watermark FROM history_progress WHERE shard = ?", [shard])
        return int(rows[0][0]) if rows else 0

    async def forget(self, before: Instant, limit: int) -> int:
        """See ports.History: nothing to do, each row ends by its TTL."""
        del before, limit
        return 0

    # ---- how it reads ----

    async def _newest_first(self, query: ExecutionQuery, before: Key | None) -> AsyncIterator[Execution]:
        start, until = query.start, query.until or END_OF_TIME
        if before is not None:
            until = min(until, before.at + 1)
        edge = (before.at, before.job, before.nonce) if before else None
        days = await self._days(EXECUTION_DAYS, start, until - 1)
        found = (
            self._of_job(query.job, days, start, until, READ_PAGE)
            if query.job
            else self._of_all(query.statuses, days, start, until)
        )
        async for each in found:
            key = each.key
            fits = not query.statuses or each.status in query.statuses
            if fits and (edge is None or (key.at, key.job, key.nonce) < edge):
                yield each

    async def _days(self, kind: int, start: Instant, last: Instant) -> list[int]:
        """Days with rows, newest first."""
        rows = await self._session.rows(_DAYS, [kind, start // DAY_MS, min(last // DAY_MS, 2**31 - 1)])
        return [row[0] for row in rows]

    async def _of_job(
        self, job: str, days: Iterable[int], start: Instant, until: Instant, size: int
    ) -> AsyncIterator[Execution]:
        """Verdicts of a job, newest first."""
        for day in days:
            async for page in self._session.pages(_OF_DAY, [job, day, start, until], size):
                for at, nonce, number, *row in page:
                    if _final(number):
                        yield execution_of(Key(job, at, nonce), tuple(row))

    async def _of_all(
        self, statuses: frozenset[Status], days: Iterable[int], start: Instant, until: Instant
    ) -> AsyncIterator[Execution]:
        """Verdicts of all jobs, newest first: hour by hour, and of completed ones minute by minute."""
        ended = [status for status in statuses if status.terminal]
        kinds = {class_of(status) for status in ended} if statuses else {COMPLETED, OTHERS}
        for day in days:
            others = await self._buckets(OTHERS, day, start, until) if OTHERS in kinds else {}
            completed = await self._buckets(COMPLETED, day, start, until) if COMPLETED in kinds else {}
            hours: dict[int, list[int]] = {hour: [] for hour in others}
            for minute in completed:
                hours.setdefault(minute * BUCKET_MS[COMPLETED] // BUCKET_MS[OTHERS], []).append(minute)
            for hour in sorted(hours, reverse=True):
                async for each in self._of_hour(hour, others.get(hour, []), completed, hours[hour], start, until):
                    yield each

    async def _of_hour(
        self,
        hour: int,
        others: Sequence[Part],
        completed: dict[int, list[Part]],
        minutes: Iterable[int],
        start: Instant,
        until: Instant,
    ) -> AsyncIterator[Execution]:
        """What failed in that hour is read once, and merged with each of its minutes."""
        upper = min(until, (hour + 1) * BUCKET_MS[OTHERS])
        for minute in sorted(minutes, reverse=True):
            lower = max(start, minute * BUCKET_MS[COMPLETED])
            async for each in self._merged([*others, *completed[minute]], lower, upper):
                yield each
            upper = min(upper, lower)
        async for each in self._merged(others, max(start, hour * BUCKET_MS[OTHERS]), upper):
            yield each

    async def _merged(self, parts: Sequence[Part], start: Instant, until: Instant) -> AsyncIterator[Execution]:
        """Verdicts of a few partitions between two instants, newest first."""
        if start >= until or not parts:
            return
        readers = [self._of_part(part, start, until) for part in parts]
        heads = [(reader, await anext(reader, None)) for reader in readers]
        heap = [(_Newest(head), place) for place, (_, head) in enumerate(heads) if head is not None]
        heapq.heapify(heap)
        while heap:
            newest, place = heap[0]
            yield newest.execution
            following = await anext(readers[place], None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (_Newest(following), place))

    async def _of_part(self, part: Part, start: Instant, until: Instant) -> AsyncIterator[Execution]:
        async for page in self._session.pages(_OF_PART, [*part, start, until], READ_PAGE):
            for at, job, nonce, *row in page:
                yield execution_of(Key(job, at, nonce), tuple(row))

    async def _buckets(self, kind: int, day: int, start: Instant, until: Instant) -> dict[int, list[Part]]:
        size = BUCKET_MS[kind]
        rows = await self._session.rows(_BUCKETS, [kind, day, start // size, (until - 1) // size])
        found: dict[int, list[Part]] = {}
        for bucket, shard in rows:
            found.setdefault(bucket, []).append(Part(kind, bucket, shard))
        return found

    async def _range_rows(self, job: str, first: Instant) -> AsyncIterator[Row]:
        if job:
            async for page in self._session.pages(_RANGES_OF_JOB, [job, first]):
                for row in page:
                    yield row
            return
        for day in reversed(await self._days(RANGE_DAYS, first, END_OF_TIME)):
            async for page in self._session.pages(_RANGES_OF_DAY, [day, first]):
                for row in page:
                    yield row

    async def _jobs(self, job: str) -> AsyncIterator[Sequence[str]]:
        """The job, or all that history speaks of, in order."""
        if job:
            yield [job]
            return
        cql, after = f"{_JOBS} LIMIT {JOBS_AT_ONCE}", ""
        while True:
            slots = await in_flight(
                range(SLOTS),
                lambda slot, after=after: self._session.rows(cql, [slot, after]),  # type: ignore[misc]
            )
            merged: Iterable[Row] = heapq.merge(*slots)
            jobs = [row[0] for row in merged][:JOBS_AT_ONCE]
            if jobs:
                yield jobs
            if len(jobs) < JOBS_AT_ONCE:
                return
            after = jobs[-1]


class _Newest:
    """Orders executions newest first."""

    __slots__ = ("execution", "order")

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.order = (execution.key.at, execution.key.job, execution.key.nonce)

    def __lt__(self, other: _Newest) -> bool:
        return self.order > other.order

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Newest) and self.order == other.order

    def __hash__(self) -> int:
        return hash(self.order)
