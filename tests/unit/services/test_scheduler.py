"""The pump: what a commit's three outcomes, a lost shard and a slow owner mean to who waits. Over the memory adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from dts.adapters.memory import Fate, MemoryStore
from dts.core.instance import Instance
from dts.errors import FailedPrecondition
from dts.model import (
    Block,
    Cancel,
    Definition,
    Demand,
    Effects,
    End,
    Execution,
    ExecutionQuery,
    Held,
    JobState,
    Key,
    Lease,
    Policies,
    Report,
    Revision,
    Run,
    ScheduleSpec,
    ShardId,
    Status,
    WorkerInfo,
    WorkerRef,
    intern_demand,
)
from dts.services.clock import Clock
from dts.services.scheduler import Scheduler

REF = WorkerRef("w", "1")
WAIT_S = 5.0


class Worker:
    """A worker that reports at once when it is asked, and says what it is told to say."""

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None
        self.leases: asyncio.Queue[Lease] = asyncio.Queue()
        self.cancels: list[tuple[Held, str]] = []
        self.acks: list[Held] = []
        self.number = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def send(self, shard: ShardId, epoch: int, effects: Effects) -> None:
        del shard, epoch
        for leases in effects.leases.values():
            for lease in leases:
                self.leases.put_nowait(lease)
        for cancels in effects.cancels.values():
            self.cancels += cancels
        for acks in effects.acks.values():
            self.acks += acks

    def ask(self, worker: WorkerRef, shard: ShardId, epoch: int) -> None:
        assert self.scheduler is not None
        self.number += 1
        report = self.scheduler.report(shard, Report(worker, epoch, self.number, timed=False, full=True))
        task = asyncio.get_running_loop().create_task(report)  # type: ignore[arg-type]
        self.tasks.add(task)

    def attach(self) -> None:
        assert self.scheduler is not None
        info = WorkerInfo(REF, Demand(slots=10), 100, timed=False)
        for shard, epoch in self.scheduler.attached(info).items():
            self.ask(REF, shard, epoch)

    async def end(self, lease: Lease, status: Status = Status.COMPLETED) -> None:
        assert self.scheduler is not None
        block = lease.block
        ended = Block(block.keys, (), block.demand, status, attempt=block.attempt, ends=[End(1, 2)] * len(block.keys))
        await self.scheduler.report(0, Report(REF, block.report[0], 0, timed=False, ended=[ended]))


class World:
    def __init__(self) -> None:
        self.fates: list[Fate] = []
        self.store = MemoryStore(lambda _: self.fates.pop(0) if self.fates else Fate.COMMITTED)
        self.worker = Worker()
        self.clock = Clock()
        self.scheduler = Scheduler(
            Instance(), self.store.ledger, self.store.feed, self.worker, self.clock, lambda: ["a note"]
        )
        self.worker.scheduler = self.scheduler

    async def create(self, job: str, schedules: Sequence[ScheduleSpec] = (), **policies: object) -> Definition:
        definition = Definition(
            job,
            1,
            self.clock.now(),
            JobState.ACTIVE,
            None,
            tuple(schedules),
            intern_demand(Demand()),
            Policies(**policies),
            b"body",  # type: ignore[arg-type]
        )
        await self.store.jobs.create([Revision(definition, "create", definition.since, job, (), b"")])
        await self.store.feed.publish([definition])
        return definition

    def run_command(self, job: str, id: bytes = b"0123456789abcdef") -> Run:
        now = self.clock.now()
        return Run(id, job, now, now + 60_000, 1)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    task = asyncio.create_task(world.scheduler.run())
    async with asyncio.timeout(WAIT_S):
        await world.scheduler.ready.wait()
        world.worker.attach()
    try:
        yield world
    finally:
        world.scheduler.stop()
        async with asyncio.timeout(WAIT_S):
            await task


async def ended(world: World, key: Key) -> Execution:
    """Polls the record: verdicts have no waiter of their own."""
    async with asyncio.timeout(WAIT_S):
        while (found := await world.store.history.execution(key)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    return found[0]


def key_of(text: str, command: Run) -> Key:
    return Key(command.job, command.issued, text.rsplit("~", 1)[1])


async def test_a_job_runs_and_its_verdict_is_recorded() -> None:
    async with running() as world:
        await world.create("a")
        command = world.run_command("a")
        answer = await world.scheduler.submit(command)
        lease = await asyncio.wait_for(world.worker.leases.get(), WAIT_S)
        key = key_of(answer, command)
        assert list(lease.block.keys) == [key]
        assert list(lease.bodies) == [b"body"]
        open_now = await world.scheduler.execution(key)
        assert open_now is not None
        assert open_now.status is Status.PLACED
        await world.worker.end(lease)
        assert (await ended(world, key)).status is Status.COMPLETED
        assert world.worker.acks == [Held(key, 1)]
        assert await world.scheduler.count(ExecutionQuery()) == 0


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.UNKNOWN_COMMITTED, Fate.UNKNOWN_REFUSED])
async def test_whatever_the_ledger_answers_a_command_runs_once(fate: Fate) -> None:
    async with running() as world:
        await world.create("a")
        command = world.run_command("a")
        world.fates = [fate, fate]
        key = key_of(await world.scheduler.submit(command), command)
        lease = await asyncio.wait_for(world.worker.leases.get(), WAIT_S)
        assert (list(lease.block.keys), lease.block.attempt) == ([key], 1)
        await world.worker.end(lease)
        assert (await ended(world, key)).status is Status.COMPLETED
        assert world.worker.leases.empty()


async def test_a_repeated_command_is_answered_and_runs_once() -> None:
    async with running() as world:
        await world.create("a")
        command = world.run_command("a")
        first = await world.scheduler.submit(command)
        lease = await asyncio.wait_for(world.worker.leases.get(), WAIT_S)
        assert first == str(lease.block.keys[0])
        assert world.worker.leases.empty()


async def test_cancel_of_an_ended_execution_is_refused() -> None:
    async with running() as world:
        now = world.clock.now()
        with pytest.raises(FailedPrecondition, match="has ended"):
            await world.scheduler.submit(Cancel(b"c" * 16, Key("a", 1), now, now + 60_000))


async def test_cancel_reaches_the_worker_and_is_the_verdict() -> None:
    async with running() as world:
        await world.create("a")
        command = world.run_command("a")
        key = key_of(await world.scheduler.submit(command), command)
        lease = await asyncio.wait_for(world.worker.leases.get(), WAIT_S)
        now = world.clock.now()
        await world.scheduler.submit(Cancel(b"c" * 16, key, now, now + 60_000, "enough"))
        assert world.worker.cancels == [(Held(key, 1), "enough")]
        await world.worker.end(lease, Status.CANCELLED)
        verdict = await ended(world, key)
        assert (verdict.status, verdict.reason) == (Status.CANCELLED, "enough")


async def test_a_fenced_owner_takes_over_anew_and_nothing_is_lost() -> None:
    async with running() as world:
        await world.create("a")
        world.store.ledger.take(0)  # another owner comes and goes
        command = world.run_command("a")
        key = key_of(await world.scheduler.submit(command), command)
        lease = await asyncio.wait_for(world.worker.leases.get(), WAIT_S)
        assert list(lease.block.keys) == [key]
        shards, clock, notes = await world.scheduler.status()
        assert (len(shards), clock, "a note" in notes) == (1, "ok", True)


async def test_watchers_see_transitions() -> None:
    async with running() as world:
        await world.create("a")
        seen: list[Status] = []

        async def watch() -> None:
            async for event in world.scheduler.watch("a"):
                assert isinstance(event, Execution)
                seen.append(event.status)
                if event.status.terminal:
                    return

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await world.scheduler.submit(world.run_command("a"))
        await world.worker.end(await asyncio.wait_for(world.worker.leases.get(), WAIT_S))
        await asyncio.wait_for(watching, WAIT_S)
        assert seen == [Status.PLACED, Status.COMPLETED]


async def test_a_repeat_after_a_restart_gives_the_first_answer() -> None:
    async with running() as world:
        await world.create("a")
        first = await world.scheduler.submit(world.run_command("a"))
    world.scheduler = Scheduler(Instance(), world.store.ledger, world.store.feed, world.worker, world.clock)
    world.worker.scheduler = world.scheduler
    task = asyncio.create_task(world.scheduler.run())
    later = world.run_command("a")
    assert await world.scheduler.submit(later._replace(issued=later.issued + 5_000)) == first
    world.scheduler.stop()
    await asyncio.wait_for(task, WAIT_S)


async def test_what_arrives_as_a_clock_is_set_is_as_old_as_it_is() -> None:
    """A jump is believed within one reading of the clock: what that reading dates is not moved once more."""
    wall, steady = 1_800_000_000 * 10**9, 10**9
    clock = Clock(lambda: wall, lambda: steady)
    world = World()
    scheduler = Scheduler(Instance(), world.store.ledger, world.store.feed, world.worker, clock)
    await scheduler._ownership._take_over(0)
    for passed_s in (3_600, 31):
        wall += passed_s * 10**9
        steady += passed_s * 10**9 if passed_s == 31 else 0
        await scheduler.report(0, Report(REF, 1, 1, timed=True, full=True))
    scheduler._step()
    assert scheduler.core.desks[0].seen[REF].answered == clock.now() == wall // 1_000_000
    scheduler._ownership._let_go(0)
