"""Migrations in golang-migrate's format, with its state table, so that its command and ours work on the same keyspace.

`schema_migrations` holds one row: the version, and whether a migration began that has not ended ('dirty'). Beside that we
take a lock, so that of several services that start at once one migrates and the others wait.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from dts.adapters.cassandra.session import Session
from dts.errors import FailedPrecondition, InvalidArgument, OutcomeUnknown, Unavailable

NONE = -1  # the version of a keyspace without migrations
DIGITS = 3
NAME_LENGTH = 128
LOCK_TTL_S = 60  # a dead holder's lock ends by itself
LOCK_RENEW_S = 15.0
LOCK_WAIT_S = 180.0
LOCK_POLL_S = 0.2
TABLE_WAIT_S = 30.0
assert LOCK_RENEW_S < LOCK_TTL_S / 3 < LOCK_WAIT_S

_FILE = re.compile(r"([0-9]+)_(.*)\.(up|down)\.cql")
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_LENGTH}}}")


class Migration(NamedTuple):
    """One version; None: it has no file for that direction."""

    version: int
    title: str
    up: Path | None
    down: Path | None


class State(NamedTuple):
    """Where a keyspace is."""

    version: int
    dirty: bool


class Done(NamedTuple):
    """A step that was made. `seconds` it took."""

    version: int
    title: str
    direction: str
    seconds: float


def read(folder: Path) -> list[Migration]:
    """The migrations of a folder, by version. Raises InvalidArgument for a version with two files of one direction."""
    found: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _FILE.fullmatch(path.name):
            files = found.setdefault(int(match[1]), {})
            if match[3] in files:
                raise InvalidArgument("", f"two migrations to {match[1]}: {files[match[3]].name} and {path.name}")
            files[match[3]] = path

    def title(files: dict[str, Path]) -> str:
        match = _FILE.fullmatch(next(iter(files.values())).name)
        assert match is not None
        return match[2]

    return [
        Migration(version, title(files), files.get("up"), files.get("down")) for version, files in sorted(found.items())
    ]


def statements(text: str) -> list[str]:
    """The statements of a file, split as golang-migrate does with x-multi-statement=true: at each semicolon."""
    return [part.strip() for part in text.split(";") if part.strip()]


def create(folder: Path, name: str) -> list[Path]:
    """Two empty files with the next number. Raises InvalidArgument."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument("name", f"write 1 to {NAME_LENGTH} letters, digits, dashes and underscores")
    there = read(folder)
    number = f"{there[-1].version + 1 if there else 0:0{DIGITS}d}"
    made = [folder / f"{number}_{name}.{direction}.cql" for direction in ("up", "down")]
    for path in made:
        path.open("x").close()
    return made


async def create_keyspace(hosts: Sequence[str], port: int, keyspace: str, replication: int) -> None:
    """Makes the keyspace if it is not there; `replication`: copies in each data centre (1: as the original had it)."""
    strategy = "SimpleStrategy" if replication == 1 else "NetworkTopologyStrategy"
    options = f"{{'class': '{strategy}', 'replication_factor': {replication}}}"
    session = await Session.connect(hosts, port, "")
    try:
        await session.run(f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {options}")
    finally:
        await session.close()


class Migrator:
    """Moves one keyspace. `told` hears of each step when it is made."""

    def __init__(
        self, session: Session, migrations: Sequence[Migration], told: Callable[[Done], None] = lambda _: None
    ) -> None:
        self._session = session
        self._migrations = list(migrations)
        self._told = told

    async def state(self) -> State:
        """Where the keyspace is."""
        await self._tables()
        rows = await self._session.rows("SELECT version, dirty FROM schema_migrations LIMIT 1")
        return State(*rows[0]) if rows else State(NONE, False)

    async def up(self, limit: int | None = None) -> list[Done]:
        """All that is not applied yet, or `limit` of it. Waits while another one migrates."""
        async with self._locked():
            version = await self._clean_version()
            ahead = [each for each in self._migrations if each.version > version][:limit]
            return [await self._step(each, "up", each.version) for each in ahead]

    async def down(self, limit: int | None = None) -> list[Done]:
        """Takes all back, or the last `limit`."""
        async with self._locked():
            version = await self._clean_version()
            applied = [each for each in self._migrations if each.version <= version]
            return await self._take_back(applied, 0 if limit is None else max(0, len(applied) - limit))

    async def goto(self, version: int) -> list[Done]:
        """To one version, up or down."""
        self._place(version)
        async with self._locked():
            now = await self._clean_version()
            if version < now:
                applied = [each for each in self._migrations if each.version <= now]
                return await self._take_back(applied, self._place(version) + 1)
            ahead = [each for each in self._migrations if now < each.version <= version]
            return [await self._step(each, "up", each.version) for each in ahead]

    async def force(self, version: int) -> None:
        """Writes down that the keyspace is at a version (-1: none), and clean; nothing is run."""
        if version != NONE:
            self._place(version)
        async with self._locked():
            await self._set(version, False)

    def _place(self, version: int) -> int:
        for place, each in enumerate(self._migrations):
            if each.version == version:
                return place
        raise FailedPrecondition(f"there is no migration {version}")

    async def _take_back(self, applied: Sequence[Migration], keep: int) -> list[Done]:
        done = []
        for place in range(len(applied) - 1, keep - 1, -1):
            before = applied[place - 1].version if place else NONE
            done.append(await self._step(applied[place], "down", before))
        return done

    async def _step(self, migration: Migration, direction: str, after: int) -> Done:
        path = migration.up if direction == "up" else migration.down
        if path is None:
            raise FailedPrecondition(f"migration {migration.version} has no {direction} file")
        begun = time.monotonic()
        await self._set(after, True)  # golang-migrate names the version that is aimed at
        for statement in statements(path.read_text("utf-8")):
            await self._session.run(statement)
        await self._set(after, False)
        done = Done(migration.version, migration.title, direction, time.monotonic() - begun)
        self._told(done)
        return done

    async def _clean_version(self) -> int:
        version, dirty = await self.state()
        if dirty:
            raise FailedPrecondition(
                f"a migration to {version} began and did not end: look what it left (its statements can be repeated), "
                f"then say where the keyspace is: dts migrate force N"
            )
        if version != NONE:
            self._place(version)
        return version

    async def _set(self, version: int, dirty: bool) -> None:
        old = [row[0] for row in await self._session.rows("SELECT version FROM schema_migrations")]
        forget, keep = "DELETE FROM schema_migrations WHERE version = ?", version != NONE or dirty
        changes = [await self._session.bind(forget, [each]) for each in old if each != version or not keep]
        if keep:
            insert = "INSERT INTO schema_migrations (version, dirty) VALUES (?, ?)"
            changes.append(await self._session.bind(insert, [version, dirty]))
        if changes:
            await self._session.batch(changes, atomic=True)

    async def _tables(self) -> None:
        await self._table("schema_migrations", "(version bigint, dirty boolean, PRIMARY KEY (version))")

    async def _table(self, name: str, columns: str) -> None:
        # Its id follows from its name: two that make it at once, at two nodes, make the same table. It is there when it can be
        # read: while another one makes it, the schema's own tables name it too early.
        id = uuid.uuid5(uuid.NAMESPACE_URL, f"dts:{self._session.keyspace}.{name}")
        deadline = time.monotonic() + TABLE_WAIT_S
        while True:
            try:
                await self._session.rows(f"SELECT * FROM {name} LIMIT 1")
                return
            except (
                FailedPrecondition,
                OutcomeUnknown,
            ):  # a node that is just adding it answers 'unknown table' in many ways
                if time.monotonic() > deadline:
                    raise
            with suppress(OutcomeUnknown):
                await self._session.run(f"CREATE TABLE IF NOT EXISTS {name} {columns} WITH ID = {id}")

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        await self._tables()
        await self._table("schema_lock", "(name text PRIMARY KEY, holder text)")
        holder = str(uuid.uuid4())
        take = f"INSERT INTO schema_lock (name, holder) VALUES ('migrate', ?) IF NOT EXISTS USING TTL {LOCK_TTL_S}"
        deadline = time.monotonic() + LOCK_WAIT_S
        while not (await self._session.rows(take, [holder]))[0][0]:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"another process has been migrating {self._session.keyspace!r} for {LOCK_WAIT_S:.0f} s"
                )
            await asyncio.sleep(LOCK_POLL_S)
        renewing = asyncio.create_task(self._renew(holder))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await self._session.rows("DELETE FROM schema_lock WHERE name = 'migrate' IF holder = ?", [holder])

    async def _renew(self, holder: str) -> None:
        keep = f"UPDATE schema_lock USING TTL {LOCK_TTL_S} SET holder = ? WHERE name = 'migrate' IF holder = ?"
        while True:
            await asyncio.sleep(LOCK_RENEW_S)
            await self._session.rows(keep, [holder, holder])
