"""The one clock of a process: wall time anchored to a clock that only grows (CLOCK_BOOTTIME: it counts suspend, no one sets it).

Small corrections of the wall clock are followed. A jump by more than CLOCK_APART_MS is in doubt, and so is a clock that far
from the brokers' (whose append times are samples, where there are brokers): the watermark is held, CLOCK_HOLD_MS at most.
- After a jump two of three win: as soon as the brokers agree with the wall clock it is believed; as soon as they agree with the
  time before the jump, that goes on, and the wall clock is passed over until it is right again.
- Who agrees with nobody is believed in the end, with an alarm: the wall clock and the one that only grows together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dts import bounds
from dts.model import Instant

log = logging.getLogger("dts.clock")

Nanoseconds = Callable[[], int]
MS = 1_000_000  # ns
APART = bounds.CLOCK_APART_MS * MS
HOLD = bounds.CLOCK_HOLD_MS * MS


def boottime_ns() -> int:
    """Ns of a clock that only grows; macOS has no CLOCK_BOOTTIME and gives its monotonic one."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Clock:
    """`now()` in ms; `holding` while it is in doubt; `moved`: by how many ms `now` was set so far."""

    def __init__(self, wall: Nanoseconds = time.time_ns, steady: Nanoseconds = boottime_ns) -> None:
        self._wall = wall
        self._steady = steady
        self._first = self._offset = wall() - steady()  # ns between the two
        self._doubt: int | None = None  # steady ns since when
        self._jumped: int | None = None  # steady ns since when the wall clock is elsewhere
        self._passed_over = False  # it is, and the brokers do not believe it
        self._overruled: int | None = None  # how far the brokers' time is from ours, which won
        self._samples: dict[int, tuple[int, int]] = {}  # shard -> (steady ns, the broker's offset)
        self.note = ""

    @property
    def holding(self) -> bool:
        """The watermark should stay where it is."""
        return self._doubt is not None

    @property
    def moved(self) -> int:
        """Ms that `now` differs by from time elapsed since the start: corrections followed and jumps believed."""
        return (self._offset - self._first) // MS

    def sample(self, shard: int, at: Instant, took_ns: int) -> None:
        """A broker's time: it appended a commit of a shard at `at` (ms), at most `took_ns` ago."""
        steady = self._steady()
        self._samples[shard] = (steady, at * MS - steady + took_ns // 2)

    def now_ns(self) -> int:
        """Ns since 1970 as far as this process believes."""
        steady = self._steady()
        offset = self._wall() - steady
        if abs(offset - self._offset) < APART:
            self._offset, self._jumped, self._passed_over = offset, None, False
            self._compare(steady)
        else:
            self._consider(steady, offset)
        return steady + self._offset

    def now(self) -> Instant:
        """Ms since 1970."""
        return self.now_ns() // MS

    @property
    def state(self) -> str:
        """'ok', or why the watermark is held."""
        return self.note if self.holding else "ok"

    # --- where there are brokers

    def _brokers(self, steady: int, since: int) -> int | None:
        """The brokers' offset: the median of fresh samples, one a shard."""
        fresh = sorted(offset for at, offset in self._samples.values() if at > since and steady - at < HOLD)
        return fresh[len(fresh) // 2] if fresh else None

    def _compare(self, steady: int) -> None:
        """The wall clock goes on as it should: is it the brokers' time?"""
        brokers = self._brokers(steady, 0)
        apart = 0 if brokers is None else brokers - self._offset
        if abs(apart) < APART:
            if self._overruled is not None and brokers is not None:
                self._say("this clock and the brokers' agree again")
                self._overruled = None
            self._doubt = None
        elif self._overruled is None or abs(apart - self._overruled) >= APART:
            self._hold(steady, f"the brokers' clock is {apart / 1e9:+.1f} s from this one")
            if self._over(steady):
                self._overruled, self._doubt = apart, None
                self._say(
                    f"ALARM: the brokers' clock is {apart / 1e9:+.1f} s from this one, which is believed: set them right"
                )
        else:
            self._doubt = None

    def _consider(self, steady: int, offset: int) -> None:
        """The wall clock is elsewhere."""
        if self._jumped is None:
            self._jumped = steady
        by = f"the wall clock jumped by {(offset - self._offset) / 1e9:+.1f} s"
        brokers = self._brokers(steady, self._jumped)
        if brokers is not None and abs(brokers - offset) < APART:
            self._believe(offset)
            self._say(f"{by} and the brokers agree: it is believed now")
        elif brokers is not None and abs(brokers - self._offset) < APART:
            if not self._passed_over:
                self._say(f"ALARM: {by} and the brokers do not agree: it is passed over, set it right")
            self._doubt, self._passed_over = None, True
            if abs(brokers - self._offset) > APART // 4:
                self._offset = brokers  # nothing else corrects what drifts
        else:
            self._passed_over = False
            self._hold(steady, by)
            if self._over(steady):
                self._believe(offset)
                if brokers is None:
                    self._say(f"{by} and stayed there: it is believed now")
                else:
                    self._overruled = brokers - offset
                    self._say(f"ALARM: {by} and stayed there: it is believed, though the brokers' clock is elsewhere")

    def _believe(self, offset: int) -> None:
        self._offset, self._doubt, self._jumped, self._passed_over, self._overruled = offset, None, None, False, None
        self._samples.clear()  # they may be from before

    def _hold(self, steady: int, why: str) -> None:
        if self._doubt is None:
            self._doubt = steady
            self._say(f"{why}: nothing fires until it is believed")

    def _over(self, steady: int) -> bool:
        return self._doubt is not None and steady - self._doubt >= HOLD

    def _say(self, note: str) -> None:
        self.note = note
        log.warning("%s", note)
