"""A worker: the real Leases on a clock of its own, a guard that outlives it by a moment, and tasks that end as chance has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dts.model import NO_END, Demand, End, Held, Instant, Status, WorkerInfo, WorkerRef
from dts.services.workers import Acks, Ask, Cancels, Down, Echo, Leased, Leave
from dts.worker.attempts import Attempt, OneEach, Skip, Start, Stop
from tests.simulation.channel import Stream
from tests.simulation.world import T0, Process, Steady

if TYPE_CHECKING:
    from tests.simulation.owner import Owner
    from tests.simulation.site import Site

KILL_GRACE_MS = 5_000
SPAWN_MS = 30
GUARD_MS = 20
ACK_WAIT_MS = 10_000


@dataclass(slots=True, eq=False)
class Run:
    """A task. `began` -1: not yet; `ended`: it is no more."""

    attempt: Attempt
    began: int = -1
    started: Instant = 0  # wall clock
    ended: bool = False
    told: bool = False  # to stop


class Worker(Process):
    """One process, and its guard."""

    def __init__(self, site: Site, ref: WorkerRef, total: Demand, backlog: int, *, timed: bool) -> None:
        super().__init__(site.world, f"{ref.id}/{ref.incarnation}")
        self.site = site
        self.info = WorkerInfo(ref, total, backlog, timed=timed)
        self.ref = ref
        self.timed = timed
        self.boot = Steady(site.world, site.world.rng.uniform(-0.01, 0.01), site.world.rng.randrange(10**6))
        self.leases = site.build.leases(ref, total, backlog, timed, OneEach())
        self.streams: dict[int, Stream] = {}
        self.away: set[Owner] = set()  # it does not reach these
        self.runs: dict[Held, Run] = {}
        self.left = False
        self._numbers = 0
        self._timer = 0
        self._flushing = False
        self._guarded: dict[int, int] = {}

    # ---- streams

    def connect(self, owner: Owner) -> None:
        """A stream to an owner, unless there is one or it cannot be reached."""
        there = any(each.owner is owner and not each.broken for each in self.streams.values())
        if there or not owner.alive or owner in self.away:
            return
        self._numbers += 1
        stream = self.streams[self._numbers] = Stream(self._numbers, self, owner)
        stream.open(self.info)

    def connect_soon(self, owner: Owner) -> None:
        self.later(self.world.delay(), lambda: self.connect(owner))

    def detached(self, stream: Stream) -> None:
        """It noticed that a stream is broken; it comes again."""
        if self.streams.pop(stream.number, None) is not None:
            self._tell(lambda now: self.leases.detach(stream.number))
            self.connect_soon(stream.owner)

    def told(self, stream: Stream, item: Down | None) -> None:
        """A message of an owner."""
        if stream.number not in self.streams:
            return
        leases, number = self.leases, stream.number
        match item:
            case None:
                self._tell(lambda now: leases.attach(number, self.site.options.lease_ms))
            case Ask(shard, epoch):
                self._tell(lambda now: leases.ask(number, shard, epoch, now))
            case Leased(shard, lease):
                self._tell(lambda now: leases.lease(shard, lease, now))
                self.site.checkers.seen["leases refused"] += leases.refused
                leases.refused = 0
            case Cancels(shard, epoch, items):
                self._tell(lambda now: leases.cancel(shard, epoch, items, now))
            case Echo(shard, epoch, beat):
                self._tell(lambda now: leases.echo(shard, epoch, beat))
            case Acks(shard, held):
                self._tell(lambda now: leases.ack(shard, held))
            case Leave(grace_ms, _):
                self.leave(grace_ms)

    def leave(self, grace_ms: int) -> None:
        self._tell(lambda now: self.leases.leave(grace_ms, now))
        if not self.left:
            self.left = True
            self.later(grace_ms + KILL_GRACE_MS + ACK_WAIT_MS, self.kill)

    # ---- the agent

    def _tell(self, change) -> None:  # type: ignore[no-untyped-def]
        change(self.boot.ms())
        self._act()

    def _act(self) -> None:
        if self.timed:
            self._guard_leases(self.leases.deadlines())
        while actions := self.leases.take_actions():
            for action in actions:
                match action:
                    case Start(attempts, _):
                        for attempt in attempts:
                            self._start(attempt)
                    case Stop(attempt, within):
                        self._stop(attempt, within)
                    case Skip(attempt):
                        self._skip(attempt)
        self.site.checkers.worker(self)
        if not self._flushing:
            self._flushing = True
            self.later(self.world.rng.randrange(3), self._flush)
        self._set_timer()
        if self.left and self.leases.idle:
            self.later(5, self._exit)

    def _exit(self) -> None:
        if self.leases.idle:
            self.kill()

    def _flush(self) -> None:
        self._flushing = False
        for up in self.leases.take_messages():
            stream = self.streams.get(up.stream)
            if stream is not None and not stream.broken:
                stream.up(up)

    def _set_timer(self) -> None:
        self._timer += 1
        timer, at = self._timer, self.leases.wake_at()
        if at is not None:
            when = max(self.boot.when(at), self.world.t)
            self.world.at(when, lambda: self.run(lambda: self._tick(timer)))

    def _tick(self, timer: int) -> None:
        if timer == self._timer:
            self._tell(self.leases.tick)

    # ---- tasks

    def wall(self) -> Instant:
        return T0 + self.world.t

    def _start(self, attempt: Attempt) -> None:
        run = self.runs[attempt.id] = Run(attempt)
        self.world.after(self.world.rng.randrange(SPAWN_MS), lambda: self._spawn(run))

    def _spawn(self, run: Run) -> None:
        """By the guard, which runs also while the worker is stopped."""
        if not self.alive or run.told or run.ended:
            return
        if self.timed and self.boot.ms() >= self._guarded.get(run.attempt.shard, 0):
            self._end(run, Status.FAILED)
            return
        run.began, run.started = self.world.t, self.wall()
        self.site.checkers.began(self, run)
        self.run(lambda: self._began(run))
        kind = self.site.task(run.attempt)
        status = Status.COMPLETED if kind.succeeds else Status.FAILED
        self.world.after(kind.lasts_ms, lambda: self._end(run, status, kind.end))

    def _began(self, run: Run) -> None:
        self.leases.started(run.attempt, run.started)
        self._act()

    def _end(self, run: Run, status: Status, how: End = NO_END) -> None:
        if run.ended:
            return
        run.ended = True
        if run.began >= 0:
            self.site.checkers.ended(self, run)
        end = how._replace(started=run.started, ended=self.wall()) if run.began >= 0 else NO_END
        self.later(self.world.rng.randrange(5), lambda: self._ended(run, status, end))

    def _ended(self, run: Run, status: Status, end: End) -> None:
        self.runs.pop(run.attempt.id, None)
        self._tell(lambda now: self.leases.ended([(run.attempt, status, end)], now))

    def _stop(self, attempt: Attempt, within: int | None) -> None:
        run = self.runs.get(attempt.id)
        if run is None or run.ended:
            return
        run.told = True
        if run.began < 0:
            self._end(run, Status.CANCELLED)
            return
        grace = KILL_GRACE_MS if within is None else within
        lasts = 0 if within == 0 else self.world.rng.randrange(50) if self.world.chance(0.7) else grace
        self.world.after(min(lasts, grace) + 1, lambda: self._end(run, Status.CANCELLED))

    def _skip(self, attempt: Attempt) -> None:
        run = self.runs.get(attempt.id)
        if run is not None and run.began < 0 and not run.ended:
            run.ended = True
            del self.runs[attempt.id]
            self.leases.returned([attempt], self.boot.ms())

    # ---- the guard

    def _guard_leases(self, deadlines: dict[int, int]) -> None:
        if deadlines != self._guarded:
            self._guarded = deadlines
            if deadlines:
                when = self.boot.when(min(deadlines.values()))
                self.world.at(max(when, self.world.t), self._guard)

    def _guard(self) -> None:
        """Kills what runs on leases that are over."""
        now = self.boot.ms()
        for run in list(self.runs.values()):
            deadline = self._guarded.get(run.attempt.shard)
            if deadline is not None and now >= deadline and run.began >= 0:
                self.site.checkers.seen["killed by the guard"] += 1
                self._end(run, Status.CANCELLED if run.told else Status.FAILED)

    def kill(self) -> None:
        """The process is no more; its guard ends what runs, then frees the lock."""
        if not self.alive:
            return
        self.world.note(self, "is killed")
        super().kill()
        for stream in list(self.streams.values()):
            stream.break_(silent=self.timed and self.world.chance(0.5))
        self.streams.clear()
        self.world.after(self.world.rng.randrange(1, GUARD_MS), self._bury)

    def _bury(self) -> None:
        for run in list(self.runs.values()):
            if not run.ended:
                run.ended = True
                if run.began >= 0:
                    self.site.checkers.ended(self, run)
        self.runs.clear()
        self.site.died(self)
