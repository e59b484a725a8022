"""What the options of a job make: the request, and the words for it."""

from __future__ import annotations

from typing import Unpack

import click
import pytest
from click.testing import CliRunner

from dts.cli import jobspec
from dts.cli.jobs import JobOptions
from dts.cli.jobspec import schedule_options, spec_options, status_of
from dts.cli.jobview import next_runs, schedule_words
from dts.cli.tasks import task_of, task_options, task_words
from dts.gen.job.v1 import job_pb2 as job
from dts.schedule import parse_instant


def request_of(*arguments: str) -> job.CreateJobRequest:
    """The request that `job create` makes of its options."""
    made = job.CreateJobRequest()

    @click.command()
    @spec_options
    @schedule_options
    @task_options
    def command(**given: Unpack[JobOptions]) -> None:
        jobspec.fill_basics(made, given)
        jobspec.fill_schedule(made, given)
        task = task_of(given)
        if task is not None:
            made.task.CopyFrom(task)
        if jobspec.has_policies(given):
            jobspec.fill_policies(made.policies, given)
        if jobspec.has_requirements(given):
            jobspec.fill_requirements(made.requirements, given)

    result = CliRunner().invoke(command, list(arguments))
    if result.exit_code:
        raise ValueError(result.output)
    return made


def test_the_originals_command() -> None:
    made = request_of(
        "--name", "My Job", "--description", "Description", "--cron", "*/5 * * * *", "--metadata", '{"key": "value"}'
    )
    expected = job.CreateJobRequest(
        name="My Job", description="Description", cron_expression="*/5 * * * *", metadata={"key": "value"}
    )
    assert made == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shell", "echo hi", "--env", "A=1", "--workdir", "/"], "echo hi"),
        (["--", "/bin/echo", "a b", "--name"], "/bin/echo 'a b' --name"),
        (["--http", "http://x/y"], "GET http://x/y"),
        (["--http", "http://x/y", "--body", "b", "--header", "A: b", "--success", "200,204"], "POST http://x/y"),
        (["--python", "m:f", "--args", '[1, "two", 0.5]', "--kwargs", '{"a": null}'], 'm:f(1, "two", 0.5, a=null)'),
        (["--task-type", "mine", "--task-config", '{"a": "b"}'], 'mine {"a": "b"}'),
        (["--metadata", '{"dts.command": "ls"}'], "ls (dts.command)"),
        (["--metadata", '{"dts.url": "http://z"}'], "http://z (dts.url)"),
        ([], "nothing: completes at once"),
    ],
)
def test_tasks(arguments: list[str], words: str) -> None:
    made = request_of(*arguments)
    assert task_words(made.task, made.metadata) == words


def test_http_in_full() -> None:
    task = request_of("--http", "http://x", "--method", "PUT", "--header", "A: b:c", "--success", "201").task.http
    assert (task.method, dict(task.headers), list(task.success_statuses)) == ("PUT", {"A": "b:c"}, [201])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--shell", "a", "--http", "b"],
        ["--shell", "a", "--", "b"],
        ["--env", "A=1"],
        ["--http", "x", "--args", "[]", "--kwargs", '{"a": 1}'],
        ["--header", "A: b", "--shell", "x"],
        ["--http", "x", "--header", "nothing"],
        ["--http", "x", "--success", "ok"],
        ["--python", "m:f", "--args", "{}"],
        ["--metadata", '{"a": 1}'],
        ["--metadata", "{a}"],
        ["--start", "now"],
        ["--resource", "gpu=some"],
        ["--misfire", "perhaps"],
    ],
)
def test_what_does_not_go_together(arguments: list[str]) -> None:
    with pytest.raises(ValueError, match="Error: "):
        request_of(*arguments)


def test_schedules() -> None:
    assert list(request_of("--cron", "@hourly", "--tz", "Europe/Paris").schedules) == []
    made = request_of("--cron", "@hourly", "--cron", "0 9 * * *", "--tz", "Europe/Paris", "--end", "2030-01-01")
    assert made.cron_expression == ""
    assert [each.expression for each in made.schedules] == ["@hourly", "0 9 * * *"]
    assert {each.time_zone for each in made.schedules} == {"Europe/Paris"}
    assert made.schedules[0].end.ToJsonString() == "2030-01-01T00:00:00Z"


def test_policies_and_needs() -> None:
    made = request_of(
        "--misfire", "skip", "--late-window", "2m", "--retries", "3", "--timeout", "1500ms", "--priority", "-2",
        "--cpu", "500", "--resource", "gpu=1", "--selector", "zone=a", "--tag", "x", "--tag", "y",
    )  # fmt: skip
    assert (made.policies.misfire, made.policies.late_window.seconds) == ("skip", 120)
    assert not made.policies.HasField("grace_period")
    assert (made.max_retries, made.timeout, made.priority) == (3, 2, -2)  # a timeout is whole seconds, rounded up
    assert (made.requirements.cpu, made.requirements.custom["gpu"], made.requirements.selector) == (500, 1, "zone=a")
    assert list(made.tags) == ["x", "y"]
    plain = request_of("--name", "x")
    assert not plain.HasField("policies")
    assert not plain.HasField("requirements")


def test_statuses_in_any_case() -> None:
    assert status_of("paused") == status_of("PAUSED") == status_of("JOB_STATUS_PAUSED") == job.PAUSED
    assert status_of(None) == status_of("") == job.UNSPECIFIED
    with pytest.raises(click.BadParameter, match="none of pending"):
        status_of("asleep")


def test_next_runs_are_those_of_all_schedules() -> None:
    after = parse_instant("2026-01-01T00:30:00Z")
    shown = job.JobResponse(
        schedules=[
            job.Schedule(expression="0 * * * *"),
            job.Schedule(expression="30 2 * * *", time_zone="Europe/Paris"),
        ]
    )
    runs = next_runs(shown, after)
    assert [(run - after) // 60_000 for run in runs] == [30, 60, 90, 150, 210]
    assert schedule_words(shown) == "0 * * * *; 30 2 * * * Europe/Paris"
    assert next_runs(job.JobResponse(cron_expression="of a later version"), after) == []
