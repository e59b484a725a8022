"""A damaged file is refused at start with what is wrong and how to export what is readable; nothing is overwritten."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dts.adapters.sqlite import SqliteStore
from dts.adapters.sqlite.export import backup, export_readable
from dts.errors import ConfigError, StoreDamaged, Unavailable
from dts.model import Key, Status
from tests.conformance.values import block, commit, revision

JOBS = [f"job-{n:04d}" for n in range(1_000)]
PAGE = 4_096


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database of 1 000 jobs and 2 000 executions, cleanly closed."""
    made = tmp_path / "dts.db"
    store = await SqliteStore.open(made, synchronous="OFF")
    await store.jobs.create([revision(job) for job in JOBS])
    epoch, _ = await store.ledger.open(0)
    for n in (1, 2):
        await store.ledger.commit(commit(epoch, n, blocks=[block([Key(job, n) for job in JOBS], Status.COMPLETED, 1)]))
    await store.close()
    return made


def digests(path: Path) -> dict[str, str]:
    """Of everything in the folder."""
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in path.parent.iterdir() if each.is_file()
    }


async def refused(path: Path) -> str:
    before = digests(path)
    with pytest.raises(StoreDamaged) as caught:
        await SqliteStore.open(path)
    after = {name: digest for name, digest in digests(path).items() if name in before}
    assert after == before
    message = str(caught.value)
    assert str(path) in message
    assert "nothing was overwritten" in message
    assert "python -m dts.adapters.sqlite.export" in message
    return message


def page_of(path: Path, table: str) -> int:
    """The number of a leaf page of a table, from 0."""
    conn = sqlite3.connect(path)
    found: int = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    conn.close()
    return found - 1


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("table", ["jobs", "executions", "revisions"])
async def test_a_page_of_noise(path: Path, table: str) -> None:
    noise = random.Random(1).randbytes(PAGE)
    overwrite(path, page_of(path, table) * PAGE, noise)
    await refused(path)


async def test_a_file_that_was_cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    await refused(path)


@pytest.mark.parametrize("head", [b"\0" * 100, b"not a database, but a long text file: " * 40])
async def test_something_that_is_no_database(path: Path, head: bytes) -> None:
    overwrite(path, 0, head)
    assert "does not begin like an SQLite database" in await refused(path)


async def test_a_table_that_is_gone(path: Path) -> None:
    conn = sqlite3.connect(path)
    conn.execute("DROP TABLE terms")
    conn.commit()
    conn.execute("PRAGMA journal_mode=DELETE")
    conn.close()
    assert "it lacks terms" in await refused(path)


async def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    conn = sqlite3.connect(other)
    conn.execute("CREATE TABLE theirs (x)")
    conn.commit()
    conn.close()
    before = digests(other)
    with pytest.raises(ConfigError, match="another program"):
        await SqliteStore.open(other)
    assert digests(other) == before


async def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA user_version=999")
    conn.close()
    before = digests(path)[path.name]
    with pytest.raises(ConfigError, match="later version"):
        await SqliteStore.open(path)
    assert digests(path)[path.name] == before


def exported(out: Path, table: str) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return [row for row in rows if row["table"] == table and "unreadable" not in row]


async def test_export_of_a_whole_file(path: Path, tmp_path: Path) -> None:
    before = digests(path)[path.name]
    out = tmp_path / "out.jsonl"
    counts = export_readable(path, out)
    assert (counts["jobs"], counts["executions"]) == (1_000, 2_000)
    assert [row["id"] for row in exported(out, "jobs")] == JOBS
    document = exported(out, "revisions")[0]["document"]
    assert isinstance(document, dict)
    assert base64.b64decode(document["base64"]) == f"{JOBS[0]}/1".encode()
    assert digests(path)[path.name] == before
    with pytest.raises(Unavailable, match="name a new file"):
        export_readable(path, out)


async def test_export_of_a_damaged_file_gives_both_sides_of_the_damage(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    victim = data.index(b"job-0500/1") // PAGE  # a leaf in the middle of `revisions`
    overwrite(path, victim * PAGE, b"\xff" * PAGE)
    await refused(path)
    before = digests(path)[path.name]
    out = tmp_path / "out.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "dts.adapters.sqlite.export", str(path), str(out)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert digests(path)[path.name] == before
    rows = [str(row["job"]) for row in exported(out, "revisions")]
    assert len(set(rows)) == len(rows)
    assert 900 < len(rows) < 1_000
    assert {JOBS[0], JOBS[-1]} <= set(rows)
    assert '"unreadable"' in out.read_text()
    assert len(exported(out, "jobs")) == 1_000


async def test_export_and_backup_see_what_is_still_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "dts.db"
    store = await SqliteStore.open(path)
    await store.jobs.create([revision(job) for job in JOBS])
    assert path.with_name("dts.db-wal").stat().st_size > 0
    counts = export_readable(path, tmp_path / "out.jsonl")
    assert counts["jobs"] == 1_000
    backup(path, tmp_path / "copy.db")
    with pytest.raises(Unavailable, match="there already"):
        backup(path, tmp_path / "copy.db")
    await store.close()
    copy = await SqliteStore.open(tmp_path / "copy.db")
    assert await copy.jobs.count() == 1_000
    await copy.close()
