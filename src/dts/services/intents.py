"""The sweepers: intents that stayed are seen to by every Job Service process, whoever wrote them.

Rules:
- An intent of INTENT_LOOK_MS or more is looked at: what it names and was written is published, by the process that wrote it or not.
- It is removed at INTENT_KEPT_MS, published or not: what it says has happened by then, or never will. Not before: a process that
  stood still may yet take back what it wrote, and die.
- Several sweepers do the same twice, which is harmless: publications are repeated as they like.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dts import bounds
from dts.errors import DtsError
from dts.model import Instant, Intent
from dts.ports import IntentStore
from dts.services.publication import Publisher, below

log = logging.getLogger("dts.jobs")

EVERY_S = 5.0
WIDEN_MS = 60_000  # an intent may be there so much later than it says
ALL_EVERY_MS = 3_600_000  # then all intents are read again, not only the young ones
PAUSE_S = (1.0, 30.0)  # after a failure: first, longest


class Sweeper:
    """`run()` until cancelled. `look_ms`, `kept_ms`: ages."""

    def __init__(
        self,
        intents: IntentStore,
        publisher: Publisher,
        clock: Callable[[], Instant],
        look_ms: int = bounds.INTENT_LOOK_MS,
        kept_ms: int = bounds.INTENT_KEPT_MS,
    ) -> None:
        self.trouble = ""  # why the last round broke off
        self._intents = intents
        self._publisher = publisher
        self._clock = clock
        self._look_ms = look_ms
        self._kept_ms = kept_ms
        self._since: Instant = 0  # no intent that is older is there
        self._all: Instant = 0  # when all were read
        self._seen: dict[bytes, Instant] = {}  # published here, to be removed later

    async def run(self, every_s: float = EVERY_S) -> None:
        """Rounds for ever; one that fails is repeated."""
        pause = PAUSE_S[0]
        while True:
            try:
                await self.sweep(self._clock())
                self.trouble, pause = "", PAUSE_S[0]
                await asyncio.sleep(every_s)
            except DtsError as error:
                if not self.trouble:
                    log.warning("intents are not seen to: %s", error)
                self.trouble = str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_S[1])

    async def sweep(self, now: Instant) -> int:
        """One round; how many intents were published or removed. Raises what store and feed raise."""
        if now - self._all >= ALL_EVERY_MS:
            self._all, self._since = now, 0
        count, since, before = 0, self._since, now - self._look_ms
        left = before - WIDEN_MS  # the oldest that stays
        while True:
            page = await self._intents.scan(since, before, bounds.SWEEP_INTENTS)
            for intent in page:
                count += await self._see_to(intent, now)
                if intent.id in self._seen:
                    left = min(left, intent.at)
            if len(page) < bounds.SWEEP_INTENTS or page[-1].at == since:
                break
            since = page[-1].at
        self._since = max(self._since, left)
        self._seen = {id: at for id, at in self._seen.items() if at >= now - self._kept_ms - WIDEN_MS}
        return count

    async def _see_to(self, intent: Intent, now: Instant) -> bool:
        over = intent.at <= now - self._kept_ms
        if intent.id in self._seen and not over:
            return False
        published = await self._publisher.catch_up(below(intent))
        if published:
            log.info("published %d revisions that %s left", published, intent.incarnation)
        if over:
            await self._intents.remove(intent)
            self._seen.pop(intent.id, None)
        else:
            self._seen[intent.id] = intent.at
        return True
