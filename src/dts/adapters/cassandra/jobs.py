"""JobStore: one partition a job. A change is one conditional batch: the static columns name the current revision, a row is added.

Several jobs have no common transaction. A call with several is looked at first and refused as a whole; if one of them is
lost to a rival after that, those that were written are taken back by a further revision: a number is never used twice.
"""

from __future__ import annotations

import asyncio
import heapq
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

from dts import codec
from dts.adapters.cassandra.session import Row, Session, Value, in_flight
from dts.errors import AlreadyExists, NotFound, OutcomeUnknown, RevisionConflict, Unavailable
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Definition, Instant, JobState, Revision, StoredJob

SLOTS = 16
PAGE = 1_000  # jobs in one page of the audit
COUNT_PAGE = 5_000
LOOK_JOBS = 100  # jobs whose numbers are read at once
IDS_TOGETHER = 100  # ids of one slot that go into job_ids as one batch
ADOPTED_TOGETHER = 50  # revisions that go with a job's row in one batch
RACE_TRIES = 5  # a batch that was refused by nobody: another change was being settled; so often it is tried again

_COLUMNS = "job, revision, cur_revision, change, created, name, tags, definition, document, request"
_NEWEST = f"SELECT {_COLUMNS} FROM job_revisions WHERE job = ? PER PARTITION LIMIT 1"
_NUMBERS = "SELECT job, cur_revision FROM job_revisions WHERE job IN ? PER PARTITION LIMIT 1"
_ALL = f"SELECT {_COLUMNS} FROM job_revisions WHERE job = ?"
_SET = "UPDATE job_revisions SET cur_revision = ?, cur_state = ? WHERE job = ? IF cur_revision = ?"
_ADD = (
    "INSERT INTO job_revisions (job, revision, change_id, change, created, name, tags, definition, document, request)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PLAIN = (
    "INSERT INTO job_revisions (job, revision, cur_revision, cur_state, change_id, change, created, name, tags, definition,"
    " document, request) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP 1"
)
_ID = "INSERT INTO job_ids (slot, job) VALUES (?, ?) USING TIMESTAMP 1"


class Step(NamedTuple):
    """What is to happen to one job: its revisions follow `current` (None: there is no such job yet)."""

    revisions: list[Revision]
    current: Revision | None

    @property
    def job(self) -> str:
        return self.revisions[0].definition.job


def slot(job: str) -> int:
    """The partition of job_ids that names a job."""
    return crc32(job.encode()) % SLOTS


def _revision(row: Row) -> Revision:
    _, _, _, change, created, name, tags, definition, document, request = row
    of = codec.definition_in(log.Definition.FromString(definition))
    return Revision(of, change, created, name, tuple(tags or ()), document, request)


def _stored(revision: Revision) -> StoredJob:
    of = revision.definition
    return StoredJob(
        of.job,
        of.revision,
        revision.created,
        of.since,
        of.state,
        of.until,
        revision.document,
        revision.request,
        of.group,
    )


def _number(revision: Revision | None) -> int:
    return revision.definition.revision if revision else 0


class CassandraJobs:
    """The port JobStore over a keyspace. `intents` are beside it (intents.py): it publishes nothing itself."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(self, revisions: Sequence[Revision]) -> None:
        """See ports.JobStore. Raises Unavailable (nothing was written) or OutcomeUnknown too.

        A revision without a `request` has an id that the service made just now: nobody else can know it, so it is written
        without a condition (a repeat is harmless, also after the job was changed: it is dated before any change).
        """
        if alone := len(revisions) == 1:  # a name without a job is no job: it need not wait for the look
            steps, _ = await asyncio.gather(self._steps(revisions), self._name([revisions[0].definition.job]))
        else:
            steps = await self._steps(revisions)
        for each in steps:
            free = each.current is None or each.current.definition.state is JobState.DELETED
            if not free or not _follow(each):
                raise _taken(each.job)
        named = [each for each in steps if each.current or each.revisions[0].request or len(each.revisions) > 1]
        if named and (lost := await self._write(named, name=not alone)):
            raise _taken(lost[0].job)
        theirs = {each.job for each in named}
        ours = [each for each in revisions if each.definition.job not in theirs]
        if not alone:
            await self._name([each.definition.job for each in ours])
        try:
            await in_flight(ours, self._add_plain)
        except Unavailable as error:
            if alone:
                raise
            raise OutcomeUnknown(f"a create of {len(revisions)} jobs broke off, some may be there: {error}") from error

    async def change(self, revisions: Sequence[Revision]) -> None:
        """See ports.JobStore. Raises Unavailable (nothing was written) or OutcomeUnknown too."""
        steps = await self._steps(revisions)
        for each in steps:
            if each.current is None:
                raise NotFound("job", each.job)
            if not _follow(each):
                raise _conflict(each, each.current)
        lost = await self._write(steps)
        if lost:
            raise _conflict(lost[0], await self._newest(lost[0].job, serial=True))

    async def adopt(self, jobs: Sequence[Sequence[Revision]]) -> None:
        """See ports.MoveTarget. A long past is written before the row that makes it a job: until then it is none."""
        current = await in_flight([each[-1].definition.job for each in jobs], self._newest)
        for now in current:
            if now is not None:
                raise _taken(now.definition.job)

        async def past(revision: Revision) -> None:
            await self._session.write(_ADD, _values(revision, uuid.uuid4().bytes))

        await in_flight([each for revisions in jobs for each in revisions[:-ADOPTED_TOGETHER]], past)
        if lost := await self._write([Step(list(revisions[-ADOPTED_TOGETHER:]), None) for revisions in jobs]):
            raise _taken(lost[0].job)

    async def get(self, jobs: Sequence[str]) -> dict[str, StoredJob]:
        """See ports.JobStore."""
        found = await in_flight(dict.fromkeys(jobs), self._newest)
        return {each.definition.job: _stored(each) for each in found if each is not None}

    async def above(self, known: Mapping[str, int], *, settled: bool) -> dict[str, Definition]:
        """See ports.JobBook."""
        jobs: Iterable[str] = known
        if not settled:
            parts = [list(known)[n : n + LOOK_JOBS] for n in range(0, len(known), LOOK_JOBS)]
            pages = await in_flight(parts, lambda part: self._session.rows(_NUMBERS, [part]))
            jobs = [job for page in pages for job, number in page if (number or 0) > known[job]]
        found = await in_flight(jobs, lambda job: self._newest(job, serial=settled))
        now = [each.definition for each in found if each is not None]
        return {each.job: each for each in now if each.revision > known[each.job]}

    async def list(
        self, after: str, limit: int, states: frozenset[int], tag: str = "", name: str = ""
    ) -> Sequence[StoredJob]:
        """See ports.JobStore."""
        wanted, folded = states or frozenset(JobState) - {JobState.DELETED}, name.casefold()
        found: list[StoredJob] = []
        while len(found) < limit:
            ids = await self._ids(after, limit)
            for each in await in_flight(ids, self._newest):
                if each is None or each.definition.state not in wanted or (tag and tag not in each.tags):
                    continue
                if folded in each.name.casefold():
                    found.append(_stored(each))
            if len(ids) < limit:
                break
            after = ids[-1]
        return found[:limit]

    async def count(self) -> int:
        """See ports.JobStore. Reads every partition's state: for pages, ask the shards' owners."""
        pages = self._session.pages("SELECT DISTINCT job, cur_state FROM job_revisions", size=COUNT_PAGE)
        return sum([state not in (None, JobState.DELETED) async for page in pages for _, state in page])

    async def revisions(self, job: str, before: int, limit: int) -> Sequence[Revision]:
        """See ports.JobStore."""
        where, values = "", list[Value]([job])
        if before:
            where, values = " AND revision < ?", [job, before]
        rows = await self._session.rows(f"{_ALL}{where} LIMIT {limit}", values)
        return [_revision(row) for row in rows if row[2] is not None and row[1] is not None]

    async def definitions(self, job: str, until: Instant) -> AsyncIterator[Sequence[Definition]]:
        """See ports.JobStore."""
        after: str | None = ""
        while after is not None:
            ids = [job] if job else await self._ids(after, PAGE)
            after = ids[-1] if len(ids) == PAGE and not job else None
            found = await in_flight(ids, lambda id: self.revisions(id, 0, 2**31 - 1))
            page = [
                each.definition for revisions in found for each in reversed(revisions) if each.definition.since < until
            ]
            if page:
                yield page

    async def _newest(self, job: str, serial: bool = False) -> Revision | None:
        rows = await self._session.rows(_NEWEST, [job], serial)
        return _revision(rows[0]) if rows and rows[0][2] is not None and rows[0][1] is not None else None

    async def _ids(self, after: str, limit: int) -> Sequence[str]:
        """The next ids, in order: ghosts included, so that a short page is the last."""
        cql = f"SELECT job FROM job_ids WHERE slot = ? AND job > ? LIMIT {limit}"
        slots = await in_flight(range(SLOTS), lambda slot: self._session.rows(cql, [slot, after]))
        merged: Iterable[Row] = heapq.merge(*slots)
        return [row[0] for row in merged][:limit]

    async def _steps(self, revisions: Sequence[Revision]) -> Sequence[Step]:
        by_job: dict[str, list[Revision]] = {}
        for each in revisions:
            by_job.setdefault(each.definition.job, []).append(each)
        current = await in_flight(by_job, self._newest)
        return [Step(of, now) for of, now in zip(by_job.values(), current, strict=True)]

    async def _write(self, steps: Sequence[Step], name: bool = True) -> Sequence[Step]:
        """Writes all of them; those that were lost to a rival, when all others are taken back. `name`: their ids first."""
        if name:
            await self._name([step.job for step in steps])
        if len(steps) == 1:
            return [] if await self._apply(steps[0]) else steps

        async def one(step: Step) -> bool | Exception:
            try:
                return await self._apply(step)
            except (OutcomeUnknown, Unavailable) as error:
                return error

        outcomes = await in_flight(steps, one)
        lost = [step for step, applied in zip(steps, outcomes, strict=True) if applied is False]
        failed = [error for error in outcomes if isinstance(error, Exception)]
        if lost or failed:
            await in_flight(
                [step for step, applied in zip(steps, outcomes, strict=True) if applied is True], self._take_back
            )
        if failed:
            raise OutcomeUnknown(
                f"a change of {len(steps)} jobs broke off: read them before you repeat it: {failed[0]}"
            )
        return lost

    async def _apply(self, step: Step) -> bool:
        """One conditional batch; False: another change came first. Raises Unavailable (not applied) or OutcomeUnknown."""
        last = step.revisions[-1].definition
        change = uuid.uuid4().bytes
        was = _number(step.current) or None
        for _ in range(RACE_TRIES):
            batch = [await self._session.bind(_SET, [last.revision, int(last.state), step.job, was])]
            batch += [await self._session.bind(_ADD, _values(each, change)) for each in step.revisions]
            try:
                if (await self._session.batch(batch, atomic=True)).first().as_tuple()[0]:
                    return True
            except OutcomeUnknown:
                pass  # the serial read below settles it
            now, id = await self._settled(step.job)
            if now != (was or 0):
                return now >= last.revision and await self._is_ours(step.job, last.revision, change, now, id)
        raise Unavailable(f"job {step.job!r} is being changed by others: try again")

    async def _settled(self, job: str) -> tuple[int, bytes]:
        """The current revision and its change, by a serial read: no batch is under way for it any more."""
        cql = "SELECT cur_revision, change_id FROM job_revisions WHERE job = ? PER PARTITION LIMIT 1"
        rows = await self._session.rows(cql, [job], serial=True)
        return (rows[0][0] or 0, rows[0][1] or b"") if rows else (0, b"")

    async def _is_ours(self, job: str, revision: int, change: bytes, now: int, id: bytes) -> bool:
        if now == revision:
            return id == change
        cql = "SELECT change_id FROM job_revisions WHERE job = ? AND revision = ?"
        rows = await self._session.rows(cql, [job, revision], serial=True)
        return bool(rows) and rows[0][0] == change

    async def _take_back(self, step: Step) -> None:
        """One more revision with the content of the one before; of a job that was created, its deletion."""
        last = step.revisions[-1]
        number = last.definition.revision + 1
        if step.current is None:
            back = last._replace(
                definition=last.definition._replace(revision=number, state=JobState.DELETED), change="delete"
            )
        else:
            since = last.definition.since
            back = step.current._replace(definition=step.current.definition._replace(revision=number, since=since))
        await self._apply(Step([back], last))

    async def _name(self, jobs: Sequence[str]) -> None:
        """Puts ids into job_ids: before the jobs themselves, so that none is ever missing from a list."""
        slots: dict[int, list[str]] = {}
        for job in jobs:
            slots.setdefault(slot(job), []).append(job)
        parts = [
            (slot, ids[n : n + IDS_TOGETHER]) for slot, ids in slots.items() for n in range(0, len(ids), IDS_TOGETHER)
        ]

        async def add(part: tuple[int, list[str]]) -> None:
            place, ids = part
            if len(ids) == 1:
                await self._session.write(_ID, [place, ids[0]])
            else:
                await self._session.batch([await self._session.bind(_ID, [place, id]) for id in ids], atomic=False)

        await in_flight(parts, add)

    async def _add_plain(self, revision: Revision) -> None:
        of = revision.definition
        job, number, *rest = _values(revision, uuid.uuid4().bytes)
        await self._session.write(_PLAIN, [job, number, number, int(of.state), *rest])


def _values(revision: Revision, change: bytes) -> list[Value]:
    of = revision.definition
    definition = codec.definition_out(of).SerializeToString()
    shown: list[Value] = [revision.change, revision.created, revision.name, list(revision.tags), definition]
    return [of.job, of.revision, change, *shown, revision.document, revision.request]


def _follow(step: Step) -> bool:
    """Whether its revisions are the next ones of the job."""
    first = _number(step.current) + 1
    return [each.definition.revision for each in step.revisions] == [*range(first, first + len(step.revisions))]


def _taken(job: str) -> AlreadyExists:
    return AlreadyExists(f"job {job!r} exists already: choose another id, or update it")


def _conflict(step: Step, current: Revision | None) -> RevisionConflict:
    return RevisionConflict(step.job, step.revisions[0].definition.revision - 1, _number(current))
