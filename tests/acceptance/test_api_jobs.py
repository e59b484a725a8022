"""Jobs over both faces of the API: gRPC and HTTP give the same, and what the original's clients rely on holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from dts.gen.job.v1 import job_pb2 as job
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler
from dts.wirejson import to_json
from tests.unit.api.world import World, world


@pytest.fixture
async def api() -> AsyncIterator[World]:
    async with world() as running:
        yield running


async def refused(call: Any, code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    return str(caught.value.details())


async def test_both_faces_show_the_same_job(api: World) -> None:
    made = await api.job.CreateJob(
        job.CreateJobRequest(name="nightly", cron_expression="0 3 * * *", metadata={"team": "ops"}, priority=2)
    )
    over_grpc = await api.job.GetJob(job.GetJobRequest(id=made.job_id))
    status, over_http = await api.call("GET", f"/v1/jobs/{made.job_id}")
    assert status == 200
    assert over_http == to_json(over_grpc)
    assert over_http["status"] == "SCHEDULED"
    assert over_http["nextRun"].endswith("T03:00:00Z")
    assert over_http["lastRun"] is None
    assert over_http["revision"] == "1"
    assert over_http["metadata"] == {"team": "ops"}


async def test_the_originals_page_creates_with_snake_case(api: World) -> None:
    body = {"name": "page", "description": "d", "cron_expression": "*/5 * * * *", "priority": 1, "max_retries": 0}
    status, made = await api.call("POST", "/v1/jobs", body)
    assert (status, list(made)) == (200, ["jobId"])
    _, listed = await api.call("GET", "/v1/jobs")
    assert [each["id"] for each in listed["jobs"]] == [made["jobId"]]
    assert listed["total"] == 1
    assert listed["jobs"][0]["createdAt"].endswith("Z")


async def test_a_job_that_was_read_can_be_sent_back_with_one_field_changed(api: World) -> None:
    _, made = await api.call("POST", "/v1/jobs", {"name": "a", "cronExpression": "0 1 * * *", "timeZone": "Asia/Tokyo"})
    path = f"/v1/jobs/{made['jobId']}"
    _, shown = await api.call("GET", path)
    status, same = await api.call("PUT", path, shown)
    assert (status, same["revision"]) == (200, "1"), "nothing changed, so there is no new revision"
    status, changed = await api.call("PUT", path, {**shown, "cronExpression": "0 2 * * *"})
    assert status == 200
    assert changed["schedules"][0] == {**shown["schedules"][0], "expression": "0 2 * * *"}
    assert (changed["timeZone"], changed["revision"]) == ("Asia/Tokyo", "2")


async def test_empty_fields_of_an_update_leave_and_the_mask_clears(api: World) -> None:
    made = await api.job.CreateJob(
        job.CreateJobRequest(
            name="n",
            description="d",
            cron_expression="* * * * *",
            metadata={"a": "1"},
            priority=5,
            timeout=9,
            tags=["t"],
        )
    )
    kept = await api.job.UpdateJob(job.UpdateJobRequest(id=made.job_id, name="new"))
    assert (kept.name, kept.description, kept.cron_expression, kept.priority) == ("new", "d", "* * * * *", 5)
    assert (kept.timeout, kept.metadata["a"], list(kept.tags)) == (9, "1", ["t"])
    mask = FieldMask(paths=["description", "cronExpression", "metadata", "priority", "timeout", "tags"])
    cleared = await api.job.UpdateJob(job.UpdateJobRequest(id=made.job_id, update_mask=mask))
    assert (cleared.name, cleared.description, cleared.cron_expression, cleared.priority) == ("new", "", "", 0)
    assert (cleared.timeout, dict(cleared.metadata), list(cleared.tags)) == (0, {}, [])
    assert cleared.status == job.PENDING
    wrong = job.UpdateJobRequest(id=made.job_id, update_mask=FieldMask(paths=["nam"]))
    assert "update_mask" in await refused(api.job.UpdateJob(wrong), grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("paused", "PAUSED"),
        ("Cancelled", "CANCELLED"),
        ("JOB_STATUS_PAUSED", "PAUSED"),
        ("running", "SCHEDULED"),
        ("COMPLETED", "SCHEDULED"),
        (6, "PAUSED"),
    ],
)
async def test_a_status_in_an_update(api: World, sent: object, shown: str) -> None:
    _, made = await api.call("POST", "/v1/jobs", {"cronExpression": "0 0 1 1 *"})
    path = f"/v1/jobs/{made['jobId']}"
    status, changed = await api.call("PUT", path, {"status": sent, "lastRun": "2026-01-01T00:00:00Z"})
    assert (status, changed["status"]) == (200, shown)
    _, back = await api.call("PUT", path, {"status": "SCHEDULED"})
    assert back["status"] == "SCHEDULED"


async def test_an_update_that_names_an_old_revision_is_aborted(api: World) -> None:
    made = await api.job.CreateJob(job.CreateJobRequest(name="1"))
    await api.job.UpdateJob(job.UpdateJobRequest(id=made.job_id, name="2", revision=1))
    old = api.job.UpdateJob(job.UpdateJobRequest(id=made.job_id, name="3", revision=1))
    assert "revision 2, not 1" in await refused(old, grpc.StatusCode.ABORTED)
    status, body = await api.call("PUT", f"/v1/jobs/{made.job_id}", {"name": "3", "revision": "1"})
    assert (status, body["code"]) == (409, 10)
    found = await api.job.ListRevisions(job.ListRevisionsRequest(id=made.job_id))
    assert [(each.revision, each.change, each.job.name) for each in found.revisions] == [
        (2, "update", "2"),
        (1, "create", "1"),
    ]


@pytest.mark.parametrize("naming", [{"id": "mine"}, {"requestId": "order 17"}, {"id": "mine", "requestId": "x"}])
async def test_a_repeated_create_is_the_same_create(api: World, naming: dict[str, str]) -> None:
    body = {"name": "once", "cronExpression": "* * * * *", **naming}
    _, first = await api.call("POST", "/v1/jobs", body)
    await api.call("PUT", f"/v1/jobs/{first['jobId']}", {"name": "changed since"})
    assert await api.call("POST", "/v1/jobs", body) == (200, first)
    status, other = await api.call("POST", "/v1/jobs", {**body, "name": "another"})
    assert (status, other["code"]) == (409, 6)
    _, listed = await api.call("GET", "/v1/jobs")
    assert listed["total"] == 1


async def test_an_idempotency_key_is_a_request_id(api: World) -> None:
    body = {"name": "once"}
    _, first = await api.call("POST", "/v1/jobs", body, Idempotency_Key="k1")
    assert await api.call("POST", "/v1/jobs", body, Idempotency_Key="k1") == (200, first)
    _, second = await api.call("POST", "/v1/jobs", body, Idempotency_Key="k2")
    assert second != first
    made = await api.job.CreateJob(job.CreateJobRequest(name="once", request_id="k1"))
    assert made.job_id == first["jobId"]


async def test_a_repeat_of_a_create_whose_instant_has_passed_is_still_answered(api: World) -> None:
    at = api.jobs.now() + 60
    request = job.CreateJobRequest(id="soon", schedules=[job.Schedule(expression="@at " + _text(at))])
    await api.job.CreateJob(request)
    await api.until("/v1/jobs/soon", {"status": "COMPLETED"})
    assert (await api.job.CreateJob(request)).job_id == "soon"
    request.id = "late"
    assert "no instant after now" in await refused(api.job.CreateJob(request), grpc.StatusCode.INVALID_ARGUMENT)


def _text(at: int) -> str:
    from dts.schedule import format_instant

    return format_instant(at)


async def test_revisions_grow_over_deletion_and_creation(api: World) -> None:
    body = {"id": "phoenix", "name": "first"}
    await api.call("POST", "/v1/jobs", body)
    assert await api.call("DELETE", "/v1/jobs/phoenix") == (200, {"success": True})
    assert (await api.call("GET", "/v1/jobs/phoenix"))[0] == 404
    assert (await api.call("DELETE", "/v1/jobs/phoenix"))[0] == 404
    status, _ = await api.call("POST", "/v1/jobs", {**body, "name": "second"})
    assert status == 200
    _, found = await api.call("GET", "/v1/jobs/phoenix")
    assert (found["name"], found["revision"]) == ("second", "3")
    _, revisions = await api.call("GET", "/v1/jobs/phoenix/revisions?page_size=2")
    assert [each["change"] for each in revisions["revisions"]] == ["create", "delete"]
    _, older = await api.call("GET", "/v1/jobs/phoenix/revisions?before_revision=2")
    assert [each["job"]["name"] for each in older["revisions"]] == ["first"]


async def test_a_pause_says_who_and_why_and_ends_by_itself(api: World) -> None:
    _, made = await api.call("POST", "/v1/jobs", {"cronExpression": "@every 1s"})
    path = f"/v1/jobs/{made['jobId']}"
    until = _text(api.jobs.now() + 300)
    _, paused = await api.call("POST", f"{path}/pause", {"note": "disk full", "by": "ann", "until": until})
    assert paused["status"] == "PAUSED"
    assert (paused["pause"]["note"], paused["pause"]["by"], paused["pause"]["until"]) == ("disk full", "ann", until)
    assert paused["nextRun"] is not None, "it knows when it goes on"
    back = await api.until(path, {"pause": None})
    assert back["status"] != "PAUSED"
    _, past = await api.call("POST", f"{path}/pause", {"until": until})
    assert past["message"] == "until: is not after now"


async def test_cancel_ends_what_is_open_and_resume_starts_anew(api: World) -> None:
    api.hand.holding = True
    _, made = await api.call("POST", "/v1/jobs", {"cronExpression": "0 0 1 1 *"})
    path = f"/v1/jobs/{made['jobId']}"
    _, run = await api.call("POST", f"{path}/run")
    await api.until(path, {"status": "RUNNING"})
    _, done = await api.call("POST", f"{path}/cancel")
    assert done["success"]
    await api.until(f"/v1/executions/{run['executionId']}", {"status": "CANCELLED"})
    assert (await api.call("GET", path))[1]["status"] == "CANCELLED"
    status, body = await api.call("POST", f"{path}/run")
    assert (status, body["code"]) == (400, 9)
    assert (await api.call("POST", f"{path}/pause"))[1]["code"] == 9
    assert "already" in (await api.call("POST", f"{path}/cancel"))[1]["message"]
    _, back = await api.call("POST", f"{path}/resume")
    assert back["status"] == "SCHEDULED"


async def test_run_now_answers_the_same_for_the_same_request(api: World) -> None:
    _, made = await api.call("POST", "/v1/jobs", {"name": "by hand"})
    path = f"/v1/jobs/{made['jobId']}/run"
    _, first = await api.call("POST", path, {"requestId": "r1"})
    assert await api.call("POST", path, {"requestId": "r1"}) == (200, first)
    _, second = await api.call("POST", path, {"requestId": "r2"})
    assert second != first
    _, listed = await api.call("GET", f"/v1/executions?job_id={made['jobId']}")
    assert listed["total"] == 2
    assert {each["cause"] for each in listed["executions"]} == {"manual"}


async def test_lists_have_stable_cursors_and_filters(api: World) -> None:
    jobs = [
        job.CreateJobRequest(id=f"job-{at:03}", name=f"Name {at}", tags=["even"] if at % 2 == 0 else [])
        for at in range(30)
    ]
    await api.job.BatchCreateJobs(job.BatchCreateJobsRequest(jobs=jobs))
    seen: list[str] = []
    token = ""
    while True:
        page = await api.job.ListJobs(job.ListJobsRequest(page_size=7, last_id=token))
        seen += [each.id for each in page.jobs]
        assert len(page.jobs) <= 7
        token = page.next_page
        if not token:
            break
        await api.job.DeleteJob(job.DeleteJobRequest(id=seen[-1]))
        await api.job.CreateJob(job.CreateJobRequest(id=f"aaa-{len(seen)}"))
    assert seen == [f"job-{at:03}" for at in range(30)]
    even = await api.job.ListJobs(job.ListJobsRequest(tag="even", name_contains="name 1"))
    assert [each.id for each in even.jobs] == ["job-010", "job-012", "job-014", "job-016", "job-018"]
    await api.job.PauseJob(job.PauseJobRequest(id="job-001"))
    paused = await api.job.ListJobs(job.ListJobsRequest(status="paused"))
    assert [each.id for each in paused.jobs] == ["job-001"]
    active = await api.job.ListJobs(job.ListJobsRequest(status="active", page_size=250))
    assert "job-001" not in {each.id for each in active.jobs}
    wrong = api.job.ListJobs(job.ListJobsRequest(page_size=-1))
    assert "page_size" in await refused(wrong, grpc.StatusCode.INVALID_ARGUMENT)
    large = await api.job.ListJobs(job.ListJobsRequest(page_size=100_000))
    assert large.next_page == ""


async def test_who_failed_last_can_be_listed(api: World) -> None:
    await api.call("POST", "/v1/jobs", {"id": "fine"})
    await api.call("POST", "/v1/jobs/fine/run")
    await api.until("/v1/jobs/fine", {"lastStatus": "COMPLETED"})
    from dts.model import End, Status

    api.hand.status, api.hand.end = Status.FAILED, End(code=3, error="exit 3")
    await api.call("POST", "/v1/jobs", {"id": "broken"})
    await api.call("POST", "/v1/jobs/broken/run")
    await api.until("/v1/jobs/broken", {"lastStatus": "FAILED", "status": "FAILED"})
    _, listed = await api.call("GET", "/v1/jobs?last_status=failed")
    assert [each["id"] for each in listed["jobs"]] == ["broken"]


async def test_bulk_is_all_or_none_and_names_the_item(api: World) -> None:
    jobs = [{"name": "a"}, {"name": "b", "cronExpression": "61 * * * *"}]
    status, body = await api.call("POST", "/v1/job-batches", {"jobs": jobs})
    assert status == 400
    assert body["message"].startswith("jobs[1].cron_expression: ")
    assert (await api.call("GET", "/v1/jobs"))[1]["total"] == 0
    _, made = await api.call("POST", "/v1/job-batches", {"jobs": [{"id": "x"}, {"id": "y"}, {"name": "z"}]})
    assert made["jobIds"][:2] == ["x", "y"]
    _, again = await api.call("POST", "/v1/job-batches", {"jobs": [{"id": "x"}, {"id": "y"}, {"id": "w"}]})
    assert again["jobIds"] == ["x", "y", "w"]
    status, _ = await api.call("POST", "/v1/job-batches", {"jobs": [{"id": "v"}, {"id": "x", "name": "other"}]})
    assert status == 409
    assert (await api.call("GET", "/v1/jobs/v"))[0] == 404
    _, paused = await api.call("POST", "/v1/job-batches/pause", {"ids": ["x", "y"], "note": "n"})
    assert paused["revisions"] == ["2", "2"]
    status, _ = await api.call("POST", "/v1/job-batches/resume", {"ids": ["x", "nobody"]})
    assert status == 404
    assert (await api.call("GET", "/v1/jobs/x"))[1]["status"] == "PAUSED"
    _, resumed = await api.call("POST", "/v1/job-batches/resume", {"ids": ["x", "y"]})
    assert resumed["revisions"] == ["3", "3"]
    updates = [{"id": "x", "name": "X"}, {"id": "y", "name": "Y", "revision": 9}]
    assert (await api.call("POST", "/v1/job-batches/update", {"jobs": updates}))[0] == 409
    assert (await api.call("GET", "/v1/jobs/x"))[1]["name"] == ""
    _, updated = await api.call("POST", "/v1/job-batches/update", {"jobs": [{"id": "x", "name": "X"}]})
    assert updated["revisions"] == ["4"]
    status, body = await api.call("POST", "/v1/job-batches/delete", {"ids": ["x", "x"]})
    assert (status, body["message"]) == (400, "job 'x' is named twice in one request")
    assert (await api.call("POST", "/v1/job-batches/delete", {"ids": ["x", "y"]}))[1]["deleted"] == 2


async def test_the_schedulers_upsert_runs_what_has_no_cron(api: World) -> None:
    request = scheduler.ScheduleJobRequest(
        job=job.JobResponse(id="s1", name="n"), resource_requirements=scheduler.Resources(cpu=500, memory=64)
    )
    api.hand.holding = True
    first = await api.schedule.ScheduleJob(request)
    assert first.schedule_id == "s1"
    assert first.execution_id.startswith("s1@")
    waits = await api.until(f"/v1/executions/{first.execution_id}", {"status": "QUEUED"})
    assert waits["reason"], "no worker has 500 millicores: it says so"
    shown = await api.schedule.GetScheduledJob(scheduler.GetScheduledJobRequest(job_id="s1"))
    assert (shown.next_execution_time, shown.resource_requirements.cpu) == ("", 500)
    request.job.cron_expression = "0 0 1 1 *"
    second = await api.schedule.ScheduleJob(request)
    assert second.execution_id == ""
    listed = await api.schedule.ListScheduledJobs(scheduler.ListScheduledJobsRequest())
    assert [each.job_id for each in listed.jobs] == ["s1"]
    assert listed.jobs[0].next_execution_time.endswith("-01-01T00:00:00Z")
    assert (await api.schedule.CancelJob(scheduler.CancelJobRequest(job_id="s1"))).success
    assert not (await api.schedule.ListScheduledJobs(scheduler.ListScheduledJobsRequest())).jobs
    await api.until(f"/v1/executions/{first.execution_id}", {"status": "CANCELLED"})
    made = await api.schedule.ScheduleJob(scheduler.ScheduleJobRequest())
    assert made.schedule_id, "a job without an id gets one"


async def test_what_metadata_names_is_what_runs(api: World) -> None:
    _, made = await api.call("POST", "/v1/jobs", {"metadata": {"dts.command": "echo hi"}})
    from dts.gen.worker.v1.worker_pb2 import Body

    found = [each async for each in api.store.jobs.definitions(made["jobId"], 1 << 60)]
    assert Body.FromString(found[0][0].body).task.shell.command == "echo hi"
    both = {"metadata": {"dts.command": "x", "dts.url": "http://localhost"}}
    assert "one of them" in (await api.call("POST", "/v1/jobs", both))[1]["message"]


async def test_h_is_resolved_when_the_job_is_made(api: World) -> None:
    _, made = await api.call("POST", "/v1/jobs", {"id": "spread", "cronExpression": "H H * * *"})
    _, shown = await api.call("GET", f"/v1/jobs/{made['jobId']}")
    minute, hour, *rest = shown["cronExpression"].split()
    assert 0 <= int(minute) < 60
    assert 0 <= int(hour) < 24
    assert rest == ["*", "*", "*"]
