"""Migrations: up and down with data, golang-migrate's own command and ours on one keyspace, several that start at once."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from dts.adapters.cassandra.migrate import Migrator, State, create_keyspace, read
from dts.adapters.cassandra.session import Session
from dts.errors import FailedPrecondition
from tests.servers import ROOT, Servers

FOLDER = ROOT / "migrations"
LAST = 6
NEWEST = "add_enforcement"
GOLANG_MIGRATE = "github.com/golang-migrate/migrate/v4/cmd/migrate@v4.20.1"
SAMPLES = {
    "text": "'x'",
    "int": "1",
    "bigint": "2",
    "tinyint": "3",
    "blob": "0x01",
    "boolean": "true",
    "uuid": "60780342-90fe-11e2-8823-0026c650d722",
    "timestamp": "1000",
    "map<text, text>": "{'k': 'v'}",
    "frozen<list<text>>": "['x']",
    "frozen<list<int>>": "[1]",
}


@pytest.fixture
def keyspace() -> str:
    return f"migrate_{uuid4().hex}"


@asynccontextmanager
async def session(servers: Servers, keyspace: str) -> AsyncIterator[Session]:
    host, port = servers.cassandra
    await create_keyspace([host], port, keyspace, 1)
    made = await Session.connect([host], port, keyspace)
    try:
        yield made
        await made.run(f"DROP KEYSPACE {keyspace}")
    finally:
        await made.close()


async def columns(made: Session) -> dict[str, dict[str, str]]:
    """Of each table but the migrator's own: columns and their types."""
    found: dict[str, dict[str, str]] = {}
    cql = "SELECT table_name, column_name, type FROM system_schema.columns WHERE keyspace_name = ?"
    for table, column, type_ in await made.rows(cql, [made.keyspace]):
        if not table.startswith("schema_"):
            found.setdefault(table, {})[column] = type_
    return found


async def fill(made: Session) -> None:
    for table, types in (await columns(made)).items():
        values = ", ".join(SAMPLES[type_] for type_ in types.values())
        await made.run(f"INSERT INTO {table} ({', '.join(types)}) VALUES ({values})")


async def test_each_goes_down_with_data_in_it_and_up_again(servers: Servers, keyspace: str) -> None:
    async with session(servers, keyspace) as made:
        migrator = Migrator(made, read(FOLDER))
        assert await migrator.state() == State(-1, False)
        shapes = {-1: await columns(made)}
        for version in range(LAST + 1):
            assert [done.version for done in await migrator.up(1)] == [version]
            shapes[version] = await columns(made)
            await fill(made)
        assert await migrator.up() == []
        for version in range(LAST - 1, -2, -1):
            assert [done.direction for done in await migrator.down(1)] == ["down"]
            assert await migrator.state() == State(version, False)
            assert await columns(made) == shapes[version]
        assert len(await migrator.goto(LAST)) == LAST + 1
        assert await columns(made) == shapes[LAST]
        assert len(shapes[LAST]) == 17
        for table in shapes[LAST]:
            assert await made.rows(f"SELECT * FROM {table}") == []


async def test_of_several_that_start_at_once_one_migrates(servers: Servers, keyspace: str) -> None:
    host, port = servers.cassandra
    async with session(servers, keyspace) as made:
        others = [await Session.connect([host], port, keyspace) for _ in range(5)]
        done = await asyncio.gather(*(Migrator(each, read(FOLDER)).up() for each in [made, *others]))
        assert sorted(map(len, done)) == [0, 0, 0, 0, 0, LAST + 1]
        assert await Migrator(made, read(FOLDER)).state() == State(LAST, False)
        for each in others:
            await each.close()


async def test_one_that_fails_says_so_until_it_is_forced(servers: Servers, keyspace: str, tmp_path: Path) -> None:
    (tmp_path / "000_a.up.cql").write_text("CREATE TABLE a (x int PRIMARY KEY);\n\nCREATE TABLE a (x int PRIMARY KEY);")
    (tmp_path / "000_a.down.cql").write_text("DROP TABLE a;")
    async with session(servers, keyspace) as made:
        migrator = Migrator(made, read(tmp_path))
        with pytest.raises(FailedPrecondition):
            await migrator.up()
        assert await migrator.state() == State(0, True)
        with pytest.raises(FailedPrecondition, match="dts migrate force"):
            await migrator.down()
        await migrator.force(0)
        assert len(await migrator.down()) == 1
        with pytest.raises(FailedPrecondition, match="no migration 7"):
            await migrator.goto(7)


@pytest.fixture(scope="session")
def golang_migrate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its own binary, built from its Go module."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(go).exists():
        pytest.fail(
            "golang-migrate is built with Go: https://go.dev/dl, or apt-get install -y golang-go (1.24 or newer)"
        )
    folder = tmp_path_factory.mktemp("gobin")
    env = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-p=2"}
    subprocess.run([go, "install", "-tags", "cassandra", GOLANG_MIGRATE], env=env, check=True, timeout=110)
    return folder / "migrate"


@pytest.fixture
def theirs(golang_migrate: Path, servers: Servers, keyspace: str) -> Callable[..., str]:
    """Runs golang-migrate; what it prints."""
    host, port = servers.cassandra
    database = f"cassandra://{host}:{port}/{keyspace}?x-multi-statement=true"

    def run(*arguments: str) -> str:
        command = [str(golang_migrate), "-path", str(FOLDER), "-database", database, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


@pytest.fixture
def ours(servers: Servers, keyspace: str) -> Callable[..., tuple[int, str]]:
    """Runs `dts migrate`: exit code and what it prints."""
    host, port = servers.cassandra
    env = {**os.environ, "CASSANDRA_HOSTS": host, "CASSANDRA_PORT": str(port), "CASSANDRA_KEYSPACE": keyspace}

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "dts", "migrate", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


async def test_their_command_and_ours_on_one_keyspace(
    servers: Servers, keyspace: str, theirs: Callable[..., str], ours: Callable[..., tuple[int, str]]
) -> None:
    async with session(servers, keyspace):
        assert "0/u init_schema" in theirs("up", "3")
        assert ours("version") == (0, "2\n")
        code, text = ours("up")
        assert (code, text.splitlines()[0].split()[0], len(text.splitlines())) == (0, "3/up", LAST - 2)
        assert theirs("version").strip() == f"{LAST}"
        assert "no change" in theirs("up")
        assert f"{LAST}/d {NEWEST}" in theirs("down", "1")
        assert ours("up", "1")[1].startswith(f"{LAST}/up {NEWEST}")
        assert ours("goto", "3")[0] == 0
        assert "2/d add_last_run_to_jobs" in theirs("down", "-all")
        assert ours("version") == (0, "no migration\n")
        theirs("force", "2")
        assert ours("version") == (0, "2\n")
        assert ours("force", "-1") == (0, "")
        assert ours("down", "--yes") == (0, "no change\n")
        assert ours("down", "--yes", "3")[1] == "no change\n"


def test_create_makes_the_next_two_files(tmp_path: Path) -> None:
    (tmp_path / "002_b.up.cql").touch()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dts", "migrate", "--path", str(tmp_path), "create", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    done = run("add_new_column")
    names = ["003_add_new_column.up.cql", "003_add_new_column.down.cql"]
    assert done.stdout.splitlines() == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["002_b.up.cql", *sorted(names)]
    assert run("../x").returncode == 2


def test_every_file_can_be_split_at_its_semicolons() -> None:
    for path in FOLDER.glob("*.cql"):
        text = path.read_text()
        assert text.endswith(";\n"), path
        comments = [line for line in text.splitlines() if "--" in line]
        assert not [line for line in comments if ";" in line], path
