"""Jobs and executions chosen by what they are, as options; and how a dry run is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict, TypeVar

import click

from dts.cli import options
from dts.cli.session import timestamp
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.gen.job.v1 import job_pb2 as job

F = TypeVar("F", bound=Callable[..., object])

NAMES = ("tag", "name", "status", "last_status")


class WhereOptions(TypedDict):
    """The values of the options of `where_options`."""

    where: tuple[tuple[str, str], ...]
    everything: bool
    dry_run: bool


class ExecutionOptions(TypedDict):
    """The values of the options of `execution_options`."""

    job_id: str | None
    status: str | None
    cause: str | None
    start: int | None
    end: int | None
    dry_run: bool


def dry_run_option(function: F) -> F:
    """--dry-run."""
    return click.option("--dry-run", is_flag=True, help="Only say what would be done.")(function)


def where_options(function: F) -> F:
    """Instead of ids: --where tag=nightly, --all; and --dry-run."""
    function = dry_run_option(function)
    function = click.option("--all", "everything", is_flag=True, help="Every job.")(function)
    return click.option(
        "--where",
        type=options.pair,
        multiple=True,
        help="Instead of IDs: jobs with tag=T, name=PART, status=S or last_status=S. Repeatable: all must fit.",
    )(function)


def filter_of(given: WhereOptions) -> job.JobFilter | None:
    """The filter that the options name; None: none. Raises click.UsageError."""
    if not given["where"] and not given["everything"]:
        return None
    found = job.JobFilter(all=given["everything"])
    for name, value in given["where"]:
        if name not in NAMES:
            raise click.BadParameter(f"{name} is none of {', '.join(NAMES)}.", param_hint="--where")
        if not value:
            raise click.BadParameter(f"{name} is empty.", param_hint="--where")
        field = {"name": "name_contains"}.get(name, name)
        if getattr(found, field):
            raise click.BadParameter(f"{name} is given twice.", param_hint="--where")
        setattr(found, field, value)
    return found


def check_either(ids: Sequence[str], chosen: job.JobFilter | None) -> None:
    """Raises click.UsageError when jobs are both named and chosen."""
    if chosen is not None and ids:
        raise click.UsageError("IDs are given beside --where or --all: give one of the two.")


def tell(done: str, would: str, ids: Sequence[str], count: int, *, dry_run: bool) -> None:
    """How many jobs a batch changed; of a dry run which ones it would."""
    if not dry_run:
        click.echo(f"Jobs {done}: {count}")
        return
    for id in ids:
        click.echo(id)
    click.echo(f"Would {would}: {count} {'job' if count == 1 else 'jobs'}", err=True)


def execution_options(function: F) -> F:
    """Instead of an ID: of which job, with which status and cause, from when to when; and --dry-run."""
    for option in (
        dry_run_option,
        click.option("--to", "end", type=options.instant, help="Scheduled before then."),
        click.option("--from", "start", type=options.instant, help="Scheduled from then on: -12h, 2026-03-29, ..."),
        click.option("--cause", help="schedule, manual, retry or backfill."),
        click.option("--status", help="A status in any case."),
        click.option("--job", "job_id", help="Instead of an ID: those of this job."),
    ):
        function = option(function)
    return function


def execution_filter(given: ExecutionOptions) -> execution.ExecutionFilter | None:
    """The filter that the options name; None: none."""
    names = ("job_id", "status", "cause", "start", "end")
    if all(given[name] is None for name in names):  # type: ignore[literal-required] # each is a key of it
        return None
    found = execution.ExecutionFilter(
        job_id=given["job_id"] or "",
        status=given["status"] or "",
        cause=given["cause"] or "",
        to=timestamp(given["end"]),
    )
    since = timestamp(given["start"])
    if since is not None:
        getattr(found, "from").CopyFrom(since)
    return found
