"""The worker's agent: the leases' inputs and outputs joined with the runners, the guard, the output and the clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from dts.amounts import in_use, offer, zero
from dts.model import Demand, Instant, WorkerRef
from dts.worker import bodies, clock
from dts.worker.attempts import Attempt, Skip, Start, Stop
from dts.worker.guarding import Guard, GuardProcess
from dts.worker.leases import Leases
from dts.worker.options import WorkerOptions
from dts.worker.output import Outputs, Store
from dts.worker.pool import Pool
from dts.worker.runners import Ended, Runner, work_of
from dts.worker.shares import Grant, Shares
from dts.worker.tasks.inloop import InLoopRunner
from dts.worker.tasks.none import NoneRunner
from dts.worker.tasks.plugins import Unrunnable, load
from dts.worker.tasks.shell import ShellRunner

log = logging.getLogger(__name__)


class Agent:
    """Holds the leases, starts and stops what they say (runners.Host, leases.Rooms); divides the worker among the
    instances that it serves."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: WorkerOptions, guard: GuardProcess, store: Store
    ) -> None:
        self._loop = loop
        self.options = options
        ref = WorkerRef(options.worker, options.incarnation)
        self.leases = Leases(ref, options.capacity, options.backlog, options.timed, self)
        self._shares = Shares(offer(options.capacity, options.backlog))
        self._grants: dict[int, list[Grant]] = {}  # by stream: credits to be sent
        self._news: dict[int, asyncio.Event] = {}  # by stream
        self.outputs = Outputs(store)
        self.lost_guard = asyncio.Event()
        self.leaving = asyncio.Event()
        shell = ShellRunner(loop, self)
        self._guard = Guard(loop, guard, shell, self._on_guard_gone)
        shell.use(self._guard)
        slots = max(options.capacity.slots, 1)
        pool = Pool(loop, self._guard, self, options.pool_children, slots, options.timed)
        self._runners: dict[str, Runner] = {
            "shell": shell,
            bodies.ALONE: shell,
            "python": pool,
            "none": NoneRunner(self),
        }
        self._runners["broken"] = InLoopRunner(loop, self, Unrunnable())
        self._timer: asyncio.TimerHandle | None = None
        self._guarded: dict[int, int] = {}  # deadlines that the guard knows
        self._acting = False

    # ---- what streams and signals tell ---------------------------------------------------------------------------

    def tell(self, change: Callable[[Leases, int], None]) -> None:
        """Gives the leases an input, then does what follows from it."""
        change(self.leases, clock.boottime_ms())
        self._act()

    def attach(self, stream: int, name: str, lease_ms: int) -> None:
        """A stream to an instance of this name was welcomed."""
        self._news[stream] = asyncio.Event()
        self.tell(lambda leases, _: leases.attach(stream, lease_ms))
        if self.options.timed:
            self.share(lambda shares: shares.join(stream, name))

    def detach(self, stream: int) -> None:
        """A stream ended."""
        self._news.pop(stream, None)
        self.tell(lambda leases, _: leases.detach(stream))
        self.share(lambda shares: shares.part(stream))
        self._grants.pop(stream, None)

    def news(self, stream: int) -> asyncio.Event:
        """Set when there may be something to send on a stream. Whoever takes what there is clears it first."""
        return self._news[stream]

    def share(self, change: Callable[[Shares], None]) -> None:
        """Gives the shares an input, then divides anew. Workers that serve one instance alone credit nothing."""
        if self.options.timed:
            change(self._shares)
            self._divide()
            self._set_timer()

    def grants(self, stream: int) -> list[Grant]:
        """The credits to be sent on a stream; given once."""
        return self._grants.pop(stream, [])

    def silent(self, lease_ms: int) -> list[int]:
        """Streams of instances that do not answer what is credited to them."""
        return self._shares.silent(clock.boottime_ms(), lease_ms)

    def _divide(self) -> None:
        uses = self.leases.uses()
        loose = uses.pop(None, None)
        nothing = zero(self._shares.whole)
        orphans = in_use(loose.taken, loose.pinned, nothing) if loose is not None else nothing
        held = {stream: use for stream, use in uses.items() if stream is not None}
        for grant in self._shares.divide(held, orphans, clock.boottime_ms()):
            self._grants.setdefault(grant.stream, []).append(grant)
            self._wake(grant.stream)

    def _wake(self, stream: int | None = None) -> None:
        """The senders (of one stream, or all) look for something to send."""
        for news in self._news.values() if stream is None else [self._news[stream]]:
            news.set()

    def leave(self, grace_ms: int, reason: str) -> None:
        """Hands back what waits, lets what runs finish for so long; the next call hurries."""
        log.info("leaving within %d ms: %s", grace_ms, reason)
        self.leaving.set()
        self.tell(lambda leases, now: leases.leave(grace_ms, now))

    def longest_grace(self) -> int:
        """How long what runs may still take once it is told to stop (ms)."""
        return max((work_of(attempt).kill_grace_ms for attempt in self.leases.held()), default=0)

    # ---- Rooms ---------------------------------------------------------------------------------------------------

    def kind(self, body: bytes, demand: Demand) -> str:
        work = bodies.read(body)
        confined = work.type == "python" and (demand.cpu or demand.memory or demand.storage)
        return bodies.ALONE if confined else work.kind

    def claim(self, kind: str) -> int:
        return self._runner(bodies.type_of(kind)).claim(kind)

    def _runner(self, type: str) -> Runner:
        """Of a task type, loaded when first needed."""
        runner = self._runners.get(type)
        if runner is None:
            made = load(type)
            if made is None:
                return self._runners["broken"]
            runner = self._runners[type] = InLoopRunner(self._loop, self, made)
        return runner

    # ---- Host ----------------------------------------------------------------------------------------------------

    def started(self, attempt: Attempt, at: Instant) -> None:
        self.leases.started(attempt, at)
        self._wake()

    def ended(self, results: Sequence[Ended]) -> None:
        for attempt, _, _ in results:
            self.outputs.close(attempt)
        self.leases.ended(results, clock.boottime_ms())
        self._act()

    def returned(self, attempts: Sequence[Attempt]) -> None:
        self.leases.returned(attempts, clock.boottime_ms())
        self._act()

    def wrote(self, attempt: Attempt, data: bytes) -> None:
        self.outputs.write(attempt, data)

    def poke(self) -> None:
        self.leases.poke(clock.boottime_ms())
        self._act()

    # ---- acting --------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Does what the leases say. A runner may end attempts at once, which leads here again: one loop does it all."""
        self._wake()
        if self._acting:
            return
        self._acting = True
        try:
            self._tell_guard()
            while actions := self.leases.take_actions():
                for action in actions:
                    self._do(action)
        finally:
            self._acting = False
        self._set_timer()

    def _do(self, action: Start | Stop | Skip) -> None:
        match action:
            case Start(attempts, kind):
                self._runner(bodies.type_of(kind)).start(attempts)
            case Stop(attempt, within):
                self._runner(bodies.type_of(attempt.kind)).stop(attempt, within)
            case Skip(attempt):
                self._runner(bodies.type_of(attempt.kind)).skip(attempt)

    def _set_timer(self) -> None:
        times = [at for at in (self.leases.wake_at(), self._shares.wake_at()) if at is not None]
        wake_at = min(times, default=None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake_at is not None:
            wait = max(wake_at - clock.boottime_ms(), 0) / 1000
            self._timer = self._loop.call_later(wait, self._tick)

    def _tick(self) -> None:
        self._timer = None
        divide_at = self._shares.wake_at()
        if divide_at is not None and divide_at <= clock.boottime_ms():
            self._divide()
        self.tell(lambda leases, now: leases.tick(now))

    def _tell_guard(self) -> None:
        """The guard ends by itself what a stopped worker does not: it knows until when each shard's leases last."""
        if self.options.timed:
            deadlines = self.leases.deadlines()
            if deadlines != self._guarded:
                self._guarded = deadlines
                self._guard.lease(deadlines)

    def _on_guard_gone(self) -> None:
        """Nobody watches what runs any more: this worker ends (main kills what is left)."""
        log.critical("the guard is gone: all that runs is lost")
        self.lost_guard.set()
        self.leaving.set()

    async def close(self) -> int:
        """Ends all runners and the guard with all that it started; the guard's exit status."""
        if self._timer is not None:
            self._timer.cancel()
        for runner in self._runners.values():
            await runner.close()
        return self._guard.close()
