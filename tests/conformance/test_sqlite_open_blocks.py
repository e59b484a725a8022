"""What SQLite keeps of open executions stays small: rows go with their last key and are rewritten when few are left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dts.adapters.sqlite import SqliteStore
from dts.model import Block, Key, Outcome, Status
from tests.conformance.values import block, commit

KEYS = [Key(f"j{n:04d}", 1_000) for n in range(1_000)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "dts.db", synchronous="OFF")
    yield made
    await made.close()


async def size(store: SqliteStore) -> tuple[int, int]:
    """Rows and bytes."""
    sql = "SELECT count(*), coalesce(sum(length(block)), 0) FROM open_blocks"
    rows, length = await store.reader.read(lambda conn: conn.execute(sql).fetchone())
    return rows, length


async def commits(store: SqliteStore, *steps: list[Block]) -> None:
    epoch, _ = await store.ledger.open(0)
    for seq, blocks in enumerate(steps, 1):
        assert await store.ledger.commit(commit(epoch, seq, blocks=blocks)) is Outcome.COMMITTED


async def test_a_row_goes_with_its_last_key(store: SqliteStore) -> None:
    parts = [block(KEYS[n : n + 250], Status.COMPLETED, 1) for n in range(0, 1_000, 250)]
    await commits(store, [block(KEYS, Status.QUEUED)], [block(KEYS, Status.PLACED, 1)], *([part] for part in parts))
    assert await size(store) == (0, 0)


async def test_what_begins_and_ends_in_one_commit_leaves_no_row(store: SqliteStore) -> None:
    await commits(store, [block(KEYS, Status.QUEUED), block(KEYS, Status.SKIPPED)])
    assert await size(store) == (0, 0)


async def test_a_row_of_few_keys_is_rewritten(store: SqliteStore) -> None:
    ended = [block(KEYS[:500], Status.COMPLETED, 1)], [block(KEYS[500:999], Status.COMPLETED, 1)]
    await commits(store, [block(KEYS, Status.PLACED, 1)], *ended)
    rows, length = await size(store)
    assert rows == 1
    assert length < 100


async def test_many_rounds_leave_nothing(store: SqliteStore) -> None:
    steps: list[list[Block]] = []
    for at in range(60):
        keys = [key._replace(at=at) for key in KEYS[:50]]
        steps += [[block(keys[:25], Status.PLACED, 1), block(keys[25:], Status.QUEUED)]]
        steps += [[block(keys[:25], Status.COMPLETED, 1), block(keys[25:], Status.PLACED, 1)]]
        steps += [[block(keys[25:], Status.RETRYING, 1)], [block(keys[25:], Status.FAILED, 2)]]
    await commits(store, *steps)
    assert await size(store) == (0, 0)
