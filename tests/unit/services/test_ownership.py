"""Many shards: taken over side by side, given and taken away at any moment, damaged ones, and such that are fought over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from dts import bounds
from dts.adapters.memory import MemoryFeed, MemoryLedger, MemoryStore
from dts.core.instance import Instance
from dts.errors import OwnershipLost, StoreDamaged, Unavailable
from dts.model import (
    Change,
    Commit,
    Definition,
    Demand,
    Effects,
    JobState,
    Outcome,
    Policies,
    Position,
    ScheduleSpec,
    ShardId,
    WorkerRef,
)
from dts.services import ownership
from dts.services.clock import Clock
from dts.services.ownership import Turns
from dts.services.scheduler import Scheduler

WAIT_S = 10.0


class Ledger(MemoryLedger):
    """Gives and takes shards as it is told; `before` is awaited by each `open`."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.given: frozenset[ShardId] = frozenset()
        self.changed = asyncio.Event()
        self.opened: list[ShardId] = []
        self.opening = 0
        self.before: Callable[[ShardId], Awaitable[None]] | None = None

    def give(self, *shards: ShardId) -> None:
        self.given = frozenset(shards)
        self.changed.set()

    async def ownership(self) -> AsyncIterator[frozenset[ShardId]]:
        while True:
            self.changed.clear()
            yield self.given
            await self.changed.wait()

    async def open(self, shard: ShardId) -> tuple[int, AsyncIterator[Commit]]:
        self.opened.append(shard)
        self.opening += 1
        try:
            if self.before is not None:
                await self.before(shard)
        finally:
            self.opening -= 1
        return await super().open(shard)


class Feed(MemoryFeed):
    """Has nothing to tell; counts who listens."""

    def __init__(self) -> None:
        super().__init__()
        self.listening: list[ShardId] = []

    async def changes(self, shard: ShardId, after: Position) -> AsyncIterator[Sequence[Change]]:
        self.listening.append(shard)
        try:
            await asyncio.get_running_loop().create_future()
            yield ()
        finally:
            self.listening.remove(shard)


class Nobody:
    """No workers."""

    def send(self, shard: ShardId, epoch: int, effects: Effects) -> None:
        pass

    def ask(self, worker: WorkerRef, shard: ShardId, epoch: int) -> None:
        raise AssertionError("there are none")


class World:
    def __init__(self, *, many: bool = True) -> None:
        store = MemoryStore()
        self.ledger = Ledger(store)
        self.feed = Feed()
        self.core = Instance()
        self.scheduler = Scheduler(self.core, self.ledger, self.feed, Nobody(), Clock(), many=many)  # type: ignore[arg-type]

    async def notes(self) -> str:
        return "; ".join((await self.scheduler.status())[2])


async def until(true: Callable[[], bool]) -> None:
    """Polls."""
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(*shards: ShardId, many: bool = True) -> AsyncIterator[World]:
    world = World(many=many)
    world.ledger.give(*shards)
    task = asyncio.create_task(world.scheduler.run())
    try:
        yield world
    finally:
        world.scheduler.stop()
        async with asyncio.timeout(WAIT_S):
            await task


def owned(world: World) -> set[ShardId]:
    """Shards whose take-over commit is made."""
    return {shard for shard, desk in world.core.desks.items() if not desk.fresh}


async def test_all_are_opened_at_once_but_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "TAKE_OVERS", 4)
    most = 0

    async def together(shard: ShardId) -> None:
        nonlocal most
        del shard
        await asyncio.sleep(0.01)
        most = max(most, world.ledger.opening)

    async with running() as world:
        world.ledger.before = together
        world.ledger.give(*range(16))
        await until(lambda: owned(world) == set(range(16)))
        assert most == 4


async def test_ready_when_all_that_were_given_are_there_and_at_once_when_none_is() -> None:
    gate = asyncio.Event()

    async def wait(shard: ShardId) -> None:
        if shard == 2:
            await gate.wait()

    async with running() as none:
        await asyncio.wait_for(none.scheduler.ready.wait(), WAIT_S)
    world = World()
    world.ledger.before = wait
    world.ledger.give(1, 2)
    task = asyncio.create_task(world.scheduler.run())
    await until(lambda: owned(world) == {1})
    assert not world.scheduler.ready.is_set()
    assert "being taken over: 2" in await world.notes()
    gate.set()
    await asyncio.wait_for(world.scheduler.ready.wait(), WAIT_S)
    world.scheduler.stop()
    await task


async def test_a_shard_that_cannot_be_opened_stops_no_other() -> None:
    async def stuck(shard: ShardId) -> None:
        if shard == 0:
            await asyncio.get_running_loop().create_future()

    async with running() as world:
        world.ledger.before = stuck
        world.ledger.give(0, 1)
        await until(lambda: owned(world) == {1})
        world.ledger.give(0, 1, 2)
        await until(lambda: owned(world) == {1, 2})
        world.ledger.give(1)
        await until(lambda: world.ledger.opening == 0)  # the take-over was called off
        assert owned(world) == {1}


async def test_those_that_stay_are_not_touched_when_others_move() -> None:
    async with running(0, 1) as world:
        await until(lambda: owned(world) == {0, 1})
        stays = world.core.desks[1]
        world.ledger.give(1, 2)
        await until(lambda: owned(world) == {1, 2})
        assert world.core.desks[1] is stays
        await until(lambda: sorted(world.feed.listening) == [1, 2])
        assert world.ledger.opened.count(1) == 1


async def test_given_taken_and_given_again_at_once() -> None:
    """The take-over under way is called off, another begins; the shard is folded once more, and owned once."""
    gates: list[asyncio.Event] = []

    async def wait(shard: ShardId) -> None:
        del shard
        gates.append(asyncio.Event())
        await gates[-1].wait()

    async with running() as world:
        world.ledger.before = wait
        for _ in range(3):
            world.ledger.give(5)
            await until(lambda: world.ledger.opening == 1)
            world.ledger.give()
            await until(lambda: world.ledger.opening == 0)
        world.ledger.give(5)
        await until(lambda: world.ledger.opening == 1)
        gates[-1].set()
        await until(lambda: owned(world) == {5})
        await until(lambda: world.feed.listening == [5])


async def test_taken_away_while_its_state_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(work: Callable[..., object], *args: object) -> object:
        begun.set()
        await go_on.wait()
        return work(*args)

    async with running() as world:
        monkeypatch.setattr(asyncio, "to_thread", slowly)
        world.ledger.give(3)
        await asyncio.wait_for(begun.wait(), WAIT_S)
        world.ledger.give()
        await asyncio.sleep(0)
        go_on.set()
        world.ledger.give(4)
        await until(lambda: owned(world) == {4})
        assert set(world.core.desks) == {4}


async def test_a_damaged_shard_stands_alone_and_is_not_tried_again() -> None:
    async def damaged(shard: ShardId) -> None:
        if shard == 1:
            raise StoreDamaged("the record at offset 7 of its log is none of ours")

    async with running() as world:
        world.ledger.before = damaged
        world.ledger.give(0, 1, 2)
        await until(lambda: owned(world) == {0, 2})
        await asyncio.wait_for(world.scheduler.ready.wait(), WAIT_S)
        assert "shard 1 stands: the record at offset 7" in await world.notes()
        world.ledger.give(0, 2)
        await until(lambda: "stands" not in "; ".join(world.scheduler._ownership.notes()))
        world.ledger.give(0, 1, 2)
        await until(lambda: "stands" in "; ".join(world.scheduler._ownership.notes()))
        assert world.ledger.opened.count(1) == 1
        assert owned(world) == {0, 2}


async def test_what_cannot_be_folded_stands_alone_too() -> None:
    async with running() as world:
        world.ledger.take(1)
        world.ledger.logs[1].commits = [Commit(1, 1, 1, 5, (5, "~"), (0, 0)), Commit(1, 1, 3, 6, (6, "~"), (0, 0))]
        world.ledger.give(0, 1)
        await until(lambda: owned(world) == {0})
        await until(lambda: "shard 1 stands: what is stored of it cannot be folded" in _notes(world))


def _notes(world: World) -> str:
    return "; ".join(world.scheduler._ownership.notes())


async def test_the_only_shard_that_is_damaged_ends_the_process() -> None:
    async def damaged(shard: ShardId) -> None:
        del shard
        raise StoreDamaged("the file cannot be trusted")

    world = World(many=False)
    world.ledger.before = damaged
    world.ledger.give(0)
    with pytest.raises(StoreDamaged, match="cannot be trusted"):
        await asyncio.wait_for(world.scheduler.run(), WAIT_S)


async def test_a_fenced_shard_is_taken_anew_only_while_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "FENCED_PAUSES_S", (0.3,) * 5)
    async with running(0, 1) as world:
        await until(lambda: owned(world) == {0, 1})
        for shard in (0, 1):
            world.ledger.take(shard)
            world.core.receive_changes(shard, [Change((1, 0), _job(f"j{shard}"))])
        world.scheduler._news.set()
        await until(lambda: not world.core.desks)
        world.ledger.give(1)  # the group says so within the pause
        await until(lambda: owned(world) == {1})
        assert world.ledger.opened.count(0) == 1
        assert world.ledger.opened.count(1) == 2


async def test_fenced_again_and_again_it_waits_longer_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "FENCED_PAUSES_S", (0.01, 0.05, 0.1, 0.2))
    async with running(0) as world:
        pauses: list[float] = []
        for _ in range(4):
            await until(lambda: owned(world) == {0})
            before = world.core.desks[0]
            world.ledger.take(0)
            world.core.receive_changes(0, [Change((1, 0), _job("j"))])
            world.scheduler._news.set()
            begun = time.monotonic()
            await until(lambda before=before: world.core.desks.get(0) not in (None, before))  # type: ignore[misc]
            pauses.append(time.monotonic() - begun)
        assert pauses == sorted(pauses)
        assert pauses[-1] >= 0.2
        assert "shard 0 is fought over: fenced 4 times within 60 s" in await world.notes()


async def test_the_only_shard_that_is_fought_over_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "FENCED_PAUSES_S", (0.0, 0.0))

    async def fenced(shard: ShardId) -> None:
        raise OwnershipLost(f"shard {shard}: another epoch")

    world = World(many=False)
    world.ledger.before = fenced
    world.ledger.give(0)
    with pytest.raises(Unavailable, match="fought over"):
        await asyncio.wait_for(world.scheduler.run(), WAIT_S)


async def test_dropped_while_a_commit_is_in_doubt() -> None:
    """What became of it is for the next owner's fold; here it is passed over, whichever way it ends."""
    held: asyncio.Queue[asyncio.Future[Outcome]] = asyncio.Queue()

    async def doubtful(commit: Commit) -> Outcome:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        held.put_nowait(future)
        return await future

    async with running(0) as world:
        await until(lambda: owned(world) == {0})
        world.ledger.commit = doubtful  # type: ignore[method-assign]
        world.core.receive_changes(0, [Change((1, 0), _job("j"))])
        world.scheduler._news.set()
        answer = await asyncio.wait_for(held.get(), WAIT_S)
        del world.ledger.commit
        world.ledger.give()
        await until(lambda: not world.core.desks)
        world.ledger.give(0)
        await until(lambda: owned(world) == {0})
        answer.set_result(Outcome.UNKNOWN)
        world.core.receive_changes(0, [Change((1, 0), _job("k"))])
        world.scheduler._news.set()
        await until(lambda: "k" in world.core.desks[0].shard.definitions)
        assert "j" not in world.core.desks[0].shard.definitions


def _job(name: str) -> Definition:
    specs = (ScheduleSpec("@every 1h"),)
    return Definition(name, 1, Clock().now(), JobState.ACTIVE, None, specs, Demand(), Policies(), b"")


async def test_turns_go_by_rank_and_a_cancelled_one_passes_its_turn_on() -> None:
    turns, order = Turns(), []

    async def take(name: str, rank: int, *, hold: asyncio.Event | None = None) -> None:
        async with turns.turn(rank):
            order.append(name)
            if hold is not None:
                await hold.wait()

    hold = asyncio.Event()
    tasks = [asyncio.create_task(take("first", 9, hold=hold))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(take(name, rank)) for name, rank in (("b", 1), ("c", 1), ("a", 0), ("d", 1))]
    await asyncio.sleep(0)
    tasks[2].cancel()
    hold.set()
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["first", "b", "d"]
    async with turns.turn(5):
        order.append("free again")
    assert order[-1] == "free again"
