"""What this machine has to offer: processors and memory, within the limits of its control group."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dts.config import WorkerConfig
from dts.model import Demand
from dts.worker.options import SLOTS

MIB = 1024 * 1024
CGROUP = Path("/sys/fs/cgroup")


def _cpu() -> int:
    """Millicores: the processors this process may use, or less when the control group says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = cores * 1000
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return found
    return found if quota == "max" else min(found, int(quota) * 1000 // int(period))


def _memory() -> int:
    """MiB of physical memory, or less when the control group says so."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return (found if limit == "max" else min(found, int(limit))) // MIB


def capacity_of(config: WorkerConfig) -> Demand:
    """What the worker offers: what the settings say, else what is found."""
    return Demand(
        cpu=config.cpu if config.cpu is not None else _cpu(),
        memory=config.memory if config.memory is not None else _memory(),
        storage=config.storage if config.storage is not None else shutil.disk_usage("/").free // MIB,
        slots=config.slots if config.slots is not None else SLOTS,
        custom=tuple(sorted(config.resources.items())),
    )
