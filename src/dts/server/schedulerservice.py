"""`dts scheduler-service`: owns shards, places what is due, and is where workers attach. It does without Cassandra."""

from __future__ import annotations

import asyncio
import contextlib

from dts import bounds
from dts.api.live import LiveServicer
from dts.api.workers import WorkerServicer
from dts.config import Config
from dts.core.instance import Instance
from dts.schedule import rules_version
from dts.server.cluster import Cluster, advertised
from dts.server.process import Process, Service
from dts.server.waiting import Starting
from dts.server.watchdog import Watchdog
from dts.services.recent import Recent
from dts.services.scheduler import Scheduler
from dts.services.workers import Reception, WorkerHub

LEAVE_S = 10.0  # for the last commits


def serve_scheduler(config: Config) -> int:
    """Runs a Scheduler Service until it is told to stop; the exit code."""
    ports = config.ports

    async def build(starting: Starting) -> Service:
        advertise = advertised(config, ports.scheduler_grpc)
        cluster = await Cluster.open(config, starting, advertise, need_cassandra=False)
        hub = WorkerHub()
        core = Instance(lease_ms=config.lease_ms, rules=rules_version(), keep_alive_ms=bounds.IDLE_COMMIT_MS)
        scheduler = Scheduler(
            core, cluster.kafka.ledger, cluster.kafka.feed, hub, cluster.clock, recent=Recent(), many=True
        )
        cluster.kafka.ledger.sampled = cluster.clock.sample
        watchdog = Watchdog(asyncio.get_running_loop())
        watchdog.start()
        running = asyncio.ensure_future(scheduler.run())

        async def run() -> None:
            await asyncio.shield(running)

        async def check() -> str:
            return cluster.members.problem or ("" if scheduler.ready.is_set() else "it has not joined the others yet")

        async def leave() -> None:
            """The shards first: others take them over while the last commits here end."""
            await cluster.kafka.leave()
            scheduler.stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(running), LEAVE_S)
            hub.close()

        async def close() -> None:
            running.cancel()
            await asyncio.wait([running])
            await cluster.close()
            watchdog.stop()

        workers = WorkerServicer(
            Reception(hub, scheduler, cluster.cassandra.outputs),
            token=config.worker.token,
            database="",
            instance=advertise,
            lease_ms=config.lease_ms,
            address=advertise,
            schedulers=cluster.schedulers,
            outputs=cluster.recorders,
        )
        return Service(
            cluster.listeners(workers, LiveServicer(scheduler)),
            works=[
                ("scheduler", run()),
                ("members", cluster.members.run()),
                ("clock check", cluster.clock_check.run()),
            ],
            check=check,
            leave=leave,
            close=close,
        )

    return Process("Scheduler Service", config, ports.scheduler_grpc, ports.scheduler_http, build).serve()
