"""`dts job-service`: the jobs' use cases, and the sweeper of what a dead one left between its two writes."""

from __future__ import annotations

from dts.adapters.kafka.notices import KafkaNotices
from dts.api.workers import OutputServicer
from dts.config import Config
from dts.server.cluster import Cluster, advertised
from dts.server.process import Process, Service
from dts.server.waiting import Starting
from dts.services.intents import Sweeper
from dts.services.tidying import Tidier


def serve_jobs(config: Config) -> int:
    """Runs a Job Service until it is told to stop; the exit code."""
    ports = config.ports

    async def build(starting: Starting) -> Service:
        cluster = await Cluster.open(config, starting, advertised(config, ports.job_grpc))
        await starting.wait_for("a comparison of clocks with Cassandra", cluster.clock_check.sample)
        sweeper = Sweeper(cluster.cassandra.intents, cluster.publisher, cluster.clock.now)

        kafka = cluster.kafka
        notices = KafkaNotices(kafka.settings, kafka.partitions)
        tidier = Tidier(cluster.cassandra.jobs, notices, cluster.publisher, cluster.clock.now)

        async def check() -> str:
            return await cluster.check() or cluster.clock_check.trouble()

        return Service(
            cluster.listeners(OutputServicer(cluster.cassandra.outputs.put, config.worker.token)),
            works=[
                ("members", cluster.members.run()),
                ("clock check", cluster.clock_check.run()),
                ("sweeper", sweeper.run()),
                ("tidier", tidier.run(cluster.advertise)),
            ],
            check=check,
            close=cluster.close,
        )

    return Process("Job Service", config, ports.job_grpc, ports.job_http, build).serve()
