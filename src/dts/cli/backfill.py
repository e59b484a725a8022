"""`dts backfill`: the instants of a stretch of a job's schedule, run by hand."""

from __future__ import annotations

import sys
import time

import click

from dts.cli import exits, options
from dts.cli.ids import one_id, the_id
from dts.cli.options import now_ms, output_option
from dts.cli.session import client, instant_of, print_message, timestamp, wants_table
from dts.cli.show import REDRAW_S, moment, span
from dts.cli.table import print_facts, print_table
from dts.cli.where import dry_run_option
from dts.client import DtsClient
from dts.gen.job.v1 import job_pb2 as job
from dts.schedule import format_instant

POLL_S = (0.1, 2.0)  # first and longest wait between two looks at one that is awaited
ENDS = ("completed", "failed", "skipped", "cancelled", "lost")


class Backfills(click.Group):
    """What is none of the group's commands is a job: `dts backfill JOB` is `dts backfill start JOB`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["start", *args]
        return super().resolve_command(ctx, args)


@click.group("backfill", cls=Backfills)
def group() -> None:
    """Run the instants of a job's schedule in a range: dts backfill JOB --from 2026-03-01 --to 2026-03-29

    Each instant is an execution of cause 'backfill', whether it ran before or not; its verdict stays as it was. The
    task gets the instant as its scheduled time.
    """


@group.command("start")
@click.argument("job_id", metavar="JOB")
@click.option("--from", "start", type=options.instant, required=True, help="The first instant: 2026-03-01, -7d, ...")
@click.option("--to", "end", type=options.instant, help="Instants before then; now unless named.")
@click.option("--parallel", type=options.amount, default=0, help="How many run or wait at once; 10 unless named.")
@click.option("--request-id", default="", help="Makes a repeated start the same backfill.")
@click.option("--wait", is_flag=True, help="Wait for its end; the exit code is 0 if all completed, else 1.")
@dry_run_option
@output_option
def start(
    job_id: str,
    start: int,
    end: int | None,
    parallel: int,
    request_id: str,
    wait: bool,
    dry_run: bool,
    output: str | None,
) -> int:
    """Start a backfill. It goes on by itself, over restarts too."""
    request = job.StartBackfillRequest(
        id=job_id, to=timestamp(end), parallel=parallel, request_id=request_id, dry_run=dry_run
    )
    getattr(request, "from").CopyFrom(timestamp(start))
    with client() as dts:
        answer = dts.start_backfill(request)
        if dry_run:
            if not print_message(answer, output):
                _print_plan(answer)
            return exits.OK
        if wait:
            click.echo(f"Backfill started with ID: {answer.backfill.id}", err=not wants_table(output))
            return _await_end(dts, answer.backfill.id, output)
    if not print_message(answer.backfill, output):
        click.echo(f"Backfill started with ID: {answer.backfill.id}")
        click.echo(f"{answer.backfill.total} instants, {answer.backfill.parallel} at a time")
    return exits.OK


def _print_plan(answer: job.StartBackfillResponse) -> None:
    total, first = answer.backfill.total, [format_instant(instant_of(each)) for each in answer.first]
    last = format_instant(instant_of(answer.last))
    for each in first:
        click.echo(each)
    if total > len(first) + 1:
        click.echo("...")
    if total > len(first):
        click.echo(last)
    click.echo(f"Would run: {total} instants, {answer.backfill.parallel} at a time", err=True)


@group.command("status")
@one_id
@click.option("-w", "--watch", is_flag=True, help="Draw it anew every 2 seconds until it is over.")
@output_option
def status(id_argument: str | None, id_option: str | None, watch: bool, output: str | None) -> int:
    """How far a backfill is."""
    id = the_id(id_argument, id_option)
    with client() as dts:
        while True:
            found = dts.get_backfill(id)
            if watch and sys.stdout.isatty():
                click.clear()
            if not print_message(found, output):
                print_backfill(found)
            if not watch or _over(found):
                return exits.OK
            sys.stdout.flush()
            time.sleep(REDRAW_S)


@group.command("list")
@click.option("--job", "job_id", default="", help="Of this job.")
@click.option("--page-size", type=options.integer, default=50, show_default=True, help="1 to 250.")
@click.option("--last-id", metavar="TOKEN", default="", help="The page after this one: what 'Next page token' said.")
@output_option
def list_(job_id: str, page_size: int, last_id: str, output: str | None) -> int:
    """Backfills that run or ran, the latest first."""
    with client() as dts:
        page = dts.list_backfills(job.ListBackfillsRequest(job_id=job_id, page_size=page_size, last_id=last_id))
    if print_message(page, output):
        return exits.OK
    if page.backfills:
        heads = ["ID", "STATE", "FROM", "TO", "PROGRESS", "OPEN", "FAILED"]
        print_table(heads, [_row(each) for each in page.backfills], cuttable=["ID"])
    else:
        click.echo("No backfills.")
    if page.next_page:
        click.echo(f"Next page token: {page.next_page}")
    return exits.OK


def _row(found: job.Backfill) -> list[str]:
    begin, end = format_instant(instant_of(getattr(found, "from"))), format_instant(instant_of(found.to))
    ended = f"{_ended(found)}/{found.total}"
    return [found.id, found.state, begin, end, ended, str(found.open), str(found.failed + found.lost)]


@group.command("cancel")
@one_id
@click.option("--reason", default="", help="Why, for its record.")
@dry_run_option
@output_option
def cancel(id_argument: str | None, id_option: str | None, reason: str, dry_run: bool, output: str | None) -> int:
    """Start nothing more of a backfill, and end what of it is open."""
    with client() as dts:
        found = dts.cancel_backfill(the_id(id_argument, id_option), reason, dry_run=dry_run)
    if print_message(found, output):
        return exits.OK
    print_backfill(found)
    if dry_run:
        left = found.total - found.started
        click.echo(f"Would cancel: {found.open} executions that are open, {left} that have not begun", err=True)
    return exits.OK


def _ended(found: job.Backfill) -> int:
    return found.started - found.open


def _over(found: job.Backfill) -> bool:
    return found.state != "RUNNING" and not found.open


def print_backfill(found: job.Backfill) -> None:
    """A backfill for a person."""
    ended, began = _ended(found), instant_of(found.began_time)
    percent = f" ({100 * ended // found.total} %)" if found.total else ""
    left = ""
    if found.state == "RUNNING" and ended:
        left = f"about {span((now_ms() - began) * (found.total - ended) // ended)}"
    print_facts(
        [
            ("Backfill", found.id),
            ("State", f"{found.state}: {found.reason}" if found.reason else found.state),
            ("Job", found.job_id),
            ("From", format_instant(instant_of(getattr(found, "from")))),
            ("To", f"{format_instant(instant_of(found.to))} (exclusive)"),
            ("Progress", f"{ended} of {found.total} ended{percent}"),
            ("Open", f"{found.open} (at most {found.parallel} at a time)"),
            ("Ended", ", ".join(f"{getattr(found, name)} {name}" for name in ENDS if getattr(found, name))),
            ("Began", moment(began)),
            ("Over", moment(instant_of(found.end_time))),
            ("Left", left),
        ]
    )


def _await_end(dts: DtsClient, id: str, output: str | None) -> int:
    wait = POLL_S[0]
    while not _over(found := dts.get_backfill(id)):
        time.sleep(wait)
        wait = min(wait * 1.5, POLL_S[1])
    if not print_message(found, output):
        print_backfill(found)
    return exits.OK if found.completed == found.total else exits.FINDINGS
