"""JobStore: every revision of every job; a job's current row points at its revision. A revision's position in the feed is
its `pos`, written in the same transaction: so an acknowledged change reaches the scheduler."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence

from dts.adapters.sqlite.bulk import Insert, Row
from dts.adapters.sqlite.feed import Feed
from dts.adapters.sqlite.reader import Reader
from dts.adapters.sqlite.shapes import COLUMNS, definition_of, group_of, shape_of
from dts.adapters.sqlite.writer import Writer
from dts.errors import AlreadyExists, NotFound, RevisionConflict
from dts.model import Change, Definition, Instant, JobState, Revision, StoredJob

PAGE = 2_000  # definitions in one page of the audit
BETWEEN = "\x1f"  # between the tags of a revision

_STORED = "j.id, j.revision, j.created, j.updated, j.state, j.until, r.document, j.request, r.shape"
_FROM = "FROM jobs AS j JOIN revisions AS r ON r.pos = j.pos"
_IN = "(SELECT value FROM json_each(?))"
_revisions = Insert("INSERT INTO revisions", 14)
_jobs = Insert("INSERT OR REPLACE INTO jobs", 9)
_tags = Insert("INSERT INTO tags", 2)


def _revision_row(pos: int, revision: Revision) -> Row:
    of = revision.definition
    return (
        pos,
        of.job,
        of.revision,
        of.since,
        revision.change,
        of.state,
        of.until,
        revision.created,
        revision.name,
        BETWEEN.join(revision.tags),
        shape_of(of),
        of.body,
        revision.document,
        revision.request,
    )


def _job_row(pos: int, revision: Revision) -> Row:
    of = revision.definition
    folded = revision.name.casefold()
    return (of.job, of.revision, revision.created, of.since, of.state, of.until, folded, pos, revision.request)


def _stored(row: tuple[str, int, int, int, int, int | None, bytes, str, bytes]) -> StoredJob:
    id, revision, created, updated, state, until, document, request, shape = row
    return StoredJob(id, revision, created, updated, JobState(state), until, document, request, group_of(shape))


def _revision_of(row: tuple[object, ...]) -> Revision:
    change, created, name, tags, document, request = row[7:]
    definition = definition_of(row[:7])  # type: ignore[arg-type]  # SQLite's STRICT tables hold the columns' types
    split = tuple(str(tags).split(BETWEEN)) if tags else ()
    return Revision(definition, str(change), int(created), str(name), split, bytes(document), str(request))  # type: ignore[call-overload]


class Jobs:
    """The port JobStore over one file."""

    def __init__(self, writer: Writer, reader: Reader, feed: Feed) -> None:
        self._writer = writer
        self._reader = reader
        self._feed = feed

    async def create(self, revisions: Sequence[Revision]) -> None:
        """See ports.JobStore."""

        def run(conn: sqlite3.Connection) -> int:
            return self._insert(conn, revisions, _check_free(conn, revisions))

        await self._write(run, revisions)

    async def change(self, revisions: Sequence[Revision]) -> None:
        """See ports.JobStore."""

        def run(conn: sqlite3.Connection) -> int:
            return self._insert(conn, revisions, _check_current(conn, revisions))

        await self._write(run, revisions)

    async def adopt(self, jobs: Sequence[Sequence[Revision]]) -> None:
        """See ports.MoveTarget: the last revision of each is told, unless it is a deletion; those before lie below the feed."""
        newest = [revisions[-1] for revisions in jobs]
        told = [each for each in newest if each.definition.state is not JobState.DELETED]
        gone = [each for each in newest if each.definition.state is JobState.DELETED]
        quiet = [*gone, *(each for revisions in jobs for each in revisions[:-1])]

        def run(conn: sqlite3.Connection) -> int:
            for taken in _current(conn, newest):
                raise AlreadyExists(f"job {taken!r} exists already")
            lowest = conn.execute("SELECT min(coalesce(min(pos), 1), 1) FROM revisions").fetchone()[0]
            rows = [_revision_row(lowest - 1 - n, each) for n, each in enumerate(quiet)]
            _revisions(conn, rows)
            _jobs(conn, [_job_row(lowest - 1 - n, each) for n, each in enumerate(gone)])
            return self._insert(conn, told, ())

        await self._write(run, told)

    async def _write(self, run: Callable[[sqlite3.Connection], int], revisions: Sequence[Revision]) -> None:
        def landed(first: int) -> None:
            self._feed.push([Change((first + n, 0), each.definition) for n, each in enumerate(revisions)])

        await self._writer.write(run, landed=landed)

    def _insert(self, conn: sqlite3.Connection, revisions: Sequence[Revision], before: Sequence[int]) -> int:
        """`before`: the states that those had which were there. Gives the position of the first revision."""
        first = self._feed.take_definitions(len(revisions))
        _revisions(conn, [_revision_row(first + n, each) for n, each in enumerate(revisions)])
        _jobs(conn, [_job_row(first + n, each) for n, each in enumerate(revisions)])
        if before:
            conn.execute(f"DELETE FROM tags WHERE job IN {_IN}", (_names(revisions),))
        tags = {(tag, each.definition.job) for each in revisions[-1:] for tag in each.tags}
        if len(revisions) > 1:
            last = {each.definition.job: each.tags for each in revisions}
            tags = {(tag, job) for job, names in last.items() for tag in names}
        _tags(conn, sorted(tags))
        gone = sum(each.definition.state is JobState.DELETED for each in revisions)
        back = len(before) - sum(state == JobState.DELETED for state in before)
        live = len(revisions) - gone - back
        if live:
            conn.execute("UPDATE state SET live = live + ?", (live,))
        return first

    async def get(self, jobs: Sequence[str]) -> dict[str, StoredJob]:
        """See ports.JobStore."""
        sql, wanted = f"SELECT {_STORED} {_FROM} WHERE j.id IN {_IN}", json.dumps(list(jobs))
        rows = await self._reader.read(lambda conn: conn.execute(sql, (wanted,)).fetchall())
        return {row[0]: _stored(row) for row in rows}

    async def list(
        self, after: str, limit: int, states: frozenset[int], tag: str = "", name: str = ""
    ) -> Sequence[StoredJob]:
        """See ports.JobStore."""
        wanted = states or frozenset(JobState) - {JobState.DELETED}
        where, values = "j.id > ?", [after]
        where += f" AND j.state IN ({', '.join(str(int(state)) for state in sorted(wanted))})"
        if tag:
            where, values = f"{where} AND j.id IN (SELECT job FROM tags WHERE tag = ?)", [*values, tag]
        if name:
            where, values = f"{where} AND instr(j.folded, ?)", [*values, name.casefold()]
        sql = f"SELECT {_STORED} {_FROM} WHERE {where} ORDER BY j.id LIMIT ?"
        rows = await self._reader.read(lambda conn: conn.execute(sql, (*values, limit)).fetchall())
        return [_stored(row) for row in rows]

    async def count(self) -> int:
        """See ports.JobStore."""
        found: int = await self._reader.read(lambda conn: conn.execute("SELECT live FROM state").fetchone()[0])
        return found

    async def revisions(self, job: str, before: int, limit: int) -> Sequence[Revision]:
        """See ports.JobStore."""
        sql = (
            f"SELECT {COLUMNS}, change, created, name, tags, document, request FROM revisions"
            " WHERE job = ? AND (? = 0 OR revision < ?) ORDER BY revision DESC LIMIT ?"
        )
        rows = await self._reader.read(lambda conn: conn.execute(sql, (job, before, before, limit)).fetchall())
        return [_revision_of(row) for row in rows]

    async def definitions(self, job: str, until: Instant) -> AsyncIterator[Sequence[Definition]]:
        """See ports.JobStore."""
        one = "job = ? AND" if job else "(? = '') AND"
        sql = (
            f"SELECT {COLUMNS} FROM revisions WHERE {one} (job, revision) > (?, ?) AND since < ?"
            " ORDER BY job, revision LIMIT ?"
        )
        last = ("", 0)
        while True:
            values = (job, *last, until, PAGE)
            rows = await self._reader.read(lambda conn, values=values: conn.execute(sql, values).fetchall())  # type: ignore[misc]
            if rows:
                yield [definition_of(row) for row in rows]
            if len(rows) < PAGE:
                return
            last = (rows[-1][0], rows[-1][1])


def _names(revisions: Sequence[Revision]) -> str:
    return json.dumps([each.definition.job for each in revisions])


def _current(conn: sqlite3.Connection, revisions: Sequence[Revision]) -> dict[str, tuple[int, int]]:
    """Revision and state of those jobs that are there."""
    sql = "SELECT id, revision, state FROM jobs WHERE id "
    if len(revisions) == 1:
        rows = conn.execute(f"{sql} = ?", (revisions[0].definition.job,))
    else:
        rows = conn.execute(f"{sql} IN {_IN}", (_names(revisions),))
    return {id: (revision, state) for id, revision, state in rows}


def _check_free(conn: sqlite3.Connection, revisions: Sequence[Revision]) -> Sequence[int]:
    """Gives the states of those that were there (all deleted). Raises AlreadyExists."""
    current, before = _current(conn, revisions), []
    for each in revisions:
        of = each.definition
        revision, state = current.get(of.job, (0, JobState.DELETED))
        if state != JobState.DELETED or of.revision != revision + 1:
            raise AlreadyExists(f"job {of.job!r} exists already: choose another id, or update it")
        if revision:
            before.append(state)
        current[of.job] = (of.revision, of.state)
    return before


def _check_current(conn: sqlite3.Connection, revisions: Sequence[Revision]) -> Sequence[int]:
    """Gives the state before each change. Raises NotFound or RevisionConflict."""
    current, before = _current(conn, revisions), []
    for each in revisions:
        of = each.definition
        if of.job not in current:
            raise NotFound("job", of.job)
        revision, state = current[of.job]
        if of.revision != revision + 1:
            raise RevisionConflict(of.job, of.revision - 1, revision)
        before.append(state)
        current[of.job] = (of.revision, of.state)
    return before
