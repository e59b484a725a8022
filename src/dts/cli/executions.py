"""`dts execution`, `dts logs` and `dts events`."""

from __future__ import annotations

import sys
import time
from typing import Unpack

import click

from dts.cli import exits, options
from dts.cli.execview import TERMINAL, print_execution, print_executions, why
from dts.cli.ids import one_id, the_id
from dts.cli.many import cancel_many, retry_many
from dts.cli.options import output_option, watch_option
from dts.cli.session import client, print_message, print_token, timestamp, wants_table
from dts.cli.show import redraw
from dts.cli.table import clean
from dts.cli.tasks import TaskOptions, changed_task, task_of, task_options
from dts.cli.where import ExecutionOptions, execution_filter, execution_options
from dts.client import ApiError, DtsClient
from dts.client.base import new_request_id
from dts.gen.execution.v1 import execution_pb2 as execution

POLL_S = (0.05, 1.0)  # first and longest wait between two looks at an execution that is awaited


class RetryOptions(TaskOptions, ExecutionOptions):
    """What to run instead, and which executions."""


@click.group("execution")
def group() -> None:
    """Executions: what ran, what it wrote and how it ended."""


@group.command("get")
@one_id
@watch_option
@output_option
def get(id_argument: str | None, id_option: str | None, watch: bool, output: str | None) -> int:
    """Show an execution: why, its attempts, the end of its output."""
    id = the_id(id_argument, id_option)
    with client() as dts:
        redraw(lambda: _show(dts, id, output), watch)
    return exits.OK


def _show(dts: DtsClient, id: str, output: str | None) -> None:
    found = dts.get_execution(id)
    if not print_message(found, output):
        print_execution(found, _output_of(dts, found) if found.attempt else None)


def _output_of(dts: DtsClient, shown: execution.ExecutionResponse) -> execution.GetOutputResponse | None:
    try:
        return dts.get_output(shown.id)
    except ApiError as error:
        if error.code != "NOT_FOUND":
            raise
        return None


@group.command("list")
@click.option("--job", "job_id", help="Of this job.")
@click.option("--status", help="A status in any case, 'open', or 'failures' (failed, lost, skipped, cancelled).")
@click.option("--cause", help="schedule, manual, retry or backfill.")
@click.option("--from", "start", type=options.instant, help="Scheduled from then on: -12h, 2026-03-29, ...")
@click.option("--to", "end", type=options.instant, help="Scheduled before then.")
@click.option("--page-size", type=options.integer, default=50, show_default=True, help="1 to 250.")
@click.option("--last-id", metavar="TOKEN", help="The page after this one: what 'Next page token' said.")
@click.option("--all", "everything", is_flag=True, help="All pages.")
@watch_option
@output_option
def list_(
    job_id: str | None,
    status: str | None,
    cause: str | None,
    start: int | None,
    end: int | None,
    page_size: int,
    last_id: str | None,
    everything: bool,
    watch: bool,
    output: str | None,
) -> int:
    """List executions, newest first.

    \b
    dts execution list --status failures --from -12h
    """
    request = execution.ListExecutionsRequest(
        page_size=page_size,
        job_id=job_id or "",
        status=status or "",
        last_id=last_id or "",
        to=timestamp(end),
        cause=cause or "",
    )
    since = timestamp(start)
    if since is not None:
        getattr(request, "from").CopyFrom(since)
    with client() as dts:
        redraw(lambda: _list(dts, request, everything, output), watch)
    return exits.OK


def _list(dts: DtsClient, request: execution.ListExecutionsRequest, everything: bool, output: str | None) -> None:
    page = dts.list_executions(request)
    if everything and page.next_page:
        rest = execution.ListExecutionsRequest()
        rest.CopyFrom(request)
        rest.last_id = page.next_page
        page.executions.extend(dts.iter_executions(rest))
        page.next_page = ""
    if print_message(page, output):
        return
    click.echo(f"Total executions: {page.total}{' or more' if page.total_is_lower_bound else ''}")
    if page.executions:
        print_executions(page.executions)
    print_token(page.next_page, output)


@group.command("cancel")
@one_id
@click.option("--reason", default="", help="Why, for its record.")
@click.option("--request-id", default="", help="Of many: makes a repeated cancel the same cancel.")
@execution_options
@output_option
def cancel(
    id_argument: str | None,
    id_option: str | None,
    reason: str,
    request_id: str,
    output: str | None,
    **given: Unpack[ExecutionOptions],
) -> int:
    """End an open execution as CANCELLED, or all that fit.

    \b
    dts execution cancel --job ID --status queued --reason 'not today' --dry-run
    """
    chosen = execution_filter(given)
    if chosen is not None:
        if id_argument or id_option:
            raise click.UsageError("an ID is given beside a filter: give one of the two.")
        asked = execution.CancelExecutionsRequest(
            filter=chosen, reason=reason, request_id=request_id or new_request_id(), dry_run=given["dry_run"]
        )
        return cancel_many(asked, output)
    with client() as dts:
        found = dts.cancel_execution(the_id(id_argument, id_option), reason, dry_run=given["dry_run"])
    if not print_message(found, output):
        print_executions([found])
        if given["dry_run"]:
            click.echo("Would cancel: 1 execution", err=True)
    return exits.OK


@group.command("retry")
@one_id
@task_options
@click.option("--request-id", default="", help="Makes a repeated retry the same retry.")
@click.option("--wait", is_flag=True, help="Wait for its end; the exit code is 0 if it completed, else 1.")
@execution_options
@output_option
def retry(
    id_argument: str | None,
    id_option: str | None,
    request_id: str,
    wait: bool,
    output: str | None,
    **given: Unpack[RetryOptions],
) -> int:
    """Run an ended execution's job again, as a new execution; the old verdict stays. Or those of all that fit.

    \b
    dts execution retry --job ID --status failed --from -12h --dry-run
    """
    chosen = execution_filter(given)
    other = id_argument is not None and "@" not in id_argument
    if id_argument and (id_option or (chosen is not None and other)):  # `--id ID -- PROGRAM ARG`: it is the program
        given["argv"], id_argument = (id_argument, *given["argv"]), None
    if chosen is not None:
        if id_argument or id_option or wait:
            raise click.UsageError("an ID or --wait is given beside a filter: give one of the two.")
        asked = execution.RetryExecutionsRequest(
            filter=chosen, task=task_of(given), request_id=request_id or new_request_id(), dry_run=given["dry_run"]
        )
        return retry_many(asked, output)
    id = the_id(id_argument, id_option)
    with client() as dts:
        task = changed_task(lambda: dts.get_job(id.partition("@")[0]), given)
        if given["dry_run"]:
            dts.would_retry_execution(id)
            click.echo(f"Would retry: {id}", err=True)
            return exits.OK
        new = dts.retry_execution(id, task, request_id)
        if wait:
            return await_started(dts, new, output)
    if not print_message(execution.RetryExecutionResponse(execution_id=new), output):
        click.echo(f"Execution started with ID: {new}")
    return exits.OK


@group.command("output")
@one_id
@click.option("--attempt", type=options.amount, default=0, help="Which attempt; 0: the last.")
@output_option
def output_(id_argument: str | None, id_option: str | None, attempt: int, output: str | None) -> int:
    """What is kept of an attempt's output."""
    with client() as dts:
        _print_output(dts, the_id(id_argument, id_option), attempt, output)
    return exits.OK


def _print_output(dts: DtsClient, id: str, attempt: int, output: str | None) -> None:
    found = dts.get_output(id, attempt)
    if print_message(found, output):
        return
    _write(found.head)
    _say_cut(found.cut_bytes)
    _write(found.tail)


def _write(data: bytes) -> None:
    """Bytes as the task wrote them."""
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _say_cut(size: int) -> None:
    if size:
        sys.stdout.flush()
        click.echo(f"\n[... {size} bytes were not kept ...]", err=True)


@click.command("logs")
@click.argument("id", metavar="EXECUTION|JOB")
@click.option("-f", "--follow", "following", is_flag=True, help="Show it as it is written, until the execution ends.")
@click.option("--attempt", type=options.amount, default=0, help="Which attempt; 0: the last.")
def logs(id: str, following: bool, attempt: int) -> int:
    """What an execution wrote, or the newest execution of a job."""
    with client() as dts:
        execution_id = id if "@" in id else _newest(dts, id)
        if following:
            return exits.OK if follow(dts, execution_id, attempt) in ("COMPLETED", "") else exits.FINDINGS
        _print_output(dts, execution_id, attempt, None)
    return exits.OK


def _newest(dts: DtsClient, job_id: str) -> str:
    found = dts.list_executions(execution.ListExecutionsRequest(job_id=job_id, page_size=1)).executions
    if not found:
        dts.get_job(job_id)  # says so if there is no such job
        raise ApiError("NOT_FOUND", f"job {job_id!r} has no execution yet; run it with: dts job run {job_id}")
    return found[0].id


def follow(dts: DtsClient, id: str, attempt: int) -> str:
    """Write an execution's output as it comes. The status it ended with, '' if the server did not say."""
    status = ""
    for part in dts.follow_output(id, attempt):
        _say_cut(part.cut_bytes)
        _write(part.data)
        status = part.status or status
    return status


def await_started(dts: DtsClient, id: str, output: str | None) -> int:
    """Say which execution it is, then wait for its end."""
    click.echo(f"Execution started with ID: {id}", err=not wants_table(output))
    return await_end(dts, id, output)


def await_end(dts: DtsClient, id: str, output: str | None, *, err: bool = False) -> int:
    """Wait until an execution has ended and say how. 0 if it completed, else 1."""
    wait = POLL_S[0]
    while True:
        found = dts.get_execution(id)
        if found.status in TERMINAL:
            break
        time.sleep(wait)
        wait = min(wait * 1.5, POLL_S[1])
    if not print_message(found, output):
        reason = clean(why(found))
        click.echo(f"{found.status}{f': {reason}' if reason else ''}", err=err)
    return exits.OK if found.status == "COMPLETED" else exits.FINDINGS
