"""What an export says of what was not finished at the cut, and what an import makes of a job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from dts.adapters.memory import MemoryStore
from dts.adapters.sqlite import SqliteStore
from dts.adapters.sqlite.moving import SqliteMoving
from dts.core.shard import folded
from dts.errors import AlreadyExists
from dts.model import (
    LAST_JOB,
    Block,
    Commit,
    Definition,
    Demand,
    End,
    Gap,
    JobState,
    Key,
    MovedExecution,
    MovedJob,
    Owed,
    Policies,
    Range,
    Revision,
    ScheduleSpec,
    Status,
    Streak,
    Term,
    WorkerRef,
)
from dts.services.moving import IMPORT, MOVED, Export, Import, Record, State, imported
from dts.services.publication import Publication

SECOND = 1_000
NOW = 100 * SECOND
DEMAND = Demand()
WORKER = WorkerRef("w", "1")


def definition(job: str, number: int = 1, since: int = 0, state: JobState = JobState.ACTIVE) -> Definition:
    return Definition(job, number, since, state, None, (ScheduleSpec("@every 1s"),), DEMAND, Policies(), b"")


def revision(of: Definition, change: str = "update") -> Revision:
    return Revision(of, change, 0, of.job, (), f"{of.job}/{of.revision}".encode())


def block(status: Status, *keys: Key, attempt: int = 0, ended: int = 0) -> Block:
    ends = [End(1, ended)] * len(keys) if ended else ()
    worker = WORKER if status is Status.PLACED else None
    return Block(list(keys), [1] * len(keys), DEMAND, status, attempt, worker=worker, ends=ends)


class Source:
    """Memory stores whose one shard has committed what it is given."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self._opened = False
        self._seq = 0

    async def commit(self, at: int = NOW, **more: object) -> None:
        if not self._opened:
            await self.store.ledger.open(0)
            self._opened = True
        self._seq += 1
        fields = {"shard": 0, "epoch": 1, "seq": self._seq, "now": at, "watermark": (at, LAST_JOB), "applied": (0, 0)}
        await self.store.ledger.commit(Commit(**{**fields, **more}))  # type: ignore[arg-type]

    async def apply(self, *definitions: Definition, at: int = NOW) -> None:
        terms = [Term(each.job, each.revision, each.since, each.since, None, "r") for each in definitions]
        await self.store.jobs.create([revision(each, "create") for each in definitions])
        await self.commit(at, definitions=definitions, opened=terms)

    def state(self) -> State:
        state = State()
        state.add(folded(0, self.store.ledger.logs[0].commits))
        return state

    async def export(self, state: State | None = None) -> tuple[list[Record], list[str]]:
        export = Export(state or self.state(), self.store.jobs, self.store.history, self.store.outputs)
        return [each async for each in export.records()], export.notes


def of_kind(records: Sequence[Record], kind: type[Record]) -> list[Record]:
    return [each for each in records if isinstance(each, kind)]


async def test_open_executions_get_a_verdict_and_a_word() -> None:
    source = Source()
    await source.apply(definition("a"))
    ran, waited, tried = Key("a", 97 * SECOND), Key("a", 98 * SECOND), Key("a", 99 * SECOND)
    await source.commit(
        blocks=[
            block(Status.QUEUED, waited),
            block(Status.PLACED, ran, attempt=1),
            block(Status.RETRYING, tried, attempt=1, ended=5),
        ]
    )
    records, notes = await source.export()
    moved = {each.execution.key: each for each in records if isinstance(each, MovedExecution)}
    told = {key: (each.execution.status, each.execution.reason, each.execution.attempt) for key, each in moved.items()}
    assert told == {
        ran: (Status.LOST, MOVED, 1),
        waited: (Status.CANCELLED, MOVED, 0),
        tried: (Status.CANCELLED, MOVED, 1),
    }
    assert [each.status for each in moved[tried].earlier] == [Status.FAILED]
    assert notes[0].startswith("3 executions were open")


async def test_a_term_ends_at_the_cut() -> None:
    source = Source()
    await source.apply(definition("a", since=5))
    [term] = of_kind((await source.export())[0], Term)
    assert term == Term("a", 1, 5, 5, NOW, "r")


async def test_instants_that_were_owed_by_name_become_ranges() -> None:
    source = Source()
    of = definition("a")
    await source.apply(of)
    owed = [("a", (Owed(of, 10 * SECOND, 20 * SECOND, (15 * SECOND,)),))]
    await source.commit(owed=owed, gaps=[Gap((40 * SECOND, LAST_JOB), 50 * SECOND)])
    ranges = of_kind((await source.export())[0], Range)
    assert sorted(ranges) == [
        Range("a", 1, 10 * SECOND, 15 * SECOND - 1, 4, MOVED),
        Range("a", 1, 15 * SECOND, 20 * SECOND, 5, MOVED),
        Range("a", 1, 40 * SECOND, 50 * SECOND, 10, MOVED),
    ]


async def test_a_pause_that_goes_on_is_told_up_to_the_cut() -> None:
    source = Source()
    await source.apply(definition("a", since=10 * SECOND, state=JobState.PAUSED), at=10 * SECOND)
    await source.commit()
    records, _ = await source.export()
    assert of_kind(records, Range) == [Range("a", 1, 10 * SECOND, NOW, 90, "paused")]
    [job] = of_kind(records, MovedJob)
    assert isinstance(job, MovedJob)
    assert job.accounted == NOW


async def test_a_suspension_is_told_up_to_the_cut_and_does_not_go_along() -> None:
    source = Source()
    await source.apply(definition("a"), at=10 * SECOND)
    await source.commit(10 * SECOND, streaks=[Streak("a", 3, 10 * SECOND, 10 * SECOND, "3 failures in a row")])
    await source.commit()
    records, notes = await source.export()
    [range_] = of_kind(records, Range)
    assert range_ == Range("a", 1, 10 * SECOND, NOW, 90, "3 failures in a row")
    assert notes[0].startswith("1 jobs were suspended")
    [job] = of_kind(records, MovedJob)
    assert isinstance(job, MovedJob)
    assert (job.accounted, imported(job).definition.state) == (NOW, JobState.ACTIVE)


async def test_revisions_that_no_owner_has_applied_owe_nothing_twice() -> None:
    source = Source()
    await source.apply(definition("a"))
    await source.commit()
    later = definition("a", 2, NOW + 3 * SECOND)
    await source.store.jobs.change([revision(later)])
    records, _ = await source.export()
    assert of_kind(records, Range) == [Range("a", 1, NOW, NOW + 3 * SECOND, 3, MOVED)]
    [job] = of_kind(records, MovedJob)
    assert job == MovedJob([revision(definition("a"), "create"), revision(later)], NOW + 3 * SECOND)


async def test_what_came_after_the_cut_is_left_out() -> None:
    """A running cluster: its history goes on while it is read."""
    source = Source()
    await source.apply(definition("a"))
    done, running = Key("a", 98 * SECOND), Key("a", 99 * SECOND)
    await source.commit(
        blocks=[block(Status.COMPLETED, done, attempt=1, ended=7), block(Status.PLACED, running, attempt=1)]
    )
    state = source.state()
    after = Key("a", NOW + SECOND)
    later = Range("a", 1, NOW, NOW + 9 * SECOND, 9, "outage")
    await source.commit(
        NOW + 9 * SECOND,
        blocks=[block(Status.COMPLETED, running, after, attempt=1, ended=7)],
        ranges=[later],
        opened=[Term("a", 2, NOW + 5 * SECOND, NOW + 5 * SECOND, None, "r")],
        closed=[],
    )
    records, notes = await source.export(state)
    moved = {each.execution.key: each.execution.status for each in records if isinstance(each, MovedExecution)}
    assert moved == {done: Status.COMPLETED, running: Status.COMPLETED}
    assert of_kind(records, Range) == []
    assert [each.revision for each in of_kind(records, Term) if isinstance(each, Term)] == [1]
    assert notes == []


async def test_a_deleted_job_keeps_its_past() -> None:
    source = Source()
    gone = definition("a", 2, 50 * SECOND, JobState.DELETED)
    await source.apply(definition("a"), at=10 * SECOND)
    await source.store.jobs.change([revision(gone, "delete")])
    await source.commit(50 * SECOND, definitions=[gone])
    await source.commit()
    records, _ = await source.export()
    [job] = of_kind(records, MovedJob)
    assert isinstance(job, MovedJob)
    assert [each.definition.revision for each in job.revisions] == [1, 2]
    assert of_kind(records, Range) == []


def test_the_revision_of_an_import() -> None:
    last = revision(definition("a", 3, 7 * SECOND))
    made = imported(MovedJob([last], NOW))
    assert made == last._replace(definition=definition("a", 4, NOW), change=IMPORT)
    assert imported(MovedJob([last], 2 * SECOND)).definition.since == 7 * SECOND


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "target.db", synchronous="OFF")
    yield store
    await store.close()


def importing(store: SqliteStore) -> Import:
    return Import(store.jobs, SqliteMoving(store), Publication(store.feed, lambda: NOW))


RECORDS: list[Record] = [
    Range("a", 1, 1, 2, 1, "outage"),
    MovedJob([revision(definition("a"), "create")], NOW),
    MovedJob([revision(definition("b"), "create"), revision(definition("b", 2, 5, JobState.DELETED), "delete")], NOW),
]


async def test_an_import_may_be_repeated_also_after_a_change(target: SqliteStore) -> None:
    first = importing(target)
    assert await first.check(RECORDS) == {"Range": 1, "MovedJob": 2}
    assert await target.jobs.get(["a", "b"]) == {}
    await first.take(RECORDS)
    rows = await target.jobs.get(["a", "b"])
    assert (rows["a"].revision, rows["a"].updated, rows["a"].document) == (2, NOW, b"a/1")
    assert (rows["b"].revision, rows["b"].state) == (2, JobState.DELETED)
    again = importing(target)
    await again.check(RECORDS)
    await again.take(RECORDS)
    assert (first.known, again.known) == (0, 2)
    assert await target.jobs.get(["a", "b"]) == rows
    await target.jobs.change([revision(definition("a", 3, NOW + 5))])
    again = importing(target)
    await again.take(RECORDS)
    assert again.known == 2
    assert (await target.jobs.get(["a"]))["a"].revision == 3


@pytest.mark.parametrize("mine", [definition("a", 1, 3), definition("b", 1, 3)])
async def test_an_id_that_is_taken_is_found_before_anything_is_stored(target: SqliteStore, mine: Definition) -> None:
    await target.jobs.create([revision(mine, "create")])
    taking = importing(target)
    with pytest.raises(AlreadyExists, match=repr(mine.job)):
        await taking.check(RECORDS)
    assert await target.history.ranges("", 0, 0, None, 9) == []
    with pytest.raises(AlreadyExists, match=repr(mine.job)):
        await taking.take(RECORDS)
    assert list(await target.jobs.get(["a", "b"])) == [mine.job]
