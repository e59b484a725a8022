"""An owner of the shard: the real Instance, clock, hub and reception, driven as services/scheduler.py drives them.

Each await of the scheduler is an event of its own here, so that the process may be stopped or killed between any two: before
the ledger is asked, after it answered and before settle, after settle and before dispatch, between open and adopt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dts.core.instance import Desk
from dts.core.snapshot import snapshot
from dts.errors import OwnershipLost
from dts.model import Commit, Effects, Held, Instant, Outcome, Position, Report, WorkerInfo, WorkerRef
from dts.services.clock import Clock
from dts.services.workers import Reception, Session, WorkerHub
from dts.worker.attempts import Started, Up
from tests.simulation.channel import Stream
from tests.simulation.world import T0, Process, Steady, run_now

if TYPE_CHECKING:
    from tests.simulation.site import Site

SHARD = 0
FARTHEST_WAKE_MS = 60_000
HOLDING_WAKE_MS = 500
SPINS = 50  # turns in a row, at once, that decide nothing
TAKE_OVER_PAUSE_MS = (0, 1_000, 2_000, 4_000)


class Owner(Process):
    """One scheduler process. Implements ports.WorkerInbox."""

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(site.world, name)
        self.site = site
        rng = site.world.rng
        self.steady = Steady(site.world, rng.uniform(-0.005, 0.005))
        self.clock = Clock(lambda: (T0 + site.world.t + site.wall) * 1_000_000, self.steady.ns)
        self.core = site.build.instance(
            lease_ms=site.options.lease_ms,
            limit=site.options.limit,
            rules="r",
            keep_alive_ms=site.options.keep_alive_ms,
        )
        self.hub = WorkerHub()
        self.reception = Reception(self.hub, self, None)  # type: ignore[arg-type]
        self.streams: dict[Session, Stream] = {}
        self.told: Position = (0, 0)
        self.losses = 0
        self._opening = False
        self._moved = 0
        self._serial = 0  # of the present plan to wake
        self._pumping = False
        self._spins = 0
        self._draining: set[Session] = set()
        self._buried: set[WorkerRef] = set()
        self._leaves: dict[WorkerRef, int] = {}

    @property
    def desk(self) -> Desk | None:
        return self.core.desks.get(SHARD)

    # ---- ownership

    def boot(self) -> None:
        """The group gives it the shard."""
        self.later(self.world.delay(), self._open)

    def dropped(self) -> None:
        """The group takes the shard away."""
        self.world.note(self, "drops the shard")
        self.core.drop(SHARD)

    def _open(self) -> None:
        if self._opening or self.desk is not None:
            return
        self._opening = True
        epoch, commits = self.site.ledger.take(SHARD)
        self.world.note(self, "opens", epoch, len(commits))
        self.later(self.world.delay(), lambda: self._adopt(epoch, commits))

    def _adopt(self, epoch: int, commits: list[Commit]) -> None:
        self._opening = False
        self.core.adopt(SHARD, epoch, commits, self.now())
        desk = self.core.desks[SHARD]
        self.told = desk.shard.applied
        self._buried.clear()
        self.site.checkers.seen["taken over with work"] += bool(desk.shard.placed)
        self.site.checkers.adopted(self)
        self.later(self.world.delay(), self.feed)
        self.later(self.world.delay(), self.look)
        self.news()

    def lost(self) -> None:
        """Fenced: drop, then take over again or give up, as the group says."""
        self.world.note(self, "is fenced")
        self.site.checkers.seen["fenced"] += 1
        self.core.drop(SHARD)
        self.losses += 1
        if self.site.newest() is not self and (self.losses >= len(TAKE_OVER_PAUSE_MS) or self.world.chance(0.5)):
            self.kill()
        else:
            pause = TAKE_OVER_PAUSE_MS[min(self.losses, len(TAKE_OVER_PAUSE_MS)) - 1]
            self.later(pause + self.world.delay(), self._open)

    def kill(self) -> None:
        if self.alive:
            self.world.note(self, "is killed")
            super().kill()
            for stream in list(self.streams.values()):
                stream.break_(silent=self.world.chance(0.1))

    # ---- the pump

    def now(self) -> Instant:
        """What the clock says; the core is told what it was set by first."""
        now = self.clock.now()
        if self.clock.moved != self._moved:
            self.core.clock_moved(self.clock.moved - self._moved)
            self._moved = self.clock.moved
        return now

    def news(self) -> None:
        if not self._pumping:
            self._pumping = True
            self.later(0, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        checkers = self.site.checkers
        now = self.now()
        before = checkers.before_step(self)
        commits = self.core.step(now, hold=self.clock.holding)
        checkers.stepped(self, before, commits)
        for commit in commits:
            self.world.note(self, "decides", commit.epoch, commit.seq, len(commit.blocks), commit.watermark)
            self._commit(commit, self.core.desks[SHARD])
        at = self.core.wake_at(hold=self.clock.holding)
        spins = not commits and at is not None and at <= now
        self._spins = self._spins + 1 if spins else 0
        if self._spins > SPINS:
            checkers.broken("0: it would be woken for nothing, again and again")
        self._plan(at, now)

    def _plan(self, at: Instant | None, now: Instant) -> None:
        delay = FARTHEST_WAKE_MS if at is None else min(FARTHEST_WAKE_MS, at - now)
        if self.clock.holding:
            delay = min(delay, HOLDING_WAKE_MS)
        self._serial += 1
        serial = self._serial
        self.later(max(delay, 1), lambda: self._wake(serial))

    def _wake(self, serial: int) -> None:
        if serial == self._serial:
            self.news()

    # ---- commits and what follows

    def _commit(self, commit: Commit, desk: Desk) -> None:
        """On its way, and the answer; of a former ownership nobody wants to know it any more."""

        def at_ledger() -> None:
            """Whatever has become of this process."""
            outcome = self._ask(commit, self.site.ledger.decide)
            self.later(self.world.delay(), lambda: answered(outcome))

        def resolve() -> None:
            if self.desk is desk:
                self.site.checkers.undecided(self)
            outcome = self._ask(commit, self.site.ledger.settle)
            self.later(self.world.delay(), lambda: answered(outcome))

        def answered(outcome: Outcome | None) -> None:
            if self.desk is not desk:
                return
            if outcome is None:
                self.lost()
            elif outcome is Outcome.UNKNOWN:
                self.site.checkers.seen["unknown"] += 1
                self.core.settle(commit, outcome, self.now())
                self.later(self.world.delay(), resolve)
            else:
                self._settle(commit, outcome)

        self.later(self.world.delay(), lambda: self.world.after(self.world.delay(), at_ledger))

    @staticmethod
    def _ask(commit: Commit, what: Callable[[Commit], Outcome]) -> Outcome | None:
        """None: fenced."""
        try:
            return what(commit)
        except OwnershipLost:
            return None

    def _settle(self, commit: Commit, outcome: Outcome) -> None:
        checkers = self.site.checkers
        before = checkers.before_settle(self, outcome)
        effects = self.core.settle(commit, outcome, self.now())
        checkers.settled(self, commit, outcome, before)
        checkers.seen["refused"] += outcome is Outcome.REFUSED
        if effects is not None:
            self._act(commit, effects)
        if outcome is Outcome.COMMITTED:
            self._shorten()
        self.news()

    def _shorten(self) -> None:
        ledger = self.site.ledger
        if ledger.wants_snapshot(SHARD):
            try:
                ledger.shorten(snapshot(self.core.desks[SHARD].shard, self.site.options.part, "r"))
            except OwnershipLost:
                self.world.note(self, "came too late with its snapshot")

    def _act(self, commit: Commit, effects: Effects) -> None:
        self.hub.send(SHARD, commit.epoch, effects)
        if effects.taken_over:
            self.losses = 0
            for member in self.core.fleet.members.values():
                for worker in member.here:
                    self.hub.ask(worker, SHARD, commit.epoch)
        self._drain_all()

    # ---- the feed

    def feed(self) -> None:
        """Takes some of what is there."""
        desk = self.desk
        if desk is None:
            return
        changes = self.site.feed.since(self.told)
        if not changes:
            return
        some = changes if self.world.healed else changes[: self.world.rng.randint(1, 5)]
        if self.core.receive_changes(SHARD, some):
            for change in some:
                self.told = (max(self.told[0], change.position[0]), max(self.told[1], change.position[1]))
        self.news()
        if len(some) < len(changes):
            self.later(self.world.delay(), self.feed)

    # ---- workers' streams

    def arrived(self, stream: Stream, info: WorkerInfo) -> None:
        """Hello."""
        stream.down(None)
        stream.session = self.reception.arrive(info)
        for former in [each for session, each in self.streams.items() if session.closed]:
            former.break_()
        self.streams[stream.session] = stream
        if info.ref in self._leaves:  # it may not have heard
            self.hub.leave(info.ref, self._leaves[info.ref], "it is asked to leave")
        self._drain(stream.session)

    def departed(self, stream: Stream) -> None:
        session = stream.session
        if session is not None:
            self.streams.pop(session, None)
            self.reception.depart(session)

    def heard(self, stream: Stream, up: Up) -> None:
        """A message of a worker."""
        session = stream.session
        assert session is not None
        if isinstance(up.message, Started):
            self.reception.started(session, up.shard, up.message.held, up.message.at)
        else:
            self.site.checkers.reported(self, up.message)
            run_now(self.reception.report(session, up.shard, up.message))

    def _drain_all(self) -> None:
        for session in list(self.streams):
            self._drain(session)

    def _drain(self, session: Session) -> None:
        if session not in self._draining and session._items:
            self._draining.add(session)
            self.later(self.world.delay(), lambda: self._dispatch(session))

    def _dispatch(self, session: Session) -> None:
        self._draining.discard(session)
        stream = self.streams.get(session)
        if stream is None or session.closed:
            return
        for item in run_now(session.drain()):
            self.site.checkers.dispatched(self, session.info.ref, item)
            stream.down(item)

    # ---- ports.WorkerInbox

    def attached(self, worker: WorkerInfo) -> dict[int, int]:
        asks = self.core.attach(worker)
        self.news()
        return asks

    def detached(self, worker: WorkerRef) -> None:
        self.core.detach(worker)

    async def report(self, shard: int, report: Report) -> None:
        assert self.core.receive_report(shard, report, self.now())
        self.news()

    def started(self, shard: int, worker: WorkerRef, held: Sequence[Held], at: Sequence[Instant]) -> None:
        del worker
        self.core.started(shard, held, at)

    def standing(self, worker: WorkerRef, cordoned: bool) -> None:
        self.core.fleet.cordon(worker, cordoned)
        self.news()

    def credit(self, worker: WorkerRef, number: int, share: tuple[int, ...], returns: int) -> None:
        self.core.credit(worker, number, share, returns)
        self.news()

    # ---- workers whose lease is their life

    def look(self) -> None:
        """Which of them are dead: what they hold is free."""
        if self.desk is not None:
            for ref in self.site.dead():
                if ref not in self._buried:
                    self._buried.add(ref)
                    self._gone(ref)

    def _gone(self, worker: WorkerRef) -> None:
        self.core.detach(worker)
        self.core.fleet.bury(worker)
        desk = self.core.desks[SHARD]
        placed = desk.shard.placed.get(worker, {})
        ran = [Held(key, desk.running[key][0]) for key in placed if key in desk.running]
        report = Report(worker, desk.shard.epoch, 0, timed=False, held=ran, gone=True)
        assert self.core.receive_report(SHARD, report, self.now())
        self.news()

    def leave(self, worker: WorkerRef, grace_ms: int) -> None:
        """Asks a worker to end."""
        self._leaves[worker] = grace_ms
        self.core.fleet.leave(worker)
        self.hub.leave(worker, grace_ms, "it is asked to leave")
        self._drain_all()
