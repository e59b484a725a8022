"""Drives the core: inputs in, commits to the ledger, effects out. It has no period: it wakes on news or when something is due.

It is also what people and workers talk to: `ports.Live` and `ports.WorkerInbox`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

from dts import bounds
from dts.amounts import Vector
from dts.core.instance import Desk, Instance
from dts.core.snapshot import snapshot
from dts.errors import FailedPrecondition, OutcomeUnknown, OwnershipLost
from dts.model import (
    Backfill,
    Command,
    Commit,
    Definition,
    Demand,
    Effects,
    Execution,
    ExecutionQuery,
    Held,
    Instant,
    JobView,
    Key,
    Outcome,
    Outlook,
    Range,
    Report,
    ShardId,
    ShardView,
    WorkerInfo,
    WorkerRef,
    WorkerView,
    answer_of,
)
from dts.ports import JobFeed, Ledger, WorkerChannel
from dts.services import live
from dts.services.clock import Clock
from dts.services.events import Events
from dts.services.ownership import Ownership
from dts.services.recent import Recent

log = logging.getLogger("dts.scheduler")

FARTHEST_WAKE_S = 60.0  # a timer never sleeps longer: the wall clock may be set meanwhile
SNAPSHOT_PART = 5_000  # definitions or blocks in one commit of a snapshot


class Scheduler:
    """One process's shards. `run()` until `stop()`. `many`: they are some of many, shared by many processes."""

    def __init__(
        self,
        core: Instance,
        ledger: Ledger,
        feed: JobFeed,
        workers: WorkerChannel,
        clock: Clock,
        notes: Callable[[], Sequence[str]] = lambda: (),
        recent: Recent | None = None,
        *,
        many: bool = False,
    ) -> None:
        self.core = core
        self.clock = clock
        self._ledger = ledger
        self._feed = feed
        self._workers = workers
        self._notes = notes
        self._recent = recent
        self._news = asyncio.Event()
        self._room = asyncio.Event()  # an inbox was emptied a bit
        self._stopping = False
        self._idle = asyncio.Event()
        self._events = Events()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ownership = Ownership(core, ledger, self._now, self._spawn, self._follow, many=many)
        self.ready = self._ownership.ready
        self._answers: dict[bytes, asyncio.Future[str]] = {}
        self._settled: dict[str, list[tuple[int, asyncio.Future[bool]]]] = {}
        self._moved = 0
        self._failed: asyncio.Future[None] | None = None

    # --- the pump

    async def run(self) -> None:
        """Until `stop`, then until no commit is under way. Raises what broke a background task (a bug, a lost store)."""
        self._failed = asyncio.get_running_loop().create_future()
        self._spawn(self._ownership.run())
        try:
            while not self._stopping or any(desk.draft for desk in self.core.desks.values()):
                self._news.clear()
                self._step()
                if self._failed.done():
                    self._failed.result()
                await self._wait()
        finally:
            for task in self._tasks:
                task.cancel()

    def stop(self) -> None:
        """Decides nothing more; `run` returns when what is under way is settled."""
        self._stopping = True
        self._news.set()

    def _step(self) -> None:
        now = self._now()
        if self._stopping:
            return
        for back in self.core.fleet.returns():  # before what became free is taken again
            self._workers.give_back(*back)
        for commit in self.core.step(now, hold=self.clock.holding):
            self._spawn(self._commit(commit, self.core.desks[commit.shard]))
        for want in self.core.wants(now):
            self._workers.want(*want)

    def _now(self) -> Instant:
        """The clock's; when it was set, what the core measures in elapsed time moves along first."""
        now = self.clock.now()
        if (moved := self.clock.moved) != self._moved:
            self.core.clock_moved(moved - self._moved)
            self._moved = moved
        return now

    async def _wait(self) -> None:
        """Until news, or until something is due."""
        if self._news.is_set():
            return
        at = None if self._stopping else self.core.wake_at(hold=self.clock.holding)
        delay = FARTHEST_WAKE_S
        if at is not None:
            delay = min(delay, (at * 1_000_000 - self.clock.now_ns()) / 1e9)
        if self.clock.holding:
            delay = min(delay, 0.5)
        if delay <= 0:
            await asyncio.sleep(0)
            return
        timer = asyncio.get_running_loop().call_later(delay, self._news.set)
        await self._news.wait()
        timer.cancel()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the scheduler ended: %r", error, exc_info=error)
            if self._failed is not None and not self._failed.done():
                self._failed.set_exception(error)
            self._news.set()

    # --- what the shards read

    async def _follow(self, shard: ShardId, desk: Desk) -> None:
        """Reads the feed of a shard that has been taken over, for ever."""
        self._news.set()
        async for changes in self._feed.changes(shard, desk.shard.applied):
            for start in range(0, len(changes), bounds.STEP_CHANGES):
                part = changes[start : start + bounds.STEP_CHANGES]
                while not self.core.receive_changes(shard, part):
                    await self._inbox_room()
                self._news.set()

    async def _inbox_room(self) -> None:
        self._room.clear()
        await self._room.wait()

    # --- commits and what follows

    async def _commit(self, commit: Commit, desk: Desk) -> None:
        try:
            outcome = await self._ledger.commit(commit)
            if outcome is Outcome.UNKNOWN:
                outcome = await self._ledger.resolve(commit)
        except OwnershipLost as error:
            self._ownership.lost(commit.shard, desk, error)
            self._news.set()
            return
        if self.core.desks.get(commit.shard) is not desk:
            return  # dropped meanwhile, and perhaps taken over anew: this commit is folded there or was refused
        effects = self.core.settle(commit, outcome, self._now())
        if effects is not None:
            self._act(commit, effects)
        self._room.set()
        self._news.set()
        await self._shorten(commit.shard)

    async def _shorten(self, shard: ShardId) -> None:
        """Right after a commit was applied: the ledger puts the snapshot before the next one."""
        if not self._ledger.wants_snapshot(shard):
            return
        state = self.core.desks[shard].shard
        try:
            await self._ledger.snapshot(snapshot(state, SNAPSHOT_PART, self.core.rules))
        except OwnershipLost as error:
            log.warning("%s", error)  # the next commit finds it out, too

    def _act(self, commit: Commit, effects: Effects) -> None:
        self._workers.send(commit.shard, commit.epoch, effects)
        if effects.taken_over:
            for member in self.core.fleet.members.values():
                for worker in member.here:
                    self._workers.ask(worker, commit.shard, commit.epoch)
        for command, answer in effects.answers:
            future = self._answers.pop(command, None)
            if future is not None and not future.done():
                future.set_result(answer)
        if self._settled:
            self._tell_settled(commit.definitions)
        self._events.committed(commit)
        if self._recent is not None:
            self._recent.committed(commit)

    def _tell_settled(self, definitions: Sequence[Definition]) -> None:
        for definition in definitions:
            waiting = self._settled.pop(definition.job, [])
            left = [each for each in waiting if each[0] > definition.revision]
            for revision, future in waiting:
                if revision <= definition.revision and not future.done():
                    future.set_result(True)
            if left:
                self._settled[definition.job] = left

    # --- ports.WorkerInbox

    def attached(self, worker: WorkerInfo) -> dict[ShardId, int]:
        """A worker's stream began."""
        asks = self.core.attach(worker)
        if self.core.fleet.members[worker.ref.id].cordoned and not worker.cordoned:
            self._workers.cordon(worker.ref, True, False, 0)  # an incarnation of it that nobody told
        self._news.set()
        return asks

    def detached(self, worker: WorkerRef) -> None:
        """Its stream ended."""
        self.core.detach(worker)

    async def report(self, shard: ShardId, report: Report) -> None:
        """A worker's report."""
        while not self.core.receive_report(shard, report, self._now()):
            await self._inbox_room()
        self._news.set()

    def started(self, shard: ShardId, worker: WorkerRef, held: Sequence[Held], at: Sequence[Instant]) -> None:
        """These attempts run now."""
        self.core.started(shard, held, at)

    def leaving(self, worker: WorkerRef) -> None:
        """Nothing new is placed at a worker that is about to end."""
        self.core.fleet.leave(worker)

    def standing(self, worker: WorkerRef, cordoned: bool) -> None:
        """A worker was told somewhere that it gets nothing new, or something again."""
        self.core.fleet.cordon(worker, cordoned)
        self.core.nudge()
        self._news.set()

    def credit(self, worker: WorkerRef, number: int, share: Vector, returns: int) -> None:
        """What of a worker this instance may use."""
        self.core.credit(worker, number, share, returns)
        self._news.set()

    async def cordon(self, worker: str, *, cordoned: bool, drain: bool = False, grace_ms: int = 0) -> bool:
        """ports.Live: holds here at once; the worker repeats it to the other instances."""
        member = self.core.fleet.members.get(worker)
        if member is None or not member.attached:
            return False
        for ref in list(member.here):
            self.standing(ref, cordoned)
            self._workers.cordon(ref, cordoned, drain, grace_ms)
        return True

    async def gone(self, worker: WorkerRef) -> None:
        """This incarnation is known to be dead: what it held is free."""
        self.core.detach(worker)
        self.core.fleet.bury(worker)
        for shard, desk in list(self.core.desks.items()):
            placed = desk.shard.placed.get(worker, {})
            ran = [Held(key, desk.running[key][0]) for key in placed if key in desk.running]
            await self.report(shard, Report(worker, desk.shard.epoch, 0, timed=False, held=ran, gone=True))

    def heard(self) -> dict[WorkerRef, Instant]:
        """When each incarnation last said something."""
        found: dict[WorkerRef, Instant] = {}
        for desk in self.core.desks.values():
            for worker, seen in desk.seen.items():
                found[worker] = max(found.get(worker, 0), seen.heard)
        return found

    def holders(self) -> set[WorkerRef]:
        """Workers whose lease is their life and that hold something."""
        return {
            worker
            for desk in self.core.desks.values()
            for worker, keys in desk.shard.placed.items()
            if keys and desk.shard.open[next(iter(keys))][0].life
        }

    # --- ports.Live

    def owned(self) -> list[ShardId]:
        """The shards whose state is whole here: their take-over is committed."""
        return sorted(shard for shard, desk in self.core.desks.items() if not desk.fresh)

    def _desk_of(self, job: str) -> Desk | None:
        for desk in self.core.desks.values():
            if job in desk.shard.definitions or job in desk.shard.by_job:
                return desk
        return None

    async def views(self, jobs: Sequence[str]) -> dict[str, JobView]:
        """What each job is doing now."""
        now = self.clock.now()
        found: dict[str, JobView] = {}
        for job in jobs:
            desk = self._desk_of(job)
            seen = live.view(desk, job, now) if desk is not None else None
            if seen is not None:
                found[job] = seen
        return found

    async def execution(self, key: Key) -> Execution | None:
        """An open execution, or one that ended a moment ago where history comes later (`recent`)."""
        desk = self._desk_of(key.job)
        found = live.execution(self.core, desk, key, self.clock.now()) if desk is not None else None
        if found is None and self._recent is not None:
            return self._recent.find(key, self.clock.now())
        return found

    async def executions(self, query: ExecutionQuery, before: Key | None, limit: int) -> Sequence[Execution]:
        """Open ones, newest first."""
        keys = live.newest(self.core.desks.values(), query, before, limit)
        found = [await self.execution(key) for key in keys]
        return [each for each in found if each is not None]

    async def count(self, query: ExecutionQuery) -> int:
        """How many open executions."""
        return sum(1 for _ in live.matching(self.core.desks.values(), query))

    async def submit(self, command: Command) -> str:
        """Publishes a command and waits for its commit."""
        future = self._answers.setdefault(command.id, asyncio.get_running_loop().create_future())
        try:
            for first in await self._feed.publish([command]):
                return answer_of(first)  # a repeat: what it made has its id from when it was first asked
            async with asyncio.timeout(bounds.ANSWER_WAIT_S):
                answer = await asyncio.shield(future)
        except TimeoutError:
            raise OutcomeUnknown(
                f"command {command.id.hex()[:12]} is stored and will be carried out, but was not within "
                f"{bounds.ANSWER_WAIT_S:g} s: see 'dts status'"
            ) from None
        finally:
            if not future.done():
                self._answers.pop(command.id, None)
        if answer.startswith("!"):
            raise FailedPrecondition(answer[1:].removeprefix(f"{FailedPrecondition.status} "))
        return answer

    async def backfills(self, job: str) -> Sequence[Backfill]:
        """Those that run or ran, the latest first."""
        return live.backfills(self.core.desks.values(), job)

    def watch(self, job: str) -> AsyncIterator[Execution | Range | int]:
        """What is committed from now on."""
        return self._events.watch(job)

    async def settled(self, job: str, revision: int, timeout_s: float) -> bool:
        """Waits until a revision is applied."""
        desk = self._desk_of(job)
        definition = desk.shard.definitions.get(job) if desk is not None else None
        if definition is None or definition.revision >= revision:
            return True  # none: it was deleted, and that is applied
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._settled.setdefault(job, []).append((revision, future))
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return False
        finally:
            left = [each for each in self._settled.pop(job, []) if each[1] is not future]
            if left:
                self._settled[job] = left

    async def workers(self) -> Sequence[WorkerView]:
        """The fleet."""
        return live.worker_views(self.core)

    async def outlook(self, job: str, demand: Demand, queued: Instant) -> Outlook | None:
        """Whether an execution of a job with this demand would find a place now."""
        desk = self._desk_of(job)
        return None if desk is None else live.outlook(self.core, desk, demand, queued, self.clock.state)

    async def status(self) -> tuple[Sequence[ShardView], str, Sequence[str]]:
        """Shards, clock, notes."""
        notes = [note for note in (*self._notes(), *self._ownership.notes(), self.clock.note) if note]
        refused = [desk for desk in self.core.desks.values() if desk.refused]
        notes += [f"shard {desk.shard.shard}: {desk.refused} commits in a row were refused" for desk in refused]
        return [live.shard_view(desk) for desk in self.core.desks.values()], self.clock.state, notes
