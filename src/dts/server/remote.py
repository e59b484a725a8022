"""A worker on its own: it needs the Scheduler Service's address and token, nothing else."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from dts.adapters.sqlite import lock
from dts.config import Config
from dts.server.capacity import capacity_of
from dts.worker.main import run
from dts.worker.options import WorkerOptions


def serve_worker(config: Config, addresses: Sequence[str]) -> int:
    """Runs a worker with timed leases until it is told to stop; its exit code."""
    token = config.worker.token
    if not token and lock.token_path(config.database).exists():
        token = lock.read_token(config.database)
    options = WorkerOptions(
        target=",".join(addresses),
        token=token,
        worker=config.worker.id or platform.node() or "worker",
        capacity=capacity_of(config.worker),
        labels=tuple(config.worker.labels.items()),
        scratch=config.worker.scratch,
        cgroup=config.worker.cgroup,
        timed=True,
    )
    return run(options)
