"""A full disk or a read-only file: a clear message, no acknowledged write lost, and work goes on when there is room."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dts.adapters.sqlite import SqliteStore
from dts.errors import Unavailable
from dts.model import Key, Outcome, Status
from tests.conformance.values import block, commit, revision

NOBODY = 65_534
ROOM_BYTES = 2 * 1024 * 1024


async def pages(store: SqliteStore, limit: int) -> None:
    """The file may not grow beyond so many pages: SQLite then says that the disk is full."""
    await store.writer.write(lambda conn: conn.execute(f"PRAGMA max_page_count={limit}").fetchone())


async def fill(store: SqliteStore) -> tuple[list[str], str]:
    """Creates jobs until one is refused: those that were acknowledged, and the message."""
    acknowledged: list[str] = []
    for n in range(100_000):
        try:
            await store.jobs.create([revision(f"j{n:06d}", name="x" * 200)])
        except Unavailable as error:
            return acknowledged, str(error)
        acknowledged.append(f"j{n:06d}")
    raise AssertionError("the disk was never full")


async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dts.db"
    store = await SqliteStore.open(path)
    epoch, _ = await store.ledger.open(0)
    await pages(store, 100)
    acknowledged, message = await fill(store)
    assert message == f"the disk that holds {path} is full: nothing was stored; free some space and try again"
    assert store.health == message
    assert len(acknowledged) > 10
    seq = 1  # a commit that needs no new page still fits
    assert await store.ledger.commit(commit(epoch, seq)) is Outcome.COMMITTED
    big = [block([Key(f"k{n}" * 20, n) for n in range(5_000)], Status.COMPLETED, 1)]
    assert await store.ledger.commit(commit(epoch, seq + 1, blocks=big)) is Outcome.REFUSED
    assert store.health == message
    await pages(store, 1_000_000)
    assert await store.ledger.commit(commit(epoch, seq + 1, blocks=big)) is Outcome.COMMITTED
    assert store.health == ""
    await store.jobs.create([revision("afterwards")])
    await store.close()
    again = await SqliteStore.open(path)
    assert set(await again.jobs.get([*acknowledged, "afterwards"])) == {*acknowledged, "afterwards"}
    assert await again.jobs.count() == len(acknowledged) + 1
    await again.close()


FILL = """
import asyncio, json, sys
from pathlib import Path
from dts.adapters.sqlite import SqliteStore
from tests.acceptance.test_storage_full import fill

async def main():
    store = await SqliteStore.open(sys.argv[1])
    acknowledged, message = await fill(store)
    print(json.dumps([acknowledged, message]), flush=True)
    await store.close()

asyncio.run(main())
"""


def test_the_system_refuses_to_let_the_file_grow(tmp_path: Path) -> None:
    """A real refusal of write(2), in the middle of the write-ahead log: a bound on file sizes in a process of its own."""
    path = tmp_path / "dts.db"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, ROOM_BYTES)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    acknowledged, message = json.loads(done.stdout)
    assert len(acknowledged) > 50
    assert str(path) in message

    async def look() -> None:
        store = await SqliteStore.open(path)
        assert set(await store.jobs.get(acknowledged)) == set(acknowledged)
        assert await store.jobs.count() == len(acknowledged)
        await store.jobs.create([revision("afterwards")])
        await store.close()

    asyncio.run(look())


async def test_a_file_that_becomes_read_only_refuses_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "dts.db"
    store = await SqliteStore.open(path)
    epoch, _ = await store.ledger.open(0)
    await store.jobs.create([revision("a")])
    with pytest.raises(Unavailable):  # the transaction that makes it read-only cannot be kept either
        await store.writer.write(lambda conn: conn.execute("PRAGMA query_only=1"))
    for n in range(3):
        with pytest.raises(Unavailable, match=rf"{path} is read-only: nothing was stored; make the file"):
            await store.jobs.create([revision(f"b{n}")])
    assert await store.ledger.commit(commit(epoch, 1)) is Outcome.REFUSED
    assert "read-only" in store.health
    assert set(await store.jobs.get(["a", "b0"])) == {"a"}  # reads go on
    await store.close()
    again = await SqliteStore.open(path)
    assert await again.jobs.count() == 1
    await again.close()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write everything: for a while be nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dts-read-only-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def digest(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir())}


async def test_a_read_only_file_is_refused_at_start(public_folder: Path) -> None:
    path = public_folder / "dts.db"
    store = await SqliteStore.open(path)
    await store.jobs.create([revision("a")])
    await store.close()
    path.chmod(0o444)
    public_folder.chmod(0o555)
    before = digest(public_folder)
    with unprivileged(), pytest.raises(Unavailable) as caught:
        await SqliteStore.open(path)
    assert str(path) in str(caught.value)
    assert "writable" in str(caught.value)
    assert digest(public_folder) == before


async def test_a_folder_that_cannot_be_made_or_written_is_named(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    with unprivileged():
        for path in (public_folder / "dts.db", public_folder / "deeper" / "dts.db"):
            with pytest.raises(Unavailable, match=str(path)):
                await SqliteStore.open(path)


async def test_another_program_that_holds_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dts.adapters.sqlite.schema.BUSY_MS", 50)
    path = tmp_path / "dts.db"
    store = await SqliteStore.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="another program keeps"):
        await store.jobs.create([revision("a")])
    other.execute("ROLLBACK")
    other.close()
    await store.jobs.create([revision("a")])
    await store.close()
