"""Export and import: jobs and history of one installation become another's.

Rules:
- The cut. Of each job the export says up to which instant everything due has its verdict (`accounted`): from the folded state of
  the shard that owns it. What history holds of later instants is left out.
- What is open at the cut is given a verdict, so that every instant has one: an execution that ran is LOST, one that waited is
  CANCELLED, instants that were owed by name (an outage being worked off) become ranges. All of them say `moved`. A pause that
  goes on has its range up to the cut.
- In the file every term is over: one that was open ends at the job's cut.
- The import gives each job that is not deleted one more revision, `import`, with the content of the last one and `since` = the
  later of its since and the cut. That revision is what the schedulers hear of; it owes the instants since the cut. So nothing fires
  twice, and what came due in between is late or missed, as after any outage.
- Jobs come last and each is whole or not there: an import that broke off fires nothing that it had not finished, and may be repeated.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from dts.core.changes import Account
from dts.core.policies import ended_ranges
from dts.core.shard import Shard
from dts.errors import AlreadyExists
from dts.model import (
    NO_END,
    Definition,
    Execution,
    ExecutionQuery,
    Instant,
    JobState,
    Key,
    MovedExecution,
    MovedJob,
    Output,
    Owed,
    Range,
    Revision,
    Status,
    Term,
)
from dts.ports import History, JobStore, MoveTarget, OutputStore
from dts.services.publication import Publication

MOVED = "moved"  # the reason of what was open at the cut
IMPORT = "import"  # what an imported revision says it changed
PAGE = 500  # jobs, executions or ranges at a time
TOGETHER = 50  # executions whose attempts and outputs are asked for side by side
WEIGHT = 1_000  # records of an import that are stored together; a job weighs as much as it has revisions
REVISIONS_PAGE = 100
EVER: Instant = 1 << 52

Record = Term | Range | MovedExecution | MovedJob


class Cut(NamedTuple):
    """Of one job, from its owner's state."""

    definition: Definition  # in force
    accounted: Instant


class State:
    """What the owners know and the stores do not: where each job's cut is, and what is open there."""

    def __init__(self) -> None:
        self.cuts: dict[str, Cut] = {}
        self.owed: list[Range] = []
        self.open: dict[Key, Execution] = {}
        self.backfills = 0
        self.suspended = 0

    def add(self, shard: Shard) -> None:
        """Takes from a shard what is needed; the shard may go."""
        for job, definition in shard.definitions.items():
            account = Account(shard, shard.gaps, job)
            self.cuts[job] = Cut(definition, account.before)
            reason = shard.streaks[job].reason if job in shard.guises else ""
            paused = Owed(definition, account.start, account.before, reason=reason)
            for piece in (*account.pieces, *([paused] if paused.after < paused.until else [])):
                self.owed += ended_ranges(piece, MOVED)
        for key, (block, place) in shard.open.items():
            ran = block.status is Status.PLACED
            self.open[key] = Execution(
                key,
                block.revisions[place],
                Status.LOST if ran else Status.CANCELLED,
                block.attempt,
                block.cause,
                block.queued,
                block.placed,
                worker=block.worker.id if ran and block.worker else "",
                fencing=block.fencing,
                reason=MOVED,
                retry_of=block.retry_of,
                end=NO_END,
            )
        self.backfills += len(shard.backfills)
        self.suspended += len(shard.guises)


class Export:
    """Everything of an installation, as records in the order in which the file has them. `notes` afterwards: what a person should know."""

    def __init__(self, state: State, jobs: JobStore, history: History, outputs: OutputStore | None) -> None:
        self.notes: list[str] = []
        self._state = state
        self._jobs = jobs
        self._history = history
        self._outputs = outputs
        self._open_told: set[Key] = set()

    async def records(self) -> AsyncIterator[Record]:
        """Terms, ranges, executions newest first, then jobs by id."""
        async for terms in self._history.terms("", 0, EVER):
            for term in terms:
                if (told := self._term(term)) is not None:
                    yield told
        async for range_ in self._ranges():
            yield range_
        async for moved in self._executions():
            yield moved
        async for job, pieces in self._moved_jobs():
            for piece in pieces:
                yield piece
            if job is not None:
                yield job
        self._note()

    def _term(self, term: Term) -> Term | None:
        """Over, or None: it began after the cut."""
        cut = self._state.cuts.get(term.job)
        if cut is None:
            return term if term.until is not None else None
        if term.revision > cut.definition.revision or term.since > cut.accounted:
            return None
        until = cut.accounted if term.until is None else min(term.until, cut.accounted)
        return term._replace(until=max(until, term.since))

    async def _ranges(self) -> AsyncIterator[Range]:
        last: Range | None = None
        while True:
            page = await self._history.ranges("", 0, 0, last, PAGE)
            # The cursor tells until, job and revision: those that share them must not be cut apart.
            whole = page if len(page) < PAGE else [each for each in page if _place(each) != _place(page[-1])]
            for each in whole:
                cut = self._state.cuts.get(each.job)
                if cut is None or each.until <= cut.accounted:
                    yield each
            if len(page) < PAGE or not whole:
                break
            last = whole[-1]
        for each in self._state.owed:
            yield each

    async def _executions(self) -> AsyncIterator[MovedExecution]:
        before: Key | None = None
        while True:
            page = await self._history.executions(ExecutionQuery(), before, PAGE)
            wanted = []
            for each in page:
                cut = self._state.cuts.get(each.key.job)
                if cut is not None and not each.key.nonce and each.key.at > cut.accounted:
                    continue
                if each.key in self._state.open:
                    self._open_told.add(each.key)
                wanted.append(each)
            async for moved in self._all_moved(wanted):
                yield moved
            if len(page) < PAGE:
                break
            before = page[-1].key
        left = [execution for key, execution in self._state.open.items() if key not in self._open_told]
        async for moved in self._all_moved(left):
            yield moved

    async def _all_moved(self, executions: Sequence[Execution]) -> AsyncIterator[MovedExecution]:
        for at in range(0, len(executions), TOGETHER):
            for each in await asyncio.gather(*map(self._moved, executions[at : at + TOGETHER])):
                yield each

    async def _moved(self, execution: Execution) -> MovedExecution:
        earlier: Sequence[Execution] = ()
        if execution.attempt > 1 or execution.reason == MOVED:
            earlier = await self._history.attempts(execution.key)
        outputs: list[Output] = []
        if self._outputs is not None:
            for attempt in range(1, execution.attempt + 1):
                output = await self._outputs.get(execution.key, attempt)
                if output is not None:
                    outputs.append(output)
        return MovedExecution(execution, tuple(earlier), tuple(outputs))

    async def _moved_jobs(self) -> AsyncIterator[tuple[MovedJob | None, Sequence[Range]]]:
        after = ""
        while True:
            page = await self._jobs.list(after, PAGE, frozenset(JobState))
            for row in page:
                revisions = await self._revisions(row.id)
                accounted, pieces = self._accounted(row.id, revisions)
                yield MovedJob(revisions, accounted), pieces
            if len(page) < PAGE:
                return
            after = page[-1].id

    async def _revisions(self, job: str) -> list[Revision]:
        """Oldest first."""
        found: list[Revision] = []
        while True:
            before = found[-1].definition.revision if found else 0
            page = await self._jobs.revisions(job, before, REVISIONS_PAGE)
            found += page
            if len(page) < REVISIONS_PAGE:
                return found[::-1]

    def _accounted(self, job: str, revisions: Sequence[Revision]) -> tuple[Instant, Sequence[Range]]:
        """The cut, and what revisions that no owner has applied yet owed before the last of them."""
        cut, last = self._state.cuts.get(job), revisions[-1].definition
        if cut is None and last.state is JobState.DELETED:
            return last.since, ()  # deleted long ago, or before anybody heard of it
        current = cut.definition if cut else None
        at = cut.accounted if cut else 0
        pieces: list[Range] = []
        for each in revisions:
            definition = each.definition
            if current is not None and definition.revision <= current.revision:
                continue
            if each.change == IMPORT:
                pieces = []  # what was before it was accounted for elsewhere
            elif current is not None and current.state <= JobState.PAUSED and at < definition.since:
                pieces += ended_ranges(Owed(current, max(at, current.since), definition.since), MOVED)
            at, current = max(at, definition.since), definition
        return at, pieces

    def _note(self) -> None:
        left = len(self._state.open) - len(self._open_told)
        if left:
            self.notes.append(
                f"{left} executions were open: in the file they are LOST (they ran) or CANCELLED (they waited), with the"
                f" reason {MOVED!r}; retry those that matter after the import"
            )
        if self._state.suspended:
            self.notes.append(
                f"{self._state.suspended} jobs were suspended after failures: after the import they run again, with a fresh"
                " count; pause before the export those that must not"
            )
        if self._state.backfills:
            self.notes.append(f"{self._state.backfills} backfills were under way: they do not go on, begin them anew")


def _place(of: Range) -> tuple[Instant, str, int]:
    return of.until, of.job, of.revision


class Import:
    """Takes records in, in the order of the file. `counts` tells what was taken, `known` how many jobs were there already."""

    def __init__(self, jobs: JobStore, target: MoveTarget, publication: Publication) -> None:
        self.counts: Counter[str] = Counter()
        self.known = 0
        self._jobs = jobs
        self._target = target
        self._publication = publication

    async def check(self, records: Iterable[Record]) -> Counter[str]:
        """Reads all of them and stores nothing; how many there are. Raises AlreadyExists for a job that is there and is
        another one, and what the reading raises."""
        counts: Counter[str] = Counter()
        for page in _pages(records):
            counts.update(type(each).__name__ for each in page)
            await self._new([each for each in page if isinstance(each, MovedJob)])
        return counts

    async def take(self, records: Iterable[Record], told: Callable[[Counter[str]], None] = lambda counts: None) -> None:
        """Stores all of them; may be repeated. Raises as `check`, Unavailable, OutcomeUnknown (repeat it)."""
        for page in _pages(records):
            executions = [each for each in page if isinstance(each, MovedExecution)]
            ranges = [each for each in page if isinstance(each, Range)]
            terms = [each for each in page if isinstance(each, Term)]
            if executions or ranges or terms:
                await self._target.record(executions, ranges, terms)
            await self._take_jobs([each for each in page if isinstance(each, MovedJob)])
            self.counts.update(type(each).__name__ for each in page)
            told(self.counts)

    async def _take_jobs(self, jobs: Sequence[MovedJob]) -> None:
        new = await self._new(jobs)
        self.known += len(jobs) - len(new)
        gone = [each.revisions for each in new if _deleted(each)]
        if gone:
            await self._target.adopt(gone)
        live = [[*each.revisions, imported(each)] for each in new if not _deleted(each)]
        if live:
            await self._publication.make([each[-1] for each in live], lambda _: self._target.adopt(live))

    async def _new(self, jobs: Sequence[MovedJob]) -> list[MovedJob]:
        """Those that are not there yet. Raises AlreadyExists when another job has such an id."""
        if not jobs:
            return []
        rows = await self._jobs.get([each.revisions[-1].definition.job for each in jobs])
        new = []
        for each in jobs:
            job = each.revisions[-1].definition.job
            if job not in rows:
                new.append(each)
            elif not await self._same(each):
                raise AlreadyExists(
                    f"job {job!r} is there already and is another one: delete it there, or import elsewhere"
                )
        return new

    async def _same(self, moved: MovedJob) -> bool:
        """Whether this very job was imported before; it may have changed since."""
        wanted = moved.revisions[-1] if _deleted(moved) else imported(moved)
        number = wanted.definition.revision
        there = await self._jobs.revisions(wanted.definition.job, number + 1, 1)
        return [(each.definition, each.change, each.created, each.document) for each in there] == [
            (wanted.definition, wanted.change, wanted.created, wanted.document)
        ]


def imported(moved: MovedJob) -> Revision:
    """The revision under which a job goes on elsewhere."""
    last = moved.revisions[-1]
    of = last.definition
    definition = of._replace(revision=of.revision + 1, since=max(of.since, moved.accounted), first=True)
    return last._replace(definition=definition, change=IMPORT)


def _deleted(moved: MovedJob) -> bool:
    return moved.revisions[-1].definition.state is JobState.DELETED


def _pages(records: Iterable[Record]) -> Iterator[list[Record]]:
    page: list[Record] = []
    weight = 0
    for each in records:
        page.append(each)
        weight += len(each.revisions) if isinstance(each, MovedJob) else 1
        if weight >= WEIGHT:
            yield page
            page, weight = [], 0
    if page:
        yield page
