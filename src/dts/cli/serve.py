"""`dts up`: the server in the foreground."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dts.config import load


@click.command("up")
def up() -> int:
    """Run the server in the foreground: all three services over one SQLite file, and a worker in a process of its own.

    Ports and file are those of `dts config`. Ctrl-C or TERM stops it cleanly; a second one hurries.
    """
    config = load(os.environ, Path(".env"))
    for note in config.notes:
        click.echo(f"Note: {note}", err=True)
    from dts.server import serve_embedded  # noqa: PLC0415 - help and completion need none of it

    return serve_embedded(config)


def _service(name: str) -> int:
    """One of the cluster's services. Raises ConfigError when what it needs is not installed."""
    config = load(os.environ, Path(".env"))
    for note in config.notes:
        click.echo(f"Note: {note}", err=True)
    from dts.server import SERVICES  # noqa: PLC0415 - help and completion need none of it

    return SERVICES[name](config)


@click.command("job-service")
def job_service() -> int:
    """Run a Job Service over Kafka and Cassandra in the foreground. Settings: see 'dts config'. TERM stops it cleanly."""
    return _service("job")


@click.command("scheduler-service")
def scheduler_service() -> int:
    """Run a Scheduler Service over Kafka in the foreground: it owns shards, and workers attach to it."""
    return _service("scheduler")


@click.command("execution-service")
def execution_service() -> int:
    """Run an Execution Service over Kafka and Cassandra in the foreground: it records history and runs tasks."""
    return _service("execution")
