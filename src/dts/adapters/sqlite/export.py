"""Saves what is readable of a database file, damaged or not, as JSON lines; and makes copies of a whole one in use.

python -m dts.adapters.sqlite.export FILE OUT.jsonl
"""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple, TextIO

from dts.adapters.sqlite.problems import explain
from dts.adapters.sqlite.schema import MIGRATIONS, connect
from dts.errors import DtsError, Unavailable

BACKUP_PAGES = 1_000  # copied between two looks at the clock of the server that writes
Value = str | bytes | int | float | None


class Table(NamedTuple):
    """A table of the schema, its columns and its primary key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


def export_readable(path: str | Path, out: str | Path) -> dict[str, int]:
    """Writes every readable row as one JSON object a line: {"table": ..., column: value, ...}, bytes as {"base64": ...};
    a table with an unreadable place also leaves a line {"table": ..., "unreadable": error}. The file and its
    write-ahead log are only read. Gives rows by table. Raises Unavailable when the file or `out` cannot be opened."""
    source = Path(path).absolute()
    if not source.is_file():
        raise Unavailable(f"{source} is not there")
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(out).open("x", encoding="utf-8"))
        except OSError as error:
            raise Unavailable(f"cannot write {out} ({error.strerror}): name a new file in a writable folder") from error
        conn = stack.enter_context(closing(_open(source, Path(out).parent, stack)))
        for table in _tables():
            counts[table.name] = _export(conn, table, file)
    return counts


def _open(source: Path, room: Path, stack: ExitStack) -> sqlite3.Connection:
    """An immutable file cannot have a write-ahead log: then a copy of both is read instead."""
    log = source.with_name(source.name + "-wal")
    if not log.exists() or log.stat().st_size == 0:
        return connect(source, "mode=ro&immutable=1")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=room, prefix="dts-export-")))
    shutil.copyfile(source, folder / "copy")
    shutil.copyfile(log, folder / "copy-wal")
    return connect(folder / "copy", "mode=rw")


def _tables() -> list[Table]:
    """Of today's schema: that of a damaged file may be unreadable."""
    conn = sqlite3.connect(":memory:")
    try:
        for script in MIGRATIONS:
            conn.executescript(script)
        found = []
        for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid").fetchall():
            info = conn.execute(f"PRAGMA table_info({name})").fetchall()
            keyed = sorted((column[5], column[1]) for column in info if column[5])
            found.append(Table(name, tuple(column[1] for column in info), tuple(column for _, column in keyed)))
        return found
    finally:
        conn.close()


def _export(conn: sqlite3.Connection, table: Table, file: TextIO) -> int:
    """From the first row on up to what is unreadable, then from the last row back to it."""
    last: tuple[Value, ...] | None = None
    count, problem = 0, ""
    for order in ("", " DESC"):
        problem = ""
        names, key = ", ".join(table.columns), ", ".join(table.key)
        sql, values = f"SELECT {names} FROM {table.name}", last or ()
        if order and last is not None:
            sql += f" WHERE ({key}) > ({', '.join('?' * len(table.key))})"
        sql += f" ORDER BY {', '.join(column + order for column in table.key)}"
        rows = _readable(conn, sql, values)
        for row in rows:
            if isinstance(row, str):
                problem = row
                break
            file.write(
                json.dumps({"table": table.name, **dict(zip(table.columns, map(_plain, row), strict=True))}) + "\n"
            )
            count += 1
            if not order:
                last = tuple(row[table.columns.index(column)] for column in table.key)
        if not problem:
            return count
        file.write(json.dumps({"table": table.name, "unreadable": problem, "from": "end" if order else "start"}) + "\n")
    return count


def _readable(conn: sqlite3.Connection, sql: str, values: tuple[Value, ...]) -> Iterator[tuple[Value, ...] | str]:
    try:
        yield from conn.execute(sql, values)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        yield str(error)


def _plain(value: Value) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def backup(path: str | Path, out: str | Path) -> None:
    """A consistent copy of a file that may be in use (SQLite's backup); `out` must not be there yet. Raises Unavailable
    or StoreDamaged."""
    source, target = Path(path).absolute(), Path(out)
    if not source.is_file():
        raise Unavailable(f"{source} is not there")
    try:
        target.touch(exist_ok=False)
        with closing(connect(source, "mode=ro")) as conn, closing(connect(target, "mode=rw")) as copy:
            conn.backup(copy, pages=BACKUP_PAGES)
    except FileExistsError as error:
        raise Unavailable(f"{target} is there already: name a new file") from error
    except OSError as error:
        raise Unavailable(f"cannot write {target} ({error.strerror}): name a new file in a writable folder") from error
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise explain(error, source) from error


def main(arguments: list[str]) -> int:
    """The command: 0 when done, 1 with a sentence when not, 2 for wrong use."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m dts.adapters.sqlite.export FILE OUT.jsonl\n")
        return 2
    try:
        counts = export_readable(*arguments)
    except DtsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"{name}: {count} rows\n" for name, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
