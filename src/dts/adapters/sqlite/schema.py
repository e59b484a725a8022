"""The file's schema as numbered migrations (forward only; `user_version` counts them), and how connections are set up."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

APPLICATION_ID = 0x44545331  # 'DTS1' in the file's header: another program's database is never touched
BUSY_MS = 5_000  # how long a write waits for another program that has the file locked
CHECKPOINT_PAGES = (
    2_000  # the write-ahead log is folded into the file after so many pages (8 MB: a pause of about 7 ms)
)
CACHE_KIB = 32_768  # page cache of a connection
STATEMENTS = 256  # prepared statements kept by a connection
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")

_FIRST = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;

-- `live`: jobs that are not deleted; `batch`: the last transaction (tells after an error whether it was committed).
CREATE TABLE state (
  id INTEGER PRIMARY KEY CHECK (id = 1), live INTEGER NOT NULL, batch INTEGER NOT NULL, settled INTEGER NOT NULL,
  clean INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (1, 0, 0, 0, 1);

CREATE TABLE shard (
  id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, now INTEGER NOT NULL,
  watermark_at INTEGER NOT NULL, watermark_job TEXT NOT NULL,
  definitions INTEGER NOT NULL, commands INTEGER NOT NULL, gaps BLOB NOT NULL, waiting BLOB NOT NULL
) STRICT;

-- `pos` is the feed's position. `shape`: log.v1.Definition of what jobs share; equal ones are decoded once.
CREATE TABLE revisions (
  pos INTEGER PRIMARY KEY, job TEXT NOT NULL, revision INTEGER NOT NULL, since INTEGER NOT NULL, change TEXT NOT NULL,
  state INTEGER NOT NULL, until INTEGER, created INTEGER NOT NULL, name TEXT NOT NULL, tags TEXT NOT NULL,
  shape BLOB NOT NULL, body BLOB NOT NULL, document BLOB NOT NULL, request TEXT NOT NULL, UNIQUE (job, revision)
) STRICT;
CREATE TABLE jobs (
  id TEXT PRIMARY KEY, revision INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,
  state INTEGER NOT NULL, until INTEGER, folded TEXT NOT NULL, pos INTEGER NOT NULL, request TEXT NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE tags (tag TEXT, job TEXT, PRIMARY KEY (tag, job)) WITHOUT ROWID, STRICT;

CREATE TABLE terms (
  job TEXT, revision INTEGER, since INTEGER NOT NULL, in_force INTEGER NOT NULL, until INTEGER, rules TEXT NOT NULL,
  shard INTEGER NOT NULL, PRIMARY KEY (job, revision)
) WITHOUT ROWID, STRICT;
CREATE INDEX terms_open ON terms (shard, job, revision) WHERE until IS NULL;

-- One row a block of open executions (log.v1.Block). A key that is in a later row or in `executions` too is void here.
CREATE TABLE open_blocks (id INTEGER PRIMARY KEY, shard INTEGER NOT NULL, block BLOB NOT NULL) STRICT;

-- What executions that ended together share; `last`: the latest instant of any of them.
CREATE TABLE ended_blocks (
  id INTEGER PRIMARY KEY, last INTEGER NOT NULL, attempt INTEGER NOT NULL, cause TEXT NOT NULL, queued INTEGER NOT NULL,
  placed INTEGER NOT NULL, not_before INTEGER NOT NULL, worker TEXT NOT NULL, fencing INTEGER NOT NULL,
  reason TEXT NOT NULL, retry_of TEXT NOT NULL
) STRICT;
CREATE INDEX ended_blocks_last ON ended_blocks (last);
CREATE TABLE executions (
  at INTEGER, job TEXT, nonce TEXT, revision INTEGER NOT NULL, status INTEGER NOT NULL, block INTEGER NOT NULL,
  started INTEGER NOT NULL, ended INTEGER NOT NULL, code INTEGER NOT NULL, error TEXT NOT NULL, result TEXT NOT NULL,
  PRIMARY KEY (at, job, nonce)
) WITHOUT ROWID, STRICT;
CREATE INDEX executions_job ON executions (job, at, nonce);
CREATE INDEX executions_failed ON executions (at, job, nonce) WHERE status > 4;

-- Attempts that ended and were not the last one of their execution.
CREATE TABLE attempts (
  at INTEGER, job TEXT, nonce TEXT, attempt INTEGER, revision INTEGER NOT NULL, status INTEGER NOT NULL,
  block INTEGER NOT NULL, started INTEGER NOT NULL, ended INTEGER NOT NULL, code INTEGER NOT NULL, error TEXT NOT NULL,
  result TEXT NOT NULL, PRIMARY KEY (at, job, nonce, attempt)
) WITHOUT ROWID, STRICT;

CREATE TABLE ranges (
  until INTEGER, job TEXT, revision INTEGER, after INTEGER, size INTEGER NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (until, job, revision, after)
) WITHOUT ROWID, STRICT;
CREATE INDEX ranges_job ON ranges (job, until, revision);

CREATE TABLE owed (shard INTEGER, job TEXT, debt BLOB NOT NULL, PRIMARY KEY (shard, job)) WITHOUT ROWID, STRICT;

CREATE TABLE commands (
  pos INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, expires INTEGER NOT NULL, applied INTEGER NOT NULL,
  command BLOB NOT NULL
) STRICT;
CREATE INDEX commands_applied ON commands (expires) WHERE applied = 1;

CREATE TABLE outputs (
  key TEXT, attempt INTEGER, head BLOB NOT NULL, tail BLOB NOT NULL, size INTEGER NOT NULL, complete INTEGER NOT NULL,
  updated INTEGER NOT NULL, PRIMARY KEY (key, attempt)
) STRICT;
CREATE INDEX outputs_updated ON outputs (updated);
"""

# Why an attempt failed, for machines, and how its requests were held.
_ENFORCEMENT = """
ALTER TABLE executions ADD COLUMN kind TEXT NOT NULL DEFAULT '';
ALTER TABLE executions ADD COLUMN enforced TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN kind TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN enforced TEXT NOT NULL DEFAULT '';
"""

# How far each backfill is (log.v1.Backfill).
_BACKFILLS = """
CREATE TABLE backfills (shard INTEGER, nonce TEXT, began INTEGER NOT NULL, backfill BLOB NOT NULL,
  PRIMARY KEY (shard, nonce)) WITHOUT ROWID, STRICT;
"""

# Failures in a row and suspensions (log.v1.Streak).
_STREAKS = """
CREATE TABLE streaks (shard INTEGER, job TEXT, streak BLOB NOT NULL, PRIMARY KEY (shard, job)) WITHOUT ROWID, STRICT;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _ENFORCEMENT, _BACKFILLS, _STREAKS)
VERSION = len(MIGRATIONS)


def uri(path: Path, options: str) -> str:
    """SQLite's name of a file, with options such as `mode=ro`."""
    return f"file:{quote(str(path.absolute()))}?{options}"


def connect(path: Path, options: str) -> sqlite3.Connection:
    """A connection without implicit transactions, usable from the one thread that it is handed to."""
    return sqlite3.connect(
        uri(path, options),
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS,
        timeout=BUSY_MS / 1000,
    )


def prepare_writer(conn: sqlite3.Connection, synchronous: str) -> None:
    """WAL and the durability asked for. Raises sqlite3.Error."""
    conn.execute("PRAGMA journal_mode=WAL").fetchone()
    conn.execute(f"PRAGMA synchronous={synchronous}")
    conn.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    conn.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}").fetchone()
    conn.execute("PRAGMA temp_store=MEMORY")


def migrate(conn: sqlite3.Connection, file_id: str) -> None:
    """Brings the file to VERSION, one transaction a migration; a new file gets its id. Raises sqlite3.Error."""
    found: int = conn.execute("PRAGMA user_version").fetchone()[0]
    for number in range(found, VERSION):
        conn.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements(MIGRATIONS[number]):
                conn.execute(statement)
            if number == 0:
                conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
                conn.execute("INSERT INTO meta VALUES ('file_id', ?)", (file_id,))
            conn.execute(f"PRAGMA user_version={number + 1}")
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise


def statements(script: str) -> list[str]:
    """The statements of a migration."""
    found, piece = [], ""
    for line in script.splitlines(keepends=True):
        piece += line
        if sqlite3.complete_statement(piece):
            found.append(piece.strip())
            piece = ""
    return found


def objects() -> frozenset[str]:
    """Names of all tables and indexes that a file of today's VERSION has."""
    conn = sqlite3.connect(":memory:")
    try:
        for script in MIGRATIONS:
            conn.executescript(script)
        return frozenset(name for (name,) in conn.execute("SELECT name FROM sqlite_schema"))
    finally:
        conn.close()
