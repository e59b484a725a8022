"""What this machine has to offer: processors and memory, within the limits of its control groups (version 2 or 1)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dts.config import WorkerConfig
from dts.model import Demand
from dts.worker.options import SLOTS

MIB = 1024 * 1024
CGROUP = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The folders that may hold a limit of this process: its own group's and all above it; '' is version 2.

    In a container the path that the kernel tells is often not there: what is mounted then is the container's own group.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    paths = [path for _, names, path in (line.split(":", 2) for line in lines) if controller in names.split(",")]
    base = root / controller if controller else root
    for path in paths:
        folder = base / path.lstrip("/")
        while folder != base and base in folder.parents:
            yield folder
            folder = folder.parent
    yield base


def _read(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def cpu_limit(root: Path = CGROUP, own: Path = SELF) -> int | None:
    """Millicores that the control groups allow; None: no limit."""
    found: list[int] = []
    for folder in _groups("", root, own):
        match _read(folder / "cpu.max"):
            case [quota, period] if quota != "max":
                found.append(int(quota) * 1000 // int(period))
    for folder in _groups("cpu", root, own):
        match _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"):
            case [[quota], [period]] if int(quota) > 0:
                found.append(int(quota) * 1000 // int(period))
    return min(found, default=None)


def memory_limit(root: Path = CGROUP, own: Path = SELF) -> int | None:
    """MiB that the control groups allow; None: no limit (version 1 says so by a number larger than any memory)."""
    found: list[int] = []
    for folder in _groups("", root, own):
        match _read(folder / "memory.max"):
            case [limit] if limit != "max":
                found.append(int(limit) // MIB)
    for folder in _groups("memory", root, own):
        match _read(folder / "memory.limit_in_bytes"):
            case [limit]:
                found.append(int(limit) // MIB)
    return min(found, default=None)


def _cpu() -> int:
    """Millicores: the processors that this process may use, or less when a control group says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cpu_limit()
    return cores * 1000 if limit is None else min(cores * 1000, max(limit, 1))


def _memory() -> int:
    """MiB of physical memory, or less when a control group says so."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
    limit = memory_limit()
    return found if limit is None else min(found, limit)


def _storage(scratch: str) -> int:
    """MiB that are free where scratch folders are made."""
    try:
        return shutil.disk_usage(scratch or tempfile.gettempdir()).free // MIB
    except OSError:
        return 0


def capacity_of(config: WorkerConfig) -> Demand:
    """What the worker offers: what the settings say, else what is found."""
    return Demand(
        cpu=config.cpu if config.cpu is not None else _cpu(),
        memory=config.memory if config.memory is not None else _memory(),
        storage=config.storage if config.storage is not None else _storage(config.scratch),
        slots=config.slots if config.slots is not None else SLOTS,
        custom=tuple(sorted(config.resources.items())),
    )
