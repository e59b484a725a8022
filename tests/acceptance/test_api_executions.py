"""Executions over both faces of the API: lists, output, events, verdicts, the audit; and HTTP's own habits."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from openapi_spec_validator import validate

from dts import bounds
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler
from dts.model import End, Status
from dts.wirejson import to_json
from tests.unit.api.world import World, world


@pytest.fixture
async def api() -> AsyncIterator[World]:
    async with world() as running:
        yield running


async def run_once(api: World, name: str = "j") -> str:
    """Makes a job, runs it, and waits for its end: the execution's id."""
    await api.call("POST", "/v1/jobs", {"id": name})
    _, run = await api.call("POST", f"/v1/jobs/{name}/run")
    async with asyncio.timeout(5):
        while True:
            _, found = await api.call("GET", f"/v1/executions/{run['executionId']}")
            if found["status"] in ("COMPLETED", "FAILED"):
                return str(run["executionId"])
            await asyncio.sleep(0.005)


async def test_both_faces_show_the_same_execution(api: World) -> None:
    api.hand.end = End(code=0, result="42")
    id = await run_once(api)
    over_grpc = await api.execution.GetExecution(execution.GetExecutionRequest(id=id))
    _, over_http = await api.call("GET", f"/v1/executions/{id}")
    assert over_http == to_json(over_grpc)
    assert (over_http["status"], over_http["result"], over_http["attempt"]) == ("COMPLETED", "42", 1)
    assert over_http["startTime"] is not None
    assert over_http["jobId"] == "j"


async def test_executions_are_listed_newest_first_with_stable_cursors(api: World) -> None:
    ids = [await run_once(api, f"j{at}") for at in range(7)]
    api.hand.holding = True
    await api.call("POST", "/v1/jobs", {"id": "open"})
    _, run = await api.call("POST", "/v1/jobs/open/run")
    ids.append(run["executionId"])
    await api.until(f"/v1/executions/{ids[-1]}", {"status": "RUNNING"})
    seen: list[str] = []
    token = ""
    while True:
        _, page = await api.call("GET", f"/v1/executions?page_size=3&last_id={token}")
        seen += [each["id"] for each in page["executions"]]
        assert (page["total"], page["totalIsLowerBound"]) == (8, False)
        token = page["nextPage"]
        if not token:
            break
    assert sorted(seen) == sorted(ids)
    assert seen[0] == ids[-1]
    _, opened = await api.call("GET", "/v1/executions?status=open")
    assert [each["id"] for each in opened["executions"]] == [ids[-1]]
    for name, count in (("running", 1), ("PLACED", 0), ("failures", 0), ("completed", 7)):
        _, found = await api.call("GET", f"/v1/executions?status={name}")
        assert (name, len(found["executions"]), found["total"]) == (name, count, count)
    _, found = await api.call("GET", "/v1/executions?job_id=j3")
    assert [each["jobId"] for each in found["executions"]] == ["j3"]
    _, found = await api.call("GET", "/v1/executions?from=2030-01-01T00:00:00Z")
    assert found["executions"] == []


async def test_cancel_and_retry_of_an_execution(api: World) -> None:
    api.hand.holding = True
    await api.call("POST", "/v1/jobs", {"id": "c"})
    _, run = await api.call("POST", "/v1/jobs/c/run")
    path = f"/v1/executions/{run['executionId']}"
    await api.until(path, {"status": "RUNNING"})
    assert (await api.call("POST", f"{path}/retry"))[1]["code"] == 9
    _, cancelled = await api.call("POST", f"{path}/cancel", {"reason": "a mistake"})
    assert cancelled["id"] == run["executionId"]
    ended = await api.until(path, {"status": "CANCELLED"})
    assert ended["reason"] == "a mistake"
    status, body = await api.call("POST", f"{path}/cancel")
    assert (status, body["code"]) == (400, 9)
    api.hand.holding = False
    _, first = await api.call("POST", f"{path}/retry", {"requestId": "again"})
    assert await api.call("POST", f"{path}/retry", {"requestId": "again"}) == (200, first)
    again = await api.until(f"/v1/executions/{first['executionId']}", {"status": "COMPLETED"})
    assert (again["cause"], again["retryOf"]) == ("retry", run["executionId"])
    assert (await api.call("GET", path))[1]["status"] == "CANCELLED", "a verdict never changes"


async def test_output_is_kept_and_can_be_followed(api: World) -> None:
    api.hand.output = b"one\n"
    api.hand.holding = True
    await api.call("POST", "/v1/jobs", {"id": "o"})
    _, run = await api.call("POST", "/v1/jobs/o/run")
    path = f"/v1/executions/{run['executionId']}"
    await api.until(path, {"status": "RUNNING"})
    (held,) = api.hand.held
    stream = api.execution.FollowOutput(execution.FollowOutputRequest(id=run["executionId"]))
    assert (await stream.read()).data == b"one\n"
    async with api.client.get(f"{path}/output:follow", headers={"Accept": "text/event-stream"}) as events:
        assert events.headers["Content-Type"] == "text/event-stream"
        first = await events.content.readline()
        assert base64.b64decode(json.loads(first.removeprefix(b"data: "))["data"]) == b"one\n"
        await api.store.outputs.put(held.key, held.attempt, 4, b"two\n", True)
        await events.content.readline()
        second = await events.content.readline()
        assert base64.b64decode(json.loads(second.removeprefix(b"data: "))["data"]) == b"two\n"
    assert (await stream.read()).data == b"two\n"
    await api.call("POST", f"{path}/cancel")
    last = await stream.read()
    assert (last.data, last.status) == (b"", "CANCELLED")
    assert await stream.read() is grpc.aio.EOF
    _, output = await api.call("GET", f"{path}/output")
    assert base64.b64decode(output["head"]) + base64.b64decode(output["tail"]) == b"one\ntwo\n"
    assert (output["complete"], output["cutBytes"]) == (True, "0")
    async with api.client.get(f"{path}/output:follow") as lines:
        assert lines.headers["Content-Type"] == "application/x-ndjson"
        read = [json.loads(line) async for line in lines.content]
    assert [base64.b64decode(each["data"]) for each in read] == [b"one\ntwo\n", b""]
    assert read[-1]["status"] == "CANCELLED"
    assert (await api.call("GET", f"{path}/output?attempt=7"))[0] == 404


async def test_events_are_watched_as_they_are_committed(api: World) -> None:
    stream = api.execution.WatchEvents(execution.WatchEventsRequest(job_id="w"))
    async with api.client.get("/v1/events") as lines:  # its headers come before the first event
        await stream.wait_for_connection()
        await api.call("POST", "/v1/jobs", {"id": "w"})
        _, run = await api.call("POST", "/v1/jobs/w/run")
        statuses = []
        while "COMPLETED" not in statuses:
            event = await asyncio.wait_for(stream.read(), 5)
            assert event.execution.id == run["executionId"]
            statuses.append(event.execution.status)
        first = json.loads(await asyncio.wait_for(lines.content.readline(), 5))
        assert first["execution"]["id"] == run["executionId"]
    stream.cancel()


async def test_every_due_instant_has_a_verdict_and_the_audit_says_so(api: World) -> None:
    await api.call("POST", "/v1/jobs", {"id": "tick", "cronExpression": "@every 1s"})
    await api.call("POST", "/v1/jobs", {"id": "never", "cronExpression": "@every 1s", "status": "PAUSED"})
    async with asyncio.timeout(8):
        while True:
            _, found = await api.call("GET", "/v1/executions?job_id=tick&status=completed")
            if found["total"] >= 2:
                break
            await asyncio.sleep(0.02)
    await api.call("POST", "/v1/jobs/never/resume")
    audit = (await api.call("GET", "/v1/audit"))[1]
    assert audit["clean"], audit
    assert int(audit["verdicts"]["COMPLETED"]) >= 2
    assert int(audit["verdicts"]["paused"]) >= 2
    assert int(audit["due"]) == sum(int(each) for each in audit["verdicts"].values())
    assert audit["jobs"] == "2"
    one = (await api.call("GET", "/v1/audit?job_id=tick"))[1]
    assert (one["clean"], one["jobs"]) == (True, "1")
    seen: list[str] = []
    token = ""
    while True:
        _, page = await api.call("GET", f"/v1/verdicts?page_size=1&page_token={token}")
        seen += [next(kind for kind in ("execution", "range") if kind in each) for each in page["verdicts"]]
        token = page["nextPageToken"]
        if not token:
            break
    assert seen.count("execution") >= 2
    assert seen.count("range") == 1
    _, ranges = await api.call("GET", "/v1/verdicts?verdict=range")
    assert [each["range"]["reason"] for each in ranges["verdicts"]] == ["paused"]
    _, done = await api.call("GET", "/v1/verdicts?verdict=completed&job_id=tick")
    assert all(each["execution"]["cause"] == "schedule" for each in done["verdicts"])


async def test_a_missing_verdict_is_found(api: World) -> None:
    await api.call("POST", "/v1/jobs", {"id": "tick", "cronExpression": "@every 1s"})
    await api.until("/v1/jobs/tick", {"lastStatus": "COMPLETED"})
    api.store.history._ended.clear()  # what a lost record would look like
    audit = (await api.call("GET", "/v1/audit?job_id=tick"))[1]
    assert not audit["clean"]
    assert int(audit["missing"]) >= 1
    assert audit["findings"][0]["kind"] == "missing"


async def test_failures_can_be_listed(api: World) -> None:
    api.hand.status, api.hand.end = Status.FAILED, End(code=3, error="exit 3")
    id = await run_once(api, "bad")
    _, found = await api.call("GET", "/v1/executions?status=failures")
    assert [each["id"] for each in found["executions"]] == [id]
    assert (found["executions"][0]["exitCode"], found["executions"][0]["error"]) == (3, "exit 3")


async def test_health_and_reflection(api: World) -> None:
    answer = await health_pb2_grpc.HealthStub(api.channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING

    async def asked() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    stub = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    async for each in stub.ServerReflectionInfo(asked()):
        names = {service.name for service in each.list_services_response.service}
    assert {"job.v1.JobService", "scheduler.v1.SchedulerService", "execution.v1.ExecutionService"} <= names
    assert (await api.call("GET", "/healthz"))[0] == 200
    assert (await api.call("GET", "/readyz"))[0] == 200


async def test_a_deadline_is_kept(api: World) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in api.execution.WatchEvents(execution.WatchEventsRequest(), timeout=0.2):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_openapi_is_valid_and_has_every_method(api: World) -> None:
    _, document = await api.call("GET", "/openapi.json")
    validate(document)
    operations = [each["operationId"] for verbs in document["paths"].values() for each in verbs.values()]
    files = (job, scheduler, execution)
    methods = [m for each in files for s in each.DESCRIPTOR.services_by_name.values() for m in s.methods]
    assert len(operations) == len(set(operations)) == len(methods)
    assert all(each.get("summary") for verbs in document["paths"].values() for each in verbs.values())
    schemas = document["components"]["schemas"]
    assert schemas["job.StartBackfillRequest"]["properties"]["to"]["description"].startswith("Exclusive, default now")
    assert schemas["job.ShellTask"]["description"].startswith("A command line for /bin/sh -c")
    run = document["paths"]["/v1/jobs/{id}/run"]["post"]["requestBody"]
    assert run["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/job.RunJobRequest"}
    (status,) = (each for each in document["paths"]["/v1/jobs"]["get"]["parameters"] if each["name"] == "status")
    assert status["description"] == "A JobStatus name in any case, or 'active'"
    async with api.client.get("/docs") as page:
        assert "openapi.json" in await page.text()


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:8", True),
        ("http://localhost.evil.example", False),
        ("https://example.com", False),
        ("null", False),
    ],
)
async def test_pages_of_this_machine_may_call(api: World, origin: str, allowed: bool) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}
    async with api.client.options("/v1/jobs/x", headers=asked) as answer:
        assert answer.status == 204
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
        assert ("PUT" in answer.headers.get("Access-Control-Allow-Methods", "")) is allowed
    async with api.client.get("/v1/jobs/nobody", headers={"Origin": origin}) as answer:
        assert answer.status == 404
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)


async def test_errors_all_have_one_form(api: World) -> None:
    large = b'{"name": "' + b"x" * (bounds.REQUEST_BYTES + 1) + b'"}'
    for verb, path, data, status, code in (
        ("GET", "/nowhere", None, 404, 5),
        ("GET", "/v1/nowhere", None, 404, 5),
        ("PATCH", "/v1/jobs", b"{}", 405, 12),
        ("POST", "/openapi.json", b"{}", 405, 12),
        ("POST", "/v1/jobs", b"{", 400, 3),
        ("POST", "/v1/jobs", large, 413, 8),
        ("GET", "/v1/jobs/nobody", None, 404, 5),
    ):
        got, body = await api.call(verb, path, data=data)
        assert (got, body["code"]) == (status, code), path
        assert body["message"]
        assert body["details"] == []
    async with api.client.patch("/v1/jobs") as answer:
        assert answer.headers["Allow"] == "GET, POST"
    assert (await api.call("GET", "/v1/jobs"))[0] == 200


async def test_a_bug_is_internal_with_a_mark_and_no_traceback(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(api.store.jobs, "get", broken)
    status, body = await api.call("GET", "/v1/jobs/x")
    assert (status, body["code"]) == (500, 13)
    assert "secret" not in body["message"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.job.GetJob(job.GetJobRequest(id="x"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_the_last_of_a_followed_output_comes_even_after_the_verdict(api: World) -> None:
    api.hand.output = b"one\n"
    api.hand.holding = True
    await api.call("POST", "/v1/jobs", {"id": "late"})
    _, run = await api.call("POST", "/v1/jobs/late/run")
    path = f"/v1/executions/{run['executionId']}"
    await api.until(path, {"status": "RUNNING"})
    (held,) = api.hand.held
    await api.call("POST", f"{path}/cancel")
    await api.until(path, {"status": "CANCELLED"})
    stream = api.execution.FollowOutput(execution.FollowOutputRequest(id=run["executionId"]))
    assert (await stream.read()).data == b"one\n"
    await api.store.outputs.put(held.key, held.attempt, 4, b"two\n", True)
    assert (await stream.read()).data == b"two\n"
    assert (await stream.read()).status == "CANCELLED"


@pytest.mark.parametrize("path", ["/v1/executions?jobId=nobody", "/v1/verdicts?jobId=nobody", "/v1/audit?jobId=nobody"])
async def test_a_job_that_never_was_has_no_history(api: World, path: str) -> None:
    status, answer = await api.call("GET", path)
    assert (status, answer["message"]) == (404, "job 'nobody' not found")
    await api.call("POST", "/v1/jobs", {"id": "nobody"})
    await api.call("DELETE", "/v1/jobs/nobody")
    assert (await api.call("GET", path))[0] == 200


async def test_a_time_that_is_none_says_how_to_write_one(api: World) -> None:
    status, answer = await api.call("GET", "/v1/audit?from=-1h")
    assert status == 400
    assert answer["message"] == "from: '-1h' is no RFC 3339 time; write it as 2026-03-29T01:00:00Z"


async def test_an_open_execution_shows_its_earlier_attempts(api: World) -> None:
    api.hand.status, api.hand.end = Status.FAILED, End(code=3, error="no disk")
    policies = {"retryInitial": "60s", "retryCap": "60s"}
    await api.call("POST", "/v1/jobs", {"id": "again", "maxRetries": 2, "policies": policies})
    _, run = await api.call("POST", "/v1/jobs/again/run")
    found = await api.until(f"/v1/executions/{run['executionId']}", {"status": "RETRYING"})
    assert [(each["attempt"], each["status"], each["error"]) for each in found["attempts"]] == [
        (1, "FAILED", "no disk")
    ]
