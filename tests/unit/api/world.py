"""The API over the real services and scheduler, with the ports in memory and a worker that ends what it is given at once."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from dts.adapters.memory import MemoryStore
from dts.adapters.sqlite import SqliteStore
from dts.api.execution_methods import ExecutionMethods
from dts.api.http import http_app
from dts.api.job_methods import JobMethods
from dts.api.methods import services
from dts.api.rpc import SERVER_OPTIONS, add_grpc_services
from dts.api.scheduler_methods import SchedulerMethods
from dts.api.views import pause_words
from dts.core.instance import Instance
from dts.gen.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from dts.gen.job.v1.job_pb2_grpc import JobServiceStub
from dts.gen.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from dts.model import NO_END, Block, Demand, End, Held, Report, Status, WorkerInfo, WorkerRef
from dts.schedule import rules_version
from dts.services.audit import AuditService
from dts.services.clock import Clock
from dts.services.executions import ExecutionService
from dts.services.explain import ExplainService
from dts.services.jobs import JobService
from dts.services.scheduler import Scheduler
from dts.services.workers import Acks, Ask, Cancels, Leased, Reception, WorkerHub


@dataclass
class Hand:
    """A worker in the test's process: ends each attempt with `end`, or holds it while `holding`."""

    scheduler: Scheduler
    hub: WorkerHub
    store: Any
    end: End = NO_END
    status: Status = Status.COMPLETED
    holding: bool = False
    held: dict[Held, int] = field(default_factory=dict)
    output: bytes = b""

    def __post_init__(self) -> None:
        self.ref = WorkerRef("hand", "1")
        self.numbers = count(1)

    async def work(self) -> None:
        reception = Reception(self.hub, self.scheduler, self.store.outputs)
        info = WorkerInfo(self.ref, Demand(slots=1_000), backlog=1_000, timed=False)
        session = reception.arrive(info)
        while True:
            for item in await session.drain():
                match item:
                    case Ask():
                        report = Report(self.ref, item.epoch, next(self.numbers), timed=False, full=True)
                        await reception.report(session, item.shard, report)
                    case Leased():
                        await self._run(reception, session, item)
                    case Cancels():
                        for held, _ in item.items:
                            if held in self.held:
                                await self._ended(reception, session, item.shard, item.epoch, held, Status.CANCELLED)
                    case Acks():
                        pass
                    case _:
                        pass

    async def _run(self, reception: Reception, session: Any, item: Leased) -> None:
        block = item.lease.block
        now = self.scheduler.clock.now()
        for key in block.keys:
            held = Held(key, block.attempt)
            if self.output:
                await self.store.outputs.put(key, block.attempt, 0, self.output, not self.holding)
            if self.holding:
                self.held[held] = block.report[0]
                reception.started(session, item.shard, [held], [now])
            else:
                await self._ended(reception, session, item.shard, block.report[0], held, self.status)

    async def _ended(
        self, reception: Reception, session: Any, shard: int, epoch: int, held: Held, status: Status
    ) -> None:
        self.held.pop(held, None)
        now = self.scheduler.clock.now()
        end = self.end._replace(started=now, ended=now)
        block = Block([held.key], [0], Demand(), status, attempt=held.attempt, ends=[end])
        await reception.report(session, shard, Report(self.ref, epoch, 0, timed=False, ended=[block]))


@dataclass
class World:
    """Everything of one process, and how to talk to it."""

    store: Any
    scheduler: Scheduler
    hand: Hand
    jobs: JobService
    executions: ExecutionService
    app: web.Application
    channel: grpc.aio.Channel
    client: TestClient[web.Request, web.Application]

    @property
    def job(self) -> Any:
        return JobServiceStub(self.channel)

    @property
    def schedule(self) -> Any:
        return SchedulerServiceStub(self.channel)

    @property
    def execution(self) -> Any:
        return ExecutionServiceStub(self.channel)

    async def call(
        self, verb: str, path: str, body: object = None, *, data: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """An HTTP request: status and parsed body."""
        raw = data if data is not None else None if body is None else json.dumps(body).encode()
        kept = {name.replace("_", "-"): value for name, value in headers.items()}
        stream = io.BytesIO(raw) if raw is not None else None
        async with self.client.request(verb, path, data=stream, headers=kept) as answer:
            text = await answer.read()
            return answer.status, json.loads(text) if text else None

    async def until(self, path: str, wanted: Mapping[str, object], deadline_s: float = 5.0) -> Any:
        """Asks again until the answer holds what is wanted."""
        answer: Any = None
        async with asyncio.timeout(deadline_s):
            while True:
                _, answer = await self.call("GET", path)
                if all(answer.get(name) == value for name, value in wanted.items()):
                    return answer
                await asyncio.sleep(0.005)


@asynccontextmanager
async def world(database: Path | None = None) -> AsyncIterator[World]:
    """A running one, in memory or over an SQLite file."""
    clock = Clock()
    store: Any = MemoryStore(clock=clock.now) if database is None else await SqliteStore.open(database)
    hub = WorkerHub()
    scheduler = Scheduler(Instance(rules=rules_version()), store.ledger, store.feed, hub, clock)
    jobs = JobService(store.jobs, store.feed, scheduler, store.history, clock.now)
    executions = ExecutionService(store.jobs, scheduler, store.history, store.outputs, clock.now)
    audit = AuditService(store.jobs, scheduler, store.history)
    explain = ExplainService(store.jobs, scheduler, store.history, clock.now, pause_words)
    served = services(JobMethods(jobs), SchedulerMethods(jobs, scheduler), ExecutionMethods(executions, audit, explain))
    app = http_app(served, version="0.0.0")
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_grpc_services(server, served)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    hand = Hand(scheduler, hub, store)
    pump = asyncio.create_task(scheduler.run())
    await asyncio.wait_for(scheduler.ready.wait(), 5)
    work = asyncio.create_task(hand.work())
    timeout = aiohttp.ClientTimeout(total=20)
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            TestClient(TestServer(app), timeout=timeout) as client,
        ):
            yield World(store, scheduler, hand, jobs, executions, app, channel, client)
    finally:
        await server.stop(None)
        scheduler.stop()
        work.cancel()
        await asyncio.wait_for(pump, 5)
        await asyncio.gather(work, return_exceptions=True)
        await store.close()
