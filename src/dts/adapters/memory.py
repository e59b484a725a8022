"""The ports in memory: for tests, and for the simulator, which decides what becomes of each commit.

No clock and no chance: `fate` is asked for each commit. Owners of one shard are told apart by their epochs, as in life.
Every coroutine here runs to its end without waiting, but for `MemoryFeed.changes`, `MemoryLedger.ownership` and
`MemoryOutputs.wait`, which wait for news.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from dts.adapters.ended import ended_as
from dts.adapters.output import Followers, empty, extend
from dts.errors import AlreadyExists, Bug, NotFound, OwnershipLost, RevisionConflict
from dts.model import (
    NO_END,
    Block,
    Change,
    Command,
    Commit,
    Definition,
    Execution,
    ExecutionQuery,
    Instant,
    JobState,
    Key,
    Outcome,
    Output,
    Position,
    Range,
    Revision,
    ShardId,
    StoredJob,
    Term,
)

SHARD: ShardId = 0
LONGEST_LOG = 1_000  # commits; then a snapshot is wanted


class Fate(Enum):
    """What becomes of a commit, and what its owner hears."""

    COMMITTED = 1
    REFUSED = 2
    UNKNOWN_COMMITTED = 3
    UNKNOWN_REFUSED = 4


def _committed(commit: Commit) -> Fate:
    del commit
    return Fate.COMMITTED


@dataclass(slots=True)
class _Log:
    epoch: int = 0
    commits: list[Commit] = field(default_factory=list)

    @property
    def seq(self) -> int:
        return self.commits[-1].seq if self.commits else 0


class MemoryStore:
    """`ledger`, `jobs`, `feed`, `history` and `outputs`; `fate` may be replaced at any time. Outputs are dated 0 unless
    a clock is given."""

    def __init__(self, fate: Callable[[Commit], Fate] = _committed, clock: Callable[[], Instant] = lambda: 0) -> None:
        self.fate = fate
        self.history = MemoryHistory()
        self.ledger = MemoryLedger(self)
        self.feed = MemoryFeed()
        self.jobs = MemoryJobs(self.feed)
        self.outputs = MemoryOutputs(clock)

    async def close(self) -> None:
        """Ends `ownership`."""
        self.ledger.closing.set()


class MemoryLedger:
    """The port Ledger: a log of commits a shard."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.logs: dict[ShardId, _Log] = {}
        self.longest = LONGEST_LOG
        self.closing = asyncio.Event()

    async def ownership(self) -> AsyncIterator[frozenset[ShardId]]:
        """See ports.Ledger."""
        yield frozenset({SHARD})
        await self.closing.wait()
        yield frozenset()

    async def open(self, shard: ShardId) -> tuple[int, AsyncIterator[Commit]]:
        """See ports.Ledger: the commits as they were made."""
        epoch, commits = self.take(shard)

        async def each() -> AsyncIterator[Commit]:
            for commit in commits:
                yield commit

        return epoch, each()

    def take(self, shard: ShardId) -> tuple[int, Sequence[Commit]]:
        """`open` for who does not wait."""
        log = self.logs.setdefault(shard, _Log())
        log.epoch += 1
        return log.epoch, tuple(log.commits)

    async def commit(self, commit: Commit) -> Outcome:
        """See ports.Ledger."""
        return self.decide(commit)

    def decide(self, commit: Commit) -> Outcome:
        """`commit` for who does not wait."""
        log = self._owned(commit)
        if commit.seq != log.seq + 1:
            raise Bug(f"commit {commit.seq} of shard {commit.shard} follows {log.seq}")
        fate = self._store.fate(commit)
        if fate in (Fate.COMMITTED, Fate.UNKNOWN_COMMITTED):
            log.commits.append(commit)
            self._store.history.record(commit)
            self._store.feed.applied(commit.commands)
        return {Fate.COMMITTED: Outcome.COMMITTED, Fate.REFUSED: Outcome.REFUSED}.get(fate, Outcome.UNKNOWN)

    async def resolve(self, commit: Commit) -> Outcome:
        """See ports.Ledger."""
        return self.settle(commit)

    def settle(self, commit: Commit) -> Outcome:
        """`resolve` for who does not wait."""
        return Outcome.COMMITTED if self._owned(commit).seq == commit.seq else Outcome.REFUSED

    def wants_snapshot(self, shard: ShardId) -> bool:
        """See ports.Ledger."""
        return len(self.logs[shard].commits) > self.longest

    async def snapshot(self, commits: Sequence[Commit]) -> None:
        """See ports.Ledger."""
        self.shorten(commits)

    def shorten(self, commits: Sequence[Commit]) -> None:
        """`snapshot` for who does not wait."""
        log = self._owned(commits[-1])
        if log.seq != commits[-1].seq:
            raise Bug(f"a snapshot of commit {commits[-1].seq} of shard {commits[-1].shard}, after {log.seq}")
        log.commits = list(commits)

    def _owned(self, commit: Commit) -> _Log:
        log = self.logs.get(commit.shard)
        if log is None:
            raise Bug(f"shard {commit.shard} was not opened")
        if commit.epoch != log.epoch:
            raise OwnershipLost(f"shard {commit.shard}: epoch {log.epoch}, ours was {commit.epoch}")
        return log


class MemoryFeed:
    """The port JobFeed: a list of changes."""

    def __init__(self) -> None:
        self._changes: list[Change] = []
        self._last: Position = (0, 0)
        self._known: dict[bytes, Command] = {}
        self._applied: set[bytes] = set()
        self._news: set[asyncio.Event] = set()

    async def publish(self, changes: Sequence[Definition | Command]) -> Sequence[Command]:
        """See ports.JobFeed; definitions are here already (MemoryJobs put them here)."""
        known: list[Command] = []
        for change in changes:
            if isinstance(change, Definition):
                continue
            if change.id in self._known:
                known.append(self._known[change.id])
                continue
            self._known[change.id] = change
            self._last = (self._last[0], self._last[1] + 1)
            self._add(Change((0, self._last[1]), change))
        return known

    def put(self, definition: Definition) -> None:
        """A revision that the job store has made durable."""
        self._last = (self._last[0] + 1, self._last[1])
        self._add(Change((self._last[0], 0), definition))

    def applied(self, commands: Iterable[bytes]) -> None:
        """These are not told again, whatever the position."""
        self._applied.update(commands)

    def _add(self, change: Change) -> None:
        self._changes.append(change)
        for news in self._news:
            news.set()

    def since(self, after: Position) -> list[Change]:
        """What came after a position, as far as it is there."""
        return [
            change
            for change in self._changes
            if (change.position[0] > after[0] or change.position[1] > after[1])
            and (isinstance(change.value, Definition) or change.value.id not in self._applied)
        ]

    async def changes(self, shard: ShardId, after: Position) -> AsyncIterator[Sequence[Change]]:
        """See ports.JobFeed."""
        del shard
        news = asyncio.Event()
        self._news.add(news)
        try:
            page = self.since(after)
            told = len(self._changes)
            while True:
                if page:
                    yield page
                while told == len(self._changes):
                    await news.wait()
                    news.clear()
                page, told = self._changes[told:], len(self._changes)
        finally:
            self._news.discard(news)


class MemoryJobs:
    """The port JobStore."""

    def __init__(self, feed: MemoryFeed) -> None:
        self._feed = feed
        self._jobs: dict[str, list[Revision]] = {}

    async def create(self, revisions: Sequence[Revision]) -> None:
        """See ports.JobStore."""
        new: dict[str, list[Revision]] = {}
        for each in revisions:
            of = each.definition
            there = [*self._jobs.get(of.job, ()), *new.get(of.job, ())]
            last = there[-1].definition if there else None
            free = last is None or last.state is JobState.DELETED
            if not free or of.revision != (last.revision if last else 0) + 1:
                raise AlreadyExists(f"job {of.job!r} exists already: choose another id, or update it")
            new.setdefault(of.job, []).append(each)
        self._keep(revisions)

    async def change(self, revisions: Sequence[Revision]) -> None:
        """See ports.JobStore."""
        current: dict[str, int] = {}
        for each in revisions:
            of = each.definition
            if of.job not in self._jobs:
                raise NotFound("job", of.job)
            now = current.get(of.job, self._jobs[of.job][-1].definition.revision)
            if of.revision != now + 1:
                raise RevisionConflict(of.job, of.revision - 1, now)
            current[of.job] = of.revision
        self._keep(revisions)

    def _keep(self, revisions: Sequence[Revision]) -> None:
        for each in revisions:
            self._jobs.setdefault(each.definition.job, []).append(each)
            self._feed.put(each.definition)

    async def get(self, jobs: Sequence[str]) -> dict[str, StoredJob]:
        """See ports.JobStore."""
        return {job: _stored(self._jobs[job][-1]) for job in jobs if job in self._jobs}

    async def list(
        self, after: str, limit: int, states: frozenset[int], tag: str = "", name: str = ""
    ) -> Sequence[StoredJob]:
        """See ports.JobStore."""
        wanted = states or frozenset(JobState) - {JobState.DELETED}
        found = []
        for job in sorted(self._jobs):
            last = self._jobs[job][-1]
            fits = last.definition.state in wanted and (not tag or tag in last.tags)
            if job > after and fits and name.casefold() in last.name.casefold():
                found.append(_stored(last))
        return found[:limit]

    async def count(self) -> int:
        """See ports.JobStore."""
        return sum(all_[-1].definition.state is not JobState.DELETED for all_ in self._jobs.values())

    async def revisions(self, job: str, before: int, limit: int) -> Sequence[Revision]:
        """See ports.JobStore."""
        newest = reversed(self._jobs.get(job, []))
        return [each for each in newest if not before or each.definition.revision < before][:limit]

    async def definitions(self, job: str, until: Instant) -> AsyncIterator[Sequence[Definition]]:
        """See ports.JobStore: one page."""
        jobs = [job] if job else sorted(self._jobs)
        page = [each.definition for name in jobs for each in self._jobs.get(name, ()) if each.definition.since < until]
        if page:
            yield page


def _stored(revision: Revision) -> StoredJob:
    of = revision.definition
    return StoredJob(
        of.job,
        of.revision,
        revision.created,
        of.since,
        of.state,
        of.until,
        revision.document,
        revision.request,
        of.group,
    )


class MemoryHistory:
    """The port History, written by the ledger's commits."""

    def __init__(self) -> None:
        self._ended: dict[Key, Execution] = {}
        self._attempts: dict[Key, dict[int, Execution]] = {}
        self._ranges: dict[tuple[Instant, str, int, Instant], Range] = {}
        self._terms: dict[tuple[str, int], Term] = {}
        self._watermarks: dict[ShardId, Instant] = {}

    def record(self, commit: Commit) -> None:
        """A commit that is durable. Raises Bug when an execution gets a second verdict."""
        for block in commit.blocks:
            self._block(block)
        for each in commit.ranges:
            self._ranges[each.until, each.job, each.revision, each.after] = each
        for term in commit.opened:
            self._terms[term.job, term.revision] = term
        for close in commit.closed:
            name = (close.job, close.revision)
            if name in self._terms:
                self._terms[name] = self._terms[name]._replace(until=close.until)
        self._watermarks[commit.shard] = commit.watermark[0]

    def _block(self, block: Block) -> None:
        status = ended_as(block)
        if status is None:
            return
        ends = block.ends or [NO_END] * len(block.keys)
        for key, revision, end in zip(block.keys, block.revisions, ends, strict=True):
            execution = Execution(
                key,
                revision,
                status,
                block.attempt,
                block.cause,
                block.queued,
                block.placed,
                block.not_before,
                block.worker.id if block.worker else "",
                block.fencing,
                block.reason,
                block.retry_of,
                end,
            )
            if not block.status.terminal:
                self._attempts.setdefault(key, {}).setdefault(block.attempt, execution)
            elif key in self._ended:
                raise Bug(f"execution {key} has a verdict already")
            else:
                self._ended[key] = execution

    async def execution(self, key: Key) -> tuple[Execution, Sequence[Execution]] | None:
        """See ports.History."""
        if key not in self._ended:
            return None
        return self._ended[key], await self.attempts(key)

    async def attempts(self, key: Key) -> Sequence[Execution]:
        """See ports.History."""
        earlier = self._attempts.get(key, {})
        return [earlier[number] for number in sorted(earlier)]

    def _found(self, query: ExecutionQuery) -> list[Execution]:
        return [
            each
            for key, each in sorted(self._ended.items(), key=_order, reverse=True)
            if (not query.job or key.job == query.job)
            and (not query.statuses or each.status in query.statuses)
            and query.start <= key.at
            and (not query.until or key.at < query.until)
        ]

    async def executions(self, query: ExecutionQuery, before: Key | None, limit: int) -> Sequence[Execution]:
        """See ports.History."""
        edge = (before.at, before.job, before.nonce) if before else None
        found = self._found(query)
        return [each for each in found if edge is None or (each.key.at, each.key.job, each.key.nonce) < edge][:limit]

    async def count(self, query: ExecutionQuery, limit: int) -> int:
        """See ports.History."""
        return min(limit, len(self._found(query)))

    async def last_ended(self, jobs: Sequence[str]) -> dict[str, Execution]:
        """See ports.History."""
        return {job: found[0] for job in jobs if (found := self._found(ExecutionQuery(job)))}

    async def ranges(
        self, job: str, start: Instant, until: Instant, after: Range | None, limit: int
    ) -> Sequence[Range]:
        """See ports.History."""
        edge = (after.until, after.job, after.revision) if after else (-1, "", 0)
        found = [
            each
            for _, each in sorted(self._ranges.items())
            if (not job or each.job == job)
            and each.until >= start
            and (not until or each.after < until - 1)
            and (each.until, each.job, each.revision) > edge
        ]
        return found[:limit]

    async def scheduled(self, job: str, after: Instant, until: Instant) -> AsyncIterator[Sequence[Execution]]:
        """See ports.History: one page."""
        page = [
            each
            for key, each in sorted(self._ended.items())
            if (not job or key.job == job) and after < key.at <= until and not key.nonce
        ]
        if page:
            yield page

    async def terms(self, job: str, after: Instant, until: Instant) -> AsyncIterator[Sequence[Term]]:
        """See ports.History: one page."""
        page = [
            term
            for _, term in sorted(self._terms.items())
            if (not job or term.job == job) and term.since < until and (term.until is None or term.until > after)
        ]
        if page:
            yield page

    async def complete_until(self, shard: ShardId) -> Instant:
        """See ports.History."""
        return self._watermarks.get(shard, 0)

    async def forget(self, before: Instant, limit: int) -> int:
        """See ports.History."""
        old: list[Callable[[], object]] = []
        for key, each in self._ended.items():
            if max(key.at, each.end.ended) < before:
                old.append(lambda key=key: (self._ended.pop(key), self._attempts.pop(key, None)))  # type: ignore[misc]
        for name, found in self._ranges.items():
            if found.until < before:
                old.append(lambda name=name: self._ranges.pop(name))  # type: ignore[misc]
        for mine, term in self._terms.items():
            if term.until is not None and term.until < before:
                old.append(lambda mine=mine: self._terms.pop(mine))  # type: ignore[misc]
        for remove in old[:limit]:
            remove()
        return len(old[:limit])


def _order(item: tuple[Key, Execution]) -> tuple[Instant, str, str]:
    return item[0].at, item[0].job, item[0].nonce


class MemoryOutputs:
    """The port OutputStore."""

    def __init__(self, clock: Callable[[], Instant]) -> None:
        self._clock = clock
        self._outputs: dict[tuple[Key, int], tuple[Output, Instant]] = {}
        self._followers = Followers()

    async def put(self, key: Key, attempt: int, offset: int, data: bytes, last: bool) -> None:
        """See ports.OutputStore."""
        old = self._outputs.get((key, attempt), (empty(attempt), 0))[0]
        self._outputs[key, attempt] = (extend(old, offset, data, last), self._clock())
        self._followers.tell(key)

    async def get(self, key: Key, attempt: int) -> Output | None:
        """See ports.OutputStore."""
        number = attempt or max((each for name, each in self._outputs if name == key), default=0)
        found = self._outputs.get((key, number))
        return found[0] if found else None

    async def wait(self, key: Key, attempt: int, size: int, timeout_s: float) -> Output | None:
        """See ports.OutputStore."""
        return await self._followers.wait(key, lambda: self.get(key, attempt), size, timeout_s)

    async def forget(self, before: Instant, limit: int) -> int:
        """See ports.OutputStore."""
        old = [name for name, (_, updated) in self._outputs.items() if updated < before][:limit]
        for name in old:
            del self._outputs[name]
        return len(old)
