"""The one writer: operations share a transaction, one's failure is its own, and every outcome is told as it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dts.adapters.sqlite import SqliteStore
from dts.errors import AlreadyExists, Bug, OutcomeUnknown, QueueFull, Unavailable
from dts.model import Change, Key, Outcome, Status
from tests.conformance.values import block, commit, revision

FULL = sqlite3.SQLITE_FULL
IOERR = sqlite3.SQLITE_IOERR


class Faults:
    """Raises at the points it was told to, in order; counts the transactions."""

    def __init__(self) -> None:
        self.plan: list[tuple[str, int]] = []
        self.begun = 0

    def __call__(self, point: str) -> None:
        self.begun += point == "begin"
        if self.plan and self.plan[0][0] == point:
            _, code = self.plan.pop(0)
            error = sqlite3.OperationalError(f"injected at {point}")
            error.sqlite_errorcode = code
            raise error


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def store(tmp_path: Path, faults: Faults) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "dts.db", synchronous="OFF", faults=faults)
    yield made
    await made.close()


async def test_waiting_operations_share_transactions_and_fail_alone(store: SqliteStore, faults: Faults) -> None:
    await store.jobs.create([revision("taken")])
    before = faults.begun
    creates = [store.jobs.create([revision("taken" if n % 10 == 0 else f"j{n}")]) for n in range(200)]
    results = await asyncio.gather(*creates, return_exceptions=True)
    assert [n for n, each in enumerate(results) if isinstance(each, AlreadyExists)] == list(range(0, 200, 10))
    assert sum(each is None for each in results) == 180
    assert await store.jobs.count() == 181
    assert faults.begun - before < 100
    assert store.health == ""


async def test_a_cancelled_caller_harms_no_one(store: SqliteStore) -> None:
    async def wait_for_it(job: str) -> None:
        await store.jobs.create([revision(job)])

    tasks = [asyncio.ensure_future(wait_for_it(f"j{n}")) for n in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(each is None for each in results[1::2])
    kept = await store.jobs.get([f"j{n}" for n in range(50)])
    assert {f"j{n}" for n in range(1, 50, 2)} <= set(kept)
    assert await store.jobs.count() == len(kept)


async def first_changes(store: SqliteStore, count: int) -> list[Change]:
    got: list[Change] = []
    feed = store.feed.changes(0, (0, 0))
    while len(got) < count:
        got += await asyncio.wait_for(anext(feed), 20)
    return got


async def test_refused_at_commit_keeps_nothing_and_says_why(store: SqliteStore, faults: Faults) -> None:
    epoch, _ = await store.ledger.open(0)
    faults.plan = [("commit", FULL)]
    with pytest.raises(Unavailable, match=r"disk that holds .*dts\.db is full"):
        await store.jobs.create([revision("a")])
    assert "full" in store.health
    faults.plan = [("commit", FULL)]
    assert await store.ledger.commit(commit(epoch, 1)) is Outcome.REFUSED
    assert "full" in store.health
    assert await store.ledger.commit(commit(epoch, 1)) is Outcome.COMMITTED
    assert store.health == ""
    await store.jobs.create([revision("a")])


async def test_an_error_after_commit_is_settled_as_committed(store: SqliteStore, faults: Faults) -> None:
    faults.plan = [("committed", IOERR)]
    await store.jobs.create([revision("a")])
    assert set(await store.jobs.get(["a"])) == {"a"}
    faults.plan = [("commit", IOERR)]
    with pytest.raises(Unavailable):
        await store.jobs.create([revision("b")])
    assert await store.jobs.get(["b"]) == {}


@pytest.mark.parametrize("kept", [True, False])
async def test_while_an_outcome_is_unknown_nothing_else_is_written(
    store: SqliteStore, faults: Faults, kept: bool
) -> None:
    epoch, _ = await store.ledger.open(0)
    listener = asyncio.ensure_future(first_changes(store, 2 if kept else 1))
    stays_down = [("settle", IOERR)] * 3
    faults.plan = [("committed" if kept else "commit", IOERR), *stays_down]
    with pytest.raises(OutcomeUnknown):
        await store.jobs.create([revision("a")])
    with pytest.raises(Unavailable):
        await store.jobs.create([revision("b")])
    assert await store.ledger.commit(commit(epoch, 1)) is Outcome.REFUSED
    assert "injected" in store.health
    await store.jobs.create([revision("c")])  # the disk is back: what was unknown is settled first
    assert set(await store.jobs.get(["a", "b", "c"])) == ({"a", "c"} if kept else {"c"})
    names = [change.value.job for change in await listener if hasattr(change.value, "job")]
    assert names == (["a", "c"] if kept else ["c"])
    assert store.health == ""


async def test_an_unknown_commit_of_the_ledger_is_resolved_when_the_disk_is_back(
    store: SqliteStore, faults: Faults
) -> None:
    epoch, _ = await store.ledger.open(0)
    one = commit(epoch, 1, blocks=[])
    faults.plan = [("committed", IOERR), *[("settle", IOERR)] * 3]
    assert await store.ledger.commit(one) is Outcome.UNKNOWN
    assert await store.ledger.resolve(one) is Outcome.COMMITTED
    assert faults.plan == []


async def test_the_queue_is_bounded(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dts.adapters.sqlite.writer.WRITES_WAITING", 10)
    results = await asyncio.gather(*(store.jobs.create([revision(f"j{n}")]) for n in range(20)), return_exceptions=True)
    assert sum(isinstance(each, QueueFull) for each in results) == 10
    await store.jobs.create([revision("again")])
    assert await store.jobs.count() == 11


async def test_what_is_queued_at_the_close_is_written(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "other.db")
    creating = [asyncio.ensure_future(store.jobs.create([revision(f"j{n}")])) for n in range(1_000)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*creating) == [None] * 1_000
    with pytest.raises(Unavailable):
        await store.jobs.create([revision("late")])
    again = await SqliteStore.open(tmp_path / "other.db")
    assert await again.jobs.count() == 1_000
    assert again.file_id == store.file_id
    await again.close()


async def test_a_caller_of_its_own_bug_hears_of_it(store: SqliteStore) -> None:
    epoch, _ = await store.ledger.open(0)
    done = block([Key("a", 1)], Status.COMPLETED, 1)
    assert await store.ledger.commit(commit(epoch, 1, blocks=[done])) is Outcome.COMMITTED
    with pytest.raises(Bug, match="twice"):
        await store.ledger.commit(commit(epoch, 2, blocks=[done]))
    assert await store.ledger.commit(commit(epoch, 2)) is Outcome.COMMITTED
