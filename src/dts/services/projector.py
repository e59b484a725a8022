"""The projector: what the shards' owners tell becomes history. It may lag, and it never loses its place (law 7).

Rules:
- First the record, then the place: what was read is read again by whoever comes next until it is written down. Writes may be repeated.
- A record that cannot be reached is tried again for ever. The source keeps its shards meanwhile, and reads no further than a bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from dts.errors import DtsError
from dts.model import Instant
from dts.ports import EventSource, Record

log = logging.getLogger("dts.history")

PAUSE_S = (0.2, 5.0)  # between tries: first, longest
SAY_EVERY = 20  # tries


class Progress(NamedTuple):
    """How the projector is. `lag_ms`: how far the record lies behind, None while no shard is read here; `trouble`: why it stands."""

    lag_ms: int | None
    rows: int
    commits: int
    trouble: str


class Projector:
    """`run()` until cancelled."""

    def __init__(self, source: EventSource, record: Record, clock: Callable[[], Instant]) -> None:
        self._source = source
        self._record = record
        self._clock = clock
        self._rows = 0
        self._commits = 0
        self._trouble = ""

    async def run(self) -> None:
        """Takes and writes, a batch at a time. Raises what ends the source."""
        while True:
            told = await self._source.take()
            if told.commits:
                pause, tries = PAUSE_S[0], 0
                while True:
                    try:
                        self._rows += await self._record.write(told.commits)
                        break
                    except DtsError as error:
                        if tries % SAY_EVERY == 0:
                            log.warning("history is not written, tried again for ever: %s", error)
                        self._trouble = str(error)
                    await asyncio.sleep(pause)
                    pause, tries = min(2 * pause, PAUSE_S[1]), tries + 1
                if self._trouble:
                    log.warning("history is written again")
                    self._trouble = ""
            self._commits += len(told.commits)
            self._source.done(told)

    def progress(self) -> Progress:
        """For probes and metrics."""
        return Progress(self._source.lag(self._clock()), self._rows, self._commits, self._trouble)
