"""IntentStore: a partition for each service and minute, so that a sweep reads whole partitions and few tombstones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dts.adapters.cassandra.session import Row, Session, in_flight
from dts.model import Instant, Intent

MINUTE_MS = 60_000
DAY_MS = 86_400_000
KEPT_DAYS = 7  # the tables' TTL: a sweep need not look further back
PARTS_TOGETHER = 64  # partitions read at once
PARTS_KNOWN = 16  # partitions that this process has written down already

_PART = "INSERT INTO job_intent_parts (day, minute, incarnation) VALUES (?, ?, ?)"
_ADD = "INSERT INTO job_intents (minute, incarnation, id, at, jobs, revisions) VALUES (?, ?, ?, ?, ?, ?)"
_REMOVE = "DELETE FROM job_intents WHERE minute = ? AND incarnation = ? AND id = ?"
_PARTS = "SELECT minute, incarnation FROM job_intent_parts WHERE day = ? AND minute >= ? AND minute <= ?"
_INTENTS = "SELECT incarnation, id, at, jobs, revisions FROM job_intents WHERE minute = ? AND incarnation = ?"


class CassandraIntents:
    """The port IntentStore over a keyspace."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[tuple[int, str], None] = {}

    async def write(self, intent: Intent) -> None:
        """See ports.IntentStore."""
        part = (intent.at // MINUTE_MS, intent.incarnation)
        if part not in self._known:
            await self._session.write(_PART, [intent.at // DAY_MS, *part])
            self._known[part] = None
            while len(self._known) > PARTS_KNOWN:
                del self._known[next(iter(self._known))]
        jobs, revisions = [job for job, _ in intent.revisions], [revision for _, revision in intent.revisions]
        await self._session.write(_ADD, [*part, intent.id, intent.at, jobs, revisions])

    async def remove(self, intent: Intent) -> None:
        """See ports.IntentStore."""
        await self._session.write(_REMOVE, [intent.at // MINUTE_MS, intent.incarnation, intent.id])

    async def scan(self, since: Instant, before: Instant, limit: int) -> Sequence[Intent]:
        """See ports.IntentStore."""
        since = max(since, before - (KEPT_DAYS + 1) * DAY_MS)
        found: list[Intent] = []
        for day in range(since // DAY_MS, before // DAY_MS + 1):
            parts = await self._session.rows(_PARTS, [day, since // MINUTE_MS, before // MINUTE_MS])
            for together in _by_minutes(parts):
                pages = await in_flight(together, self._part)
                found += [each for page in pages for each in page if since <= each.at < before]
                if len(found) >= limit:
                    break
            if len(found) >= limit:
                break
        return sorted(found, key=lambda each: each.at)[:limit]

    async def _part(self, part: Row) -> list[Intent]:
        rows = await self._session.rows(_INTENTS, list(part))
        return [
            Intent(incarnation, id, at, tuple(zip(jobs or (), revisions or (), strict=True)))
            for incarnation, id, at, jobs, revisions in rows
        ]


def _by_minutes(parts: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """About PARTS_TOGETHER partitions each; those of one minute together, so that what comes later is younger."""
    start = 0
    while start < len(parts):
        end = min(start + PARTS_TOGETHER, len(parts))
        while end < len(parts) and parts[end][0] == parts[end - 1][0]:
            end += 1
        yield parts[start:end]
        start = end
