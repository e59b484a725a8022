"""`dts repair`: what a person does when a store of the cluster has lost something."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from dts.cli import exits
from dts.config import load
from dts.errors import ConfigError

if TYPE_CHECKING:
    from dts.server.repair import Repair


@click.group("repair")
def group() -> None:
    """Mend a cluster's stores from one another. Runs beside the services, with the settings that they have."""


def _repairs() -> ModuleType:
    """Imported when it is needed. Raises ConfigError when a cluster's packages are not installed."""
    try:
        return import_module("dts.server.repair")
    except ModuleNotFoundError as error:
        if error.name not in ("acsylla", "confluent_kafka"):
            raise
        raise ConfigError("a cluster needs packages that are not installed: pip install 'dts[cluster]'") from error


@group.command("jobs")
@click.option("--dry-run", is_flag=True, help="Say what would be done; the exit code is 1 if there is anything.")
def jobs(dry_run: bool) -> int:
    """Rebuild the topic of jobs from Cassandra.

    Tells the schedulers every job again whose last record in the topic is an old revision or is gone. What is told so owes nothing that
    was due before. It may be repeated, and the Job Service does the same once a day.
    """
    repairs, config = _repairs(), load(os.environ, Path(".env"))
    found: Repair = asyncio.run(repairs.repair_jobs(config, dry_run=dry_run))
    click.echo(f"Jobs in Cassandra: {found.jobs}")
    click.echo(f"Not in the topic: {found.missing}")
    click.echo(f"In the topic with an old revision: {found.lower}")
    click.echo(f"Deleted long ago: {found.overdue}")
    if found.ahead_count:
        named = ", ".join(found.ahead) + (", ..." if found.ahead_count > len(found.ahead) else "")
        click.echo(f"In the topic with a revision that Cassandra does not have: {found.ahead_count} ({named})")
        click.echo("Was an old backup of Cassandra restored? Schedulers keep the higher revision that they know.")
    if dry_run:
        click.echo("Nothing was done (--dry-run).")
        return exits.FINDINGS if found.missing or found.lower or found.ahead_count else exits.OK
    click.echo(f"Told again: {found.renewed}; removed: {found.buried}")
    return exits.FINDINGS if found.ahead_count else exits.OK
