"""Is this file ours, whole and of a version we know? Looked at through a read-only connection: nothing is overwritten.

The rule: the header and the schema always; SQLite's own check of every page (`quick_check`) always for the tables from
which the scheduler decides, and for all tables while the file is smaller than CHECKED_WHOLE_BYTES or was closed uncleanly
and is smaller than CHECKED_UNCLEAN_BYTES. A kill -9 does not damage a file: a write that was under way is not in it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dts.adapters.sqlite.problems import explain, how_to_export
from dts.adapters.sqlite.schema import APPLICATION_ID, VERSION, connect, objects
from dts.errors import ConfigError, StoreDamaged

CHECKED_WHOLE_BYTES = 32 * 1024 * 1024  # checked in about 0.1 s
CHECKED_UNCLEAN_BYTES = 256 * 1024 * 1024  # checked in about 1 s
DECIDES = ("meta", "state", "shard", "jobs", "terms", "open_blocks", "owed", "commands", "backfills", "streaks")
MAGIC = b"SQLite format 3\x00"
NAMED_PROBLEMS = 5  # said in the message


def check_file(path: Path) -> None:
    """Raises StoreDamaged (what is wrong, how to export what is readable), ConfigError (not ours, or of a later version),
    Unavailable or OSError. A file that is not there, or empty, is no error."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(MAGIC):
        raise _damaged(path, "it does not begin like an SQLite database")
    conn: sqlite3.Connection | None = None
    try:
        conn = connect(path, "mode=ro")
        _check_version(conn, path)
        _check_pages(conn, path)
    except sqlite3.Error as error:
        raise explain(error, path) from error
    finally:
        if conn is not None:
            conn.close()


def _damaged(path: Path, problem: str) -> StoreDamaged:
    return StoreDamaged(f"{path} is damaged: {problem}; nothing was overwritten; {how_to_export(path)}")


def _check_version(conn: sqlite3.Connection, path: Path) -> None:
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    application = conn.execute("PRAGMA application_id").fetchone()[0]
    tables = conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (tables or version):
        raise ConfigError(f"{path} is the database of another program: name another file (DTS_DATABASE)")
    if version > VERSION:
        raise ConfigError(
            f"{path} was written by a later version of DTS (schema {version}, this one knows {VERSION}): install that"
        )


def _check_pages(conn: sqlite3.Connection, path: Path) -> None:
    if conn.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        missing = objects() - {name for (name,) in conn.execute("SELECT name FROM sqlite_schema")}
        if missing:
            raise _damaged(path, f"it lacks {', '.join(sorted(missing))}")
    size = path.stat().st_size
    clean = conn.execute("SELECT clean FROM state").fetchone() if _has(conn, "state") else None
    whole = size < CHECKED_WHOLE_BYTES or (size < CHECKED_UNCLEAN_BYTES and clean != (1,))
    checks = ("",) if whole else tuple(f"({name})" for name in DECIDES if _has(conn, name))
    problems = [
        line
        for check in checks
        for (line,) in conn.execute(f"PRAGMA quick_check{check or f'({NAMED_PROBLEMS})'}")
        if line != "ok"
    ]
    if problems:
        raise _damaged(path, "; ".join(line.strip() for line in problems[:NAMED_PROBLEMS]))


def _has(conn: sqlite3.Connection, table: str) -> bool:
    return conn.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone() is not None
