"""The domain's values: frozen, slotted, validated once at the edge (api/), trusted everywhere else.

Words are those of ARCHITECTURE.md. Instants are UTC milliseconds since 1970 (int); intervals are half-open `(after, until]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, IntEnum, StrEnum
from typing import NamedTuple

Instant = int
Position = tuple[int, int]  # how far a shard has applied its feed: (definitions, commands)
ShardId = int
Watermark = tuple[Instant, str]  # (instant, job id): a big instant may be cut between two commits

LAST_JOB = "~"  # sorts after every job id (`[A-Za-z0-9._-]`): the watermark of an instant that is done with
START: Watermark = (0, LAST_JOB)


class Status(IntEnum):
    """Of an execution. QUEUED, PLACED and RETRYING are open; the others are terminal: each is one verdict, for ever."""

    QUEUED = 1
    PLACED = 2
    RETRYING = 3
    COMPLETED = 4
    FAILED = 5
    SKIPPED = 6
    CANCELLED = 7
    LOST = 8

    @property
    def terminal(self) -> bool:
        return self >= Status.COMPLETED


class JobState(IntEnum):
    """What a revision says of its job. A paused one may end its pause by itself at `Definition.until`."""

    ACTIVE = 1
    PAUSED = 2
    CANCELLED = 3
    DELETED = 4


class Misfire(StrEnum):
    """What becomes of missed instants: those older than the late window when the shard comes to them."""

    RUN_ONCE = "run_once"  # the latest, if it is younger than the grace period; the rest is one range
    RUN_ALL = "run_all"  # the newest `misfire_limit` of them; the older ones are one range
    SKIP = "skip"  # one range


class Delivery(StrEnum):
    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class Overlap(StrEnum):
    """What becomes of an instant at which the job's last execution has not ended. By hand: it waits, unless ALLOW_ALL."""

    ALLOW_ALL = "allow_all"  # it runs beside it
    SKIP = "skip"  # a SKIPPED execution
    BUFFER_ONE = "buffer_one"  # one waits for its turn, the others are SKIPPED
    BUFFER_ALL = "buffer_all"  # up to `overlap_limit` wait
    CANCEL_OTHER = "cancel_other"  # the others are cancelled; it starts when they have ended


class CatchUp(StrEnum):
    """What becomes of what was missed in a pause, when it ends."""

    SKIP = "skip"  # one range
    NEWEST = "newest"  # the latest runs, the rest is one range
    ALL = "all"  # the newest `misfire_limit` run, the older ones are one range


class Cause(StrEnum):
    """Why an execution exists. Only SCHEDULE is a verdict of its instant."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    RETRY = "retry"
    BACKFILL = "backfill"


class ScheduleSpec(NamedTuple):
    """One schedule as text, with its zone and bounds: what `dts.schedule.compile` turns into a function of time."""

    text: str
    zone: str = "UTC"
    start: Instant | None = None  # inclusive
    end: Instant | None = None  # inclusive
    gap: str = ""  # a wall time that does not exist: shift | skip; '' = the rule's default
    fold: str = ""  # one that occurs twice: first | second | both; '' = the rule's default


class Key(NamedTuple):
    """One execution. Text form: `<job>@20260329T010000.000Z[~<nonce>]`; a nonce makes it no verdict of its instant."""

    job: str
    at: Instant
    nonce: str = ""

    def __str__(self) -> str:
        moment = datetime.fromtimestamp(self.at / 1000, UTC)
        text = f"{self.job}@{moment:%Y%m%dT%H%M%S}.{self.at % 1000:03d}Z"
        return f"{text}~{self.nonce}" if self.nonce else text


def nonce_of(id: bytes) -> str:
    """The nonce of the executions that a command makes."""
    return id.hex()[:12]


class WorkerRef(NamedTuple):
    """A worker process: only this incarnation may hold what names it."""

    id: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What an execution needs of a worker; equal demands are one object (`intern_demand`): bulk placement groups by it."""

    cpu: int = 0  # millicores
    memory: int = 0  # MiB
    storage: int = 0  # MiB
    slots: int = 1
    custom: tuple[tuple[str, int], ...] = ()
    selector: str = ""
    priority: int = 0  # higher first
    spread: str = ""  # a label: its executions go to the label's values evenly, where there is room

    @property
    def slots_only(self) -> bool:
        """Only such executions may wait in a worker's backlog: nothing but a place is reserved for them."""
        return not (self.cpu or self.memory or self.storage or self.custom)


class Policies(NamedTuple):
    """Durations in ms. Defaults are DECISIONS' and the API's."""

    misfire: Misfire = Misfire.RUN_ONCE
    misfire_limit: int = 100
    late_window: int = 60_000
    grace: int = 86_400_000
    max_retries: int = 0
    retry_initial: int = 1_000
    retry_cap: int = 300_000
    retry_factor: float = 2.0
    retry_jitter: float = 0.2
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    overlap: Overlap = Overlap.ALLOW_ALL
    overlap_limit: int = 100
    group_limit: int = 0  # executions of the job's group placed at once
    jitter: int = 0  # a due execution is placed up to so much later
    start_within: int = 0  # one that waited longer to be placed is SKIPPED; 0: it waits for ever
    retry_only: tuple[str, ...] = ()  # exit codes ('75', '64-78') and kinds of errors; empty: all are tried again
    retry_never: tuple[str, ...] = ()
    pause_after: int = 0  # failures in a row; 0: never


class Definition(NamedTuple):
    """One revision of a job, as the shard needs it. `body` was encoded at the API and goes to the worker as it is."""

    job: str
    revision: int
    since: Instant  # `from`: the revision owes its instants after it
    state: JobState
    until: Instant | None  # when a pause ends by itself
    schedules: tuple[ScheduleSpec, ...]
    demand: Demand
    policies: Policies
    body: bytes
    first: bool = True  # the first publication of this revision: only that one owes instants before the watermark
    group: str = ""  # its concurrency group, for ever: the jobs of a group are in one shard
    catch_up: CatchUp = CatchUp.SKIP  # of the pause that it ends, or that it is and that ends by itself


class End(NamedTuple):
    """How an attempt ended, as its worker says. Instants are the worker's clock; 0 = never started."""

    started: Instant = 0
    ended: Instant = 0
    code: int = 0  # exit code, HTTP status; 0 = success or none
    error: str = ""
    result: str = ""
    kind: str = ""  # of the failure, for machines: timeout, out_of_memory, scratch_full; empty: error and code are all
    enforced: str = ""  # how each request was held: cpu=cgroup,memory=sampled,storage=none; empty: nothing but slots


NO_END = End()


@dataclass(frozen=True, slots=True)
class Block:
    """Executions that differ in their key alone; carries their whole state, so the last block about a key is enough."""

    keys: Sequence[Key]
    revisions: Sequence[int]
    demand: Demand
    status: Status
    attempt: int = 0  # of the last placement; 0 = never placed
    cause: Cause = Cause.SCHEDULE
    queued: Instant = 0  # when it became an execution: its age
    not_before: Instant = 0  # RETRYING: when it may be placed again
    failures: int = 0  # attempts that used up a retry
    losses: int = 0  # attempts handed back, never arrived or lost with a worker
    worker: WorkerRef | None = None
    report: tuple[int, int] = (0, 0)  # (epoch, report number) known when it was placed: its lease echoes it
    fencing: int = 0  # seq of the commit that placed it
    life: bool = False  # its lease is the worker's life (same machine as the server), not time
    placed: Instant = 0
    cancel: str = ""  # why its worker was told to end it
    reason: str = ""
    retry_of: str = ""
    arguments: bytes = b""  # a manual run's changed task, encoded like Definition.body
    ends: Sequence[End] = ()
    group: str = ""  # the concurrency group of their job
    held: bool = False  # QUEUED: it waits until the job's executions before it have ended
    jitter: int = 0  # QUEUED: none is placed before `queued` + its own part of so many ms (policies.spread)
    start_by: Instant = 0  # never placed: it is SKIPPED after it; 0: it waits for ever


class Range(NamedTuple):
    """One verdict over a run of instants of one revision, in `(after, until]`, that did not run."""

    job: str
    revision: int
    after: Instant
    until: Instant
    size: int  # how many instants
    reason: str


class Term(NamedTuple):
    """The span in which a revision is in force. It owes instants after `since`; `in_force`: the watermark it began at."""

    job: str
    revision: int
    since: Instant
    in_force: Instant
    until: Instant | None
    rules: str


class Close(NamedTuple):
    """The end of a term: the next revision's `since`."""

    job: str
    revision: int
    until: Instant


class Owed(NamedTuple):
    """Instants of one revision in `(after, until]`, behind the watermark, not yet accounted for; `skip` have a verdict."""

    definition: Definition
    after: Instant
    until: Instant
    skip: tuple[Instant, ...] = ()
    reason: str = ""  # of what is paused; '': a person paused it
    catch_up: CatchUp = CatchUp.SKIP  # of what is paused


class Streak(NamedTuple):
    """A job's failures in a row. From `since` on (0: it is not) it is suspended, which began at `at`."""

    job: str
    failures: int = 0
    since: Instant = 0
    at: Instant = 0
    reason: str = ""


class Gap(NamedTuple):
    """A jump of the watermark: all jobs above the cursor `done`, save `skip`, owe `(after, until]`; an outage in one value."""

    after: Watermark
    until: Instant
    done: str = ""
    skip: frozenset[str] = frozenset()


# Commands carry the concurrency group of their job (`group`): their way to its shard.


class Run(NamedTuple):
    """Command: run a job now. `at` is the instant of its key; arguments replace the task."""

    id: bytes
    job: str
    issued: Instant
    expires: Instant
    revision: int  # the lowest revision it needs
    arguments: bytes = b""
    group: str = ""


class Cancel(NamedTuple):
    """Command: end one open execution."""

    id: bytes
    key: Key
    issued: Instant
    expires: Instant
    reason: str = ""
    group: str = ""


class Retry(NamedTuple):
    """Command: a new execution of an ended one's job, `retry_of` it."""

    id: bytes
    key: Key
    issued: Instant
    expires: Instant
    revision: int
    arguments: bytes = b""
    group: str = ""


class StartBackfill(NamedTuple):
    """Command: run the instants of a job's schedule in `(after, until]`, at most `parallel` of them open at once."""

    id: bytes
    job: str
    issued: Instant
    expires: Instant
    revision: int
    after: Instant
    until: Instant
    parallel: int
    group: str = ""


class StopBackfill(NamedTuple):
    """Command: start nothing more of a backfill and end what of it is open."""

    id: bytes
    job: str
    issued: Instant
    expires: Instant
    backfill: str  # its nonce
    reason: str = ""
    group: str = ""


class Resume(NamedTuple):
    """Command: end a job's suspension (pause after N failures), if it is suspended."""

    id: bytes
    job: str
    issued: Instant
    expires: Instant
    revision: int
    catch_up: CatchUp = CatchUp.SKIP
    group: str = ""


Command = Run | Cancel | Retry | StartBackfill | StopBackfill | Resume


def routed_by(change: Definition | Command) -> str:
    """What the shard of a definition or a command follows from: its job's concurrency group, or the job itself."""
    if change.group:
        return change.group
    return change.key.job if isinstance(change, Cancel | Retry) else change.job


def new_key(command: Run | Retry) -> Key:
    """The execution that a command makes: known as soon as the command is."""
    job = command.job if isinstance(command, Run) else command.key.job
    return Key(job, command.issued, nonce_of(command.id))


def answer_of(command: Command) -> str:
    """What a command makes or is about, as its answer names it: an execution's id or a backfill's."""
    match command:
        case Run() | Retry():
            return str(new_key(command))
        case Cancel():
            return str(command.key)
        case StartBackfill():
            return backfill_id(command.job, nonce_of(command.id))
        case StopBackfill():
            return backfill_id(command.job, command.backfill)
        case Resume():
            return command.job


class BackfillState(IntEnum):
    """FORGOTTEN is said once, when a shard knows too many that are over."""

    RUNNING = 1
    DONE = 2
    CANCELLED = 3
    FORGOTTEN = 4


ENDS = (
    Status.COMPLETED,
    Status.FAILED,
    Status.SKIPPED,
    Status.CANCELLED,
    Status.LOST,
)  # the order of a backfill's tally


def backfill_id(job: str, nonce: str) -> str:
    """`<job>~<12 hex>`: the hex digits are also the nonce of its executions."""
    return f"{job}~{nonce}"


class Backfill(NamedTuple):
    """How far a backfill is. Its instants are those of `schedules` (in force when it began) in `(after, until]`."""

    id: bytes  # of its command
    job: str
    began: Instant
    after: Instant
    until: Instant
    schedules: tuple[ScheduleSpec, ...]
    parallel: int
    size: int  # how many instants there are
    cursor: Instant  # the instants up to it have their executions
    started: int = 0  # executions made
    tally: tuple[int, ...] = (0,) * len(ENDS)  # ... of which ended so, in the order of ENDS
    state: BackfillState = BackfillState.RUNNING
    ended: Instant = 0
    reason: str = ""

    @property
    def nonce(self) -> str:
        return nonce_of(self.id)

    @property
    def open(self) -> int:
        """Executions that have not ended."""
        return self.started - sum(self.tally)

    def __str__(self) -> str:
        return backfill_id(self.job, self.nonce)


@dataclass(frozen=True, slots=True)
class Commit:
    """What one step of a shard decided. `owed` names each changed job's whole remaining debt; `gaps` all of them."""

    shard: ShardId
    epoch: int
    seq: int
    now: Instant
    watermark: Watermark
    applied: Position
    blocks: Sequence[Block] = ()
    ranges: Sequence[Range] = ()
    opened: Sequence[Term] = ()
    closed: Sequence[Close] = ()
    definitions: Sequence[Definition] = ()  # revisions applied by this commit
    kept: Sequence[Definition] = ()  # superseded revisions that open executions still refer to
    owed: Sequence[tuple[str, tuple[Owed, ...]]] = ()
    gaps: Sequence[Gap] = ()
    commands: Sequence[bytes] = ()  # applied command ids
    waiting: Sequence[Command] = ()  # commands held for a revision: all of them
    answers: Sequence[tuple[bytes, str]] = ()  # command id -> execution id, or '!' and why not: for who waits
    backfills: Sequence[Backfill] = ()  # those that this step began or brought forward, each whole
    issued: Sequence[
        Instant
    ] = ()  # when the applied commands were, in their order: a part of what they made is named by it
    streaks: Sequence[Streak] = ()  # of the jobs whose failures in a row, or suspension, are others now


class Change(NamedTuple):
    """One feed record: a definition or a command, with the position that applying it reaches."""

    position: Position
    value: Definition | Command


class Held(NamedTuple):
    """A running or waiting attempt at its worker."""

    key: Key
    attempt: int


class Report(NamedTuple):
    """From a worker to a shard. `full`: lists everything held and every unacknowledged end; a promise to `epoch`."""

    worker: WorkerRef
    epoch: int
    number: int
    timed: bool = True  # False: the lease is the worker's life (same machine)
    full: bool = False
    held: Sequence[Held] = ()
    ended: Sequence[Block] = ()  # status, attempt, keys, ends
    beat: int = 0  # to be echoed by the next commit that begins after it arrived
    gone: bool = False  # this incarnation is known to be dead


class Outcome(Enum):
    COMMITTED = 1
    REFUSED = 2
    UNKNOWN = 3


_demands: dict[Demand, Demand] = {}
MAX_INTERNED_DEMANDS = 10_000


def intern_demand(demand: Demand) -> Demand:
    """The one object that stands for all equal demands (bounded: past MAX_INTERNED_DEMANDS the table starts anew)."""
    if len(_demands) >= MAX_INTERNED_DEMANDS:
        _demands.clear()
    return _demands.setdefault(demand, demand)


class Execution(NamedTuple):
    """One execution as the API and history show it: open or ended."""

    key: Key
    revision: int
    status: Status
    attempt: int = 0
    cause: Cause = Cause.SCHEDULE
    queued: Instant = 0
    placed: Instant = 0
    not_before: Instant = 0
    worker: str = ""
    fencing: int = 0
    reason: str = ""
    retry_of: str = ""
    end: End = NO_END
    group: str = ""  # of its job; of open ones alone


class ExecutionQuery(NamedTuple):
    """Which executions; empty fields do not restrict. Scheduled time in `[start, until)`."""

    job: str = ""
    statuses: frozenset[Status] = frozenset()
    start: Instant = 0
    until: Instant = 0  # 0: no upper end


class Revision(NamedTuple):
    """One revision as the job store keeps it: `document` is the API's JobResponse without computed fields."""

    definition: Definition
    change: str  # create | update | pause | resume | cancel | delete
    created: Instant  # of the job
    name: str
    tags: tuple[str, ...]
    document: bytes
    request: str = ""  # fingerprint of the creating request: a repeat is the same create


class Intent(NamedTuple):
    """Revisions that a service is about to write and to publish."""

    incarnation: str  # of the service's process
    id: bytes
    at: Instant
    revisions: tuple[tuple[str, int], ...]  # (job, revision)


class Told(NamedTuple):
    """Commits as the world hears of them: without definitions and debts. Of one told in parts only the last has its watermark."""

    commits: Sequence[Commit]
    reached: Sequence[tuple[ShardId, int, Instant]]  # (shard, position after its last one, when that was told)


class Notice(NamedTuple):
    """The last record that the feed has of a job."""

    shard: ShardId
    revision: int
    state: JobState
    at: Instant  # when it was told


class StoredJob(NamedTuple):
    """A job's current row."""

    id: str
    revision: int
    created: Instant
    updated: Instant  # `since` of the revision
    state: JobState
    until: Instant | None
    document: bytes
    request: str
    group: str = ""


class Output(NamedTuple):
    """What is kept of an attempt's output. `cut` bytes between head and tail are gone; `size` is all that was written."""

    attempt: int
    head: bytes
    tail: bytes
    cut: int
    size: int
    complete: bool


class Lease(NamedTuple):
    """A placed block on its way to its worker; `bodies` parallel to the keys, equal ones the same object."""

    block: Block
    bodies: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Effects:
    """What a committed commit allows: nothing leaves the process before."""

    leases: dict[WorkerRef, list[Lease]] = field(default_factory=dict)
    cancels: dict[WorkerRef, list[tuple[Held, str]]] = field(default_factory=dict)
    acks: dict[WorkerRef, list[Held]] = field(default_factory=dict)
    beats: dict[WorkerRef, int] = field(default_factory=dict)
    answers: Sequence[tuple[bytes, str]] = ()
    taken_over: bool = False  # the first commit of an owner: attached workers are to be asked for reports


class WorkerInfo(NamedTuple):
    """What a worker says of itself when it attaches. `total.slots` attempts at once, `backlog` more may wait."""

    ref: WorkerRef
    total: Demand
    backlog: int
    labels: tuple[tuple[str, str], ...] = ()
    timed: bool = True
    host: str = ""
    pid: int = 0
    version: str = ""
    credited: bool = False  # True: only what it credits to this instance may be used (core/credits.py)
    cordoned: bool = False  # nothing new is to be placed there


class WorkerView(NamedTuple):
    """A worker as the scheduler sees it."""

    info: WorkerInfo
    taken: Demand
    attempts: int
    attached: bool
    heard: Instant
    cordoned: bool = False
    leaving: bool = False
    credit: Demand | None = None  # what of it the asked instance may use


class Obstacle(NamedTuple):
    """Why some workers would not take an execution now. `need` and `have` are in the units of Demand."""

    kind: str  # labels | lacks | full | reserved | draining | cordoned | silent | detached
    workers: int  # so many
    resource: str = ""  # of lacks and full: cpu, memory, storage, slots or a custom one
    need: int = 0
    have: int = 0  # lacks: the most that any of them has; full: the most that is free at any of them
    detail: str = ""  # labels: the selector; reserved: for what

    def __str__(self) -> str:
        one = self.workers == 1
        lack, are = ("lacks", "is") if one else ("lack", "are")
        match self.kind:
            case "labels":
                return f"{self.workers} {lack} the labels ({self.detail})"
            case "lacks":
                small = "is too small" if one else "are too small"
                return f"{self.workers} {small}: {self.resource} (need {self.need}, have {self.have})"
            case "full":
                return f"{self.workers} {lack} {self.resource} (need {self.need}, free {self.have})"
            case "reserved":
                return f"{self.workers} {are} kept free for {self.detail}"
            case "silent":
                return f"{self.workers} {'has' if one else 'have'} not reported yet"
            case "detached":
                return f"{self.workers} {are} not attached"
            case _:
                return f"{self.workers} {are} {self.kind}"


class Outlook(NamedTuple):
    """Whether an execution would find a place now, as the owner of its job sees it."""

    workers: int  # known ones
    open: int  # of them have room now
    obstacles: tuple[Obstacle, ...] = ()  # the others, by reason
    ahead: int = 0  # waiting executions that come first
    clock: str = "ok"  # or why the watermark is held
    kept: str = ""  # the worker at which room is kept free for it, since it has waited long

    @property
    def text(self) -> str:
        """For a person: '3 workers: 2 lack memory (need 4096, free 1024), 1 is draining'."""
        if not self.workers:
            return "no worker is attached"
        if self.open:
            return "it is about to be placed"
        return f"{self.workers} worker{'s' if self.workers > 1 else ''}: {', '.join(map(str, self.obstacles))}"


class JobView(NamedTuple):
    """What a job is doing now."""

    next_run: Instant | None = None
    queued: int = 0
    placed: int = 0
    running: int = 0  # of the placed ones
    retrying: int = 0
    suspended: Instant = 0  # since when, after failures in a row; 0: it is not
    suspension: str = ""  # why
    failures: int = 0  # in a row, where they are counted


class ShardView(NamedTuple):
    """How a shard is. Every due instant up to `accounted` has its verdict, runs, waits, or lies in a pause that goes on."""

    shard: ShardId
    epoch: int
    seq: int
    watermark: Instant
    jobs: int
    queued: int
    placed: int
    retrying: int
    accounted: Instant = 0


class MovedJob(NamedTuple):
    """A job on its way from one installation to another: its revisions, oldest first. Every instant up to `accounted` has its verdict."""

    revisions: Sequence[Revision]
    accounted: Instant


class MovedExecution(NamedTuple):
    """An execution on its way, which has ended: with its earlier attempts and what its attempts wrote."""

    execution: Execution
    earlier: Sequence[Execution] = ()
    outputs: Sequence[Output] = ()
