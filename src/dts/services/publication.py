"""A change of jobs in the cluster is two writes, into the book of record and into the feed. Here they become one that no death tears apart.

Rules:
- Before the first write an intent says what is about to be written. It goes when the feed has acknowledged and a read that settles
  what is under way shows nothing higher; what is higher is published, too: it may have come before ours in the feed.
- An intent that stays is the sweepers' (services/intents.py): of a process that died, an answer that never came, a feed that is down.
- A change of several jobs that lost one to a rival was taken back by further revisions: they are published as well.
- What is published was read or written less than PUBLISH_FRESH_MS ago. An owner forgets a deleted job after a day; a stale revision
  would bring it back.
- Revisions may be published twice: an owner passes over what is not above the one that it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

from dts import bounds
from dts.errors import AlreadyExists, DtsError, NotFound, OutcomeUnknown, QueueFull, RevisionConflict, Unavailable
from dts.model import Definition, Instant, Intent, JobState, Revision
from dts.ports import IntentStore, JobBook, JobFeed
from dts.services.clock import Nanoseconds, boottime_ns

log = logging.getLogger("dts.jobs")

Write = Callable[[Sequence[Revision]], Awaitable[None]]
Read = Callable[[Mapping[str, int]], Awaitable[Sequence[Definition]]]
Probe = Callable[[str], None]  # for tests: told the points that are passed
Refuse = Callable[[], None]  # raises while changes are to be refused

CLOSE_WAIT_S = 10.0  # for intents to be removed at the end


def no_probe(point: str) -> None:
    """Watches nothing. Points: intended, written, published."""
    del point


class Publisher:
    """Publishes what the book of record holds."""

    def __init__(self, book: JobBook, feed: JobFeed, steady: Nanoseconds = boottime_ns) -> None:
        self._book = book
        self._feed = feed
        self._steady = steady

    def age_ms(self, since_ns: int) -> int:
        """Ms of the steady clock since it gave `since_ns`."""
        return (self._steady() - since_ns) // 1_000_000

    def mark(self) -> int:
        """The steady clock, for `age_ms`."""
        return self._steady()

    async def catch_up(self, known: Mapping[str, int], *, settled: bool = True) -> int:
        """Publishes every revision above the known ones, in order; how many. `settled`: see ports.JobBook.

        Revisions that a deletion came after are left out: whoever knew that deletion may have forgotten it by now.
        """

        async def read(part: Mapping[str, int]) -> Sequence[Definition]:
            current = await self._book.above(part, settled=settled)
            chains = [await self._chain(part[job], definition) for job, definition in current.items()]
            return [definition for chain in chains for definition in chain]

        return await self._publish(known, read)

    async def renew(self, known: Mapping[str, int], until: Instant) -> int:
        """Publishes the current revisions that are above the known ones once more; how many. As such they owe nothing before the
        watermark of whoever hears them. A revision after `until` is left to who is publishing it for the first time."""

        async def read(part: Mapping[str, int]) -> Sequence[Definition]:
            current = await self._book.above(part, settled=True)
            return [definition._replace(first=False) for definition in current.values() if definition.since <= until]

        return await self._publish(known, read)

    async def _publish(self, known: Mapping[str, int], read: Read) -> int:
        count = 0
        jobs = list(known)
        for start in range(0, len(jobs), bounds.CATCH_UP_JOBS):
            part = {job: known[job] for job in jobs[start : start + bounds.CATCH_UP_JOBS]}
            while True:
                begun = self.mark()
                found = await read(part)
                if self.age_ms(begun) < bounds.PUBLISH_FRESH_MS:
                    break
            if found:
                await self._feed.publish(found)
            count += len(found)
        return count

    async def _chain(self, known: int, current: Definition) -> Sequence[Definition]:
        """The revisions above the known one that are still of use, oldest first."""
        if current.revision == known + 1 or current.state is JobState.DELETED:
            return [current]
        older = await self._book.revisions(current.job, current.revision, bounds.CATCH_UP_REVISIONS)
        chain = [current]
        for each in older:
            if each.definition.revision <= known or each.definition.state is JobState.DELETED:
                break
            chain.append(each.definition)
        return chain[::-1]


class Promise(NamedTuple):
    """What makes two writes one: intents, and who publishes them. `incarnation`: of this process."""

    intents: IntentStore
    publisher: Publisher
    incarnation: str


class Publication:
    """The way of every change of jobs. Without a promise the store's write is the publication (embedded: one transaction)."""

    def __init__(
        self,
        feed: JobFeed,
        clock: Callable[[], Instant],
        promise: Promise | None = None,
        refusals: Sequence[Refuse] = (),
        probe: Probe = no_probe,
    ) -> None:
        self.probe = probe
        self._feed = feed
        self._clock = clock
        self._promise = promise
        self._refusals = refusals
        self._settling: set[asyncio.Task[None]] = set()

    async def make(self, revisions: Sequence[Revision], write: Write) -> None:
        """Durable, and published or sure to be, on return. Raises what `write` raises and what refuses changes now;
        OutcomeUnknown when the change is stored, but not published yet: it will be, later."""
        for refuse in self._refusals:
            refuse()
        definitions = [each.definition for each in revisions]
        if self._promise is None:
            await write(revisions)
            await self._feed.publish(definitions)
            return
        promise, publisher = self._promise, self._promise.publisher
        intent, begun = await self._intend(promise, definitions)
        self.probe("intended")
        try:
            await write(revisions)
        except (AlreadyExists, NotFound, RevisionConflict):
            await self._later(self._lost(promise, intent))
            raise
        self.probe("written")
        try:
            if publisher.age_ms(begun) < bounds.PUBLISH_FRESH_MS:
                await self._feed.publish(definitions)
            else:
                await publisher.catch_up(below(intent))
        except (Unavailable, QueueFull) as error:
            raise OutcomeUnknown(
                f"the change is stored, and is carried out once it can be published: {error}"
            ) from error
        self.probe("published")
        # An id that was made here a moment ago is known to hardly anybody: then a cheap look is enough.
        ours = all(each.definition.revision == 1 and not each.request for each in revisions)
        await self._later(self._settle(promise, intent, settled=not ours))

    async def close(self) -> None:
        """Waits for the last intents to be removed; what is left is the sweepers'."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=CLOSE_WAIT_S)

    async def _intend(self, promise: Promise, definitions: Sequence[Definition]) -> tuple[Intent, int]:
        """Writes the intent, and when that began. One that took too long is passed by sweepers already: another one is made."""
        while True:
            begun = promise.publisher.mark()
            named = tuple((each.job, each.revision) for each in definitions)
            intent = Intent(promise.incarnation, uuid4().bytes, self._clock(), named)
            try:
                await promise.intents.write(intent)
            except OutcomeUnknown as error:
                raise Unavailable(f"nothing was changed: {error}") from error
            if promise.publisher.age_ms(begun) < bounds.STORE_WRITE_MS:
                return intent, begun

    async def _settle(self, promise: Promise, intent: Intent, settled: bool) -> None:
        """After the publication."""
        written: dict[str, int] = {}
        for job, revision in intent.revisions:
            written[job] = max(revision, written.get(job, 0))
        await promise.publisher.catch_up(written, settled=settled)
        await promise.intents.remove(intent)

    async def _lost(self, promise: Promise, intent: Intent) -> None:
        """A rival was faster: nothing of one job was written; of several, what was is taken back."""
        if len(intent.revisions) > 1:
            await promise.publisher.catch_up(below(intent))
        await promise.intents.remove(intent)

    async def _later(self, work: Awaitable[None]) -> None:
        """Does it beside what comes next, if not too much is waiting."""
        if len(self._settling) >= bounds.SETTLING:
            await _quietly(work)
            return
        task = asyncio.ensure_future(_quietly(work))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)


def below(intent: Intent) -> dict[str, int]:
    """The revisions before those of the intent."""
    below: dict[str, int] = {}
    for job, revision in intent.revisions:
        below[job] = min(revision - 1, below.get(job, revision))
    return below


async def _quietly(work: Awaitable[None]) -> None:
    try:
        await work
    except DtsError as error:
        log.warning("an intent is left to the sweepers: %s", error)
