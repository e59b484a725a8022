"""`dts migrate`: the cluster's keyspace. The words are golang-migrate's, whose command works on the same keyspace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import click

from dts.cli import exits
from dts.config import load
from dts.errors import ConfigError

if TYPE_CHECKING:
    from dts.server.migrations import Done, Migrator

T = TypeVar("T")
MAX_REPLICATION = 15

_limit = click.argument("limit", metavar="[N]", type=click.IntRange(1), required=False)
_version = click.argument("version", metavar="V", type=click.IntRange(0))


@click.group("migrate")
@click.option(
    "--path", type=click.Path(path_type=Path), help="Folder of the migrations. Default: those of this version."
)
@click.option(
    "--replication",
    type=click.IntRange(1, MAX_REPLICATION),
    default=1,
    show_default=True,
    help="Copies in each data centre, if the keyspace is yet to be made.",
)
@click.pass_context
def group(ctx: click.Context, path: Path | None, replication: int) -> None:
    """Move the cluster's keyspace between versions of its tables.

    Where it is: CASSANDRA_HOSTS, CASSANDRA_PORT, CASSANDRA_KEYSPACE. Several of these may run at once: one migrates, the others wait.
    """
    ctx.obj = (path, replication)


def _migrations() -> ModuleType:
    """Imported when it is needed: help does not need the driver. Raises ConfigError when that is not installed."""
    try:
        return import_module("dts.server.migrations")
    except ModuleNotFoundError as error:
        if error.name != "acsylla":
            raise
        raise ConfigError("a cluster needs packages that are not installed: pip install 'dts[cluster]'") from error


def _run(ctx: click.Context, do: Callable[[Migrator], Awaitable[T]]) -> T:
    migrations, (path, replication) = _migrations(), ctx.obj
    config = load(os.environ, Path(".env")).cassandra

    async def run() -> T:
        async with migrations.migrator(config, path or migrations.FOLDER, replication, _told) as migrator:
            return await do(migrator)

    return asyncio.run(run())


def _told(done: Done) -> None:
    click.echo(f"{done.version}/{done.direction} {done.title} ({done.seconds:.1f} s)")


def _nothing(done: list[Done]) -> int:
    if not done:
        click.echo("no change")
    return exits.OK


@group.command("up")
@_limit
@click.pass_context
def up(ctx: click.Context, limit: int | None) -> int:
    """Apply all migrations that are not applied yet, or N of them."""
    return _nothing(_run(ctx, lambda migrator: migrator.up(limit)))


@group.command("down")
@_limit
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def down(ctx: click.Context, limit: int | None, yes: bool) -> int:
    """Take back the last N migrations, or all of them. The tables that they made go, with their data."""
    if limit is None and not yes:
        click.confirm("Take back all migrations? Every job and all history of the keyspace are lost", abort=True)
    return _nothing(_run(ctx, lambda migrator: migrator.down(limit)))


@group.command("goto")
@_version
@click.pass_context
def goto(ctx: click.Context, version: int) -> int:
    """Go to version V, up or down."""
    return _nothing(_run(ctx, lambda migrator: migrator.goto(version)))


@group.command("force", context_settings={"ignore_unknown_options": True})
@click.argument("version", metavar="V", type=click.IntRange(-1))
@click.pass_context
def force(ctx: click.Context, version: int) -> int:
    """Write down that the keyspace is at version V (-1: none) and clean. Nothing is run."""
    _run(ctx, lambda migrator: migrator.force(version))
    return exits.OK


@group.command("version")
@click.pass_context
def version(ctx: click.Context) -> int:
    """The version of the keyspace. The exit code is 1 if a migration began and did not end."""
    state = _run(ctx, lambda migrator: migrator.state())
    if state.version < 0 and not state.dirty:
        click.echo("no migration")
        return exits.OK
    click.echo(f"{state.version} (dirty)" if state.dirty else f"{state.version}")
    return exits.FINDINGS if state.dirty else exits.OK


@group.command("create")
@click.argument("name")
@click.pass_context
def create(ctx: click.Context, name: str) -> int:
    """Make two empty files for a new migration, up and down."""
    migrations = _migrations()
    for path in migrations.create(ctx.obj[0] or migrations.FOLDER, name):
        click.echo(path)
    return exits.OK
