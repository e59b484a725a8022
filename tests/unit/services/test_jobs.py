"""The job service against others who change the same jobs, and its ids."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest

from dts.adapters.memory import MemoryStore
from dts.errors import AlreadyExists, NotFound, OutcomeUnknown, RevisionConflict
from dts.model import (
    Command,
    Definition,
    Demand,
    Execution,
    ExecutionQuery,
    JobState,
    JobView,
    Key,
    Output,
    Policies,
    Revision,
    StoredJob,
)
from dts.services.executions import ExecutionService, pieces
from dts.services.ids import JobIds, check_job_id, command_id, job_id_of
from dts.services.jobs import CHANGE_ATTEMPTS, Change, JobService

NOW = 1_800_000_000_000


class Owner:
    """What JobService asks of the shards' owners."""

    def __init__(self) -> None:
        self.submitted: list[Command] = []
        self.settled_with: list[tuple[str, int]] = []
        self.slow = False

    async def views(self, jobs: Sequence[str]) -> dict[str, JobView]:
        return {}

    async def submit(self, command: Command) -> str:
        self.submitted.append(command)
        if self.slow:
            raise OutcomeUnknown("later")
        return "answer"

    async def settled(self, job: str, revision: int, timeout_s: float) -> bool:
        self.settled_with.append((job, revision))
        return True

    async def execution(self, key: Key) -> Execution | None:
        return None

    async def executions(self, query: ExecutionQuery, before: Key | None, limit: int) -> Sequence[Execution]:
        return ()

    async def count(self, query: ExecutionQuery) -> int:
        return 0


def revision(job: str, name: str = "", request: str = "", state: JobState = JobState.ACTIVE) -> Revision:
    definition = Definition(job, 1, NOW, state, None, (), Demand(), Policies(), b"")
    return Revision(definition, "create", NOW, name, (), name.encode(), request)


def renamed(name: str) -> Change:
    return Change("a", lambda row: revision("a", row.document.decode() + name))


def service(store: MemoryStore, owner: Owner | None = None) -> JobService:
    return JobService(store.jobs, store.feed, owner or Owner(), store.history, lambda: NOW)  # type: ignore[arg-type]


async def test_a_change_is_made_again_when_another_came_between(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    jobs = service(store)
    await jobs.create([revision("a", "0")])
    real, raced = store.jobs.change, 0

    async def raced_change(revisions: Sequence[Revision]) -> None:
        nonlocal raced
        raced += 1
        if raced < 4:
            other = revision("a", f"other{raced}")
            await real([other._replace(definition=other.definition._replace(revision=raced + 1))])
        await real(revisions)

    monkeypatch.setattr(store.jobs, "change", raced_change)
    (row,) = await jobs.change([renamed("+mine")])
    assert (row.revision, row.document) == (5, b"other3+mine")


async def test_a_change_that_names_its_revision_is_not_made_again() -> None:
    store = MemoryStore()
    jobs = service(store)
    await jobs.create([revision("a", "0")])
    await jobs.change([renamed("1")])
    with pytest.raises(RevisionConflict):
        await jobs.change([renamed("2")._replace(revision=1)])


async def test_a_change_that_always_loses_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    jobs = service(store)
    await jobs.create([revision("a", "0")])
    tries = 0

    async def lose(revisions: Sequence[Revision]) -> None:
        nonlocal tries
        tries += 1
        raise RevisionConflict("a", 1, 2)

    monkeypatch.setattr(store.jobs, "change", lose)
    with pytest.raises(RevisionConflict):
        await jobs.change([renamed("1")])
    assert tries == CHANGE_ATTEMPTS


async def test_an_edit_that_changes_nothing_makes_no_revision() -> None:
    store = MemoryStore()
    jobs = service(store)
    await jobs.create([revision("a", "0")])
    (row,) = await jobs.change([Change("a", lambda row: None)])
    assert row.revision == 1
    assert len(await jobs.revisions("a", 0, 10)) == 1


async def test_an_id_that_another_takes_between_look_and_write(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    jobs = service(store)
    real = store.jobs.get
    looked = 0

    async def get(ids: Sequence[str]) -> dict[str, StoredJob]:
        nonlocal looked
        looked += 1
        found = await real(ids)
        if looked == 1:
            await store.jobs.create([revision("a", "theirs", "same content")])
        return found

    monkeypatch.setattr(store.jobs, "get", get)
    await jobs.create([revision("a", "mine", "same content")])
    assert (await jobs.stored("a")).document == b"theirs", "it is the same create, and theirs was first"
    with pytest.raises(AlreadyExists, match="other content"):
        await jobs.create([revision("a", "mine", "different content")])


async def test_one_request_with_an_id_twice() -> None:
    jobs = service(MemoryStore())
    await jobs.create([revision("a", "x", "same"), revision("a", "x", "same")])
    assert await jobs.count() == 1
    with pytest.raises(AlreadyExists, match="twice"):
        await jobs.create([revision("b", "x", "one"), revision("b", "y", "other")])


async def test_since_never_falls_when_the_clock_does() -> None:
    store = MemoryStore()
    jobs = service(store)
    await jobs.create([revision("a", "0")])
    jobs.now = lambda: NOW - 60_000
    (row,) = await jobs.change([renamed("1")])
    assert row.updated == NOW


async def test_settle_waits_for_the_owner() -> None:
    store, owner = MemoryStore(), Owner()
    jobs = service(store, owner)
    await jobs.create([revision("a")])
    await jobs.change([renamed("1")], settle=True)
    assert owner.settled_with == [("a", 2)]


async def test_a_run_that_is_stored_but_not_decided_yet_has_its_id() -> None:
    store, owner = MemoryStore(), Owner()
    owner.slow = True
    jobs = service(store, owner)
    await jobs.create([revision("a")])
    answer = await jobs.run("a", request_id="r")
    assert answer == str(Key("a", NOW, command_id("r", "a").hex()[:12]))
    assert [command.id for command in owner.submitted] == [command_id("r", "a")]  # the feed knows a repeat by it
    with pytest.raises(NotFound):
        await jobs.run("nobody")


async def test_an_execution_that_is_nowhere_is_not_found() -> None:
    store = MemoryStore()
    executions = ExecutionService(store.jobs, Owner(), store.history, store.outputs, lambda: NOW)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await executions.get(Key("a", NOW))
    with pytest.raises(NotFound):
        await executions.output(Key("a", NOW), 0)


def test_ids_are_uuid7_and_ascend_however_many_are_made() -> None:
    ids = JobIds()
    made = ids.take(10_000, NOW) + ids.take(3, NOW) + ids.take(3, NOW - 5_000) + ids.take(3, NOW + 60_000)
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    for text in (*made[:3], *made[-3:]):
        id = UUID(text)
        assert (id.version, id.variant) == (7, "specified in RFC 4122")
        assert check_job_id(text) == text
    assert UUID(made[0]).int >> 80 == NOW


def test_ids_of_requests_are_always_the_same() -> None:
    assert job_id_of("order 17") == job_id_of("order 17") != job_id_of("order 18")
    assert command_id("r", "a") == command_id("r", "a") != command_id("r", "b")
    assert command_id("", "a") != command_id("", "a")


@pytest.mark.parametrize(
    ("head", "tail", "size", "sent", "expected"),
    [
        (b"abc", b"", 3, 0, [(b"abc", 0)]),
        (b"abc", b"", 3, 2, [(b"c", 0)]),
        (b"abc", b"", 3, 3, []),
        (b"abc", b"xyz", 6, 0, [(b"abc", 0), (b"xyz", 0)]),
        (b"abc", b"xyz", 9, 0, [(b"abc", 0), (b"xyz", 3)]),
        (b"abc", b"xyz", 9, 4, [(b"xyz", 2)]),
        (b"abc", b"xyz", 9, 7, [(b"yz", 0)]),
        (b"", b"", 0, 0, []),
    ],
)
def test_what_a_follower_is_given(
    head: bytes, tail: bytes, size: int, sent: int, expected: list[tuple[bytes, int]]
) -> None:
    output = Output(1, head, tail, size - len(head) - len(tail), size, True)
    assert list(pieces(output, sent)) == expected
