"""`dts up`: all three services in one process over one SQLite file, and a worker in a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import uvloop

from dts import __version__, bounds
from dts.adapters.sqlite import SqliteStore, lock
from dts.api.execution_methods import ExecutionMethods
from dts.api.job_methods import JobMethods
from dts.api.methods import services
from dts.api.scheduler_methods import SchedulerMethods
from dts.api.views import pause_words
from dts.api.workers import WorkerServicer
from dts.config import Config
from dts.core.instance import Instance
from dts.errors import DtsError
from dts.schedule import rules_version
from dts.server.capacity import capacity_of
from dts.server.listeners import Listeners, address
from dts.server.local import LocalWorkers, stop_signals
from dts.server.tuning import tune
from dts.services.audit import AuditService
from dts.services.clock import Clock
from dts.services.executions import ExecutionService
from dts.services.explain import ExplainService
from dts.services.jobs import JobService
from dts.services.scheduler import Scheduler
from dts.services.workers import Reception, WorkerHub
from dts.worker.options import WorkerOptions

log = logging.getLogger("dts.server")

LOCAL_WORKER = "local"
FORGET_EVERY_S = 3_600.0
FORGET_ROWS = 5_000  # in one transaction
FORGET_PAUSE_S = 0.05  # between two, so that commits go first
DAY_MS = 86_400_000
HAND_BACK_S = 3.0  # at the end of a stop: for the worker to say what became of the tasks that it had to KILL


def serve_embedded(config: Config) -> int:
    """Runs until it is told to stop; the exit code. Raises DtsError when it cannot start (a taken file or port, ...)."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    held = lock.ServerLock(config.database)
    held.acquire(datetime.fromtimestamp(Clock().now() / 1000, UTC).isoformat(timespec="seconds"), _ports(config))
    try:
        return uvloop.run(_Server(config).run())
    finally:
        held.release()


def _ports(config: Config) -> dict[str, int]:
    ports = config.ports
    return {
        "job gRPC": ports.job_grpc,
        "job HTTP": ports.job_http,
        "scheduler gRPC": ports.scheduler_grpc,
        "scheduler HTTP": ports.scheduler_http,
        "execution gRPC": ports.execution_grpc,
        "execution HTTP": ports.execution_http,
    }


@dataclass(slots=True)
class _Parts:
    store: SqliteStore
    scheduler: Scheduler
    listeners: Listeners
    local: LocalWorkers


class _Server:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._asked = 0

    async def run(self) -> int:
        store = await SqliteStore.open(self._config.database)
        try:
            return await self._serve(self._build(store))
        finally:
            await store.close()

    def _build(self, store: SqliteStore) -> _Parts:
        config, clock = self._config, Clock()
        hub = WorkerHub()
        core = Instance(lease_ms=config.lease_ms, rules=rules_version())
        scheduler = Scheduler(core, store.ledger, store.feed, hub, clock, lambda: [store.health])
        jobs = JobService(store.jobs, store.feed, scheduler, store.history, clock.now)
        executions = ExecutionService(store.jobs, scheduler, store.history, store.outputs, clock.now)
        audit = AuditService(store.jobs, scheduler, store.history)
        explain = ExplainService(store.jobs, scheduler, store.history, clock.now, pause_words)
        served = services(
            JobMethods(jobs), SchedulerMethods(jobs, scheduler), ExecutionMethods(executions, audit, explain)
        )
        token = config.worker.token or _token(config)
        reception = Reception(hub, scheduler, store.outputs)
        workers = WorkerServicer(
            reception,
            token=token,
            database=store.file_id,
            instance=f"{platform.node()}-{os.getpid()}",
            lease_ms=config.lease_ms,
        )
        options = WorkerOptions(
            target=f"unix:{lock.socket_path(config.database)}",
            token=token,
            database=store.file_id,
            worker=LOCAL_WORKER,
            capacity=capacity_of(config.worker),
            labels=tuple(config.worker.labels.items()),
            scratch=config.worker.scratch,
            cgroup=config.worker.cgroup,
            log=str(config.database.absolute()) + ".worker.log",
        )
        local = LocalWorkers(config.database, options, scheduler, hub, config.lease_ms)
        return _Parts(store, scheduler, Listeners(served, workers, __version__, config.allowed_origins), local)

    async def _serve(self, parts: _Parts) -> int:
        config, ports = self._config, self._config.ports
        loop = asyncio.get_running_loop()
        running = loop.create_task(parts.scheduler.run())
        ready = loop.create_task(parts.scheduler.ready.wait())
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        tune()
        await parts.listeners.open(
            config.listen,
            (ports.job_grpc, ports.scheduler_grpc, ports.execution_grpc),
            (ports.job_http, ports.scheduler_http, ports.execution_http),
            lock.socket_path(config.database),
        )
        stop_signals(lambda: self._on_signal(parts))
        helpers = [loop.create_task(parts.local.run()), loop.create_task(self._forget(parts.store))]
        await parts.listeners.ready()
        self._greet()
        try:
            await asyncio.wait(
                [running, *helpers, loop.create_task(self._stop.wait())], return_when=asyncio.FIRST_COMPLETED
            )
            failed = [task for task in (running, *helpers) if task.done()]
            if not failed:
                await self._leave(parts, running)
        finally:
            for task in helpers:
                task.cancel()
            await parts.listeners.close(0)
        for task in failed:
            task.result()
        return 1 if failed else 0

    def _on_signal(self, parts: _Parts) -> None:
        """The first: a clean stop. Another one: what runs is ended and handed back at once."""
        self._asked += 1
        log.info("stopping%s", "" if self._asked == 1 else " at once")
        parts.local.leave(int(bounds.STOP_GRACE_S * 1000) if self._asked == 1 else 0, "the server stops")
        self._stop.set()

    async def _leave(self, parts: _Parts, running: asyncio.Task[None]) -> None:
        """Nothing new, then the worker's last results and output, then the last commits. Its streams stay open for them."""
        await parts.listeners.ready("it is stopping")
        await parts.listeners.close_http()
        longest = bounds.STOP_GRACE_S + bounds.KILL_GRACE_S + HAND_BACK_S
        try:
            async with asyncio.timeout(longest):
                await parts.local.gone.wait()
        except TimeoutError:
            log.warning("the worker did not end within %d s: it hands over to the next server", longest)
        parts.scheduler.stop()
        await running

    async def _forget(self, store: SqliteStore) -> None:
        """Retention: history and output older than a person wants, in slices."""
        config, clock = self._config, Clock()
        while True:
            try:
                for days, forget in (
                    (config.retention_days, store.history.forget),
                    (config.output_days, store.outputs.forget),
                ):
                    while days and await forget(clock.now() - days * DAY_MS, FORGET_ROWS):
                        await asyncio.sleep(FORGET_PAUSE_S)
            except DtsError as error:
                log.warning("old records were not deleted, tried again in %d s: %s", FORGET_EVERY_S, error)
            await asyncio.sleep(FORGET_EVERY_S)

    def _greet(self) -> None:
        config, ports = self._config, self._config.ports
        host = config.listen
        print(f"DTS {__version__} is up. Database: {config.database.absolute()}")
        print(f"  HTTP  http://{address(host, ports.job_http)}  (docs: http://{address(host, ports.job_http)}/docs)")
        print(f"  gRPC  {address(host, ports.job_grpc)}")
        also = [("HTTP", ports.scheduler_http), ("HTTP", ports.execution_http)]
        also += [("gRPC", ports.scheduler_grpc), ("gRPC", ports.execution_grpc)]
        print(f"  The same, for clients of the other services: {', '.join(f'{name} {port}' for name, port in also)}")
        print("  First job: dts job create --name hello --cron '@every 10s' --shell 'echo hello'", flush=True)


def _token(config: Config) -> str:
    """The one beside the database: a worker of the server before knows it already."""
    try:
        return lock.read_token(config.database)
    except FileNotFoundError:
        return lock.create_token(config.database)
