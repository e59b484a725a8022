"""A run's parts put together: stores, owners, workers, people; and what the seed chose for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

from dts.core.instance import Instance
from dts.model import NO_END, Definition, Delivery, Demand, End, Key, WorkerRef
from dts.worker.attempts import Attempt
from dts.worker.leases import Leases
from tests.simulation.checkers import Checkers
from tests.simulation.owner import Owner
from tests.simulation.stores import Feed, History, JobService, Ledger
from tests.simulation.workers import Worker
from tests.simulation.world import World

FAILURES = (End(code=1), End(code=75), End(code=143, kind="timeout"))


class Task(NamedTuple):
    """How a run goes."""

    lasts_ms: int
    end: End  # of a failure: its code or kind

    @property
    def succeeds(self) -> bool:
        return self.end == NO_END


@dataclass(frozen=True)
class Build:
    """The parts that a run is made of: a broken one takes the place of the real."""

    instance: Callable[..., Instance] = Instance
    leases: Callable[..., Leases] = Leases
    ledger: Callable[[Site], Ledger] = Ledger
    history: Callable[[Site], History] = History
    service: Callable[[Site], JobService] = JobService
    patches: tuple[tuple[ModuleType, str, object], ...] = ()  # names of modules that mean something else meanwhile


@dataclass(frozen=True)
class Options:
    """What the seed chose for the whole run."""

    lease_ms: int
    keep_alive_ms: int  # 0: as the embedded server
    limit: int  # fires a step
    trouble: float  # probability that a commit is refused or in doubt
    slow: int
    longest_log: int
    part: int  # of a snapshot
    longest_task_ms: int
    failing: float  # part of the tasks
    actions: int
    bounds: tuple[tuple[str, int], ...]


class Kind(NamedTuple):
    """A worker id: what each of its incarnations is."""

    total: Demand
    backlog: int
    timed: bool


class Site:
    """Everything of one run."""

    def __init__(self, world: World, build: Build, options: Options, kinds: dict[str, Kind]) -> None:
        self.world = world
        self.build = build
        self.options = options
        self.kinds = kinds
        self.wall = 0  # ms that the servers' wall clock was set by
        self.owners: list[Owner] = []
        self.workers: list[Worker] = []
        self.checkers = Checkers(self)
        self.feed = Feed()
        self.ledger = build.ledger(self)
        self.ledger.longest = options.longest_log
        self.history = build.history(self)
        self.service = build.service(self)
        self._dead: list[WorkerRef] = []  # whose lease was their life
        self._incarnations = 0

    # ---- owners

    def newest(self) -> Owner | None:
        """The owner that the group wants."""
        alive = [each for each in self.owners if each.alive]
        return alive[-1] if alive else None

    def start_owner(self) -> Owner:
        owner = Owner(self, f"owner{len(self.owners) + 1}")
        self.owners.append(owner)
        owner.boot()
        for worker in self.workers:
            if worker.alive:
                worker.connect_soon(owner)
        return owner

    def fed(self) -> None:
        """The feed has news."""
        for owner in self.owners:
            if owner.alive:
                owner.later(self.world.delay(), owner.feed)

    # ---- workers

    def start_worker(self, id: str) -> Worker:
        kind = self.kinds[id]
        self._incarnations += 1
        worker = Worker(self, WorkerRef(id, f"i{self._incarnations}"), kind.total, kind.backlog, timed=kind.timed)
        self.workers.append(worker)
        for owner in self.owners:
            worker.connect_soon(owner)
        return worker

    def died(self, worker: Worker) -> None:
        """Its guard has ended all that ran: the lock is free."""
        self.workers.remove(worker)
        if not worker.timed:
            self._dead.append(worker.ref)
            for owner in self.owners:
                if owner.alive:
                    owner.later(self.world.delay(), owner.look)

    def dead(self) -> list[WorkerRef]:
        return self._dead

    def capacity(self, id: str) -> tuple[Demand, int]:
        return self.kinds[id].total, self.kinds[id].backlog

    # ---- jobs

    @staticmethod
    def body(job: str, revision: int) -> bytes:
        """What a revision's executions run."""
        return f"{job}/{revision}".encode()

    def definition(self, job: str, revision: int) -> Definition:
        return next(each for each in self.service.jobs[job] if each.revision == revision)

    def at_most_once(self, key: Key, body: bytes) -> bool:
        """Whether the revision that an execution runs wants that."""
        job, _, revision = body.decode().partition("/")
        return job == key.job and self.definition(job, int(revision)).policies.delivery is Delivery.AT_MOST_ONCE

    def task(self, attempt: Attempt) -> Task:
        """Draws how a run goes."""
        rng = self.world.rng
        if self.world.healed:
            return Task(rng.randrange(1, 50), NO_END)
        longest = self.options.longest_task_ms
        lasts = rng.randrange(1, 500) if rng.random() < 0.6 else rng.randrange(1, longest)
        failed = rng.random() < self.options.failing
        return Task(lasts, rng.choice(FAILURES) if failed else NO_END)
