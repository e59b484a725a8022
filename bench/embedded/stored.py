"""100 000 stored jobs: time to create and to list, restart to the first fire, resident memory, idle cpu."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from bench.embedded.figures import Row
from bench.embedded.world import NOOP, World, start, wait_ready, world
from dts.gen.job.v1 import job_pb2 as job

CRONS = 1_000  # distinct schedules
IDLE_S = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def _listed(made: World) -> tuple[float, list[str]]:
    started, found, last = time.perf_counter(), [], ""
    while True:
        page = made.jobs.ListJobs(job.ListJobsRequest(page_size=250, last_id=last))
        found += [each.id for each in page.jobs]
        last = page.next_page
        if not last:
            return time.perf_counter() - started, found


def stored(count: int = 100_000) -> Row:
    """The figures; raises SystemExit when the listing has a gap or a repeat."""
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as made:
        crons = [f"{n % 60} {n // 60 % 24} {1 + n // 1440} 1 *" for n in range(CRONS)]  # in January: none fires now
        requests = [
            job.CreateJobRequest(id=f"j{n:07d}", name=f"job {n}", cron_expression=crons[n % CRONS], task=NOOP)
            for n in range(count)
        ]
        created = made.create(requests)
        made.create([job.CreateJobRequest(id="tick", name="tick", cron_expression="@every 1s", task=NOOP)])
        listing, ids = _listed(made)
        if ids != sorted({*ids}) or len(ids) != count + 1:
            raise SystemExit(f"the listing has gaps or repeats: {len(ids)} of {count + 1}")
        pid = made.process.pid
        before, began = _cpu_s(pid), time.monotonic()
        time.sleep(IDLE_S)
        idle = (_cpu_s(pid) - before) / (time.monotonic() - began) * 100
        made.process.send_signal(signal.SIGKILL)
        made.process.wait()
        restarted = time.time()
        made.process = start(made.folder, made.env)
        wait_ready(made)
        ready = time.time() - restarted
        while not (rows := made.rows("SELECT min(started) FROM executions WHERE started > ?", int(restarted * 1000)))[
            0
        ][0]:
            time.sleep(0.02)
        return {
            "jobs": count,
            "create s": round(created, 2),
            "list all by cursor s": round(listing, 2),
            "resident MB": round(_resident_mb(pid := made.process.pid)),
            "idle cpu % (one job a second)": round(idle, 2),
            "restart to ready s": round(ready, 2),
            "restart to first fire s": round(rows[0][0] / 1000 - restarted, 2),
        }
