"""When, under which policies and with which resources: options of `job create` and `job update`, and how they fill a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict, TypeVar

import click

from dts.cli import options
from dts.cli.session import duration, timestamp
from dts.gen.job.v1 import job_pb2 as job

F = TypeVar("F", bound=Callable[..., object])


class ScheduleOptions(TypedDict):
    cron: tuple[str, ...]
    zone: str | None
    start: int | None
    end: int | None
    gap: str | None
    fold: str | None


class SpecOptions(TypedDict):
    name: str | None
    description: str | None
    metadata: dict[str, object] | None
    tag: tuple[str, ...]
    priority: int | None
    retries: int | None
    timeout: int | None
    misfire: str | None
    misfire_limit: int | None
    late_window: int | None
    grace: int | None
    retry_initial: int | None
    retry_cap: int | None
    retry_factor: float | None
    retry_backoff: str | None
    retry_jitter: float | None
    retry_only: tuple[str, ...]
    retry_never: tuple[str, ...]
    overlap: str | None
    overlap_limit: int | None
    group: str | None
    group_limit: int | None
    jitter: int | None
    start_within: int | None
    pause_after: int | None
    delivery: str | None
    cpu: int | None
    memory: int | None
    storage: int | None
    slots: int | None
    resource: tuple[tuple[str, str], ...]
    selector: str | None
    spread: str | None


_OPTIONS = [
    click.option("--name", help="A name for people."),
    click.option("--description", help="What it is for."),
    click.option(
        "--metadata", type=options.json_object, metavar="JSON", help="""Names and values, such as '{"key": "value"}'."""
    ),
    click.option("--tag", multiple=True, help="A tag to find it by. Repeatable."),
    click.option("--priority", type=options.integer, help="Higher runs first; 0 unless named."),
    click.option("--retries", type=options.amount, help="How often a failed attempt is tried again."),
    click.option("--timeout", type=options.duration, help="How long an attempt may run, such as 90s; 0: for ever."),
    click.option(
        "--misfire", type=click.Choice(["run_once", "run_all", "skip"]), help="What becomes of missed instants."
    ),
    click.option("--misfire-limit", type=options.amount, help="run_all: this many of the newest."),
    click.option(
        "--late-window",
        type=options.duration,
        help="Up to so old an instant fires late, whatever --misfire says; 60s is the least.",
    ),
    click.option("--grace", type=options.duration, help="run_once: how old the latest missed instant may be."),
    click.option("--retry-initial", type=options.duration, help="The wait before the first retry."),
    click.option("--retry-cap", type=options.duration, help="The longest wait before a retry."),
    click.option("--retry-factor", type=float, help="How much longer each wait is."),
    click.option("--retry-backoff", type=click.Choice(["exponential", "constant"]), help="How the waits grow."),
    click.option("--retry-jitter", type=float, help="The part of a wait left to chance, 0 to 1; 0.2 unless named."),
    click.option("--retry-only", multiple=True, help="Exit codes (75, 64-78) or errors to try again. Repeatable."),
    click.option("--retry-never", multiple=True, help="Exit codes or errors (timeout) not to try again. Repeatable."),
    click.option(
        "--overlap",
        type=click.Choice(["allow_all", "skip", "buffer_one", "buffer_all", "cancel_other"]),
        help="What becomes of an instant while the run before has not ended.",
    ),
    click.option("--overlap-limit", type=options.amount, help="buffer_all: so many may wait."),
    click.option("--group", help="A concurrency group shared with other jobs; only when a job is created."),
    click.option("--group-limit", type=options.amount, help="So many of the group run at once; 1 unless named."),
    click.option("--jitter", type=options.duration, help="Runs start up to so much later, each by its own part."),
    click.option("--pause-after", type=options.amount, help="Failures in a row that pause the job; 0: never."),
    click.option("--start-within", type=options.duration, help="A run that waited longer for a worker is skipped."),
    click.option("--delivery", type=click.Choice(["at_least_once", "at_most_once"]), help="What a lost attempt means."),
    click.option("--cpu", type=options.amount, help="Millicores an execution needs."),
    click.option("--memory", type=options.amount, help="MiB of memory it needs."),
    click.option("--storage", type=options.amount, help="MiB of disk it needs."),
    click.option("--slots", type=options.amount, help="Places at a worker it takes."),
    click.option(
        "--resource", type=options.pair, multiple=True, help="A custom resource it needs, such as gpu=1. Repeatable."
    ),
    click.option("--selector", help="Labels of the workers that may run it, such as 'zone=a,disk!=hdd'."),
    click.option("--spread", help="A label, such as zone, to whose values executions go evenly."),
]
_SCHEDULE_OPTIONS = [
    click.option(
        "--cron", multiple=True, metavar="EXPR", help="When: cron, '@every 90s' or '@at 2027-01-01T09:00Z'. Repeatable."
    ),
    click.option("--tz", "zone", help="IANA time zone of the schedule, such as Europe/Paris."),
    click.option("--start", type=options.instant, help="No instant before this one."),
    click.option("--end", type=options.instant, help="No instant after this one."),
    click.option("--gap", type=click.Choice(["shift", "skip"]), help="A wall time that does not exist."),
    click.option("--fold", type=click.Choice(["first", "second", "both"]), help="A wall time that occurs twice."),
]


def spec_options(function: F) -> F:
    """The options of what a job is, besides task and schedule."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def schedule_options(function: F) -> F:
    """The options of when a job runs."""
    for option in reversed(_SCHEDULE_OPTIONS):
        function = option(function)
    return function


def schedules_of(given: ScheduleOptions) -> list[job.Schedule]:
    """The schedules that need more than the original's one expression; empty: `cron_expression` and `time_zone` say it all."""
    bounded = any(given[name] is not None for name in ("start", "end", "gap", "fold"))
    if bounded and not given["cron"]:
        raise click.UsageError("--start, --end, --gap and --fold belong to --cron.")
    if not bounded and len(given["cron"]) < 2:
        return []
    return [
        job.Schedule(
            expression=expression,
            time_zone=given["zone"] or "",
            start=timestamp(given["start"]),
            end=timestamp(given["end"]),
            gap=given["gap"] or "",
            fold=given["fold"] or "",
        )
        for expression in given["cron"]
    ]


def fill_basics(request: job.CreateJobRequest | job.UpdateJobRequest | job.JobResponse, given: SpecOptions) -> None:
    """Name, description, metadata, tags and numbers, as far as they are given."""
    request.name = given["name"] or ""
    request.description = given["description"] or ""
    request.priority = given["priority"] or 0
    request.max_retries = given["retries"] or 0
    request.timeout = -(-(given["timeout"] or 0) // 1000)
    request.tags.extend(given["tag"])
    for key, value in (given["metadata"] or {}).items():
        if not isinstance(value, str):
            raise click.BadParameter(f"the value of {key!r} must be a string.", param_hint="--metadata")
        request.metadata[key] = value


def fill_schedule(
    request: job.CreateJobRequest | job.UpdateJobRequest | job.JobResponse, given: ScheduleOptions
) -> None:
    """One plain expression goes into the original's field; what says more goes into `schedules`."""
    schedules = schedules_of(given)
    request.schedules.extend(schedules)
    if not schedules:
        request.cron_expression = given["cron"][0] if given["cron"] else ""
        request.time_zone = given["zone"] or ""


_POLICIES = (
    "misfire",
    "misfire_limit",
    "late_window",
    "grace",
    "retry_initial",
    "retry_cap",
    "retry_factor",
    "retry_backoff",
    "retry_jitter",
    "overlap",
    "overlap_limit",
    "group",
    "group_limit",
    "jitter",
    "start_within",
    "pause_after",
    "delivery",
)


def has_policies(given: SpecOptions) -> bool:
    return _any(given, *_POLICIES) or bool(given["retry_only"] or given["retry_never"])


def has_requirements(given: SpecOptions) -> bool:
    return _any(given, "cpu", "memory", "storage", "slots", "selector", "spread") or bool(given["resource"])


def _any(given: SpecOptions, *names: str) -> bool:
    values: dict[str, object] = dict(given)
    return any(values[name] is not None for name in names)


def fill_policies(policies: job.Policies, given: SpecOptions) -> None:
    """The policies that are given; the others stay."""
    policies.MergeFrom(
        job.Policies(
            misfire=given["misfire"] or "",
            misfire_limit=given["misfire_limit"] or 0,
            retry_factor=given["retry_factor"] or 0.0,
            delivery=given["delivery"] or "",
            retry_backoff=given["retry_backoff"] or "",
            retry_jitter=given["retry_jitter"],
            overlap=given["overlap"] or "",
            overlap_limit=given["overlap_limit"] or 0,
            group=given["group"] or "",
            group_limit=given["group_limit"] or 0,
            pause_after=given["pause_after"] or 0,
        )
    )
    if given["retry_only"]:
        policies.retry_only[:] = given["retry_only"]
    if given["retry_never"]:
        policies.retry_never[:] = given["retry_never"]
    for field, ms in (
        (policies.late_window, given["late_window"]),
        (policies.grace_period, given["grace"]),
        (policies.retry_initial, given["retry_initial"]),
        (policies.retry_cap, given["retry_cap"]),
        (policies.jitter, given["jitter"]),
        (policies.start_within, given["start_within"]),
    ):
        value = duration(ms)
        if value is not None:
            field.CopyFrom(value)


def fill_requirements(needs: job.Requirements, given: SpecOptions) -> None:
    """The requirements that are given; the others stay."""
    amounts = {
        "cpu": given["cpu"],
        "memory": given["memory"],
        "storage": given["storage"],
        "slots": given["slots"],
    }
    for name, amount in amounts.items():
        if amount is not None:
            setattr(needs, name, amount)
    if given["selector"] is not None:
        needs.selector = given["selector"]
    if given["spread"] is not None:
        needs.spread = given["spread"]
    for name, text in given["resource"]:
        if not text.isdecimal():
            raise click.BadParameter(f"{name}={text}: write a whole number.", param_hint="--resource")
        needs.custom[name] = int(text)


def status_of(text: str | None) -> job.JobStatus.ValueType:
    """A status by its name in any case, as people and the original write it. Raises click.BadParameter."""
    if not text:
        return job.UNSPECIFIED
    name = text.strip().upper().removeprefix("JOB_STATUS_")
    names: Sequence[str] = job.JobStatus.keys()
    if name not in names:
        raise click.BadParameter(
            f"{text!r} is none of {', '.join(each.lower() for each in names[1:])}.", param_hint="--status"
        )
    return job.JobStatus.Value(name)
