"""Jobs as a person reads them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice

import click

from dts.cli.execview import print_executions
from dts.cli.session import instant_of
from dts.cli.show import distance, exact, moment
from dts.cli.table import clean, print_facts, print_table
from dts.cli.tasks import task_words
from dts.errors import InvalidSchedule
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.gen.job.v1 import job_pb2 as job
from dts.model import ScheduleSpec
from dts.schedule import compile as compile_schedule
from dts.schedule import format_instant

NEXT_RUNS = 5


def status_name(number: job.JobStatus.ValueType) -> str:
    """A status of this or a later version."""
    return job.JobStatus.Name(number) if number in job.JobStatus.values() else str(int(number))


def print_jobs(jobs: Sequence[job.JobResponse]) -> None:
    """One line a job."""
    rows = [
        [
            each.id,
            each.name,
            status_name(each.status),
            schedule_words(each),
            distance(instant_of(each.next_run)),
            distance(instant_of(each.last_run)),
            each.last_status,
        ]
        for each in jobs
    ]
    heads = ["ID", "NAME", "STATUS", "SCHEDULE", "NEXT", "LAST", "RESULT"]
    print_table(heads, rows, cuttable=["NAME", "SCHEDULE"])


def schedule_words(shown: job.JobResponse) -> str:
    """The schedules on one line."""
    if shown.schedules:
        return "; ".join(_with_zone(each.expression, each.time_zone) for each in shown.schedules)
    return _with_zone(shown.cron_expression, shown.time_zone) if shown.cron_expression else "on demand"


def _with_zone(expression: str, zone: str) -> str:
    return f"{expression} {zone}" if zone not in ("", "UTC") else expression


def print_job(shown: job.JobResponse, recent: Sequence[execution.ExecutionResponse]) -> None:
    """Everything about a job that is set, its next runs and its last executions."""
    print_facts(
        [
            ("ID", shown.id),
            ("Name", shown.name),
            ("Description", shown.description),
            ("Status", status_name(shown.status)),
            ("Pause", _pause_words(shown.pause) if shown.HasField("pause") else ""),
            ("Runs", task_words(shown.task, shown.metadata)),
            ("Schedule", schedule_words(shown)),
            ("Next run", moment(instant_of(shown.next_run))),
            ("Last run", moment(instant_of(shown.last_run))),
            ("Last result", shown.last_status),
            ("Priority", str(shown.priority) if shown.priority else ""),
            ("Timeout", exact(shown.timeout * 1000) if shown.timeout else ""),
            ("Retries", str(shown.max_retries) if shown.max_retries else ""),
            ("Policies", _policy_words(shown.policies)),
            ("Needs", _needs_words(shown.requirements)),
            ("Tags", ", ".join(shown.tags)),
            ("Metadata", ", ".join(f"{key}={value}" for key, value in sorted(shown.metadata.items()))),
            ("Revision", str(shown.revision) if shown.revision else ""),
            ("Created", moment(instant_of(shown.created_at))),
            ("Updated", moment(instant_of(shown.updated_at))),
        ]
    )
    _print_next(shown)
    if recent:
        click.echo("\nLast executions:")
        print_executions(recent)


def _print_next(shown: job.JobResponse) -> None:
    first = instant_of(shown.next_run)
    runs = next_runs(shown, first - 1) if first else []
    if len(runs) > 1:
        click.echo("\nNext runs:")
        for each in runs:
            click.echo(f"  {format_instant(each)}  {distance(each)}")


def next_runs(shown: job.JobResponse, after: int) -> list[int]:
    """The next instants of all schedules after an instant, computed here: a schedule is a pure function of time."""
    specs = [
        ScheduleSpec(
            each.expression,
            each.time_zone or "UTC",
            instant_of(each.start) if each.HasField("start") else None,
            instant_of(each.end) if each.HasField("end") else None,
            each.gap,
            each.fold,
        )
        for each in shown.schedules
    ]
    if not specs and shown.cron_expression:
        specs = [ScheduleSpec(shown.cron_expression, shown.time_zone or "UTC")]
    try:
        schedules = [compile_schedule(spec) for spec in specs]
    except InvalidSchedule:
        return []  # of a later version than this command
    runs = heapq.merge(*(each.between(after, each.high, NEXT_RUNS) for each in schedules))
    return list(islice(dict.fromkeys(runs), NEXT_RUNS))


def _pause_words(pause: job.Pause) -> str:
    parts = [
        f"since {moment(instant_of(pause.since))}" if pause.HasField("since") else "",
        f"until {moment(instant_of(pause.until))}" if pause.HasField("until") else "until it is resumed",
        f"by {pause.by}" if pause.by else "",
        pause.note,
        f"then {pause.catch_up} of what was missed" if pause.catch_up else "",
    ]
    return ", ".join(part for part in parts if part)


def _policy_words(policies: job.Policies) -> str:
    words = [
        f"misfire {policies.misfire}" if policies.misfire else "",
        f"misfire limit {policies.misfire_limit}" if policies.misfire_limit else "",
        f"delivery {policies.delivery}" if policies.delivery else "",
        f"retry factor {policies.retry_factor:g}" if policies.retry_factor else "",
        f"retry backoff {policies.retry_backoff}" if policies.retry_backoff else "",
        f"retry jitter {policies.retry_jitter:g}" if policies.HasField("retry_jitter") else "",
        f"retry only {' '.join(policies.retry_only)}" if policies.retry_only else "",
        f"retry never {' '.join(policies.retry_never)}" if policies.retry_never else "",
        f"overlap {policies.overlap}" if policies.overlap else "",
        f"overlap limit {policies.overlap_limit}" if policies.overlap_limit else "",
        f"pause after {policies.pause_after} failures" if policies.pause_after else "",
        f"group {policies.group} (limit {policies.group_limit or 1})" if policies.group else "",
    ]
    for name, field in (
        ("late window", "late_window"),
        ("grace", "grace_period"),
        ("retry after", "retry_initial"),
        ("retry cap", "retry_cap"),
        ("jitter", "jitter"),
        ("start within", "start_within"),
    ):
        if policies.HasField(field):  # type: ignore[arg-type] # one of the names above
            words.append(f"{name} {exact(getattr(policies, field).ToMilliseconds())}")
    return ", ".join(word for word in words if word)


def _needs_words(needs: job.Requirements) -> str:
    words = [
        f"cpu {needs.cpu}m" if needs.cpu else "",
        f"memory {needs.memory} MiB" if needs.memory else "",
        f"storage {needs.storage} MiB" if needs.storage else "",
        f"slots {needs.slots}" if needs.slots > 1 else "",
        *(f"{name} {amount}" for name, amount in sorted(needs.custom.items())),
        f"workers with {needs.selector}" if needs.selector else "",
        f"spread over {needs.spread}" if needs.spread else "",
    ]
    return ", ".join(word for word in words if word)


def print_revisions(revisions: Sequence[job.Revision]) -> None:
    """One line a revision."""
    rows = [
        [
            str(each.revision),
            each.change,
            format_instant(instant_of(each.since)) if each.HasField("since") else "",
            each.job.name,
            schedule_words(each.job),
            clean(task_words(each.job.task, each.job.metadata)),
        ]
        for each in revisions
    ]
    print_table(
        ["REVISION", "CHANGE", "SINCE", "NAME", "SCHEDULE", "RUNS"], rows, cuttable=["NAME", "SCHEDULE", "RUNS"]
    )
