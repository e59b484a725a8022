"""JSON, queries, routes and ids of executions, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dts.api.errors import Problem
from dts.api.ids import parse_execution_id
from dts.api.job_methods import JobMethods
from dts.api.methods import all_methods, services
from dts.api.reading import decode, parse_json, parse_query
from dts.api.routes import Router
from dts.errors import InvalidArgument
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.gen.job.v1 import job_pb2 as job
from dts.model import Key


def read(value: Any) -> job.CreateJobRequest:
    message = job.CreateJobRequest()
    parse_json(json.dumps(value).encode(), message)
    return message


def test_both_spellings_and_any_case_of_enums() -> None:
    assert read({"cron_expression": "x", "maxRetries": "3", "status": "job_status_paused"}) == job.CreateJobRequest(
        cron_expression="x", max_retries=3, status=job.PAUSED
    )
    assert read({"maxRetries": 3.0, "status": 6}) == job.CreateJobRequest(max_retries=3, status=job.PAUSED)
    assert read({}) == read({"name": None}) == job.CreateJobRequest()
    assert read({"createdAt": "whatever", "nextRun": None, "lastStatus": "FAILED"}) == job.CreateJobRequest()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"nmae": 1}, "nmae: there is no such field; did you mean name?"),
        ({"zzz": 1}, "zzz: there is no such field; valid: name, description"),
        ({"name": 1}, "name: must be a string, not a number"),
        ({"task": {"shell": {"argv": ["a", 1]}}}, "task.shell.argv[1]: must be a string, not a number"),
        ({"schedules": [{"start": "now"}]}, "schedules[0].start: "),
        ({"policies": {"lateWindow": 5}}, "policies.lateWindow: "),
        ({"priority": 2**31}, "priority: must be from -2147483648 to 2147483647"),
        ({"metadata": {"a": {}}}, "metadata[a]: must be a string, not an object"),
        ({"name": "a", "task": []}, "task: must be an object, not a list"),
    ],
)
def test_a_refusal_names_the_field(value: Any, told: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(value)
    assert str(caught.value).startswith(told)


def test_a_query_reaches_fields_within_fields() -> None:
    message = job.CreateJobRequest()
    parse_query([("policies.misfire", "skip"), ("tags", "a"), ("tags", "b"), ("requirements.cpu", "5")], message)
    assert message == job.CreateJobRequest(
        policies=job.Policies(misfire="skip"), tags=["a", "b"], requirements=job.Requirements(cpu=5)
    )
    times = execution.AuditRequest()
    parse_query([("from", "2026-01-01T00:00:00Z")], times)
    assert getattr(times, "from").seconds == 1_767_225_600
    for name in ("metadata", "metadata.a", "name.x", "task", "tags.x", "policies.lateWindow.seconds"):
        with pytest.raises(InvalidArgument):
            parse_query([(name, "1")], job.CreateJobRequest())


def test_a_field_of_another_type_is_refused_and_an_unknown_one_is_not() -> None:
    assert decode(b"\x0a\x01x", job.GetJobRequest).id == "x"
    assert decode(b"\xa0\x06\x01", job.GetJobRequest) is not None
    with pytest.raises(InvalidArgument, match="id: has another type"):
        decode(b"\x08\x01", job.GetJobRequest)


def router() -> Router:
    return Router(all_methods(services(JobMethods(None))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verb", "path", "name", "values"),
    [
        ("GET", "/v1/jobs", "ListJobs", {}),
        ("POST", "/v1/jobs", "CreateJob", {}),
        ("GET", "/v1/jobs/a%2Fb", "GetJob", {"id": "a/b"}),
        ("POST", "/v1/jobs/x/cancel", "CancelJob", {"id": "x"}),
        ("GET", "/v1/schedules/preview", "PreviewSchedule", {}),
    ],
)
def test_routes(verb: str, path: str, name: str, values: dict[str, str]) -> None:
    found = router().match(verb, path)
    assert not isinstance(found, Problem)
    assert (found.route.method.descriptor.name, found.values) == (name, values)


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [("GET", "/v1/job", 404), ("GET", "/v1/jobs/", 404), ("PATCH", "/v1/jobs/x", 405), ("GET", "/v1/jobs/%ff", 400)],
)
def test_paths_that_are_none(verb: str, path: str, status: int) -> None:
    found = router().match(verb, path)
    assert isinstance(found, Problem)
    assert found.status == status


def test_execution_ids_are_read_as_they_are_written() -> None:
    for key in (Key("a", 0), Key("a.b-c_d", 1_774_746_000_123), Key("x", 253_402_300_799_999, "0123456789ab")):
        assert parse_execution_id(str(key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a@",
        "@20260329T010000.000Z",
        "a@20260230T010000.000Z",
        "a@20260329T250000.000Z",
        "a@20260329T010060.000Z",
        "a@99999999T999999.999Z",
        "a@19691231T235959.999Z",
        "a@20260329T010000.000Z~",
        "a@20260329T010000.000Z~0123456789AB",
        "a@20260329T010000.000Z~0123456789abc",
        "a@20260329T010000Z",
        "..@20260329T010000.000Z",
        "a@20260329T010000.000Z\n",
        "a@\uff120260329T010000.000Z",
    ],
)
def test_what_is_no_execution_id_is_told_the_form(text: str) -> None:
    with pytest.raises(InvalidArgument, match="its form is <job>@20260329T010000"):
        parse_execution_id(text)
