"""`dts execution-service`: writes history, takes what attempts write, and runs attempts by a worker of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
from dataclasses import replace

from dts.adapters.kafka.events import KafkaEvents
from dts.api.workers import OutputServicer
from dts.config import Config
from dts.server.capacity import capacity_of
from dts.server.cluster import Cluster, advertised
from dts.server.process import Process, Service
from dts.server.waiting import Starting
from dts.services.projector import Projector
from dts.worker.launch import launch
from dts.worker.options import WorkerOptions

log = logging.getLogger("dts.server")

LOOK_S = 0.5
RESTART_PAUSE_S = (0.1, 5.0)  # before a worker that ended is replaced: first, longest


class OwnWorker:
    """The service's worker: a process with timed leases, replaced when it dies."""

    def __init__(self, config: Config, cluster: Cluster) -> None:
        self._config = config
        self._cluster = cluster
        self._process: asyncio.subprocess.Process | None = None
        self._leaving = False

    async def run(self) -> None:
        """Keeps one."""
        pause = RESTART_PAUSE_S[0]
        while not self._is_leaving():
            while not self._cluster.schedulers():
                await asyncio.sleep(LOOK_S)
            begun = asyncio.get_running_loop().time()
            self._process = await launch(replace(self._options(), target=self._cluster.schedulers()[0]))
            code = await self._process.wait()
            if self._is_leaving():
                break
            lived = asyncio.get_running_loop().time() - begun
            pause = RESTART_PAUSE_S[0] if lived > RESTART_PAUSE_S[1] else min(2 * pause, RESTART_PAUSE_S[1])
            log.warning("the worker ended with code %d: another one is started", code)
            await asyncio.sleep(pause)
        await asyncio.Event().wait()

    async def leave(self) -> None:
        """It hands back what waits, finishes what runs within its grace time, and goes."""
        self._leaving = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()

    def _is_leaving(self) -> bool:
        return self._leaving

    def _options(self) -> WorkerOptions:
        config = self._config
        return WorkerOptions(
            target="",
            token=config.worker.token,
            worker=config.worker.id or f"{platform.node()}-{config.ports.execution_grpc}",
            capacity=capacity_of(config.worker),
            labels=tuple(config.worker.labels.items()),
            scratch=config.worker.scratch,
            cgroup=config.worker.cgroup,
            timed=True,
            parent=os.getpid(),
        )


def serve_executions(config: Config) -> int:
    """Runs an Execution Service until it is told to stop; the exit code."""
    ports = config.ports

    async def build(starting: Starting) -> Service:
        cluster = await Cluster.open(config, starting, advertised(config, ports.execution_grpc))
        events = KafkaEvents(cluster.kafka.settings, cluster.clock.now)
        projector = Projector(events, cluster.cassandra.history, cluster.clock.now)
        worker = OwnWorker(config, cluster)

        async def check() -> str:
            return await cluster.check() or projector.progress().trouble

        async def close() -> None:
            await events.close()
            await cluster.close()

        return Service(
            cluster.listeners(OutputServicer(cluster.cassandra.outputs.put, config.worker.token)),
            works=[
                ("history", projector.run()),
                ("worker", worker.run()),
                ("members", cluster.members.run()),
                ("clock check", cluster.clock_check.run()),
            ],
            check=check,
            leave=worker.leave,
            close=close,
        )

    return Process("Execution Service", config, ports.execution_grpc, ports.execution_http, build).serve()
