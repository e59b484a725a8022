"""The keyspace's migrations: what `dts migrate` does, and what a service checks at its start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import dts
from dts.adapters.cassandra import migrate
from dts.adapters.cassandra.migrate import Done, Migrator, State, create_keyspace
from dts.adapters.cassandra.session import Session, contacts
from dts.config import CassandraConfig

FOLDER = Path(dts.__file__).parent / "migrations"  # in a checkout a link to /migrations

__all__ = ["FOLDER", "Done", "Migrator", "State", "create", "migrator"]


@asynccontextmanager
async def migrator(
    config: CassandraConfig, folder: Path, replication: int, told: Callable[[Done], None]
) -> AsyncIterator[Migrator]:
    """Of the keyspace of the settings, which is made if it is not there; `replication`: copies in each data centre."""
    migrations = migrate.read(folder)
    hosts, port = contacts(config.hosts, config.port)
    await create_keyspace(hosts, port, config.keyspace, replication)
    session = await Session.connect(hosts, port, config.keyspace)
    try:
        yield Migrator(session, migrations, told)
    finally:
        await session.close()


def create(folder: Path, name: str) -> list[Path]:
    """Two empty files for a new migration."""
    return migrate.create(folder, name)
