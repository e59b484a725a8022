"""The real core over each ledger: after any history, what a new owner folds is what the old owner had in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dts.adapters.memory import Fate
from dts.core.instance import Instance
from dts.core.shard import Shard
from dts.core.snapshot import snapshot
from dts.model import (
    Block,
    Change,
    Demand,
    Effects,
    End,
    Held,
    JobState,
    Key,
    Outcome,
    Policies,
    Report,
    Revision,
    Run,
    ScheduleSpec,
    Status,
    WorkerInfo,
    WorkerRef,
)
from tests.conformance.values import SLOT, revision
from tests.conformance.worlds import KAFKA, Store, World, make_world

START = 1_800_000_000_000
JOBS = ("a", "b", "c")
SCHEDULES = ((ScheduleSpec("@every 1s"),), (ScheduleSpec("* * * * *"),), ())
WORKER = WorkerRef("w", "1")
STEPS = 12  # commits until a moment is done with
ENDS = (Status.COMPLETED, Status.FAILED, Status.LOST)

act = st.one_of(
    st.tuples(
        st.just("job"), st.sampled_from(JOBS), st.sampled_from(list(JobState)), st.integers(0, 2), st.integers(-90, 5)
    ),
    st.tuples(st.just("run"), st.sampled_from(JOBS)),
    st.tuples(st.just("wait"), st.sampled_from([200, 1_000, 3_000, 61_000, 200_000])),
    st.tuples(st.just("end"), st.integers(1, 5), st.sampled_from(ENDS)),
    st.tuples(st.just("forget")),
    st.tuples(st.just("fate"), st.sampled_from(list(Fate))),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("restart")),
)


class Server:
    """The core, its ledger and a worker that does what it is told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = START
        self.runs = 0
        self.fate = Fate.COMMITTED  # of the next commit
        self.held: list[Held] = []

    async def start(self) -> None:
        self.store: Store = await self.world.open()
        self.core = Instance(limit=5)
        epoch, commits = await self.store.ledger.open(0)
        stored = [commit async for commit in commits]
        self.core.adopt(0, epoch, stored, self.now)
        self.shard: Shard = self.core.desks[0].shard
        self.feed: AsyncIterator[Sequence[Change]] = self.store.feed.changes(0, self.shard.applied)
        self.reading: asyncio.Future[Sequence[Change]] = asyncio.ensure_future(anext(self.feed))  # type: ignore[arg-type]
        self.core.attach(WorkerInfo(WORKER, Demand(slots=4), 3))
        self.number = 0

    async def stop(self) -> None:
        self.reading.cancel()
        await asyncio.wait([self.reading])
        await self.feed.aclose()  # type: ignore[attr-defined]
        await self.store.close()

    async def changed(self) -> None:
        """What was published arrives."""
        self.core.receive_changes(0, await self.reading)
        self.reading = asyncio.ensure_future(anext(self.feed))  # type: ignore[arg-type]

    async def step(self) -> bool:
        commits = self.core.step(self.now)
        for commit in commits:
            self.world.next_fate(self.fate)
            self.fate = Fate.COMMITTED
            outcome = await self.store.ledger.commit(commit)
            if outcome is Outcome.UNKNOWN:
                outcome = await self.store.ledger.resolve(commit)
            effects = self.core.settle(commit, outcome, self.now)
            if effects is None:
                self.now += 6_000  # the longest wait after a refusal
            else:
                self.take(effects)
        return bool(commits)

    def take(self, effects: Effects) -> None:
        for lease in effects.leases.get(WORKER, ()):
            self.held += [Held(key, lease.block.attempt) for key in lease.block.keys]
        for held, _ in effects.cancels.get(WORKER, ()):
            self.end([held], Status.CANCELLED)
        for held in effects.acks.get(WORKER, ()):
            if held in self.held:
                self.held.remove(held)
        if effects.taken_over or self.number == 0:
            self.report(full=True)

    def end(self, held: Sequence[Held], status: Status) -> None:
        blocks = [Block([one.key], [1], SLOT, status, one.attempt, ends=[End(1, 2, 3, "", "")]) for one in held]
        self.report(ended=blocks)

    def report(self, **what: Any) -> None:
        self.number += 1
        full = tuple(self.held) if what.get("full") else ()
        report = Report(WORKER, self.shard.epoch, self.number, timed=False, held=full, **what)
        self.core.receive_report(0, report, self.now)

    async def job(self, job: str, state: JobState, schedule: int, late: int) -> None:
        there = (await self.store.jobs.get([job])).get(job)
        number = there.revision + 1 if there else 1
        since = self.now + 1_000 * late if there is None else max(self.now, there.updated) + 1_000 * max(0, late)
        made: Revision = revision(job, number, since, state)
        until = self.now + 2_000 if state is JobState.PAUSED and schedule else None
        policies = Policies(max_retries=schedule)
        of = made.definition._replace(schedules=SCHEDULES[schedule], until=until, policies=policies)
        write = self.store.jobs.change if there else self.store.jobs.create
        await write([made._replace(definition=of)])
        await self.store.feed.publish([of])
        await self.changed()

    async def run(self, job: str) -> None:
        self.runs += 1
        await self.store.feed.publish(
            [Run(self.runs.to_bytes(6, "big") + bytes(10), job, self.now, self.now + 60_000, 1)]
        )
        await self.changed()

    async def do(self, what: tuple[Any, ...]) -> None:
        match what:
            case ("job", job, state, schedule, late):
                await self.job(job, state, schedule, late)
            case ("run", job):
                await self.run(job)
            case ("wait", ms):
                self.now += ms
            case ("end", count, status):
                self.end(self.held[:count], status)
            case ("forget",):
                while await self.store.history.forget(self.now - 30_000, 50):
                    pass
            case ("fate", fate):
                self.fate = fate
            case ("snapshot",) if not self.core.desks[0].fresh:
                await self.store.ledger.snapshot(snapshot(self.shard, 2))
        for _ in range(STEPS):
            if not await self.step():
                break


def view(shard: Shard, *, ends: bool) -> dict[str, object]:
    """All that the core decides from, in a form that does not depend on how it came about. `ends`: and how the last attempts of
    what is open ended, which a snapshot leaves to history."""
    opened: dict[Key, Block] = {}
    for key, (block, place) in shard.open.items():
        last = list(block.ends[place : place + 1]) if ends else []
        opened[key] = replace(block, keys=[key], revisions=[block.revisions[place]], ends=last)
    return {
        "seq": (shard.seq, shard.watermark, shard.applied),
        "definitions": shard.definitions,
        "in_force": shard.in_force,
        "kept": shard.kept,
        "open": opened,
        "counts": shard.counts,
        "placed": {worker: set(keys) for worker, keys in shard.placed.items() if keys},
        "waiting": {demand: set(keys) for demand, keys in shard.waiting.items() if keys},
        "owed": shard.owed,
        "gaps": shard.gaps,
        "held": shard.held_commands,
        "next": shard.timetable.next_due(),
    }


async def play(world: World, script: Sequence[tuple[Any, ...]]) -> None:
    server = Server(world)
    await server.start()
    ends = ("snapshot",) not in script
    try:
        for what in [*script, ("restart",)]:
            await server.do(what)
            if what[0] in ("restart", "forget"):
                before = view(server.shard, ends=ends)
                await server.stop()
                await server.start()
                assert view(server.shard, ends=ends) == before
    finally:
        await server.stop()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(act, min_size=5, max_size=30))
def test_a_new_owner_has_the_state_of_the_old_one(kind: str, script: list[tuple[Any, ...]]) -> None:
    play_on(kind, script)


@pytest.mark.soak  # an example takes seconds, a shrink minutes: the suites of ledger and feed are what `make test` runs on Kafka
@settings(max_examples=20, deadline=None)
@given(script=st.lists(act, min_size=5, max_size=15))
@pytest.mark.usefixtures("servers")
def test_a_new_owner_has_the_state_of_the_old_one_on_kafka(script: list[tuple[Any, ...]]) -> None:
    play_on(KAFKA, script)


def play_on(kind: str, script: list[tuple[Any, ...]]) -> None:
    world = make_world(kind)
    try:
        asyncio.run(play(world, [("job", "a", JobState.ACTIVE, 0, 0), ("job", "b", JobState.ACTIVE, 0, -5), *script]))
    finally:
        world.remove()
