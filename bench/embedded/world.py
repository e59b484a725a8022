"""Starts `dts up` on a file of its own, talks gRPC to it, and reads the record from the file afterwards."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import grpc

from dts.gen.job.v1 import job_pb2 as job
from dts.gen.job.v1 import job_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
PORTS = (
    "JOB_SERVICE_GRPC_PORT",
    "JOB_SERVICE_HTTP_PORT",
    "SCHEDULER_SERVICE_GRPC_PORT",
    "SCHEDULER_SERVICE_HTTP_PORT",
    "EXECUTION_SERVICE_PORT",
    "EXECUTION_SERVICE_HTTP_PORT",
)
START_S = 60.0
NOOP = job.Task(python=job.PythonTask(function="bench.embedded.noop:noop"))
BULK = 5_000


@dataclass
class World:
    """A running server."""

    folder: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes]
    jobs: job_pb2_grpc.JobServiceStub

    @property
    def database(self) -> Path:
        return Path(self.env["DTS_DATABASE"])

    def create(self, requests: Sequence[job.CreateJobRequest]) -> float:
        """Creates jobs in bulk; seconds it took."""
        parts = [job.BatchCreateJobsRequest(jobs=requests[n : n + BULK]) for n in range(0, len(requests), BULK)]
        started = time.perf_counter()
        for part in parts:
            self.jobs.BatchCreateJobs(part)
        return time.perf_counter() - started

    def rows(self, sql: str, *values: object) -> list[tuple[int, ...]]:
        """Reads the record."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as conn:
            return conn.execute(sql, values).fetchall()

    def wait_for(self, count: int, timeout_s: float) -> None:
        """Until so many executions have ended."""
        deadline = time.monotonic() + timeout_s
        while self.rows("SELECT count(*) FROM executions")[0][0] < count:
            if time.monotonic() > deadline:
                done = self.rows("SELECT count(*) FROM executions")[0][0]
                raise SystemExit(
                    f"only {done} of {count} executions ended\n{(self.folder / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.25)

    def stop(self) -> None:
        """A clean stop."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def world(folder: Path | None = None, **env: str) -> Iterator[World]:
    """A server of its own, stopped at the end; with a folder, over what is there."""
    with tempfile.TemporaryDirectory() as fresh:
        place = folder or Path(fresh)
        ports = {name: str(port) for name, port in zip(PORTS, _free_ports(len(PORTS)), strict=True)}
        full = {**os.environ, **ports, "DTS_DATABASE": str(place / "dts.db"), "PYTHONPATH": str(ROOT), **env}
        process = start(place, full)
        channel = grpc.insecure_channel(
            f"localhost:{ports['JOB_SERVICE_GRPC_PORT']}", options=[("grpc.max_send_message_length", -1)]
        )
        made = World(place, full, process, job_pb2_grpc.JobServiceStub(channel))
        try:
            wait_ready(made)
            yield made
        finally:
            channel.close()
            made.stop()


def start(folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """`dts up`, its output in the folder."""
    with (folder / "log").open("ab") as out:
        return subprocess.Popen([sys.executable, "-m", "dts", "up"], env=env, stdout=out, stderr=out, cwd=folder)


def wait_ready(made: World) -> None:
    """Until /readyz says so."""
    deadline = time.monotonic() + START_S
    url = f"http://localhost:{made.env['JOB_SERVICE_HTTP_PORT']}/readyz"
    while time.monotonic() < deadline:
        try:
            with urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.05)
    raise SystemExit((made.folder / "log").read_text()[-4000:])
