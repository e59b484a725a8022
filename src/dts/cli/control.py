"""Commands of `dts job` that act on it: cancel, pause, resume, run."""

from __future__ import annotations

import getpass
import socket
from typing import Unpack

import click

from dts.cli import exits, options
from dts.cli.executions import await_end, await_started, follow
from dts.cli.ids import many_ids, one_id, the_id, the_ids
from dts.cli.jobview import print_jobs
from dts.cli.options import output_option
from dts.cli.session import client, print_message, timestamp
from dts.cli.tasks import TaskOptions, changed_task, task_options, task_words
from dts.cli.where import WhereOptions, check_either, dry_run_option, filter_of, tell, where_options
from dts.client import DtsClient
from dts.gen.job.v1 import job_pb2 as job

CATCH_UP = click.Choice(["skip", "newest", "all"])


@click.command("cancel")
@one_id
@output_option
def cancel(id_argument: str | None, id_option: str | None, output: str | None) -> int:
    """End a job for good: its schedule, and its open executions as CANCELLED."""
    with client() as dts:
        done = dts.cancel_job(the_id(id_argument, id_option))
    if not print_message(done, output):
        click.echo(f"Job cancelled: {str(done.success).lower()}{f' ({done.message})' if done.message else ''}")
    return exits.OK


@click.command("pause")
@many_ids
@click.option("--note", default="", help="Why, for whoever finds it paused.")
@click.option("--by", default=None, help="Who; you@this-machine unless named.")
@click.option("--until", type=options.instant, help="When it ends by itself: RFC 3339 or 'in 2h'.")
@click.option("--catch-up", type=CATCH_UP, help="With --until: what was missed is skipped, or runs then.")
@click.option("--revision", type=options.revision, default=0, help="Refuse unless the job is at this revision.")
@where_options
@output_option
def pause(
    id_arguments: tuple[str, ...],
    id_option: str | None,
    note: str,
    by: str | None,
    until: int | None,
    catch_up: str | None,
    revision: int,
    output: str | None,
    **given: Unpack[WhereOptions],
) -> int:
    """Stop the schedules of jobs for a while. Several: all or none.

    \b
    dts job pause --where tag=nightly --until 'in 2h' --note 'database upgrade'
    """
    chosen, who = filter_of(given), _me() if by is None else by
    if chosen is not None or given["dry_run"]:
        named = [] if chosen is not None else the_ids(id_arguments, id_option)
        check_either([*id_arguments, *([id_option] if id_option else [])], chosen)
        request = job.BatchPauseJobsRequest(
            ids=named,
            note=note,
            by=who,
            until=timestamp(until),
            filter=chosen,
            dry_run=given["dry_run"],
            catch_up=catch_up or "",
        )
        with client() as dts:
            done = dts.pause_matching_jobs(request)
        if not print_message(done, output):
            tell("paused", "pause", done.ids or named, len(done.revisions), dry_run=given["dry_run"])
        return exits.OK
    ids = the_ids(id_arguments, id_option)
    if revision and len(ids) > 1:
        raise click.UsageError("--revision is for one job.")
    with client() as dts:
        if len(ids) == 1:
            one = job.PauseJobRequest(
                id=ids[0], note=note, by=who, until=timestamp(until), revision=revision, catch_up=catch_up or ""
            )
            found = dts.pause_job(one)
            if not print_message(found, output):
                print_jobs([found])
        else:
            if catch_up:
                raise click.UsageError("--catch-up is for one job, or for jobs by filter.")
            revisions = dts.batch_pause_jobs(ids, note, who, timestamp(until))
            if not print_message(job.BatchPauseJobsResponse(revisions=revisions), output):
                click.echo(f"Jobs paused: {len(revisions)}")
    return exits.OK


def _me() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()


@click.command("resume")
@many_ids
@click.option("--catch-up", type=CATCH_UP, help="What was missed: skip (the default), newest or all runs.")
@click.option("--revision", type=options.revision, default=0, help="Refuse unless the job is at this revision.")
@where_options
@output_option
def resume(
    id_arguments: tuple[str, ...],
    id_option: str | None,
    catch_up: str | None,
    revision: int,
    output: str | None,
    **given: Unpack[WhereOptions],
) -> int:
    """End the pauses of jobs, and suspensions after failures. Several: all or none.

    \b
    dts job resume nightly --catch-up newest
    """
    chosen = filter_of(given)
    if chosen is not None or given["dry_run"]:
        named = [] if chosen is not None else the_ids(id_arguments, id_option)
        check_either([*id_arguments, *([id_option] if id_option else [])], chosen)
        request = job.BatchResumeJobsRequest(
            ids=named, filter=chosen, dry_run=given["dry_run"], catch_up=catch_up or ""
        )
        with client() as dts:
            done = dts.resume_matching_jobs(request)
        if not print_message(done, output):
            tell("resumed", "resume", done.ids or named, len(done.revisions), dry_run=given["dry_run"])
        return exits.OK
    ids = the_ids(id_arguments, id_option)
    if revision and len(ids) > 1:
        raise click.UsageError("--revision is for one job.")
    with client() as dts:
        if len(ids) == 1:
            found = dts.resume_job(ids[0], revision, catch_up or "")
            if not print_message(found, output):
                print_jobs([found])
        else:
            revisions = dts.batch_resume_jobs(ids, catch_up or "")
            if not print_message(job.BatchResumeJobsResponse(revisions=revisions), output):
                click.echo(f"Jobs resumed: {len(revisions)}")
    return exits.OK


@click.command("run")
@one_id
@task_options
@click.option("--request-id", default="", help="Makes a repeated run the same run.")
@click.option("--wait", is_flag=True, help="Wait for its end; the exit code is 0 if it completed, else 1.")
@click.option("-f", "--follow", "following", is_flag=True, help="Show its output as it is written; then as --wait.")
@dry_run_option
@output_option
def run(
    id_argument: str | None,
    id_option: str | None,
    request_id: str,
    wait: bool,
    following: bool,
    dry_run: bool,
    output: str | None,
    **given: Unpack[TaskOptions],
) -> int:
    """Run a job now, beside its schedule; with task options, with another task just this once.

    Options that belong to a kind of task (--env, --args, --kwargs, --body, ...) without naming the task itself change
    the job's own task, just this once.

    \b
    dts job run ID --env DAY=2026-03-29 --wait
    dts job run ID --kwargs '{"day": "2026-03-29"}' --dry-run
    """
    if id_option and id_argument:  # `--id ID -- PROGRAM ARG`: what looks like an id is the program
        given["argv"], id_argument = (id_argument, *given["argv"]), None
    id = the_id(id_argument, id_option)
    with client() as dts:
        task = changed_task(lambda: dts.get_job(id), given)
        if dry_run:
            return _would_run(dts, id, task, output)
        execution_id = dts.run_job(id, task, request_id)
        if following:
            click.echo(f"Execution started with ID: {execution_id}", err=True)
            follow(dts, execution_id, 0)
            return await_end(dts, execution_id, output, err=True)
        if not wait:
            if not print_message(job.RunJobResponse(execution_id=execution_id), output):
                click.echo(f"Execution started with ID: {execution_id}")
            return exits.OK
        return await_started(dts, execution_id, output)


def _would_run(dts: DtsClient, id: str, task: job.Task | None, output: str | None) -> int:
    found = dts.would_run_job(id, task)
    if not print_message(found, output):
        click.echo(task_words(found.task, {}))
        click.echo(f"Would run: this, once, by job {id} at revision {found.revision}", err=True)
    return exits.OK


COMMANDS = (cancel, pause, resume, run)
