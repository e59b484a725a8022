"""A Scheduler over Kafka in a process of its own, which stops itself (SIGSTOP) at a point: reads orders, a line each, and says
what happens in lines.

Orders: `give SHARD...` (what it is to own; or it joins the group: `join`); `halt POINT` (once, when it passes there: it says
`at POINT` and stops); `worker NUMBER` (a worker attaches; its full reports are numbered from NUMBER on); `status`; `end`.
Says: `owns SHARDS`, `lease JOB@INSTANT ATTEMPT EPOCH REPORT FENCING`, `status {...}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Sequence

from confluent_kafka import Consumer, TopicPartition

from dts import bounds
from dts.adapters.kafka.group import Membership
from dts.adapters.kafka.ledger import Owner
from dts.adapters.kafka.settings import KafkaSettings, Topics
from dts.adapters.kafka.store import KafkaStore
from dts.adapters.kafka.transactions import Transactions
from dts.amounts import Vector
from dts.core.instance import Desk, Instance
from dts.core.shard import Shard, folded
from dts.model import Commit, Demand, Effects, Instant, Report, ShardId, WorkerInfo, WorkerRef
from dts.services import ownership
from dts.services.clock import Clock
from dts.services.scheduler import Scheduler

halts: set[str] = set()
REF = WorkerRef("w", "1")


def say(what: str) -> None:
    os.write(1, f"{what}\n".encode())


def pass_by(point: str) -> None:
    if point in halts:
        halts.discard(point)
        say(f"at {point}")
        os.kill(os.getpid(), signal.SIGSTOP)


def probe(point: str, transactions: Transactions) -> None:
    if point == "produced" and point in halts:
        transactions.producer.flush(30)  # the records are in the log, undecided
    pass_by(point)


class Halting(Transactions):
    def initialise(self) -> None:
        pass_by("opening")
        super().initialise()
        pass_by("initialised")


def halting_fold(shard: ShardId, commits: Iterable[Commit]) -> Shard:
    state = folded(shard, commits)
    pass_by("folded")
    return state


class Core(Instance):
    def install(self, state: Shard, epoch: int, now: Instant) -> None:
        super().install(state, epoch, now)
        pass_by("installed")


class Group(Membership):
    """The real one, or what is ordered."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings)
        self.ordered: asyncio.Queue[frozenset[ShardId]] = asyncio.Queue()
        self.joined = False

    async def shards(self) -> AsyncIterator[frozenset[ShardId]]:
        while not self.joined:
            given = await self.ordered.get()
            if not self.joined:
                yield given
        async for each in super().shards():
            say(f"given {sorted(each)}")
            yield each

    def _revoked(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        pass_by("revoking")
        super()._revoked(consumer, places)
        pass_by("revoked")


class Pump(Scheduler):
    def _act(self, commit: Commit, effects: Effects) -> None:
        pass_by("acting")
        if effects.leases:
            pass_by("dispatching")
        super()._act(commit, effects)
        if effects.taken_over:
            say(f"owns {commit.shard} {commit.epoch}")

    async def _follow(self, shard: ShardId, desk: Desk) -> None:
        pass_by("following")
        await super()._follow(shard, desk)


class Worker:
    """Answers each Ask with a full report that it holds nothing; says what it is leased."""

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None
        self.number = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def attach(self, number: int) -> None:
        assert self.scheduler is not None
        self.number = number - 1
        for shard, epoch in self.scheduler.attached(WorkerInfo(REF, Demand(slots=1_000), 0, timed=True)).items():
            self.ask(REF, shard, epoch)

    def ask(self, worker: WorkerRef, shard: ShardId, epoch: int) -> None:
        assert self.scheduler is not None
        self.number += 1
        report = self.scheduler.report(shard, Report(worker, epoch, self.number, timed=True, full=True))
        self.tasks.add(asyncio.get_running_loop().create_task(report))

    def send(self, shard: ShardId, epoch: int, effects: Effects) -> None:
        for leases in effects.leases.values():
            for lease in leases:
                block = lease.block
                for key in block.keys:
                    say(f"lease {key} {block.attempt} {block.report[0]} {block.report[1]} {block.fencing}")

    def cordon(self, worker: WorkerRef, cordoned: bool, drain: bool, grace_ms: int) -> None:
        pass

    def want(self, worker: WorkerRef, more: Vector, one: Vector) -> None:
        pass

    def give_back(self, worker: WorkerRef, number: int, kept: Vector, shards: Sequence[ShardId]) -> None:
        pass


async def status(pump: Scheduler) -> str:
    shards, clock, notes = await pump.status()
    found = {each.shard: each._asdict() for each in shards}
    return f"status {json.dumps({'shards': found, 'clock': clock, 'notes': list(notes)})}"


async def serve(settings: KafkaSettings, options: dict[str, int]) -> None:
    clock = Clock()
    store = await KafkaStore.open(settings, probe, clock.sample)
    group = Group(settings)
    store._membership = store.ledger._membership = group
    core = Core(lease_ms=options["lease_ms"], keep_alive_ms=options["keep_alive_ms"])
    worker = Worker()
    pump = Pump(core, store.ledger, store.feed, worker, clock, many=True)
    worker.scheduler = pump
    running = asyncio.create_task(pump.run())
    say("ready")
    while (line := (await asyncio.to_thread(sys.stdin.readline)).split()) and line != ["end"]:
        match line:
            case ["halt", point]:
                halts.add(point)
            case ["give", *shards]:
                group.ordered.put_nowait(frozenset(map(int, shards)))
            case ["join"]:
                group.joined = True
                group.ordered.put_nowait(frozenset())
            case ["worker", number]:
                worker.attach(int(number))
            case ["status"]:
                say(await status(pump))
    pump.stop()
    await running
    await store.close()


if __name__ == "__main__":
    logging.basicConfig(level=os.environ.get("PUMP_LOG", "ERROR"))
    logging.getLogger("dts.kafka.client").setLevel(logging.CRITICAL + 1)
    given = json.loads(sys.argv[1])
    Owner.transactions_class = Halting
    setattr(ownership, "folded", halting_fold)  # noqa: B010
    asyncio.run(
        serve(
            KafkaSettings(**{**given, "topics": Topics(*given["topics"])}),
            {"lease_ms": bounds.LEASE_MS, "keep_alive_ms": bounds.IDLE_COMMIT_MS, **json.loads(sys.argv[2])},
        )
    )
