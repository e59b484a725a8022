"""The worker's clocks: leases run on one that also counts while the machine sleeps; ends carry the wall clock."""

from __future__ import annotations

import time

LEASE_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime_ms() -> int:
    """Milliseconds of CLOCK_BOOTTIME (where there is none: monotonic)."""
    return time.clock_gettime_ns(LEASE_CLOCK) // 1_000_000


def wall_ms() -> int:
    """UTC milliseconds."""
    return time.time_ns() // 1_000_000
