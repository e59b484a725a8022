"""The one clock of a process: wall time anchored to a clock that only grows (CLOCK_BOOTTIME: it counts suspend, no one sets it).

A wall clock that jumps by more than CLOCK_APART_MS holds the watermark, CLOCK_HOLD_MS at most; then both clocks together win.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dts import bounds
from dts.model import Instant

Nanoseconds = Callable[[], int]


def boottime_ns() -> int:
    """Ns of a clock that only grows; macOS has no CLOCK_BOOTTIME and gives its monotonic one."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Clock:
    """`now()` in ms; `holding` while the wall clock is in doubt; `moved`: by how many ms `now` was set so far."""

    def __init__(self, wall: Nanoseconds = time.time_ns, steady: Nanoseconds = boottime_ns) -> None:
        self._wall = wall
        self._steady = steady
        self._first = self._offset = wall() - steady()  # ns between the two
        self._doubt: int | None = None  # steady ns since when they disagree
        self.note = ""

    @property
    def holding(self) -> bool:
        """The watermark should stay where it is."""
        return self._doubt is not None

    @property
    def moved(self) -> int:
        """Ms that `now` differs by from time elapsed since the start: corrections followed and jumps believed."""
        return (self._offset - self._first) // 1_000_000

    def now_ns(self) -> int:
        """Ns since 1970 as far as this process believes. Small corrections of the wall clock are followed."""
        steady = self._steady()
        offset = self._wall() - steady
        apart = offset - self._offset
        if abs(apart) < bounds.CLOCK_APART_MS * 1_000_000:
            self._offset = offset
            self._doubt = None
        elif self._doubt is None:
            self._doubt = steady
            self.note = f"the wall clock jumped by {apart / 1e9:+.1f} s: nothing fires until it is believed"
        elif steady - self._doubt >= bounds.CLOCK_HOLD_MS * 1_000_000:
            self._offset, self._doubt = offset, None
            self.note = f"the wall clock jumped by {apart / 1e9:+.1f} s and stayed there: it is believed now"
        return steady + self._offset

    def now(self) -> Instant:
        """Ms since 1970."""
        return self.now_ns() // 1_000_000

    @property
    def state(self) -> str:
        """'ok', or why the watermark is held."""
        return self.note if self.holding else "ok"
