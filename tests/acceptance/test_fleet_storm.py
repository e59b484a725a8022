"""Two Scheduler instances, eight workers of mixed sizes, killed, frozen and cut off at random: never too much on a worker, no
attempt twice, nothing forgotten."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.clustered import Cluster, cluster
from tests.acceptance.fleetstorm import TASK, Size, Troubles, Watch, Worker
from tests.acceptance.proxy import proxy
from tests.servers import Servers

SIZES = [
    Size(1_000, 512, 4, 0),
    Size(1_000, 1_024, 8, 1),
    Size(2_000, 1_024, 4, 0),
    Size(2_000, 2_048, 16, 2),
    Size(4_000, 2_048, 8, 0),
    Size(4_000, 4_096, 32, 1),
    Size(500, 256, 2, 0),
    Size(8_000, 1_024, 3, 1),
]
# name, how often (s), lasts (s), cpu, memory, slots, gpu
WORK = [
    *((f"plain-{each}", 1, 2.5, 0, 0, 1, 0) for each in range(6)),
    ("two-slots", 1, 3.0, 0, 0, 2, 0),
    *((f"small-{each}", 1, 2.0, 400, 100, 1, 0) for each in range(3)),
    ("middle", 1, 2.0, 1_500, 700, 1, 0),
    ("gpu", 1, 2.5, 100, 50, 1, 1),
    ("large", 4, 2.5, 4_000, 1_000, 1, 0),
    ("whole", 9, 1.5, 8_000, 1_000, 3, 0),
]
LEASE_S = 8.0
WAIT_S = 120.0
OTHER = "127.0.0.2"  # what workers are told: the way through the proxies


def until(what: str, condition: Callable[[], object], seconds: float = WAIT_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


def create(of: Cluster) -> list[str]:
    jobs = []
    for name, every, seconds, cpu, memory, slots, gpu in WORK:
        script = TASK.format(seconds=seconds, cpu=cpu, memory=memory, slots=slots, gpu=gpu)
        needs = ["--slots", str(slots)]
        needs += ["--cpu", str(cpu)] if cpu else []
        needs += ["--memory", str(memory)] if memory else []
        needs += ["--resource", f"gpu={gpu}"] if gpu else []
        made = of.dts("job", "create", "--name", name, "--cron", f"@every {every}s", "--shell", script, *needs)
        jobs.append(made.split("ID: ")[1].split()[0])
    return jobs


def open_executions(of: Cluster) -> int:
    status = json.loads(of.dts("status", "-o", "json"))
    return sum(int(shard[name]) for shard in status["shards"] for name in ("queued", "placed", "retrying"))


def storm(folder: Path, servers: Servers, seconds: float, pause: float) -> None:
    seed = int(os.environ.get("DTS_TEST_SEED") or random.randrange(10**6))
    print(f"DTS_TEST_SEED={seed}")
    chance = random.Random(seed)
    env = {"DTS_LEASE_SECONDS": str(LEASE_S), "DTS_ADVERTISE": OTHER, "DTS_SLOTS": "1", "DTS_LABELS": "own=yes"}
    with cluster(folder, servers, schedulers=2, env=env) as made, ExitStack() as stack:
        lines = [
            stack.enter_context(proxy(OTHER, member.grpc, "127.0.0.1", member.grpc)) for member in made.members.values()
        ]
        between = lines[: len(made.of("scheduler"))]
        sizes = {f"w{number}": size for number, size in enumerate(SIZES)}
        watch = Watch(folder, sizes | {"own": Size(0, 0, 1, 0)})
        worker_env = {**made.env, "DTS_CGROUP": "off"}
        first = f"{OTHER}:{made.members['scheduler-1'].grpc}"
        workers = [Worker(name, size, first, worker_env, folder) for name, size in sizes.items()]
        for worker in workers:
            stack.callback(worker.stop)
        until("all workers are there", lambda: len(json.loads(made.dts("worker", "list", "-o", "json"))["workers"]) > 8)
        made.dts("worker", "cordon", "execution-1")  # the service's own: its tasks would record nothing
        begun = int(time.time())
        with watch:
            jobs = create(made)
            troubles = Troubles(chance, workers, between)
            troubles.go_on(seconds, pause)
            for job in jobs:
                made.dts("job", "update", "--id", job, "--status", "paused")
            until("all that was due has ended", lambda: open_executions(made) == 0)

        report(watch, troubles.done)
        watch.check()
        span = ("--from", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)), "--to", "now")
        until("the audit is clean", lambda: made.served.dts("audit", *span).returncode == 0, 60)


def report(watch: Watch, done: dict[str, int]) -> None:
    starts = watch.starts()
    attempts = max((int(attempt) for _, attempt, _ in starts), default=0)
    print(
        f"{dict(done)}; {len(starts)} starts, {attempts} attempts at most; {watch.looks} looks, {watch.full} at a full worker"
    )
    print({worker: (most, watch.sizes[worker].amounts) for worker, most in sorted(watch.most.items())})
    assert len({worker for _, _, worker in starts}) >= len(SIZES) - 2, "nearly every worker ran something"
    assert watch.full, "some worker was full"


@pytest.mark.timeout(300)
def test_never_too_much_nor_twice(tmp_path: Path, servers: Servers) -> None:
    storm(tmp_path, servers, 25, 1.0)


@pytest.mark.soak
@pytest.mark.timeout(1_500)
def test_ten_minutes_of_it(tmp_path: Path, servers: Servers) -> None:
    storm(tmp_path, servers, 600, 1.0)
