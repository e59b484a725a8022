"""Use cases of executions: what runs or waits now (asked from the owners) and what ended (from history), as one list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from dts import bounds
from dts.errors import FailedPrecondition, NotFound, OutcomeUnknown, Unavailable
from dts.model import (
    Cancel,
    Cause,
    Execution,
    ExecutionQuery,
    Instant,
    JobState,
    Key,
    Output,
    Range,
    Retry,
    ShardId,
    Status,
    StoredJob,
    new_key,
)
from dts.ports import History, JobStore, Live, OutputStore
from dts.schedule import format_duration
from dts.services.ids import command_id

FOLLOW_POLL_S = 1.0  # a follower looks at least so often whether the execution has ended
END_POLL_S = 0.05  # ... and so often once all its output is there
REST_S = 2.0  # the verdict may come before the last of the output: for the rest of what began, a follower waits so long
FIRST_S = 1.0  # ... and so long where nothing was written yet, since of an attempt that writes nothing nothing comes
SCANNED_PAGES = 20  # store pages looked through for one page of a list that is filtered here
VERDICT_RANGES = 10_000  # ranges looked at for one page of verdicts

OPEN = frozenset({Status.QUEUED, Status.PLACED, Status.RETRYING})
ENDED = frozenset(status for status in Status if status.terminal)


class Wanted(NamedTuple):
    """Which executions; `running`: of the placed ones only those that have started, or only those that have not."""

    query: ExecutionQuery
    running: bool | None = None
    cause: Cause | None = None

    def shows(self, found: Execution) -> bool:
        """Whether an execution that the query gives is wanted."""
        if self.cause is not None and found.cause is not self.cause:
            return False
        return self.running is None or (found.end.started > 0) == self.running


class Page(NamedTuple):
    """Newest first. `next`: the last one seen, when there is more."""

    executions: Sequence[Execution]
    next: Key | None
    total: int
    lower_bound: bool  # there are more than `total`


class Piece(NamedTuple):
    """Of a followed output: `cut` bytes are not kept, then `data`; `status` closes the stream."""

    attempt: int
    data: bytes
    cut: int = 0
    status: str = ""


class Verdicts(NamedTuple):
    """Newest first. `next`: the last one, when there is more."""

    found: Sequence[Execution | Range]
    next: Execution | Range | None


def order(found: Execution | Range) -> tuple[Instant, str, int, str]:
    """Of verdicts; newest first means descending. A range stands at its last instant, before the executions of its job."""
    if isinstance(found, Range):
        return found.until, found.job, 1, f"{found.revision:020d}"
    return found.key.at, found.key.job, 0, found.key.nonce


class ExecutionService:
    """Executions over history, the owners' live view, and what attempts wrote."""

    def __init__(
        self,
        store: JobStore,
        live: Live,
        history: History,
        outputs: OutputStore,
        clock: Callable[[], Instant],
        projected: Sequence[ShardId] = (),
    ) -> None:
        """`projected`: the shards whose history comes after the fact (the cluster); none: it is there with the commit."""
        self._projected = projected
        self._store = store
        self._live = live
        self._history = history
        self._outputs = outputs
        self.now = clock

    # ---- read ----

    async def get(self, key: Key) -> tuple[Execution, Sequence[Execution]]:
        """An execution and its earlier attempts. Raises NotFound."""
        live = await self._live.execution(key)
        ended = await self._history.execution(key)  # asked last: it may have ended between the two questions
        if ended is not None:
            return ended
        if live is None:
            await self._check_recorded(key)
            raise NotFound("execution", str(key))
        return live, await self._history.attempts(key)

    async def _check_recorded(self, key: Key) -> None:
        """Raises Unavailable for an execution that history may yet come to: nobody knows then that it never was."""
        now = self.now()
        if not self._projected or key.at > now:
            return
        reached = min([await self._history.complete_until(shard) for shard in self._projected])
        if key.at > reached:
            behind = format_duration(now - reached) if reached else "as long as there are jobs"
            raise Unavailable(
                f"execution {str(key)!r} is not in the record yet, which is behind by {behind}: ask again"
            )

    async def check_job(self, job: str) -> None:
        """Raises NotFound for a job that never was; a deleted one's history is still told."""
        if job not in await self._store.get([job]):
            raise NotFound("job", job)

    async def page(self, wanted: Wanted, before: Key | None, limit: int) -> Page:
        """A page, newest first by (scheduled time, job, nonce), strictly before a key."""
        page, last = await self.found(wanted, before, limit)
        if wanted.cause is not None:  # no store counts by it
            return Page(page, last, len(page), last is not None)
        total, lower = await self._count(wanted)
        return Page(page, last, total, lower)

    async def found(self, wanted: Wanted, before: Key | None, limit: int) -> tuple[Sequence[Execution], Key | None]:
        """A page without counting: the executions, and the last one looked at when there may be more."""
        found: list[Execution] = []
        more = True
        for _ in range(SCANNED_PAGES):
            some = await self._some(wanted.query, before, limit + 1)
            found += [each for each in some if wanted.shows(each)]
            more = len(some) > limit
            if some:
                before = some[-1].key
            if not more or len(found) > limit:
                break
        page = found[:limit]
        return page, page[-1].key if len(found) > limit else before if more else None

    async def _some(self, query: ExecutionQuery, before: Key | None, limit: int) -> list[Execution]:
        """Open and ended ones merged; the owners are asked first, since an execution only moves from them to history."""
        merged: dict[Key, Execution] = {}
        if not query.statuses or query.statuses & OPEN:
            opened = await self._live.executions(query, before, limit)
            merged = {each.key: each for each in opened}
        if not query.statuses or query.statuses & ENDED:
            ended = await self._history.executions(query, before, limit)
            merged |= {each.key: each for each in ended}
        newest = sorted(merged.values(), key=lambda each: (each.key.at, each.key.job, each.key.nonce), reverse=True)
        return newest[:limit]

    async def _count(self, wanted: Wanted) -> tuple[int, bool]:
        query, most = wanted.query, bounds.COUNTED_EXECUTIONS
        if wanted.running is not None:
            opened = await self._live.executions(query, None, most)
            return sum(wanted.shows(each) for each in opened), len(opened) == most
        total = await self._live.count(query) if not query.statuses or query.statuses & OPEN else 0
        ended = await self._history.count(query, most) if not query.statuses or query.statuses & ENDED else 0
        return total + ended, ended >= most

    # ---- act ----

    async def cancel(self, key: Key, reason: str) -> tuple[Execution, Sequence[Execution]]:
        """Ends an open execution as CANCELLED; how it is once the owner has decided. Raises NotFound, FailedPrecondition."""
        found, _ = await self.cancellable(key)
        await self.cancel_found(found, reason)
        return await self.get(key)

    async def cancellable(self, key: Key) -> tuple[Execution, Sequence[Execution]]:
        """An open execution. Raises NotFound, FailedPrecondition."""
        found, earlier = await self.get(key)
        if found.status.terminal:
            raise FailedPrecondition(
                f"execution {str(key)!r} has ended as {found.status.name}: there is nothing to cancel"
            )
        return found, earlier

    async def cancel_found(self, found: Execution, reason: str, request_id: str = "") -> None:
        """Ends it; returns when the owner has decided, or has not for ANSWER_WAIT_S. Raises FailedPrecondition."""
        now, key = self.now(), found.key
        command = command_id(request_id, f"cancel\0{key}")
        cancel = Cancel(command, key, now, now + bounds.COMMAND_EXPIRY_MS, reason, found.group)
        with suppress(OutcomeUnknown):  # it is durable: the owner will come to it
            await self._live.submit(cancel)

    async def retry(self, key: Key, arguments: bytes = b"", request_id: str = "") -> str:
        """A new execution of an ended one's job: its id. Raises NotFound, FailedPrecondition."""
        found, _ = await self.get(key)
        return await self.retry_found(found, arguments, request_id)

    async def retriable(self, found: Execution) -> StoredJob:
        """The job of an execution that could be retried. Raises NotFound, FailedPrecondition."""
        if not found.status.terminal:
            raise FailedPrecondition(f"execution {str(found.key)!r} has not ended: cancel it first")
        row = (await self._store.get([found.key.job])).get(found.key.job)
        if row is None or row.state is JobState.DELETED:
            raise NotFound("job", found.key.job)
        if row.state is JobState.CANCELLED:
            raise FailedPrecondition(f"job {found.key.job!r} is cancelled: resume it first")
        return row

    async def retry_found(self, found: Execution, arguments: bytes, request_id: str) -> str:
        """A new execution of an ended one's job: its id. Raises NotFound, FailedPrecondition."""
        row, key, now = await self.retriable(found), found.key, self.now()
        command = command_id(request_id, str(key))
        retry = Retry(command, key, now, now + bounds.COMMAND_EXPIRY_MS, row.revision, arguments, row.group)
        try:
            return await self._live.submit(retry)
        except OutcomeUnknown:
            return str(new_key(retry))

    # ---- output ----

    async def output(self, key: Key, attempt: int) -> Output:
        """What an attempt wrote (0: the last). Raises NotFound for an execution or attempt that is not there."""
        found, _ = await self.get(key)
        if attempt > found.attempt:
            raise NotFound(f"attempt {attempt} of execution", str(key))
        output = await self._outputs.get(key, attempt)
        if output is not None:
            return output
        done = found.status.terminal or 0 < attempt < found.attempt
        return Output(attempt or found.attempt, b"", b"", 0, 0, done)

    async def follow(self, key: Key, attempt: int) -> AsyncIterator[Piece]:
        """An attempt's output as it is written; attempt 0: from the present one on, until the execution ends. Raises NotFound."""
        found, _ = await self.get(key)
        if attempt > found.attempt:
            raise NotFound(f"attempt {attempt} of execution", str(key))
        current, sent = attempt or max(found.attempt, 1), 0
        while True:
            output = await self._outputs.wait(key, current, sent, FOLLOW_POLL_S)
            if output is not None and output.size > sent:
                for data, cut in pieces(output, sent):
                    yield Piece(current, data, cut)
                sent = output.size
                continue
            found, _ = await self.get(key)
            over = found.status.terminal or (current < found.attempt)
            if not over:
                if output is not None and output.complete:  # all was written, the worker's report is on its way
                    await asyncio.sleep(END_POLL_S)
                continue
            if found.attempt and await self._more(key, current, sent):
                continue
            if attempt or (found.status.terminal and current >= found.attempt):
                yield Piece(current, b"", 0, found.status.name)
                return
            current, sent = current + 1, 0

    async def _more(self, key: Key, attempt: int, sent: int) -> bool:
        """Of an attempt that is over: whether more than `sent` bytes are there, now or shortly."""
        output = await self._outputs.get(key, attempt)
        output = await self._outputs.wait(key, attempt, sent, FIRST_S if output is None else REST_S)
        return output is not None and output.size > sent

    # ---- events and verdicts ----

    def watch(self, job: str) -> AsyncIterator[Execution | Range | int]:
        """Transitions and ranges as they are committed (of one job, or of all); an int: so many were left out."""
        return self._live.watch(job)

    async def verdicts(
        self, query: ExecutionQuery, kinds: tuple[bool, bool], before: Execution | Range | None, limit: int
    ) -> Verdicts:
        """Verdicts of due instants, newest first. `kinds`: executions wanted, ranges wanted. The query's `until` is set."""
        if before is not None:
            query = query._replace(until=min(query.until, order(before)[0] + 1))
        executions = await self._due(query, before, limit + 1) if kinds[0] else []
        if len(executions) > limit:
            query = query._replace(start=max(query.start, executions[-1].key.at))
        ranges = await self._ranges(query, before, limit + 1) if kinds[1] else []
        both: list[Execution | Range] = [*executions, *ranges]
        both.sort(key=order, reverse=True)
        page = both[:limit]
        return Verdicts(page, page[-1] if len(both) > limit else None)

    async def _due(self, query: ExecutionQuery, before: Execution | Range | None, limit: int) -> list[Execution]:
        """Ended executions of due instants that come after `before` in the list."""
        found: list[Execution] = []
        cursor = _cursor(before)
        for _ in range(SCANNED_PAGES):
            some = await self._history.executions(query, cursor, limit)
            found += [
                each
                for each in some
                if each.cause is Cause.SCHEDULE and (before is None or order(each) < order(before))
            ]
            if len(some) < limit or len(found) >= limit:
                break
            cursor = some[-1].key
        return found[:limit]

    async def _ranges(self, query: ExecutionQuery, before: Execution | Range | None, limit: int) -> list[Range]:
        """The newest ranges that end in [start, until). The store gives the oldest first: the span is halved until it fits."""
        start = query.start
        while True:
            found: list[Range] = []
            after: Range | None = None
            while len(found) < VERDICT_RANGES:
                some = await self._history.ranges(query.job, start, query.until, after, limit)
                found += [each for each in some if start <= each.until < query.until]
                if len(some) < limit or some[-1].until >= query.until:
                    after = None
                    break
                after = some[-1]
            if after is None or query.until - start <= 1:
                wanted = [each for each in found if before is None or order(each) < order(before)]
                return sorted(wanted, key=order, reverse=True)[:limit]
            start = (start + query.until) // 2


def _cursor(before: Execution | Range | None) -> Key | None:
    """A key that is not before anything wanted."""
    if before is None:
        return None
    if isinstance(before, Range):
        return Key(before.job, before.until, "~")
    return before.key


def pieces(output: Output, sent: int) -> Iterator[tuple[bytes, int]]:
    """What is kept from byte `sent` on, each piece with how many bytes before it are not."""
    if sent < len(output.head):
        yield output.head[sent:], 0
        sent = len(output.head)
    if sent < output.size:
        start = output.size - len(output.tail)
        yield output.tail[max(0, sent - start) :], max(0, start - sent)
