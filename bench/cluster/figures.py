"""What is measured of the cluster. A fire's lateness = its commit acknowledged - scheduled time; a task's = its first instruction."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio

from bench.cluster.events import Events
from bench.embedded.figures import Row, percentile
from bench.embedded.world import NOOP, ROOT
from dts.adapters.cassandra import CassandraStore
from dts.adapters.kafka.settings import KafkaSettings, Topics
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.job.v1 import job_pb2_grpc
from tests import servers as pair
from tests.acceptance.clustered import Cluster, cluster

BULK = 5_000
SHARDS = 16
Lag = list[int]


@dataclass
class Bench:
    """A running cluster, its jobs, its events."""

    cluster: Cluster
    jobs: job_pb2_grpc.JobServiceStub
    events: Events

    def create(self, requests: Sequence[job.CreateJobRequest]) -> float:
        """In bulk; seconds."""
        started = time.perf_counter()
        for first in range(0, len(requests), BULK):
            self.jobs.BatchCreateJobs(job.BatchCreateJobsRequest(jobs=requests[first : first + BULK]))
        return time.perf_counter() - started

    def warm(self) -> None:
        """The pool has run something."""
        self.create([job.CreateJobRequest(name="warm", id=f"warm-{n}", task=NOOP) for n in range(200)])
        for n in range(200):
            self.jobs.RunJob(job.RunJobRequest(id=f"warm-{n}"))
        if self.events.read(200, "warm", 60) < 200:
            raise SystemExit(self.cluster.logs())

    def lag(self, seconds: float) -> Lag:
        """How far history lies behind, ms, asked each half second."""
        return asyncio.run(self._lag(seconds))

    async def _lag(self, seconds: float) -> Lag:
        env = self.cluster.env
        store = await CassandraStore.open(
            [env["CASSANDRA_HOSTS"]], int(env["CASSANDRA_PORT"]), env["CASSANDRA_KEYSPACE"]
        )
        found, end = [], time.time() + seconds
        try:
            while time.time() < end:
                reached = min([await store.history.complete_until(shard) for shard in range(SHARDS)])
                found.append(int(time.time() * 1000) - reached)
                await asyncio.sleep(0.5)
        finally:
            await store.close()
        return found


@contextmanager
def bench(schedulers: int = 1) -> Iterator[Bench]:
    """One of each service (or more schedulers) over the real servers."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"PYTHONPATH": str(ROOT), "DTS_SLOTS": "64"}
        with cluster(Path(folder), pair.servers(), schedulers=schedulers, env=env) as made:
            topics = Topics(
                made.env["KAFKA_JOB_TOPIC"],
                made.env["KAFKA_COMMAND_TOPIC"],
                made.env["KAFKA_SCHEDULER_TOPIC"],
                made.env["KAFKA_EXECUTION_TOPIC"],
            )
            events = Events(KafkaSettings(made.env["KAFKA_BROKERS"], made.name, topics), SHARDS)
            channel = grpc.insecure_channel(
                f"localhost:{made.members['job-1'].grpc}", options=[("grpc.max_send_message_length", -1)]
            )
            try:
                made_bench = Bench(made, job_pb2_grpc.JobServiceStub(channel), events)
                made_bench.warm()
                yield made_bench
            finally:
                channel.close()
                events.close()


def burst(count: int) -> Row:
    """`count` jobs due at one instant."""
    with bench() as made:
        at = int(time.time()) + 8 + count // 2_000
        text = f"@at {datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
        made.create(
            [job.CreateJobRequest(name="burst", id=f"b{n:06d}", cron_expression=text, task=NOOP) for n in range(count)]
        )
        assert time.time() < at - 0.5, "the jobs were not created in time"
        time.sleep(at - time.time() + 1.0)
        done = made.events.read(count, "b", 60)
        durable = sorted(each - at * 1000 for key, each in made.events.durable.items() if key.job[0] == "b")
        started = sorted(each - at * 1000 for key, each in made.events.started.items() if key.job[0] == "b")
        return {
            "due at once": count,
            "ran": done,
            "first fire durable ms": durable[0],
            "last fire durable ms": durable[-1],
            "first ran ms": started[0],
            "last ran ms": started[-1],
            "last verdict durable ms": max(made.events.recorded.values()) - at * 1000,
        }


def sustained(jobs: int, seconds: int) -> Row:
    """`jobs` each-second jobs for a while: lateness of fires and tasks, and how far history lies behind."""
    with bench() as made:
        made.create(
            [
                job.CreateJobRequest(name="each second", id=f"s{n:06d}", cron_expression="@every 1s", task=NOOP)
                for n in range(jobs)
            ]
        )
        start = int(time.time()) + 3
        time.sleep(start - time.time())
        lag = made.lag(seconds)
        time.sleep(2.0)
        made.events.read(jobs * seconds, "s", 30)
        span = range(start * 1000, (start + seconds) * 1000)
        fires = sorted(at - key.at for key, at in made.events.durable.items() if key.job[0] == "s" and key.at in span)
        late = sorted(at - key.at for key, at in made.events.started.items() if key.job[0] == "s" and key.at in span)
        return {
            "each-second jobs": jobs,
            "due": jobs * seconds,
            "ran": len(late),
            "fire p50 ms": percentile(fires, 0.5),
            "fire p99 ms": percentile(fires, 0.99),
            "fire max ms": fires[-1],
            "task p50 ms": percentile(late, 0.5),
            "task p99 ms": percentile(late, 0.99),
            "task max ms": late[-1],
            "history behind, median ms": percentile(sorted(lag), 0.5),
            "history behind, most ms": max(lag),
        }


def create(singles: int = 600, beside: int = 8, bulk: int = 40_000) -> Row:
    """One call in flight, then eight, then in bulk."""
    with bench() as made:
        requests = [job.CreateJobRequest(name="one", cron_expression="0 3 * * *", task=NOOP) for _ in range(singles)]
        started = time.perf_counter()
        for request in requests:
            made.jobs.CreateJob(request)
        one = singles / (time.perf_counter() - started)
        eight = asyncio.run(_beside(made.cluster.members["job-1"].grpc, singles * 3, beside))
        many = [job.CreateJobRequest(name="bulk", cron_expression="0 3 * * *", task=NOOP) for _ in range(bulk)]
        took = made.create(many)
        return {
            "create/s, one in flight": round(one),
            f"create/s, {beside} in flight": round(eight),
            "create/s in bulk": round(bulk / took),
        }


async def _beside(port: int, count: int, width: int) -> float:
    """Creates a second with so many calls in flight."""
    async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
        stub = job_pb2_grpc.JobServiceStub(channel)
        left = iter(range(count))

        async def one() -> None:
            for _ in left:
                await stub.CreateJob(job.CreateJobRequest(name="one", cron_expression="0 3 * * *", task=NOOP))

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(width)))
        return count / (time.perf_counter() - started)
