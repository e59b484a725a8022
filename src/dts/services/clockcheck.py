"""Whether this process's clock may date changes: compared in the background with the job store's, whose clock all services share.

`since` of a revision is the Job Service's instant. A service whose clock is wrong would date changes into the past or the future; so it
refuses them while it is over CLOCK_APART_MS off, as far as the comparison can tell.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from dts import bounds
from dts.errors import DtsError, Unavailable
from dts.model import Instant
from dts.schedule import format_instant
from dts.services.clock import Nanoseconds, boottime_ns

log = logging.getLogger("dts.jobs")

EVERY_S = 5.0
Apart = Callable[[], Awaitable[int]]  # how far our clock is ahead, ms; half the time that it took is its error


class Sample(NamedTuple):
    """One comparison."""

    apart: int  # ms that ours is ahead
    error: int  # ms, either way
    at: int  # steady ns


class ClockCheck:
    """`check` refuses changes; `run` keeps the comparison young."""

    def __init__(self, apart: Apart, clock: Callable[[], Instant], steady: Nanoseconds = boottime_ns) -> None:
        self._apart = apart
        self._clock = clock
        self._steady = steady
        self._last: Sample | None = None

    async def run(self, every_s: float = EVERY_S) -> None:
        """Compares for ever. While the store does not answer, the last comparison holds, until it is too old."""
        while True:
            try:
                await self.sample()
            except DtsError as error:
                log.debug("clocks were not compared: %s", error)
            await asyncio.sleep(every_s)

    async def sample(self) -> None:
        """Compares once. Raises what the question raises."""
        begun = self._steady()
        apart = await self._apart()
        ended = self._steady()
        sample = Sample(apart, (ended - begun) // 2_000_000, ended)
        if sample.error > bounds.CLOCK_APART_MS and self._last is not None:
            return  # it says nothing
        self._last = sample

    def trouble(self) -> str:
        """Why changes are refused, or ''."""
        last = self._last
        if last is None or (self._steady() - last.at) // 1_000_000 > bounds.CLOCK_SAMPLE_OLD_MS:
            return "this service's clock cannot be compared with the job store's: changes are refused until it is"
        if abs(last.apart) - last.error <= bounds.CLOCK_APART_MS:
            return ""
        ours = self._clock()
        return (
            f"this service's clock says {format_instant(ours)}, the job store's {format_instant(ours - last.apart)}: changes are"
            f" refused while they are over {bounds.CLOCK_APART_MS // 1_000} s apart"
        )

    def check(self) -> None:
        """Raises Unavailable while this process's clock may not date changes."""
        if trouble := self.trouble():
            raise Unavailable(trouble)
