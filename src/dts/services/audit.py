"""The audit: streams revisions, terms and verdicts job by job through core/audit, beside what still runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from dts.core.audit import Facts, Tally, Window, audit_job
from dts.errors import FailedPrecondition
from dts.model import Cause, Definition, Execution, ExecutionQuery, Instant, Key, Range, ShardId, Term
from dts.ports import History, JobStore, Live
from dts.schedule import format_duration, rules_version
from dts.services.executions import OPEN

PAGE = 2_000  # open executions and ranges asked for at once
MAX_OPEN = 1_000_000  # open executions looked at in one audit
MAX_RANGES = 1_000_000  # ranges looked at in one audit
BATCH_FACTS = 20_000  # rows handed to the audit's thread at once

T = TypeVar("T", Definition, Term, Execution)


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit says."""

    tally: Tally
    complete_until: Instant
    notes: tuple[str, ...]


class AuditService:
    """Audits over the job store, history and the owners' live view."""

    def __init__(self, store: JobStore, live: Live, history: History, shards: Sequence[ShardId] = (0,)) -> None:
        self._store = store
        self._live = live
        self._history = history
        self._shards = shards

    async def audit(self, job: str, after: Instant, until: Instant) -> Audited:
        """Recomputes (after, until] of one job, or of all (''). Raises FailedPrecondition for a span that is too large.

        What is complete is asked first, what is open next, history last: so an execution that ends meanwhile is seen at least once.
        """
        shards, _, _ = await self._live.status()
        recorded = [await self._history.complete_until(shard) for shard in self._shards]
        complete = min([*recorded, *(shard.accounted for shard in shards)])
        window = Window(after, until, complete, rules_version())
        opened = await self._open(job, after, until)
        ranges = await self._ranges(job, after, until)
        total = Tally()
        async with (
            aclosing(_ByJob(self._store.definitions(job, until))) as definitions,
            aclosing(_ByJob(self._history.terms(job, after, until))) as terms,
            aclosing(_ByJob(self._history.scheduled(job, after, until))) as executions,
        ):
            batch: list[Facts] = []
            weight = 0
            while (name := await _first(definitions, terms, executions)) is not None:
                facts = Facts(
                    name,
                    await definitions.take(name),
                    await terms.take(name),
                    [*await executions.take(name), *opened.pop(name, ())],
                    ranges.pop(name, ()),
                )
                batch.append(facts)
                weight += len(facts.revisions) + len(facts.executions)
                if weight >= BATCH_FACTS:
                    total.add(await asyncio.to_thread(_audit_all, await self._suspended(batch), window))
                    batch, weight = [], 0
            left = [Facts(name, (), (), opened.get(name, ()), ranges.get(name, ())) for name in {*opened, *ranges}]
            batch = await self._suspended(batch)
            total.add(await asyncio.to_thread(_audit_all, [*batch, *left], window))
        return Audited(total, complete, _notes(total))

    async def _suspended(self, batch: list[Facts]) -> list[Facts]:
        """With since when jobs that pause after failures are suspended: their owners know."""
        watched = [each.job for each in batch if any(one.policies.pause_after for one in each.revisions)]
        views = await self._live.views(watched) if watched else {}
        since = {job: view.suspended for job, view in views.items() if view.suspended}
        return [each._replace(suspended=since[each.job]) if each.job in since else each for each in batch]

    async def _open(self, job: str, after: Instant, until: Instant) -> dict[str, list[Execution]]:
        """What still waits or runs, by job."""
        query = ExecutionQuery(job, OPEN, after + 1, until + 1)
        found: dict[str, list[Execution]] = {}
        before: Key | None = None
        for _ in range(MAX_OPEN // PAGE):
            some = await self._live.executions(query, before, PAGE)
            for each in some:
                if each.cause is Cause.SCHEDULE:
                    found.setdefault(each.key.job, []).append(each)
            if len(some) < PAGE:
                return found
            before = some[-1].key
        raise FailedPrecondition(f"more than {MAX_OPEN} executions are open in this span: audit a shorter one")

    async def _ranges(self, job: str, after: Instant, until: Instant) -> dict[str, list[Range]]:
        """Ranges that touch the span, by job."""
        found: dict[str, list[Range]] = {}
        last: Range | None = None
        for _ in range(MAX_RANGES // PAGE):
            some = await self._history.ranges(job, after + 1, until + 1, last, PAGE)
            for each in some:
                found.setdefault(each.job, []).append(each)
            if len(some) < PAGE:
                return found
            last = some[-1]
        raise FailedPrecondition(f"more than {MAX_RANGES} ranges touch this span: audit a shorter one, or one job")


class _ByJob(Generic[T]):
    """Pages that are sorted by job, taken a job at a time."""

    def __init__(self, pages: AsyncIterator[Sequence[T]]) -> None:
        self._pages: AsyncIterator[Sequence[T]] = pages
        self._page: Sequence[T] = ()
        self._at = 0

    async def job(self) -> str | None:
        """The job of the next row; None at the end."""
        while self._at >= len(self._page):
            page = await anext(self._pages, None)
            if page is None:
                return None
            self._page, self._at = page, 0
        return _job(self._page[self._at])

    async def take(self, job: str) -> list[T]:
        """All rows of a job, which must come next if there are any."""
        found: list[T] = []
        while await self.job() == job:
            start = self._at
            while self._at < len(self._page) and _job(self._page[self._at]) == job:
                self._at += 1
            found += self._page[start : self._at]
        return found

    async def aclose(self) -> None:
        """Ends the query behind the pages."""
        close = getattr(self._pages, "aclose", None)
        if close is not None:
            await close()


def _job(row: Definition | Term | Execution) -> str:
    return row.key.job if isinstance(row, Execution) else row.job


async def _first(*sources: _ByJob[Definition] | _ByJob[Term] | _ByJob[Execution]) -> str | None:
    names = [name for source in sources if (name := await source.job()) is not None]
    return min(names, default=None)


def _audit_all(batch: Sequence[Facts], window: Window) -> Tally:
    total = Tally()
    for facts in batch:
        total.add(audit_job(facts, window))
    return total


def _notes(tally: Tally) -> tuple[str, ...]:
    if not tally.stood:
        return ()
    longest = format_duration(tally.stood_ms)
    return (f"{tally.stood} were fired by the revision before, at most {longest} after a change: they stand",)
