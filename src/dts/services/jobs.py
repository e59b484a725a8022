"""Use cases of jobs: create, change, list and run them. Durable first, then published, then (where it matters) settled.

The API hands in whole revisions, or an `edit` that makes the next one from the current row, so that nothing here knows its messages.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from dts import bounds
from dts.errors import AlreadyExists, InvalidArgument, NotFound, OutcomeUnknown, RevisionConflict
from dts.model import (
    CatchUp,
    Execution,
    Instant,
    JobState,
    JobView,
    Resume,
    Revision,
    Run,
    StoredJob,
    new_key,
)
from dts.ports import History, JobFeed, JobStore, Live
from dts.services.backfills import Backfills
from dts.services.ids import JobIds, command_id
from dts.services.publication import Publication

CREATE_ATTEMPTS = 3  # others may take or free a chosen id between our look and our write
CHANGE_ATTEMPTS = 10  # others may change the job between our look and our write

IDLE = JobView()
RESUMED_AT_ONCE = 64  # suspensions that are ended side by side

Edit = Callable[
    [StoredJob], Revision | None
]  # the next revision (`since` and number are set here); None: nothing to change


class Change(NamedTuple):
    """One job's edit; `revision` 0: of whatever it is now."""

    job: str
    edit: Edit
    revision: int = 0


class Seen(NamedTuple):
    """A job with what it does now and how its last execution ended."""

    job: StoredJob
    view: JobView
    last: Execution | None


class JobService:
    """Jobs over a store, a feed to the shards' owners, and what these say of now. Safe for concurrent use in one event loop."""

    def __init__(
        self,
        store: JobStore,
        feed: JobFeed,
        live: Live,
        history: History,
        clock: Callable[[], Instant],
        publication: Publication | None = None,
        count: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        """`publication`: where the store's write is not the publication (the cluster). `count`: of jobs, where the store
        would have to look through all of them."""
        self._store = store
        self._count = count or store.count
        self._publication = publication or Publication(feed, clock)
        self._live = live
        self._history = history
        self._ids = JobIds()
        self.backfills = Backfills(store, live, clock)
        self.now = clock

    def new_ids(self, count: int) -> list[str]:
        """Fresh ids, ascending in the order of creation."""
        return self._ids.take(count, self.now())

    # ---- create ----

    async def repeats(self, wanted: Mapping[str, str]) -> frozenset[str]:
        """Of {id: fingerprint}: those that exist already with this very content. Raises AlreadyExists for other content."""
        rows = await self._store.get(list(wanted))
        return frozenset(id for id, fingerprint in wanted.items() if _is_repeat(rows.get(id), id, fingerprint))

    async def create(self, revisions: Sequence[Revision]) -> None:
        """Creates all or none. With a fingerprint (`request`), a repeat of the same create is left as it is.

        Raises AlreadyExists for an id that is taken by other content.
        """
        for attempt in range(CREATE_ATTEMPTS):
            fresh = await self._unmade(revisions)
            if not fresh:
                return
            try:
                await self._publication.make(fresh, self._store.create)
            except AlreadyExists:
                if attempt == CREATE_ATTEMPTS - 1 or not any(each.request for each in fresh):
                    raise
                continue
            return

    async def _unmade(self, revisions: Sequence[Revision]) -> Sequence[Revision]:
        """Those that do not exist yet, renumbered where a deleted job is made anew."""
        named = {each.definition.job: each for each in revisions if each.request}
        if not named:
            return revisions
        rows = await self._store.get(list(named))
        fresh = []
        for each in revisions:
            job = each.definition.job
            first = named.get(job, each)
            if first is not each and first.request != each.request:
                raise AlreadyExists(f"job {job!r} is in this request twice with different content")
            row = rows.get(job)
            if first is not each or _is_repeat(row, job, each.request):
                continue
            if row is not None:
                since = max(row.updated, each.definition.since)
                definition = each.definition._replace(revision=row.revision + 1, since=since)
                each = each._replace(definition=definition)  # noqa: PLW2901
            fresh.append(each)
        return fresh

    # ---- read ----

    async def get(self, job: str) -> Seen:
        """Raises NotFound for a job that is not there or deleted."""
        return (await self.see([await self.stored(job)]))[0]

    async def stored(self, job: str) -> StoredJob:
        """The current row alone. Raises NotFound."""
        row = (await self._store.get([job])).get(job)
        if row is None or row.state is JobState.DELETED:
            raise NotFound("job", job)
        return row

    async def see(self, rows: Sequence[StoredJob]) -> list[Seen]:
        """What the jobs do now and how they ended last, in the order given."""
        ids = [row.id for row in rows]
        views = await self._live.views(ids)
        last = await self._history.last_ended(ids)
        return [Seen(row, views.get(row.id, IDLE), last.get(row.id)) for row in rows]

    async def page(
        self, after: str, limit: int, states: frozenset[int], tag: str = "", name: str = ""
    ) -> Sequence[StoredJob]:
        """Rows with id > after in id order; `states` empty: all but deleted ones."""
        return await self._store.list(after, limit, states, tag, name)

    async def count(self) -> int:
        """Jobs that are not deleted."""
        return await self._count()

    async def revisions(self, job: str, before: int, limit: int) -> Sequence[Revision]:
        """Newest first, also of a deleted job. Raises NotFound for one that never was."""
        found = await self._store.revisions(job, before, limit)
        if not found and not before:
            raise NotFound("job", job)
        return found

    # ---- change ----

    async def change(self, changes: Sequence[Change], *, settle: bool = False) -> list[StoredJob]:
        """Applies all edits or none; the rows that result, in order. `settle`: waits until the owner obeys (ANSWER_WAIT_S at most).

        Raises NotFound, RevisionConflict (a change named an old revision, or others change the job all the time), InvalidArgument
        for a job that is named twice, and what the edits raise.
        """
        jobs = [change.job for change in changes]
        if len(set(jobs)) < len(jobs):
            twice = Counter(jobs).most_common(1)[0][0]
            raise InvalidArgument("", f"job {twice!r} is named twice in one request")
        for attempt in range(CHANGE_ATTEMPTS):
            rows, revisions = await self._edited(changes)
            if not revisions:
                return rows
            try:
                await self._publication.make(revisions, self._store.change)
            except RevisionConflict:
                if attempt == CHANGE_ATTEMPTS - 1 or any(change.revision for change in changes):
                    raise
                continue
            if settle:
                last = revisions[-1].definition
                await self._live.settled(last.job, last.revision, bounds.ANSWER_WAIT_S)
            return rows
        raise AssertionError("the last attempt returns or raises")

    async def would_change(self, changes: Sequence[Change]) -> list[StoredJob]:
        """The rows that `change` would give; nothing is written. Raises what it would raise now."""
        rows, _ = await self._edited(changes)
        return rows

    async def _edited(self, changes: Sequence[Change]) -> tuple[list[StoredJob], list[Revision]]:
        """The rows after the edits, and the revisions that make them so."""
        found = await self._store.get([change.job for change in changes])
        now = self.now()
        rows, revisions = [], []
        for change in changes:
            row = found.get(change.job)
            if row is None or row.state is JobState.DELETED:
                raise NotFound("job", change.job)
            if change.revision and change.revision != row.revision:
                raise RevisionConflict(change.job, change.revision, row.revision)
            edited = change.edit(row)
            if edited is None:
                rows.append(row)
                continue
            definition = edited.definition._replace(
                revision=row.revision + 1, since=max(now, row.updated), group=row.group
            )
            edited = edited._replace(definition=definition, created=row.created, request=row.request)
            revisions.append(edited)
            rows.append(row_of(edited))
        return rows, revisions

    # ---- suspensions ----

    async def lift(self, rows: Sequence[StoredJob], catch_up: CatchUp) -> None:
        """Ends the suspensions (pause after failures) of those that are suspended, as far as their owners are there to say so."""
        views = await self._live.views([row.id for row in rows])
        suspended = [row for row in rows if row.id in views and views[row.id].suspended]
        for at in range(0, len(suspended), RESUMED_AT_ONCE):
            await asyncio.gather(*(self._lift(row, catch_up) for row in suspended[at : at + RESUMED_AT_ONCE]))

    async def _lift(self, row: StoredJob, catch_up: CatchUp) -> None:
        now = self.now()
        id = command_id("", row.id)
        command = Resume(id, row.id, now, now + bounds.COMMAND_EXPIRY_MS, row.revision, catch_up, row.group)
        with suppress(OutcomeUnknown):  # it is durable: the owner will come to it
            await self._live.submit(command)

    # ---- run ----

    async def run(self, job: str, arguments: bytes = b"", request_id: str = "") -> str:
        """Runs a job now, beside its schedule: the execution's id. A repeat with the same request id gives the first answer.

        Raises NotFound, FailedPrecondition (a cancelled job).
        """
        row = await self.stored(job)
        command = command_id(request_id, job)
        now = self.now()
        run = Run(command, job, now, now + bounds.COMMAND_EXPIRY_MS, row.revision, arguments, row.group)
        try:
            return await self._live.submit(run)
        except OutcomeUnknown:  # it is durable and its id is known: the owner will come to it
            return str(new_key(run))


def _is_repeat(row: StoredJob | None, id: str, fingerprint: str) -> bool:
    """Whether a create was done before. Raises AlreadyExists when the id is taken by other content."""
    if row is None or row.state is JobState.DELETED:
        return False
    if not fingerprint or row.request != fingerprint:
        raise AlreadyExists(f"job {id!r} exists with other content: update it, or choose another id")
    return True


def row_of(revision: Revision) -> StoredJob:
    """The current row that a revision makes."""
    definition = revision.definition
    return StoredJob(
        definition.job,
        definition.revision,
        revision.created,
        definition.since,
        definition.state,
        definition.until,
        revision.document,
        revision.request,
        definition.group,
    )
