"""From requests to what the shard gets: definitions, demands, policies, bodies."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from dts.api import documents, edits
from dts.errors import FailedPrecondition, InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.worker.v1 import worker_pb2 as worker
from dts.model import Delivery, Demand, JobState, Misfire, Policies, Revision, ScheduleSpec, StoredJob
from dts.services.jobs import row_of

NOW = 1_800_000_000_000


def created(request: job.CreateJobRequest, id: str = "j") -> Revision:
    return documents.created(request, id, NOW)


def row(request: job.CreateJobRequest) -> StoredJob:
    return row_of(created(request))


def test_everything_of_a_request_reaches_the_definition() -> None:
    request = job.CreateJobRequest(
        name="n",
        priority=7,
        max_retries=3,
        timeout=60,
        task=job.Task(shell=job.ShellTask(command="true")),
        schedules=[
            job.Schedule(expression="0 9 * * *", time_zone="Europe/Paris", end=Timestamp(seconds=4_000_000_000)),
            job.Schedule(expression="@every 1h"),
        ],
        requirements=job.Requirements(cpu=1, memory=2, storage=3, custom={"gpu": 1, "none": 0}, selector="zone=a"),
        policies=job.Policies(
            misfire="run_all",
            misfire_limit=5,
            late_window=Duration(seconds=90),
            grace_period=Duration(seconds=10),
            retry_initial=Duration(seconds=2),
            retry_cap=Duration(seconds=8),
            retry_factor=3,
            delivery="at_most_once",
        ),
        tags=["a", "b", "a"],
    )
    revision = created(request)
    definition = revision.definition
    assert definition.schedules == (
        ScheduleSpec("0 9 * * *", "Europe/Paris", None, 4_000_000_000_000),
        ScheduleSpec("@every 1h"),
    )
    assert definition.demand == Demand(1, 2, 3, 1, (("gpu", 1),), "zone=a", 7)
    assert definition.policies == Policies(
        Misfire.RUN_ALL, 5, 90_000, 10_000, 3, 2_000, 8_000, 3.0, delivery=Delivery.AT_MOST_ONCE
    )
    body = worker.Body.FromString(definition.body)
    assert (body.task.shell.command, body.timeout_ms, body.kill_grace_ms) == ("true", 60_000, 5_000)
    assert (definition.revision, definition.since, definition.state) == (1, NOW, JobState.ACTIVE)
    assert revision.tags == ("a", "b")
    document = job.JobResponse.FromString(revision.document)
    assert (document.id, document.name, document.cron_expression) == ("j", "n", "0 9 * * *")
    assert (document.time_zone, list(document.tags)) == ("Europe/Paris", ["a", "b"])


def test_equal_demands_are_one_object() -> None:
    first, second = (created(job.CreateJobRequest(name=name, priority=3)) for name in "ab")
    assert first.definition.demand is second.definition.demand
    assert first.definition.body is second.definition.body
    assert first.definition.schedules is second.definition.schedules


def test_a_job_with_h_has_its_own_numbers_and_equal_ids_the_same() -> None:
    one, two, same = (created(job.CreateJobRequest(cron_expression="H H * * *"), id) for id in ("a", "b", "a"))
    assert one.definition.schedules != two.definition.schedules
    assert one.definition.schedules == same.definition.schedules


def test_a_document_edited_back_and_forth_is_the_same() -> None:
    before = row(job.CreateJobRequest(name="n", cron_expression="0 9 * * *", time_zone="Asia/Tokyo"))
    there = edits.update(job.UpdateJobRequest(id="j", cron_expression="0 10 * * *"), NOW)(before)
    assert there is not None
    assert there.definition.schedules == (ScheduleSpec("0 10 * * *", "Asia/Tokyo"),)
    back = edits.update(job.UpdateJobRequest(id="j", cron_expression="0 9 * * *"), NOW)(row_of(there))
    assert back is not None
    assert job.JobResponse.FromString(back.document) == job.JobResponse.FromString(before.document)
    assert edits.update(job.UpdateJobRequest(id="j", name="n"), NOW)(before) is None


def test_a_job_whose_instant_has_passed_can_still_be_renamed() -> None:
    before = row(job.CreateJobRequest(schedules=[job.Schedule(expression="@at 2027-01-16T00:00:00Z")]))
    later = NOW + timedelta(days=400) // timedelta(milliseconds=1)
    assert edits.update(job.UpdateJobRequest(id="j", name="new"), later)(before) is not None
    with pytest.raises(InvalidArgument, match="no instant after now"):
        edits.update(job.UpdateJobRequest(id="j", cron_expression="@at 2027-01-17T00:00:00Z"), later)(before)


def test_a_pause_that_is_over_is_dropped_by_the_next_edit() -> None:
    before = row(job.CreateJobRequest(name="n", cron_expression="* * * * *"))
    paused = edits.pause("note", "ann", NOW + 1_000, NOW)(before)
    assert paused is not None
    assert (paused.definition.state, paused.definition.until) == (JobState.PAUSED, NOW + 1_000)
    renamed = edits.update(job.UpdateJobRequest(id="j", name="m"), NOW + 5_000)(row_of(paused))
    assert renamed is not None
    assert (renamed.definition.state, renamed.definition.until) == (JobState.ACTIVE, None)
    assert not job.JobResponse.FromString(renamed.document).HasField("pause")
    within = edits.update(job.UpdateJobRequest(id="j", name="m"), NOW + 500)(row_of(paused))
    assert within is not None
    assert within.definition.state is JobState.PAUSED


def test_what_is_cancelled_is_not_paused() -> None:
    cancelled = edits.end("cancel", JobState.CANCELLED)(row(job.CreateJobRequest()))
    assert cancelled is not None
    with pytest.raises(FailedPrecondition):
        edits.pause("", "", None, NOW)(row_of(cancelled))
    assert edits.end("cancel", JobState.CANCELLED)(row_of(cancelled)) is None


def test_both_forms_of_a_schedule_must_agree() -> None:
    both = job.CreateJobRequest(cron_expression="0 9 * * *", schedules=[job.Schedule(expression="0 9 * * *")])
    assert len(created(both).definition.schedules) == 1
    with pytest.raises(InvalidArgument, match="cron_expression"):
        created(job.CreateJobRequest(cron_expression="0 8 * * *", schedules=[job.Schedule(expression="0 9 * * *")]))
    before = row(job.CreateJobRequest(cron_expression="0 9 * * *"))
    with pytest.raises(InvalidArgument, match="cron_expression"):
        edits.update(
            job.UpdateJobRequest(cron_expression="0 8 * * *", schedules=[job.Schedule(expression="0 7 * * *")]), NOW
        )(before)


def test_making_simple_jobs_is_cheap() -> None:
    requests = [
        job.CreateJobRequest(
            name=f"job {at}", cron_expression="*/5 * * * *", task=job.Task(shell=job.ShellTask(command="true"))
        )
        for at in range(2_000)
    ]
    started = time.perf_counter()
    for at, each in enumerate(requests):
        documents.created(each, f"job-{at}", NOW)
    assert (time.perf_counter() - started) / len(requests) < 60e-6  # 7 us on a quiet machine; other work runs beside
