"""`dts job`: create, get, list, update, delete; what changes a job's state is beside it, in control.py and bulk.py."""

from __future__ import annotations

import json
from typing import Unpack

import click

from dts.cli import bulk, control, exits, jobspec, options
from dts.cli.ids import many_ids, one_id, the_id, the_ids
from dts.cli.jobspec import ScheduleOptions, SpecOptions, schedule_options, spec_options
from dts.cli.jobview import print_job, print_jobs, print_revisions
from dts.cli.options import output_option, watch_option
from dts.cli.session import client, like_the_original, print_message, print_token
from dts.cli.show import caret, redraw
from dts.cli.tasks import TaskOptions, task_of, task_options
from dts.cli.where import WhereOptions, check_either, filter_of, tell, where_options
from dts.client import ApiError, DtsClient
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.gen.job.v1 import job_pb2 as job
from dts.wirejson import to_json

RECENT = 5  # executions that `job get` shows
CLEARABLE = [
    "name",
    "description",
    "cron_expression",
    "metadata",
    "task",
    "schedules",
    "requirements",
    "policies",
    "tags",
]


class JobOptions(TaskOptions, SpecOptions, ScheduleOptions):
    """All options that say what a job is."""


class UpdateOptions(JobOptions, WhereOptions):
    """... and which jobs."""


@click.group("job")
def group() -> None:
    """Create, read, change, run and delete jobs."""


for _command in (*control.COMMANDS, *bulk.COMMANDS):
    group.add_command(_command)


@group.command("create")
@spec_options
@schedule_options
@task_options
@click.option("--id", "id_", metavar="ID", help="An id of your choice: a repeat is the same create.")
@click.option("--request-id", help="Makes a repeated create the same create.")
@click.option("--paused", is_flag=True, help="Create it paused.")
@output_option
def create(
    id_: str | None, request_id: str | None, paused: bool, output: str | None, **given: Unpack[JobOptions]
) -> int:
    """Create a job.

    \b
    dts job create --name hello --cron '@every 10s' --shell 'echo hello'
    dts job create --name report --cron '0 9 * * MON-FRI' --tz Europe/Paris --http https://example.com/report
    dts job create --name once --cron '@at 2027-01-01T09:00[Europe/Paris]' -- /usr/bin/backup --full
    """
    request = job.CreateJobRequest(id=id_ or "", request_id=request_id or "")
    jobspec.fill_basics(request, given)
    jobspec.fill_schedule(request, given)
    task = task_of(given)
    if task is not None:
        request.task.CopyFrom(task)
    if jobspec.has_policies(given):
        jobspec.fill_policies(request.policies, given)
    if jobspec.has_requirements(given):
        jobspec.fill_requirements(request.requirements, given)
    if paused:
        request.status = job.PAUSED
    with client() as dts:
        try:
            created = dts.create_job(request)
        except ApiError as error:
            _point_at(error, given["cron"])
            raise
    if not print_message(job.CreateJobResponse(job_id=created), output):
        click.echo(f"Job created with ID: {created}")
    return exits.OK


def _point_at(error: ApiError, expressions: tuple[str, ...]) -> None:
    """Under the one expression that was sent, a caret at the column that the refusal names."""
    _, found, rest = error.message.partition("column ")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if error.code == "INVALID_ARGUMENT" and found and digits and len(expressions) == 1 and "\n" not in expressions[0]:
        raise ApiError(error.code, f"{error.message}\n{caret(expressions[0], int(digits))}", error.address) from None


@group.command("get")
@one_id
@watch_option
@output_option
def get(id_argument: str | None, id_option: str | None, watch: bool, output: str | None) -> int:
    """Show a job, its next runs and its last executions."""
    id = the_id(id_argument, id_option)
    with client() as dts:
        redraw(lambda: _show(dts, id, output), watch)
    return exits.OK


def _show(dts: DtsClient, id: str, output: str | None) -> None:
    found = dts.get_job(id)
    if like_the_original(output):
        print_as_the_original(found)
    elif not print_message(found, output):
        recent = dts.list_executions(execution.ListExecutionsRequest(job_id=id, page_size=RECENT))
        print_job(found, recent.executions)


def print_as_the_original(found: job.JobResponse) -> None:
    click.echo(json.dumps(to_json(found), indent=2, ensure_ascii=False))


@group.command("list")
@click.option("--page-size", type=options.integer, default=250, show_default=True, help="1 to 250.")
@click.option("--status", help="A status in any case, or 'active': neither paused, cancelled nor completed.")
@click.option("--last-id", metavar="TOKEN", help="The page after this one: what 'Next page token' said.")
@click.option("--last-status", help="Of the last execution that ended: failed, lost, completed, ...")
@click.option("--tag", help="Jobs with this tag.")
@click.option("--name", "name_contains", help="Jobs whose name contains this.")
@click.option("--all", "everything", is_flag=True, help="All pages.")
@watch_option
@output_option
def list_(
    page_size: int,
    status: str | None,
    last_id: str | None,
    last_status: str | None,
    tag: str | None,
    name_contains: str | None,
    everything: bool,
    watch: bool,
    output: str | None,
) -> int:
    """List jobs, a page at a time.

    \b
    dts job list --last-status failed
    dts job list --status active --name report
    """
    request = job.ListJobsRequest(
        page_size=page_size if 0 < page_size <= 250 else 250,
        status=status or "",
        last_id=last_id or "",
        last_status=last_status or "",
        tag=tag or "",
        name_contains=name_contains or "",
    )
    with client() as dts:
        redraw(lambda: _list(dts, request, everything, output), watch)
    return exits.OK


def _list(dts: DtsClient, request: job.ListJobsRequest, everything: bool, output: str | None) -> None:
    page = dts.list_jobs(request)
    if everything and page.next_page:
        rest = job.ListJobsRequest()
        rest.CopyFrom(request)
        rest.last_id = page.next_page
        page.jobs.extend(dts.iter_jobs(rest))
        page.next_page = ""
        page.total = max(page.total, len(page.jobs))
    if print_message(page, output):
        return
    if like_the_original(output):
        click.echo(f"Total jobs: {page.total}")
        for each in page.jobs:
            print_as_the_original(each)
            click.echo("---")
        click.echo(f"Next page token: {page.next_page}")
        return
    narrow = request.status or request.last_status or request.tag or request.name_contains
    click.echo(f"Total jobs: {'at least ' if narrow and page.next_page else ''}{page.total}")
    if page.jobs:
        print_jobs(page.jobs)
    print_token(page.next_page, output)


@group.command("update")
@one_id
@spec_options
@schedule_options
@task_options
@click.option("--status", help="paused pauses, cancelled cancels, scheduled or pending resumes.")
@click.option("--revision", type=options.revision, help="Refuse unless the job is at this revision.")
@click.option("--clear", "cleared", multiple=True, type=click.Choice(CLEARABLE), help="Empty this field. Repeatable.")
@where_options
@output_option
def update(
    id_argument: str | None,
    id_option: str | None,
    status: str | None,
    revision: int | None,
    cleared: tuple[str, ...],
    output: str | None,
    **given: Unpack[UpdateOptions],
) -> int:
    """Change a job. What is not named stays as it is; a program for it to run goes after `--`.

    \b
    dts job update ID --cron '0 6 * * *' --tz Europe/Paris
    dts job update --where tag=nightly --priority 5 --dry-run
    """
    argv, chosen = given["argv"], filter_of(given)
    if (
        id_option or chosen is not None
    ) and id_argument:  # `--id ID -- PROGRAM ARG`: what looks like an id is the program
        given["argv"], id_argument = (id_argument, *argv), None
    check_either([id_option] if id_option else [], chosen)
    id = the_id(id_argument, id_option) if chosen is None else ""
    request = job.UpdateJobRequest(id=id, revision=revision or 0)
    request.status = jobspec.status_of(status)
    jobspec.fill_basics(request, given)
    jobspec.fill_schedule(request, given)
    task = task_of(given)
    if task is not None:
        request.task.CopyFrom(task)
    zeros = {"priority": given["priority"], "max_retries": given["retries"], "timeout": given["timeout"]}
    request.update_mask.paths.extend([*cleared, *(name for name, value in zeros.items() if value == 0)])
    if chosen is not None or given["dry_run"]:
        return _update_many(request, chosen, given, output)
    with client() as dts:
        _merge(dts, request, given)
        try:
            changed = dts.update_job(request)
        except ApiError as error:
            _point_at(error, given["cron"])
            raise
    if like_the_original(output):
        print_as_the_original(changed)
    elif not print_message(changed, output):
        print_job(changed, [])
    return exits.OK


def _update_many(
    request: job.UpdateJobRequest, chosen: job.JobFilter | None, given: UpdateOptions, output: str | None
) -> int:
    """The same change to all jobs that fit, or a dry run of one. Policies and requirements are set whole: job by job."""
    dry_run = given["dry_run"]
    with client() as dts:
        if chosen is None:
            _merge(dts, request, given)
            asked = job.BatchUpdateJobsRequest(jobs=[request], dry_run=dry_run)
        elif jobspec.has_policies(given) or jobspec.has_requirements(given):
            raise click.UsageError("policies and requirements are set job by job: not with --where or --all.")
        else:
            asked = job.BatchUpdateJobsRequest(filter=chosen, change=request, dry_run=dry_run)
        done = dts.update_matching_jobs(asked)
    if not print_message(done, output):
        tell("updated", "update", done.ids or [request.id], len(done.revisions), dry_run=dry_run)
    return exits.OK


def _merge(dts: DtsClient, request: job.UpdateJobRequest, given: JobOptions) -> None:
    """Policies and requirements are set whole: what is not named is taken from the job, at the revision it was read."""
    if not (jobspec.has_policies(given) or jobspec.has_requirements(given)):
        return
    current = dts.get_job(request.id)
    request.revision = request.revision or current.revision
    if jobspec.has_policies(given):
        request.policies.CopyFrom(current.policies)
        jobspec.fill_policies(request.policies, given)
    if jobspec.has_requirements(given):
        request.requirements.CopyFrom(current.requirements)
        jobspec.fill_requirements(request.requirements, given)


@group.command("delete")
@many_ids
@where_options
@output_option
def delete(
    id_arguments: tuple[str, ...], id_option: str | None, output: str | None, **given: Unpack[WhereOptions]
) -> int:
    """Delete jobs and end what they have open; their history stays. Several: all or none.

    \b
    dts job delete --where tag=scratch --dry-run
    """
    chosen = filter_of(given)
    check_either([*id_arguments, *([id_option] if id_option else [])], chosen)
    ids = the_ids(id_arguments, id_option) if chosen is None else []
    with client() as dts:
        if chosen is not None or given["dry_run"]:
            done = dts.delete_matching_jobs(
                job.BatchDeleteJobsRequest(ids=ids, filter=chosen, dry_run=given["dry_run"])
            )
            if not print_message(done, output):
                tell("deleted", "delete", done.ids or ids, done.deleted, dry_run=given["dry_run"])
            return exits.OK
        if len(ids) == 1:
            deleted = dts.delete_job(ids[0])
            if not print_message(job.DeleteJobResponse(success=deleted), output):
                click.echo(f"Job deleted: {str(deleted).lower()}")
        else:
            count = dts.batch_delete_jobs(ids)
            if not print_message(job.BatchDeleteJobsResponse(deleted=count), output):
                click.echo(f"Jobs deleted: {count}")
    return exits.OK


@group.command("revisions")
@one_id
@click.option("--page-size", type=options.integer, default=0, help="How many; 0: the server's default.")
@click.option("--before", type=options.revision, default=0, metavar="REVISION", help="Those before this one.")
@output_option
def revisions(id_argument: str | None, id_option: str | None, page_size: int, before: int, output: str | None) -> int:
    """What a job has been, newest first."""
    with client() as dts:
        found = dts.list_revisions(the_id(id_argument, id_option), page_size, before)
    if not print_message(found, output):
        print_revisions(found.revisions)
    return exits.OK
