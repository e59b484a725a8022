"""`dts export` and `dts import`: all jobs and their history, from one installation to another."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TypeVar

import click

from dts.cli import exits
from dts.config import load
from dts.errors import ConfigError

T = TypeVar("T")
PROGRESS_S = 2.0

_cluster = click.option(
    "--cluster", is_flag=True, help="Of the cluster (Kafka and Cassandra) instead of the embedded file."
)
_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


def _run(work: Coroutine[None, None, T]) -> T:
    """Raises ConfigError when the cluster's drivers are needed and not installed."""
    try:
        return asyncio.run(work)
    except ModuleNotFoundError as error:
        if error.name not in ("acsylla", "confluent_kafka"):
            raise
        raise ConfigError("a cluster needs packages that are not installed: pip install 'dts[cluster]'") from error


@click.command("export")
@_file
@_cluster
@click.option("--no-output", is_flag=True, help="Without what tasks wrote.")
def export(file: Path, cluster: bool, no_output: bool) -> int:
    """Write all jobs, their revisions and history to FILE (gzip of JSON lines), which must not be there yet.

    Of the embedded file (DTS_DATABASE) a consistent copy is read, whether a server uses it or not. To move, stop the server first: what
    it runs after the export runs twice. What is open then is told and recorded as lost or cancelled.
    """
    from dts.server.moving import export_all  # noqa: PLC0415 - help needs none of it

    config = load(os.environ, Path(".env"))
    done = _run(export_all(config, file, cluster=cluster, outputs=not no_output, told=_Progress()))
    _show("Exported", done.counts)
    for note in done.notes:
        click.echo(f"Note: {note}", err=True)
    return exits.OK


@click.command("import")
@_file
@_cluster
@click.option("--check", is_flag=True, help="Read the whole file and look for conflicts; store nothing.")
def import_(file: Path, cluster: bool, check: bool) -> int:
    """Take the jobs and the history of FILE in, beside what is there. The embedded file must not be in use.

    The whole file is checked first: one that is damaged, of a later version or has a job whose id is taken is refused with nothing stored.
    What came due since the export is late or missed, as after an outage. An import that broke off may be repeated.
    """
    from dts.server.moving import import_all  # noqa: PLC0415 - help needs none of it

    config = load(os.environ, Path(".env"))
    done = _run(import_all(config, file, cluster=cluster, check=check, told=_Progress()))
    _show("Would import" if check else "Imported", {_KINDS[name]: count for name, count in done.counts.items()})
    if done.known:
        click.echo(f"Jobs that were there already: {done.known}")
    return exits.OK


_KINDS = {"Term": "term", "Range": "range", "MovedExecution": "execution", "MovedJob": "job"}
_PLURAL = {"job": "jobs", "execution": "executions", "range": "ranges", "term": "terms", "revision": "revisions"}


def _show(did: str, counts: Mapping[str, int]) -> None:
    told = [f"{counts.get(kind, 0)} {name}" for kind, name in _PLURAL.items() if kind in counts or kind == "job"]
    click.echo(f"{did}: {', '.join(told)}")


class _Progress:
    """A line now and then, while it lasts."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, counts: Counter[str]) -> None:
        if time.monotonic() - self._last >= PROGRESS_S:
            self._last = time.monotonic()
            click.echo(f"... {sum(counts.values())} records", err=True)
