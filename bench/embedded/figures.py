"""What is measured of the embedded server. Lateness = the task's first instruction - scheduled time (ms)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from bench.embedded.world import NOOP, World, world
from dts.gen.job.v1 import job_pb2 as job

Row = dict[str, float | int | str]


def percentile(values: Sequence[int], part: float) -> int:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * part))]


def warm(made: World) -> None:
    """The pool has run something."""
    requests = [job.CreateJobRequest(name="warm", id=f"warm-{n}", task=NOOP) for n in range(200)]
    made.create(requests)
    for n in range(200):
        made.jobs.RunJob(job.RunJobRequest(id=f"warm-{n}"))
    made.wait_for(200, 30)


def burst(count: int) -> Row:
    """`count` jobs due at one instant: when the last one ran, and when the last verdict was durable."""
    with world() as made:
        warm(made)
        at = int(time.time()) + 4 + count // 10_000
        text = f"@at {datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
        made.create(
            [job.CreateJobRequest(name="burst", id=f"b{n:06d}", cron_expression=text, task=NOOP) for n in range(count)]
        )
        assert time.time() < at - 0.5, "the jobs were not created in time"
        watched = at + 0.02
        time.sleep(max(0.0, watched - time.time()))
        done_at = 0.0
        while True:
            done = made.rows("SELECT count(*) FROM executions WHERE job >= 'b' AND job < 'c'")[0][0]
            if done == count:
                done_at = time.time()
                break
            if time.time() > at + 60:
                raise SystemExit(f"only {done} of {count} ran")
            time.sleep(0.01)
        ((last, first),) = made.rows("SELECT max(started), min(started) FROM executions WHERE job >= 'b' AND job < 'c'")
        return {
            "due at once": count,
            "first ran ms": first - at * 1000,
            "last ran ms": last - at * 1000,
            "all durable ms (seen, 10 ms steps)": round((done_at - at) * 1000),
        }


def sustained(jobs: int, seconds: int) -> Row:
    """`jobs` each-second jobs for a while: lateness of all of their executions."""
    with world() as made:
        warm(made)
        requests = [
            job.CreateJobRequest(name="each second", id=f"s{n:06d}", cron_expression="@every 1s", task=NOOP)
            for n in range(jobs)
        ]
        made.create(requests)
        start = int(time.time()) + 2
        time.sleep(start + seconds + 1.5 - time.time())
        rows = made.rows(
            "SELECT started - at FROM executions WHERE job >= 's' AND job < 't' AND at >= ? AND at < ?",
            start * 1000,
            (start + seconds) * 1000,
        )
        late = sorted(row[0] for row in rows)
        within = sum(1 for each in late if each <= 1000)
        return {
            "each-second jobs": jobs,
            "due": jobs * seconds,
            "ran": len(late),
            "p50 ms": percentile(late, 0.5),
            "p99 ms": percentile(late, 0.99),
            "p99.9 ms": percentile(late, 0.999),
            "max ms": late[-1],
            "within 1 s %": round(100 * within / (jobs * seconds), 3),
        }


def shell(seconds: int = 10, rate: int = 300) -> Row:
    """Shell tasks each second."""
    with world() as made:
        task = job.Task(shell=job.ShellTask(command="true"))
        made.create(
            [
                job.CreateJobRequest(name="sh", id=f"s{n:06d}", cron_expression="@every 1s", task=task)
                for n in range(rate)
            ]
        )
        start = int(time.time()) + 2
        time.sleep(start + seconds + 1.5 - time.time())
        rows = made.rows(
            "SELECT started - at FROM executions WHERE job >= 's' AND job < 't' AND at >= ? AND at < ?",
            start * 1000,
            (start + seconds) * 1000,
        )
        late = sorted(row[0] for row in rows)
        return {"shell tasks/s": rate, "due": rate * seconds, "ran": len(late), "p99 ms": percentile(late, 0.99)}


def create(singles: int = 3_000, bulk: int = 100_000) -> Row:
    """One connection, one call at a time; then in bulk."""
    with world() as made:
        requests = [job.CreateJobRequest(name="one", cron_expression="0 3 * * *", task=NOOP) for _ in range(singles)]
        started = time.perf_counter()
        for request in requests:
            made.jobs.CreateJob(request)
        one = singles / (time.perf_counter() - started)
        many = [job.CreateJobRequest(name="bulk", cron_expression="0 3 * * *", task=NOOP) for _ in range(bulk)]
        took = made.create(many)
        return {"create/s one at a time": round(one), "create/s in bulk": round(bulk / took)}
