"""`dts scheduler`: the Scheduler Service's own methods; and `dts status`."""

from __future__ import annotations

from typing import Unpack

import click

from dts.cli import exits, jobspec, options
from dts.cli.ids import one_id, the_id
from dts.cli.jobs import JobOptions
from dts.cli.jobspec import schedule_options, spec_options
from dts.cli.options import output_option, watch_option
from dts.cli.session import client, instant_of, print_message
from dts.cli.show import moment, redraw
from dts.cli.table import clean, print_facts, print_table
from dts.cli.tasks import task_of, task_options
from dts.client import DtsClient
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler_pb


@click.group("scheduler")
def scheduler() -> None:
    """The Scheduler Service: when jobs run next, and what they need."""


@scheduler.command("schedule")
@click.option("--id", "id_", metavar="ID", help="The job's id: stored anew, or replaced.")
@spec_options
@schedule_options
@task_options
@output_option
def schedule(id_: str | None, output: str | None, **given: Unpack[JobOptions]) -> int:
    """Store a job under its id and, unless it has a schedule, run it now."""
    request = scheduler_pb.ScheduleJobRequest()
    stored = request.job
    stored.id = id_ or ""
    jobspec.fill_basics(stored, given)
    jobspec.fill_schedule(stored, given)
    if jobspec.has_policies(given):
        jobspec.fill_policies(stored.policies, given)
    task = task_of(given)
    if task is not None:
        stored.task.CopyFrom(task)
    if jobspec.has_requirements(given):
        jobspec.fill_requirements(stored.requirements, given)
        needs = stored.requirements
        request.resource_requirements.CopyFrom(
            scheduler_pb.Resources(cpu=needs.cpu, memory=needs.memory, storage=needs.storage)
        )
    with client() as dts:
        found = dts.schedule_job(request)
    if not print_message(found, output):
        click.echo(f"Job scheduled with ID: {found.schedule_id}")
        if found.execution_id:
            click.echo(f"Execution started with ID: {found.execution_id}")
    return exits.OK


@scheduler.command("list")
@click.option("--page-size", type=options.integer, default=100, show_default=True, help="1 to 100.")
@click.option("--page-token", default="", metavar="TOKEN", help="What 'Next page token' said.")
@watch_option
@output_option
def list_(page_size: int, page_token: str, watch: bool, output: str | None) -> int:
    """Jobs that have a next instant."""
    with client() as dts:
        redraw(lambda: _list(dts, page_size, page_token, output), watch)
    return exits.OK


def _list(dts: DtsClient, page_size: int, page_token: str, output: str | None) -> None:
    page = dts.list_scheduled_jobs(page_size, page_token)
    if print_message(page, output):
        return
    click.echo(f"Total jobs: {page.total_count}")
    if page.jobs:
        rows = [[each.job_id, each.next_execution_time, _needs(each)] for each in page.jobs]
        print_table(["ID", "NEXT", "NEEDS"], rows, cuttable=["NEEDS"])
    click.echo(f"Next page token: {page.next_page_token}")


def _needs(each: scheduler_pb.GetScheduledJobResponse) -> str:
    needs = each.resource_requirements
    words = [
        f"cpu {needs.cpu}m" if needs.cpu else "",
        f"memory {needs.memory} MiB" if needs.memory else "",
        f"storage {needs.storage} MiB" if needs.storage else "",
    ]
    return ", ".join(word for word in words if word)


@scheduler.command("get")
@one_id
@output_option
def get(id_argument: str | None, id_option: str | None, output: str | None) -> int:
    """When a job runs next."""
    with client() as dts:
        found = dts.get_scheduled_job(the_id(id_argument, id_option))
    if not print_message(found, output):
        next_run = found.next_execution_time or "none"
        print_facts([("ID", found.job_id), ("Next run", next_run), ("Needs", _needs(found))])
    return exits.OK


@scheduler.command("cancel")
@one_id
@output_option
def cancel(id_argument: str | None, id_option: str | None, output: str | None) -> int:
    """The same as `dts job cancel`, by the Scheduler Service."""
    with client() as dts:
        done = dts.cancel_scheduled_job(the_id(id_argument, id_option))
    if not print_message(scheduler_pb.CancelJobResponse(success=done), output):
        click.echo(f"Job cancelled: {str(done).lower()}")
    return exits.OK


@click.command("status")
@watch_option
@output_option
def status(watch: bool, output: str | None) -> int:
    """How the scheduler is: shards, how far it has come, what waits, its clock."""
    with client() as dts:
        redraw(lambda: _status(dts, output), watch)
    return exits.OK


def _status(dts: DtsClient, output: str | None) -> None:
    found = dts.get_status()
    if print_message(found, output):
        return
    click.echo(f"Clock: {clean(found.clock)}")
    rows = [
        [
            str(each.shard),
            str(each.epoch),
            moment(instant_of(each.watermark)),
            str(each.jobs),
            str(each.queued),
            str(each.placed),
            str(each.retrying),
        ]
        for each in found.shards
    ]
    print_table(["SHARD", "EPOCH", "FIRED UP TO", "JOBS", "QUEUED", "PLACED", "RETRYING"], rows)
    for note in found.notes:
        click.echo(f"Note: {clean(note)}")
