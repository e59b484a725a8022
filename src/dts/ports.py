"""What the services need of the world, as Protocols: each is small, has one conformance suite, and holds no policy.

Methods raise `Unavailable` when a store cannot be reached; everything else they raise is named at the method.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from dts.amounts import Vector
from dts.model import (
    Backfill,
    Change,
    Command,
    Commit,
    Definition,
    Demand,
    Effects,
    Execution,
    ExecutionQuery,
    Held,
    Instant,
    Intent,
    JobView,
    Key,
    MovedExecution,
    Notice,
    Outcome,
    Outlook,
    Output,
    Position,
    Range,
    Report,
    Revision,
    ShardId,
    ShardView,
    StoredJob,
    Term,
    Told,
    WorkerInfo,
    WorkerRef,
    WorkerView,
)


class Ledger(Protocol):
    """Makes a commit durable, all or nothing, and only while this process owns the shard."""

    def ownership(self) -> AsyncIterator[frozenset[ShardId]]:
        """The shards that this process should own, now and at each change."""
        ...

    async def open(self, shard: ShardId) -> tuple[int, AsyncIterator[Commit]]:
        """Fences the former owner; gives the new epoch and the commits to fold (SQLite: one synthetic commit)."""
        ...

    async def commit(self, commit: Commit) -> Outcome:
        """One at a time a shard. REFUSED: nothing of it is kept. Raises OwnershipLost when fenced."""
        ...

    async def resolve(self, commit: Commit) -> Outcome:
        """After UNKNOWN: COMMITTED or REFUSED. Raises OwnershipLost when that cannot be known."""
        ...

    def wants_snapshot(self, shard: ShardId) -> bool:
        """Whether what `open` would give has grown long (a ledger that stores state and no log: never)."""
        ...

    async def snapshot(self, commits: Sequence[Commit]) -> None:
        """Puts the whole state (`Shard.snapshot`, right after the last commit) in the place of what was written before.

        Called between two commits; one that is asked for meanwhile comes after it. Not done, or refused: no harm.
        Raises OwnershipLost when fenced.
        """
        ...


class JobStore(Protocol):
    """The Job Service's book of record: every revision of every job."""

    async def create(self, revisions: Sequence[Revision]) -> None:
        """All or none, durable on return. Each is revision 1 of a new id, or of a deleted job its current revision + 1.

        Raises AlreadyExists naming the first id that is taken (a deleted job whose revision has moved counts as taken).
        """
        ...

    async def change(self, revisions: Sequence[Revision]) -> None:
        """All or none; each must be its job's current revision + 1. Raises RevisionConflict or NotFound."""
        ...

    async def get(self, jobs: Sequence[str]) -> dict[str, StoredJob]:
        """Current rows of those that exist, deleted ones included (state DELETED)."""
        ...

    async def list(
        self, after: str, limit: int, states: frozenset[int], tag: str = "", name: str = ""
    ) -> Sequence[StoredJob]:
        """Jobs with id > after, in id order; `states` empty: all but DELETED; `name`: a part of it, case folded."""
        ...

    async def count(self) -> int:
        """Jobs that are not deleted."""
        ...

    async def revisions(self, job: str, before: int, limit: int) -> Sequence[Revision]:
        """Newest first, revision < before (0: all)."""
        ...

    def definitions(self, job: str, until: Instant) -> AsyncIterator[Sequence[Definition]]:
        """For the audit: every revision (of one job, or of all) with since < until, by job and revision, in pages."""
        ...


class JobBook(Protocol):
    """A job store that publishes nothing itself: what whoever publishes must read. Beside JobStore."""

    async def above(self, known: Mapping[str, int], *, settled: bool) -> dict[str, Definition]:
        """The current revisions of those jobs that have a higher one than is known (0: any), deleted ones included.

        `settled`: changes under way are settled first, a dear read of each job. Otherwise what was acknowledged is seen.
        """
        ...

    async def revisions(self, job: str, before: int, limit: int) -> Sequence[Revision]:
        """See JobStore."""
        ...


class IntentStore(Protocol):
    """Where a change and its publication are two writes: what is about to be published, so that a dead service's is too."""

    async def write(self, intent: Intent) -> None:
        """Durable on return; before the change itself."""
        ...

    async def remove(self, intent: Intent) -> None:
        """After the publication is acknowledged, or when the change is known not to have happened."""
        ...

    async def scan(self, since: Instant, before: Instant, limit: int) -> Sequence[Intent]:
        """Intents of all services written in [since, before) that are there still, oldest first."""
        ...


class JobFeed(Protocol):
    """Carries definitions and commands to the shards' owners. `Commit.applied` is a position of this feed."""

    async def publish(self, changes: Sequence[Definition | Command]) -> Sequence[Command]:
        """Durable on return. A command whose id is known already is not published again: it is given back as it was
        first published (a feed that cannot know gives back none, and the owner passes over the repeat)."""
        ...

    def changes(self, shard: ShardId, after: Position) -> AsyncIterator[Sequence[Change]]:
        """What came after a position, then what comes, for ever."""
        ...


class History(Protocol):
    """The record of ended executions, ranges and terms. Replayed writes are harmless."""

    async def execution(self, key: Key) -> tuple[Execution, Sequence[Execution]] | None:
        """A terminal execution and its earlier attempts."""
        ...

    async def attempts(self, key: Key) -> Sequence[Execution]:
        """Ended attempts that were not its last, in order: of an execution that is open, too."""
        ...

    async def executions(self, query: ExecutionQuery, before: Key | None, limit: int) -> Sequence[Execution]:
        """Terminal ones, newest first by (scheduled time, job, nonce), strictly before a key in that order."""
        ...

    async def count(self, query: ExecutionQuery, limit: int) -> int:
        """How many terminal executions, counted up to limit."""
        ...

    async def last_ended(self, jobs: Sequence[str]) -> dict[str, Execution]:
        """The latest terminal execution by scheduled time of each job that has one."""
        ...

    async def ranges(
        self, job: str, start: Instant, until: Instant, after: Range | None, limit: int
    ) -> Sequence[Range]:
        """Ranges that touch [start, until), by (until, job, revision)."""
        ...

    def scheduled(self, job: str, after: Instant, until: Instant) -> AsyncIterator[Sequence[Execution]]:
        """For the audit: executions of cause SCHEDULE with an instant in (after, until], by job and instant, in pages."""
        ...

    def terms(self, job: str, after: Instant, until: Instant) -> AsyncIterator[Sequence[Term]]:
        """For the audit: terms that touch (after, until], by job and revision, in pages."""
        ...

    async def complete_until(self, shard: ShardId) -> Instant:
        """The watermark's instant that the record has reached: later instants are pending."""
        ...

    async def forget(self, before: Instant, limit: int) -> int:
        """Deletes what ended before an instant (retention), at most `limit` rows; how many it deleted."""
        ...


class Notices(Protocol):
    """What the feed holds of each job, as a whole: for who tidies or repairs it."""

    def shards(self) -> Sequence[ShardId]:
        """All of them."""
        ...

    async def last(self, shard: ShardId) -> Mapping[str, Notice]:
        """The last record of each job of a shard, as of now; those without one, or whose last one is a tombstone, left out."""
        ...

    async def bury(self, jobs: Mapping[str, ShardId]) -> None:
        """A tombstone for each: what the feed has of these jobs may go. Durable on return."""
        ...


class EventSource(Protocol):
    """What shards' owners tell the world, for readers who share the shards among them: each event at least once, in order."""

    async def take(self) -> Told:
        """What came since; waits for something. Bounded."""
        ...

    def done(self, told: Told) -> None:
        """It is written down: neither we nor whoever reads these shards next need hear it again."""
        ...

    def lag(self, now: Instant) -> int | None:
        """Ms that what is done lies behind what was told: 0 when all is; None while no shard is ours."""
        ...


class Record(Protocol):
    """Where the projector writes history."""

    async def write(self, commits: Sequence[Commit]) -> int:
        """Durable on return; how many rows. May be repeated. Raises Unavailable or OutcomeUnknown: repeat all of it."""
        ...


class OutputStore(Protocol):
    """What attempts wrote: head and tail, bounded (bounds.OUTPUT_*)."""

    async def put(self, key: Key, attempt: int, offset: int, data: bytes, last: bool) -> None:
        """Bytes from `offset` on; an offset already stored is ignored."""
        ...

    async def get(self, key: Key, attempt: int) -> Output | None:
        """Attempt 0: the last one that wrote anything."""
        ...

    async def wait(self, key: Key, attempt: int, size: int, timeout_s: float) -> Output | None:
        """Returns when more than `size` bytes are there, or it is complete, or after the time-out."""
        ...

    async def forget(self, before: Instant, limit: int) -> int:
        """Deletes outputs last written before an instant, at most `limit`; how many."""
        ...


class Live(Protocol):
    """What runs or waits now, and the way to ask for more of it: answered by the shards' owners, never by a store."""

    async def views(self, jobs: Sequence[str]) -> dict[str, JobView]:
        """What each job is doing now; a job that no owner knows yet is left out."""
        ...

    async def execution(self, key: Key) -> Execution | None:
        """An open execution (status QUEUED, PLACED, RETRYING; `end.started` > 0: it runs), else None."""
        ...

    async def executions(self, query: ExecutionQuery, before: Key | None, limit: int) -> Sequence[Execution]:
        """Open ones, in History.executions' order."""
        ...

    async def count(self, query: ExecutionQuery) -> int:
        """How many open executions."""
        ...

    async def backfills(self, job: str) -> Sequence[Backfill]:
        """Those that run or ran, of one job or of all (''), the latest first."""
        ...

    async def submit(self, command: Command) -> str:
        """Publishes, then waits up to ANSWER_WAIT_S for the owner's commit: the execution's (backfill's) id. Raises NotFound,
        FailedPrecondition (an ended execution), OutcomeUnknown (durable, but not yet decided)."""
        ...

    def watch(self, job: str) -> AsyncIterator[Execution | Range | int]:
        """Transitions and ranges as they are committed (of one job, or of all); an int: so many were left out."""
        ...

    async def settled(self, job: str, revision: int, timeout_s: float) -> bool:
        """Waits until the owner has applied a revision; False after the time-out."""
        ...

    async def workers(self) -> Sequence[WorkerView]: ...

    async def outlook(self, job: str, demand: Demand, queued: Instant) -> Outlook | None:
        """Whether an execution of a job with this demand, waiting since `queued`, would find a place now, as the job's owner
        sees it. None: no owner knows the job."""
        ...

    async def cordon(self, worker: str, *, cordoned: bool, drain: bool = False, grace_ms: int = 0) -> bool:
        """Nothing new for a worker, or something again. `drain`: it hands back what waits, too, and ends what still runs
        after the grace time (0: never). False: it is attached to no instance."""
        ...

    async def status(self) -> tuple[Sequence[ShardView], str, Sequence[str]]:
        """Shards owned here, the clock's state ('ok' or why the watermark is held), notes for a person."""
        ...


class WorkerChannel(Protocol):
    """From the scheduler to workers: an outbox that the stream drains. Never blocks."""

    def send(self, shard: ShardId, epoch: int, effects: Effects) -> None:
        """Puts leases, cancels, acks and echoes into the workers' outboxes; those of detached workers are dropped."""
        ...

    def ask(self, worker: WorkerRef, shard: ShardId, epoch: int) -> None:
        """Asks for a full report."""
        ...

    def cordon(self, worker: WorkerRef, cordoned: bool, drain: bool, grace_ms: int) -> None:
        """Tells it that it gets nothing new, or something again: it tells all Scheduler instances."""
        ...

    def want(self, worker: WorkerRef, more: Vector, one: Vector) -> None:
        """What this instance would use besides what it has (dts/amounts.py); `one`: a single waiting demand."""
        ...

    def give_back(self, worker: WorkerRef, number: int, kept: Vector, shards: Sequence[ShardId]) -> None:
        """With credit `number` known, this instance uses no more than `kept`, and owns these shards no more."""
        ...


class WorkerInbox(Protocol):
    """From workers' streams to the scheduler (services/scheduler implements it)."""

    def attached(self, worker: WorkerInfo) -> dict[ShardId, int]:
        """A stream began: the shards owned here with their epochs, to be asked for full reports."""
        ...

    def detached(self, worker: WorkerRef) -> None:
        """Its stream ended: nothing new is placed there; what it holds stays its own until its leases end."""
        ...

    def standing(self, worker: WorkerRef, cordoned: bool) -> None:
        """Whether anything new may be placed there."""
        ...

    def credit(self, worker: WorkerRef, number: int, share: Vector, returns: int) -> None:
        """What of it this instance may use, what it uses already included; sent when so many returns had come there."""
        ...

    def leaving(self, worker: WorkerRef) -> None:
        """It is about to end, by itself or because it was asked to: nothing new is placed there."""
        ...

    async def report(self, shard: ShardId, report: Report) -> None:
        """Hands a report on; waits while the inbox is full, so that the stream is slowed."""
        ...

    def started(self, shard: ShardId, worker: WorkerRef, held: Sequence[Held], at: Sequence[Instant]) -> None:
        """These attempts run now: shown, not stored."""
        ...


class MoveTarget(Protocol):
    """Takes in what another installation recorded. Every write may be repeated."""

    async def record(
        self, executions: Sequence[MovedExecution], ranges: Sequence[Range], terms: Sequence[Term]
    ) -> None:
        """History that is over, with the outputs; durable on return."""
        ...

    async def adopt(self, jobs: Sequence[Sequence[Revision]]) -> None:
        """Jobs that are new here, each whole or not at all: its revisions, oldest first, the last one its current row. Of those
        before, the feed hears nothing (nor of a deleted job). Raises AlreadyExists naming a job that is there."""
        ...
