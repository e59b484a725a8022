"""The feed against the book of record: what was told of each job last is what holds, and jobs deleted long ago leave the feed.

Rules:
- The last record of a job must be its current revision: it is what compaction leaves. Where it is lower (two publishers, the one
  overtaken; a feed that lost records) the current one is told again. It owes nothing before the watermark: it was told once. A
  revision younger than RENEW_AFTER_MS is left to its publisher and the sweepers, who tell it for the first time.
- A deletion is a record for TOMBSTONE_AFTER_MS at least, in which every owner has come to it; then a tombstone. Before it a read that
  settles what is under way must still show the deletion, and after it nothing higher: a job made anew is told again.
- What the feed has and the book has not (a backup that was restored) is told to a person, never taken back: owners keep the
  higher revision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from zlib import crc32

from dts import bounds
from dts.errors import DtsError
from dts.model import Instant, JobState, Notice
from dts.ports import JobBook, JobStore, Notices
from dts.services.publication import Publisher

log = logging.getLogger("dts.jobs")

EVERY_S = 24 * 3_600.0
FIRST_WITHIN_S = 3_600  # services that start together do not read the feed together
PAUSE_S = 60.0  # after a failure
PAGE = 1_000  # jobs read at once
NAMED = 20  # jobs named to a person

EVERY_STATE = frozenset(JobState)


class Book(JobStore, JobBook, Protocol):
    """A job store that publishes nothing itself."""


class Due(NamedTuple):
    """What is to be done about the feed: {job: the revision that it has, 0: none}, {job: shard}, jobs that the book has not."""

    renew: dict[str, int]
    bury: dict[str, Notice]
    ahead: dict[str, int]


@dataclass(slots=True)
class Repair:
    """What a comparison found, and what was done about it."""

    jobs: int = 0  # in the book of record, deleted ones left out
    missing: int = 0  # that the feed has not, and should
    lower: int = 0  # whose last record is an old one
    overdue: int = 0  # deleted long ago, and still there
    renewed: int = 0
    buried: int = 0
    ahead: list[str] = field(default_factory=list)  # some of those that the feed knows a higher revision of
    ahead_count: int = 0

    @property
    def clean(self) -> bool:
        """Nothing is to be done."""
        return not (self.missing or self.lower or self.ahead_count)


def due_of(notices: Mapping[str, Notice], numbers: Mapping[str, tuple[int, JobState, Instant]], now: Instant) -> Due:
    """Compares some jobs: what the feed has of them, and what the book has: (revision, state, its instant)."""
    renew: dict[str, int] = {}
    bury: dict[str, Notice] = {}
    ahead: dict[str, int] = {}
    for job, (revision, state, since) in numbers.items():
        notice = notices.get(job)
        if since > now - bounds.RENEW_AFTER_MS and (notice is None or notice.revision < revision):
            continue  # its first publication may be under way, and must be the first that is heard
        if notice is None:
            if state is not JobState.DELETED or since > now - bounds.DELETION_OWED_MS:
                renew[job] = 0
        elif notice.revision < revision:
            renew[job] = notice.revision
        elif notice.revision > revision:
            ahead[job] = notice.revision
        elif notice.state is JobState.DELETED and notice.at <= now - bounds.TOMBSTONE_AFTER_MS:
            bury[job] = notice
    return Due(renew, bury, ahead)


class Tidier:
    """`run()` until cancelled; `repair()` once, for a person."""

    def __init__(self, book: Book, notices: Notices, publisher: Publisher, clock: Callable[[], Instant]) -> None:
        self._book = book
        self._notices = notices
        self._publisher = publisher
        self._clock = clock

    async def run(self, name: str) -> None:
        """Once a day, for ever; one that fails is repeated. `name`: of the process, so that not all do it at once."""
        await asyncio.sleep(crc32(name.encode()) % FIRST_WITHIN_S)
        while True:
            try:
                found = await self.repair()
                log.log(logging.INFO if found.clean else logging.WARNING, "the feed was tidied: %s", found)
                await asyncio.sleep(EVERY_S)
            except DtsError as error:
                log.warning("the feed was not tidied: %s", error)
                await asyncio.sleep(PAUSE_S)

    async def repair(self, dry_run: bool = False) -> Repair:
        """Compares everything, and does what is due (`dry_run`: nothing). Raises what store and feed raise; may be repeated."""
        found = Repair()
        notices: dict[str, Notice] = {}
        for shard in self._notices.shards():
            notices.update(await self._notices.last(shard))
        after = ""
        while True:
            page = await self._book.list(after, PAGE, EVERY_STATE)
            numbers = {row.id: (row.revision, row.state, row.updated) for row in page}
            found.jobs += sum(row.state is not JobState.DELETED for row in page)
            await self._do(due_of(notices, numbers, self._clock()), found, dry_run)
            for job in numbers:
                notices.pop(job, None)
            if len(page) < PAGE:
                break
            after = page[-1].id
        strangers = await self._strangers(notices)
        found.ahead_count += len(strangers)
        found.ahead += list(strangers)[: NAMED - len(found.ahead)]
        return found

    async def _strangers(self, notices: Mapping[str, Notice]) -> list[str]:
        """Jobs that the feed has and the list had not: made meanwhile, or unknown to the book."""
        left = sorted(job for job, notice in notices.items() if notice.state is not JobState.DELETED)
        strangers: list[str] = []
        for start in range(0, len(left), PAGE):
            part = left[start : start + PAGE]
            rows = await self._book.get(part)
            strangers += [job for job in part if job not in rows]
        return strangers

    async def _do(self, due: Due, found: Repair, dry_run: bool) -> None:
        found.missing += sum(revision == 0 for revision in due.renew.values())
        found.lower += sum(revision > 0 for revision in due.renew.values())
        found.overdue += len(due.bury)
        found.ahead_count += len(due.ahead)
        found.ahead += list(due.ahead)[: NAMED - len(found.ahead)]
        if dry_run:
            return
        found.renewed += await self._publisher.renew(due.renew, self._clock() - bounds.RENEW_AFTER_MS)
        found.buried += await self._bury(due.bury)

    async def _bury(self, due: Mapping[str, Notice]) -> int:
        """Tombstones for those that are deleted still."""
        if not due:
            return 0
        current = await self._book.above(dict.fromkeys(due, 0), settled=True)
        dead = {
            job: notice
            for job, notice in due.items()
            if job in current and current[job].state is JobState.DELETED and current[job].revision == notice.revision
        }
        await self._notices.bury({job: notice.shard for job, notice in dead.items()})
        await self._publisher.catch_up({job: notice.revision for job, notice in dead.items()})
        return len(dead)
