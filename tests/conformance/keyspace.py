"""The one keyspace of a test run: migrated when it is first needed, emptied after each world."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from dts.adapters.cassandra.migrate import Migrator, create_keyspace, read
from dts.adapters.cassandra.session import Session, in_flight
from tests.servers import ROOT, servers

_made = ""


async def name() -> str:
    """The keyspace."""
    global _made
    if not _made:
        new = f"dts_test_{uuid4().hex}"
        host, port = servers().cassandra
        await create_keyspace([host], port, new, 1)
        session = await Session.connect([host], port, new)
        try:
            await Migrator(session, read(ROOT / "migrations")).up()
        finally:
            await session.close()
        _made = new
    return _made


async def _empty() -> None:
    host, port = servers().cassandra
    session = await Session.connect([host], port, _made)
    try:
        tables = await session.rows("SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?", [_made])
        names = [table for (table,) in tables if not table.startswith("schema_")]
        found = await in_flight(names, lambda table: session.rows(f"SELECT * FROM {table} LIMIT 1"))
        full = [table for table, rows in zip(names, found, strict=True) if rows]
        await in_flight(full, lambda table: session.run(f"TRUNCATE {table}"))
    finally:
        await session.close()


def empty() -> None:
    """Nothing is in it on return: as after a migration. To be called outside of an event loop."""
    if _made:
        asyncio.run(_empty())
