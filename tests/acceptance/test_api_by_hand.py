"""By hand, over the API: backfills, cancel and retry by filter, batches of jobs by filter, dry runs; over memory and SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dts.model import End, Status
from tests.unit.api.world import World, world

HOURLY = "2026-03-01T00:00:00Z"


@pytest.fixture(params=["memory", "sqlite"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "dts.db" if request.param == "sqlite" else None) as running:
        yield running


async def create(api: World, *ids: str, **more: object) -> None:
    jobs = [{"id": id, "name": f"job {id}", **more} for id in ids]
    status, body = await api.call("POST", "/v1/job-batches", {"jobs": jobs})
    assert status == 200, body


async def ok(api: World, verb: str, path: str, body: object = None) -> Any:
    status, answer = await api.call(verb, path, body)
    assert status == 200, answer
    return answer


async def refused(api: World, path: str, body: object, status: int, text: str) -> None:
    found, answer = await api.call("POST", path, body)
    assert (found, text in answer["message"]) == (status, True), answer


# ---- backfills ----


async def test_a_backfill_from_its_start_to_its_end(api: World) -> None:
    await create(api, "j", cronExpression="0 * * * *", status="PAUSED")
    api.hand.holding = True
    body = {"from": HOURLY, "to": "2026-03-01T04:00:00Z", "parallel": 3, "requestId": "r"}
    begun = (await ok(api, "POST", "/v1/jobs/j/backfill", body))["backfill"]
    assert (begun["state"], begun["total"], begun["started"], begun["open"]) == ("RUNNING", "4", "3", "3")
    assert (await ok(api, "POST", "/v1/jobs/j/backfill", body))["backfill"]["id"] == begun["id"]
    assert [each["id"] for each in (await ok(api, "GET", "/v1/backfills"))["backfills"]] == [begun["id"]]
    running = await api.until("/v1/executions?jobId=j&cause=backfill&status=running", {"total": 3})
    nonce = begun["id"].partition("~")[2]
    assert running["executions"][0]["id"] == f"j@20260301T020000.000Z~{nonce}"
    assert {each["cause"] for each in running["executions"]} == {"backfill"}
    path = f"/v1/backfills/{begun['id']}"
    assert (await ok(api, "POST", f"{path}/cancel", {"dryRun": True}))["state"] == "RUNNING"
    assert (await ok(api, "POST", f"{path}/cancel", {"reason": "enough"}))["state"] == "CANCELLED"
    over = await api.until(path, {"open": "0"})
    assert (over["started"], over["cancelled"], over["reason"]) == ("3", "3", "enough")
    await refused(api, f"{path}/cancel", {}, 400, "is CANCELLED")
    audit = await ok(api, "GET", f"/v1/audit?jobId=j&from={HOURLY}")
    assert (audit["clean"], audit["due"]) == (True, "0")


async def test_what_cannot_be_backfilled(api: World) -> None:
    await create(api, "idle")
    await create(api, "j", cronExpression="0 * * * *")
    await ok(api, "POST", "/v1/jobs/idle/cancel", {})
    await refused(api, "/v1/jobs/j/backfill", {"to": HOURLY}, 400, "from: not given")
    await refused(api, "/v1/jobs/j/backfill", {"from": HOURLY, "to": HOURLY}, 400, "from: is not before to")
    await refused(api, "/v1/jobs/j/backfill", {"from": HOURLY, "to": "2199-01-01T00:00:00Z"}, 400, "to: is after now")
    await refused(api, "/v1/jobs/j/backfill", {"from": HOURLY, "parallel": -1}, 400, "parallel")
    await refused(api, "/v1/jobs/idle/backfill", {"from": HOURLY}, 400, "is cancelled")
    await refused(api, "/v1/jobs/nope/backfill", {"from": HOURLY}, 404, "not found")
    await refused(api, "/v1/jobs/job%20j/backfill", {"from": HOURLY}, 400, "no job id")
    short = {"from": "2026-03-01T00:00:01Z", "to": "2026-03-01T00:00:09Z"}
    await refused(api, "/v1/jobs/j/backfill", short, 400, "no instant in that range")
    await refused(api, "/v1/backfills/j~0123456789ab/cancel", {}, 404, "not found")
    await refused(api, "/v1/backfills/j/cancel", {}, 400, "<job>~<12 hex digits>")
    await create(api, "secondly", cronExpression="@every 1s")
    await refused(api, "/v1/jobs/secondly/backfill", {"from": "2026-01-01T00:00:00Z"}, 400, "at most 1000000")


async def test_backfills_are_listed_a_page_at_a_time(api: World) -> None:
    await create(api, "a", "b", cronExpression="0 * * * *")
    made = []
    for job in ("a", "b", "a"):
        body = {"from": HOURLY, "to": "2026-03-01T03:00:00Z"}
        made.append((await ok(api, "POST", f"/v1/jobs/{job}/backfill", body))["backfill"]["id"])
        await api.until(f"/v1/backfills/{made[-1]}", {"state": "DONE", "completed": "3"})
    first = await ok(api, "GET", "/v1/backfills?pageSize=2")
    rest = await ok(api, "GET", f"/v1/backfills?pageSize=2&lastId={first['nextPage']}")
    assert sorted(each["id"] for page in (first, rest) for each in page["backfills"]) == sorted(made)
    assert rest["nextPage"] == ""
    of_b = await ok(api, "GET", "/v1/backfills?jobId=b")
    assert [each["id"] for each in of_b["backfills"]] == [made[1]]


# ---- cancel and retry by filter ----


async def test_what_failed_is_retried_by_filter_and_a_repeat_is_the_same(api: World) -> None:
    await create(api, "a", "b")
    api.hand.status, api.hand.end = Status.FAILED, End(code=1)
    failed = [(await ok(api, "POST", f"/v1/jobs/{job}/run", {}))["executionId"] for job in "aaab"]
    await api.until("/v1/executions?status=failed", {"total": 4})
    api.hand.status, api.hand.end = Status.COMPLETED, End()
    body = {"filter": {"jobId": "a"}, "requestId": "again", "pageSize": 2}
    dry = await ok(api, "POST", "/v1/execution-batches/retry", {**body, "dryRun": True})
    assert (len(dry["ids"]), dry["executionIds"]) == (2, [])
    assert (await ok(api, "GET", "/v1/executions?cause=retry"))["executions"] == []
    first = await ok(api, "POST", "/v1/execution-batches/retry", body)
    assert first["ids"] == dry["ids"]
    rest = await ok(api, "POST", "/v1/execution-batches/retry", {**body, "pageToken": first["nextPageToken"]})
    assert sorted([*first["ids"], *rest["ids"]]) == sorted(failed[:3])
    made = [*first["executionIds"], *rest["executionIds"]]
    await api.until("/v1/executions?status=completed", {"total": 3})
    again = await ok(api, "POST", "/v1/execution-batches/retry", body)
    assert again["executionIds"] == first["executionIds"], "the same request id is the same retry"
    assert rest["nextPageToken"] == "", rest
    retried = await ok(api, "GET", "/v1/executions?cause=retry")
    assert {(each["id"], each["retryOf"]) for each in retried["executions"]} == set(
        zip(made, [*first["ids"], *rest["ids"]], strict=True)
    )


async def test_a_retry_of_a_deleted_job_is_refused_and_the_others_go_on(api: World) -> None:
    await create(api, "a", "b")
    api.hand.status = Status.FAILED
    failed = {job: (await ok(api, "POST", f"/v1/jobs/{job}/run", {}))["executionId"] for job in "ab"}
    await api.until("/v1/executions?status=failed", {"total": 2})
    await ok(api, "DELETE", "/v1/jobs/a")
    task = {"shell": {"command": "echo changed"}}
    done = await ok(api, "POST", "/v1/execution-batches/retry", {"filter": {"status": "failed"}, "task": task})
    assert done["ids"] == [failed["b"]]
    assert [(each["id"], "not found" in each["problem"]) for each in done["refused"]] == [(failed["a"], True)]


async def test_what_is_open_is_cancelled_by_filter(api: World) -> None:
    await create(api, "a", "b")
    api.hand.holding = True
    ran = [(await ok(api, "POST", f"/v1/jobs/{job}/run", {}))["executionId"] for job in "aaab"]
    await api.until("/v1/executions?status=running", {"total": 4})
    body = {"filter": {"jobId": "a", "cause": "manual"}, "reason": "not today"}
    dry = await ok(api, "POST", "/v1/execution-batches/cancel", {**body, "dryRun": True})
    assert sorted(dry["ids"]) == sorted(ran[:3])
    assert (await ok(api, "GET", "/v1/executions?status=running"))["total"] == 4
    done = await ok(api, "POST", "/v1/execution-batches/cancel", {**body, "requestId": "r"})
    assert (sorted(done["ids"]), done["refused"], done["nextPageToken"]) == (sorted(ran[:3]), [], "")
    await api.until("/v1/executions?status=cancelled", {"total": 3})
    assert (await ok(api, "GET", f"/v1/executions/{ran[0]}"))["status"] == "CANCELLED"
    assert (await ok(api, "POST", "/v1/execution-batches/cancel", body))["ids"] == []
    none = {"filter": {"jobId": "b", "from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}}
    assert (await ok(api, "POST", "/v1/execution-batches/cancel", none))["ids"] == []


async def test_filters_that_say_nothing_or_nonsense_are_refused(api: World) -> None:
    for what in ("cancel", "retry"):
        path = f"/v1/execution-batches/{what}"
        await refused(api, path, {}, 400, "filter: is empty")
        await refused(api, path, {"filter": {"status": "odd"}}, 400, "filter.status")
        await refused(api, path, {"filter": {"cause": "odd"}}, 400, "filter.cause")
        await refused(api, path, {"filter": {"jobId": "nope"}}, 404, "not found")
        await refused(api, path, {"filter": {"jobId": "no pe"}}, 400, "filter.job_id")
        await refused(api, path, {"filter": {"cause": "manual"}, "pageSize": -1}, 400, "page_size")
    await refused(api, "/v1/execution-batches/cancel", {"filter": {"status": "failed"}}, 400, "has ended")
    await refused(api, "/v1/execution-batches/retry", {"filter": {"status": "running"}}, 400, "has not ended")


# ---- one job or execution, dry ----


async def test_a_dry_run_of_one_says_what_would_run_and_does_nothing(api: World) -> None:
    own = {"shell": {"command": "echo own"}}
    await create(api, "j", task=own)
    found = await ok(api, "POST", "/v1/jobs/j/run", {"dryRun": True})
    assert (found["executionId"], found["task"]["shell"]["command"], found["revision"]) == ("", "echo own", "1")
    other = {"shell": {"command": "echo other"}}
    found = await ok(api, "POST", "/v1/jobs/j/run", {"dryRun": True, "task": other})
    assert found["task"]["shell"]["command"] == "echo other"
    await refused(api, "/v1/jobs/j/run", {"dryRun": True, "task": {"shell": {}}}, 400, "task.shell")
    assert (await ok(api, "GET", "/v1/executions"))["total"] == 0
    api.hand.holding = True
    id = (await ok(api, "POST", "/v1/jobs/j/run", {}))["executionId"]
    await api.until(f"/v1/executions/{id}", {"status": "RUNNING"})
    await refused(api, f"/v1/executions/{id}/retry", {"dryRun": True}, 400, "has not ended")
    assert (await ok(api, "POST", f"/v1/executions/{id}/cancel", {"dryRun": True}))["status"] == "RUNNING"
    await ok(api, "POST", f"/v1/executions/{id}/cancel", {})
    await api.until(f"/v1/executions/{id}", {"status": "CANCELLED"})
    await refused(api, f"/v1/executions/{id}/cancel", {"dryRun": True}, 400, "has ended")
    assert (await ok(api, "POST", f"/v1/executions/{id}/retry", {"dryRun": True}))["executionId"] == ""
    assert (await ok(api, "GET", "/v1/executions"))["total"] == 1
    await ok(api, "POST", "/v1/jobs/j/cancel", {})
    await refused(api, "/v1/jobs/j/run", {"dryRun": True}, 400, "is cancelled")


# ---- batches of jobs by filter ----


async def test_jobs_are_paused_resumed_updated_and_deleted_by_filter(api: World) -> None:
    await create(api, "a", "b", tags=["nightly"], cronExpression="0 0 1 1 *")
    await create(api, "c", "d", tags=["daily"], cronExpression="0 0 1 1 *")
    nightly = {"filter": {"tag": "nightly"}}
    dry = await ok(api, "POST", "/v1/job-batches/pause", {**nightly, "dryRun": True})
    assert (dry["ids"], dry["revisions"], dry["nextPageToken"]) == (["a", "b"], ["2", "2"], "")
    assert (await ok(api, "GET", "/v1/jobs/a"))["revision"] == "1"
    assert (await ok(api, "POST", "/v1/job-batches/pause", {**nightly, "note": "upgrade"}))["ids"] == ["a", "b"]
    paused = await ok(api, "GET", "/v1/jobs?status=paused")
    assert [(each["id"], each["pause"]["note"]) for each in paused["jobs"]] == [("a", "upgrade"), ("b", "upgrade")]
    resumed = await ok(api, "POST", "/v1/job-batches/resume", {"filter": {"status": "paused"}})
    assert resumed["ids"] == ["a", "b"]
    change = {"filter": {"nameContains": "JOB", "tag": "daily"}, "change": {"priority": 7}}
    assert (await ok(api, "POST", "/v1/job-batches/update", change))["ids"] == ["c", "d"]
    priorities = {each["id"]: each["priority"] for each in (await ok(api, "GET", "/v1/jobs"))["jobs"]}
    assert priorities == {"a": 0, "b": 0, "c": 7, "d": 7}
    gone = await ok(api, "POST", "/v1/job-batches/delete", {"filter": {"tag": "daily"}, "dryRun": True})
    assert (gone["deleted"], gone["ids"]) == (2, ["c", "d"])
    await ok(api, "POST", "/v1/job-batches/delete", {"filter": {"tag": "daily"}})
    assert [each["id"] for each in (await ok(api, "GET", "/v1/jobs"))["jobs"]] == ["a", "b"]
    assert (await ok(api, "POST", "/v1/job-batches/delete", {"filter": {"all": True}}))["deleted"] == 2


async def test_more_jobs_than_one_call_takes_are_gone_through_with_its_token(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dts.bounds.BULK_JOBS", 3)
    monkeypatch.setattr("dts.api.job_batches.PAGE", 2)
    for some in ("abc", "def", "g"):
        await create(api, *some)
    body: dict[str, object] = {"filter": {"all": True}}
    pages = []
    while True:
        page = await ok(api, "POST", "/v1/job-batches/pause", body)
        pages.append(page["ids"])
        if not page["nextPageToken"]:
            break
        body["pageToken"] = page["nextPageToken"]
    assert pages == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert len((await ok(api, "GET", "/v1/jobs?status=paused"))["jobs"]) == 7


async def test_a_dry_run_of_a_batch_refuses_what_the_batch_would(api: World) -> None:
    await create(api, "a")
    await refused(api, "/v1/job-batches/delete", {"ids": ["a", "nope"], "dryRun": True}, 404, "'nope' not found")
    wrong = {"filter": {"all": True}, "change": {"cronExpression": "nonsense"}, "dryRun": True}
    await refused(api, "/v1/job-batches/update", wrong, 400, "cron_expression")
    for what in ("pause", "resume", "delete"):
        path = f"/v1/job-batches/{what}"
        await refused(api, path, {"filter": {}}, 400, "filter: is empty")
        await refused(api, path, {"filter": {"all": True}, "ids": ["a"]}, 400, "ids: are named beside a filter")
        await refused(api, path, {"filter": {"status": "odd"}}, 400, "filter.status")
    named = {"filter": {"all": True}, "change": {"id": "a"}}
    await refused(api, "/v1/job-batches/update", named, 400, "change: names an id")
    jobs = {"filter": {"all": True}, "jobs": [{"id": "a"}]}
    await refused(api, "/v1/job-batches/update", jobs, 400, "jobs: are named beside a filter")
    assert (await ok(api, "GET", "/v1/jobs/a"))["revision"] == "1"
