"""The embedded store: one SQLite file. See docs/operations/database.md."""

from dts.adapters.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
