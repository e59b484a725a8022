"""What SQLite's errors mean to a person: one sentence with what, which file and what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dts.errors import Bug, DtsError, StoreDamaged, Unavailable

# The transaction is certainly not in the file when one of these ends it: no commit record can have been written whole.
PROVABLY_REFUSED = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def code(error: BaseException) -> int:
    """SQLite's primary result code, 0 if it has none."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def how_to_export(path: Path) -> str:
    """The command that saves what is readable."""
    return f"stop the server, keep a copy, and export what is readable: python -m dts.adapters.sqlite.export '{path}' OUT.jsonl"


def explain(error: BaseException, path: Path) -> Exception:
    """The error that a caller gets for what went wrong in the store; ours pass unchanged."""
    if isinstance(error, DtsError | Bug):
        return error
    found = code(error)
    if found == sqlite3.SQLITE_FULL:
        return Unavailable(f"the disk that holds {path} is full: nothing was stored; free some space and try again")
    if found in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return Unavailable(
            f"{path} is read-only: nothing was stored; make the file, its folder and its file system writable for this"
            " process and try again"
        )
    if found in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"another program keeps {path} locked: end its transaction or close it, and try again")
    if found in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamaged(f"{path} is damaged ({error}): nothing was overwritten; {how_to_export(path)}")
    if found == sqlite3.SQLITE_CANTOPEN:
        return Unavailable(
            f"cannot open {path}: check that its folder exists and is readable and writable for this process"
        )
    if isinstance(error, sqlite3.IntegrityError):
        return Bug(f"the store refused a row that must not exist twice: {error}")
    if found == sqlite3.SQLITE_ERROR:
        return Bug(f"the store does not understand a statement: {error}")
    if isinstance(error, sqlite3.OperationalError):
        return Unavailable(
            f"writing or reading {path} failed ({error}): check the disk and the system's log, and try again"
        )
    return error if isinstance(error, Exception) else Bug(repr(error))
