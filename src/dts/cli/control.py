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
from dts.cli.tasks import TaskOptions, task_of, task_options
from dts.gen.job.v1 import job_pb2 as job


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
@click.option("--revision", type=options.revision, default=0, help="Refuse unless the job is at this revision.")
@output_option
def pause(
    id_arguments: tuple[str, ...],
    id_option: str | None,
    note: str,
    by: str | None,
    until: int | None,
    revision: int,
    output: str | None,
) -> int:
    """Stop the schedules of jobs for a while. Several: all or none."""
    ids = the_ids(id_arguments, id_option)
    who = _me() if by is None else by
    if revision and len(ids) > 1:
        raise click.UsageError("--revision is for one job.")
    with client() as dts:
        if len(ids) == 1:
            request = job.PauseJobRequest(id=ids[0], note=note, by=who, until=timestamp(until), revision=revision)
            found = dts.pause_job(request)
            if not print_message(found, output):
                print_jobs([found])
        else:
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
@click.option("--revision", type=options.revision, default=0, help="Refuse unless the job is at this revision.")
@output_option
def resume(id_arguments: tuple[str, ...], id_option: str | None, revision: int, output: str | None) -> int:
    """End the pauses of jobs. Several: all or none."""
    ids = the_ids(id_arguments, id_option)
    if revision and len(ids) > 1:
        raise click.UsageError("--revision is for one job.")
    with client() as dts:
        if len(ids) == 1:
            found = dts.resume_job(ids[0], revision)
            if not print_message(found, output):
                print_jobs([found])
        else:
            revisions = dts.batch_resume_jobs(ids)
            if not print_message(job.BatchResumeJobsResponse(revisions=revisions), output):
                click.echo(f"Jobs resumed: {len(revisions)}")
    return exits.OK


@click.command("run")
@one_id
@task_options
@click.option("--request-id", default="", help="Makes a repeated run the same run.")
@click.option("--wait", is_flag=True, help="Wait for its end; the exit code is 0 if it completed, else 1.")
@click.option("-f", "--follow", "following", is_flag=True, help="Show its output as it is written; then as --wait.")
@output_option
def run(
    id_argument: str | None,
    id_option: str | None,
    request_id: str,
    wait: bool,
    following: bool,
    output: str | None,
    **given: Unpack[TaskOptions],
) -> int:
    """Run a job now, beside its schedule; with task options, with another task just this once."""
    if id_option and id_argument:  # `--id ID -- PROGRAM ARG`: what looks like an id is the program
        given["argv"], id_argument = (id_argument, *given["argv"]), None
    id = the_id(id_argument, id_option)
    with client() as dts:
        execution_id = dts.run_job(id, task_of(given), request_id)
        if following:
            click.echo(f"Execution started with ID: {execution_id}", err=True)
            follow(dts, execution_id, 0)
            return await_end(dts, execution_id, output, err=True)
        if not wait:
            if not print_message(job.RunJobResponse(execution_id=execution_id), output):
                click.echo(f"Execution started with ID: {execution_id}")
            return exits.OK
        return await_started(dts, execution_id, output)


COMMANDS = (cancel, pause, resume, run)
