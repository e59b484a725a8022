"""Hostile requests on every method, made from the descriptors: always a 4xx (or its gRPC code) with code and message, within a second,
nothing stored, and the next request is answered."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from dts.api.execution_methods import ExecutionMethods
from dts.api.job_methods import JobMethods
from dts.api.methods import Method, all_methods, services
from dts.api.routes import route_of
from dts.api.scheduler_methods import SchedulerMethods
from tests.unit.api.world import World, world

# Only for their descriptors and annotations: nothing is called on these.
METHODS = all_methods(services(JobMethods(None), SchedulerMethods(None, None), ExecutionMethods(None, None, None)))  # type: ignore[arg-type]
SECOND = 1.0
REFUSED = {400, 404, 405, 409, 413, 429}
ID = "01a21033-4452-7000-8454-ed4016f29236"
EXECUTION = f"{ID}@20260329T010000.000Z"
TEXTS = {
    "sql": "'; DROP TABLE jobs; --",
    "cql": "0x00; TRUNCATE jobs; /* */",
    "markup": "<script>alert(1)</script>&amp;",
    "nul": "a\0b",
    "controls": "\t\r\n\x1b[31m\x7f",
    "wide": "\U0001d518 \u202egnirts\u202c \ufeff \u00e9 e\u0301 \u6f22\u5b57 \U0001f469\u200d\U0001f680",
    "template": "${jndi:ldap://x} {{7*7}} %s %n",
}

Case = tuple[str, str, bytes | None]  # verb, raw path with query, body


@pytest.fixture(params=["memory", "sqlite"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "dts.db" if request.param == "sqlite" else None) as running:
        yield running


async def stored(api: World) -> tuple[Any, ...]:
    """All that a request could have changed."""
    rows = await api.store.jobs.list("", 1_000, frozenset({1, 2, 3, 4}))
    shards, _, _ = await api.scheduler.status()
    listed = await api.call("GET", "/v1/executions")
    return ([(row.id, row.revision) for row in rows], [shard.jobs for shard in shards], listed)


async def raw(api: World, case: Case) -> tuple[int, Any]:
    """Sends a request as it is, byte for byte."""
    verb, path, body = case
    reader, writer = await asyncio.open_connection(api.client.host, api.client.port, limit=1 << 24)
    head = f"{verb} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(head.encode("latin-1") + f"Content-Length: {len(body or b'')}\r\n\r\n".encode() + (body or b""))
    try:
        head_read = await reader.readuntil(b"\r\n\r\n")
        streams = b"Transfer-Encoding: chunked" in head_read  # it may go on for ever
        answer = head_read + (b"" if streams else await reader.read())
    finally:
        writer.close()
    status, _, text = answer.partition(b"\r\n\r\n")
    return int(status.split()[1]), json.loads(text) if text else None


def path_of(method: Method, id: str) -> str:
    template = route_of(method).template
    return template.replace("{id}", id).replace("{job_id}", id)


def good_id(method: Method) -> str:
    return EXECUTION if "/executions/" in route_of(method).template else ID


def wrong_values(field: FieldDescriptor) -> Iterator[Any]:
    """Values of JSON that no such field can take."""
    if field.is_repeated:
        yield from (
            (1, "x", True) if field.message_type is None or not field.message_type.GetOptions().map_entry else (1, [1])
        )
        return
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            yield from (1, 1.5, True, [], {}, ["x"])
        case FieldDescriptor.CPPTYPE_INT32:
            yield from (2**31, -(2**31) - 1, 2**64, 10**40, 1.5, "x", "", True, [], {}, "9" * 40)
        case FieldDescriptor.CPPTYPE_INT64:
            yield from (2**63, 10**40, 1.5, "x", True, [], {})
        case FieldDescriptor.CPPTYPE_ENUM:
            yield from ("NOPE", 999, -1, 1.5, [], {}, "")
        case FieldDescriptor.CPPTYPE_BOOL:
            yield from (1, "x", [], {})
        case FieldDescriptor.CPPTYPE_MESSAGE:
            yield from (1, True, [1])


def hostile_bodies(method: Method) -> Iterator[bytes]:
    yield from (
        b"{",
        b"[]",
        b"1",
        b'"x"',
        b"\xff\xfe",
        b'{"name": "\xff"}',
        b'{"id": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
        b'{"no such field": 1}',
        b'{"__proto__": {}}',
        b"\0",
        b"NaN",
        b"{} trailing",
    )
    descriptor: Descriptor = method.descriptor.input_type
    in_path = set(route_of(method).parameters)
    for field in descriptor.fields:
        if field.name in in_path:
            continue
        for value in wrong_values(field):
            yield json.dumps({field.name: value}).encode()
            yield json.dumps({field.json_name: value}).encode()


def hostile_queries(method: Method) -> Iterator[str]:
    yield from ("?nope=1", "?%ff=1", "?a.b.c=1", "?=&=&=")
    in_path = set(route_of(method).parameters)
    for field in method.descriptor.input_type.fields:
        if field.name in in_path:
            continue
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            yield f"?{field.name}=%ff%fe"
        else:
            values = {str(value) for value in wrong_values(field) if not isinstance(value, (bool, dict, list))}
            yield from (f"?{field.json_name}={quote(value)}" for value in values if value)


HOSTILE_IDS = (
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "a%00b",
    "%ff",
    "a%20b",
    "x" * 65,
    "'%20OR%201=1--",
    "%3Cb%3E",
    "@",
    "a@b",
    "é",
)


def cases(method: Method) -> Iterator[Case]:
    route = route_of(method)
    if route.parameters:
        for id in HOSTILE_IDS:
            yield route.verb, path_of(method, quote(id, safe="%@'=-")), b"{}" if route.body else None
    path = path_of(method, good_id(method))
    if route.body:
        for body in hostile_bodies(method):
            yield route.verb, path, body
        yield route.verb, path + "?name=x", b"{}"
    else:
        for query in hostile_queries(method):
            yield route.verb, path + query, None


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
async def test_every_hostile_http_request_is_refused(api: World, method: Method) -> None:
    before = await stored(api)
    loop = asyncio.get_running_loop()
    for case in cases(method):
        started = loop.time()
        async with asyncio.timeout(5):
            status, body = await raw(api, case)
        assert loop.time() - started < SECOND, case
        assert status in REFUSED, (case[0], case[1], (case[2] or b"")[:200], status, body)
        assert isinstance(body["code"], int), case
        assert body["message"], case
        assert "Traceback" not in body["message"], case
    assert await stored(api) == before
    assert (await api.call("GET", "/v1/jobs"))[0] == 200


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
async def test_a_body_of_10_mb_is_refused(api: World, method: Method) -> None:
    route = route_of(method)
    path = path_of(method, good_id(method))
    status, body = await raw(api, (route.verb, path, b'{"name":"' + b"x" * 10_000_000 + b'"}'))
    if route.body:
        assert (status, body["code"]) == (413, 8)
    else:  # its body is no part of the request
        assert status < 500
    assert (await api.call("GET", "/v1/jobs"))[0] == 200


def hostile_bytes(method: Method) -> Iterator[bytes]:
    """Encodings that are no such message."""
    yield from (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a\x05ab", b"\x0a\xff\xff\xff\xff\x0f", b"\x07")
    for field in method.descriptor.input_type.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield tag(field.number, 2) + b"\x02\xff\xfe"  # not UTF-8
            yield tag(field.number, 0) + b"\x01"  # a number where a text belongs
        elif field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64) and not field.is_repeated:
            yield tag(field.number, 2) + b"\x01x"
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield tag(field.number, 2) + b"\x02\xff\xff"
            yield tag(field.number, 0) + b"\x01"


def tag(number: int, kind: int) -> bytes:
    value, out = number << 3 | kind, b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


async def answer_of(api: World, method: Method, data: bytes) -> grpc.StatusCode | None:
    """The status; None for one without a word."""
    full = f"/{method.descriptor.containing_service.full_name}/{method.descriptor.name}"
    try:
        if method.streaming is not None:
            stream = api.channel.unary_stream(full)(data, timeout=SECOND)
            async for _ in stream:
                pass
        else:
            await api.channel.unary_unary(full)(data, timeout=SECOND)
    except grpc.aio.AioRpcError as error:
        return error.code() if error.details() else None
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
async def test_every_hostile_grpc_request_is_refused(api: World, method: Method) -> None:
    before = await stored(api)
    for data in hostile_bytes(method):
        assert await answer_of(api, method, data) is grpc.StatusCode.INVALID_ARGUMENT, data
    assert await answer_of(api, method, b"x" * 10_000_000) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await stored(api) == before
    assert (await api.call("GET", "/v1/jobs"))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {"cronExpression": "0 0 30 2 *"},
        {"cronExpression": "/5 "},
        {"cronExpression": "61 * * * *"},
        {"cronExpression": "* * * * *", "timeZone": "Mars/Olympus"},
        {"cronExpression": "@at 1999-01-01T00:00:00Z"},
        {"cronExpression": "@every 1ms"},
        {"cronExpression": "x" * 600},
        {"cronExpression": "* * * * *\0"},
        {"schedules": [{"expression": ""}]},
        {"schedules": [{"expression": "* * * * *", "end": "1970-01-02T00:00:00Z"}]},
        {"schedules": [{"expression": "* * * * *", "start": "2027-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}]},
        {"schedules": [{"expression": "* * * * *", "gap": "nope"}]},
        {"schedules": [{"expression": "* * * * *"}] * 17},
        {"schedules": [{"expression": "* * * * *", "start": "0001-01-01T00:00:00Z"}]},
        {"name": "x" * 257},
        {"description": "x" * 8193},
        {"metadata": {str(at): "" for at in range(65)}},
        {"metadata": {"k" * 129: ""}},
        {"tags": ["t"] * 1 + [""]},
        {"tags": [str(at) for at in range(65)]},
        {"metadata": {str(at): "v" * 8192 for at in range(20)}},
        {"maxRetries": -1},
        {"timeout": -1},
        {"timeout": 2**31 - 1},
        {"id": "../etc"},
        {"id": ".."},
        {"id": "a b"},
        {"id": "a\0"},
        {"id": "x" * 65},
        {"requestId": "r" * 300},
        {"policies": {"misfire": "maybe"}},
        {"policies": {"lateWindow": "1s"}},
        {"policies": {"retryFactor": 0.5}},
        {"policies": {"retryFactor": "NaN"}},
        {"policies": {"gracePeriod": "-1s"}},
        {"policies": {"retryInitial": "60s", "retryCap": "1s"}},
        {"requirements": {"cpu": -1}},
        {"requirements": {"slots": 10**6}},
        {"requirements": {"selector": "=="}},
        {"requirements": {"custom": {"": 1}}},
        {"requirements": {"custom": {"gpu": -1}}},
        {"task": {"shell": {}}},
        {"task": {"shell": {"command": "x", "argv": ["y"]}}},
        {"task": {"shell": {"command": "a\0b"}}},
        {"task": {"shell": {"command": "x", "env": {"A=B": "c"}}}},
        {"task": {"shell": {"command": "x"}, "http": {"url": "http://x"}}},
        {"task": {"http": {"url": "file:///etc/passwd"}}},
        {"task": {"http": {"url": "http://"}}},
        {"task": {"http": {"url": "http://x:99999"}}},
        {"task": {"http": {"url": "http://x", "method": "GET\r\nX: y"}}},
        {"task": {"http": {"url": "http://x", "headers": {"A\r\nB": "c"}}}},
        {"task": {"http": {"url": "http://x", "successStatuses": [42]}}},
        {"task": {"python": {"function": "os.system"}}},
        {"task": {"custom": {"type": "../x"}}},
        {"metadata": {"dts.url": "ftp://x"}},
        {"status": "nope"},
        {"name": "a", "Name": "b"},
        {"cronExpression": "* * * * *", "cron_expression": "* * * * *"},
    ],
    ids=lambda body: json.dumps(body)[:60],
)
async def test_a_job_that_could_never_work_is_refused_everywhere(api: World, body: dict[str, Any]) -> None:
    before = await stored(api)
    for verb, path, sent in (
        ("POST", "/v1/jobs", body),
        ("POST", "/v1/job-batches", {"jobs": [{"name": "fine"}, body]}),
    ):
        status, answer = await api.call(verb, path, sent)
        assert (status, answer["code"]) == (400, 3), answer
        assert answer["message"]
    assert await stored(api) == before


@pytest.mark.parametrize("cursor", ["../x", "a b", "\0", "é", "x" * 65, "' OR 1=1"])
async def test_a_cursor_that_is_no_id_is_refused(api: World, cursor: str) -> None:
    for path in (
        "/v1/jobs?last_id=",
        "/v1/scheduler/jobs?page_token=",
        "/v1/executions?last_id=",
        "/v1/verdicts?page_token=",
        "/v1/executions?job_id=",
        "/v1/audit?job_id=",
        "/v1/events?job_id=",
    ):
        status, answer = await api.call("GET", path + quote(cursor))
        assert (status, answer["code"]) == (400, 3), path


@pytest.mark.parametrize("name", TEXTS)
async def test_text_is_stored_and_given_back_unchanged(api: World, name: str) -> None:
    text = TEXTS[name]
    body = {"name": text, "description": text, "metadata": {text: text}, "tags": [text]}
    status, made = await api.call("POST", "/v1/jobs", body)
    assert status == 200, made
    path = f"/v1/jobs/{made['jobId']}"
    _, shown = await api.call("GET", path)
    assert {key: shown[key] for key in body} == body
    _, paused = await api.call("POST", f"{path}/pause", {"note": text, "by": text})
    assert (paused["pause"]["note"], paused["pause"]["by"]) == (text, text)
    _, changed = await api.call("PUT", path, {"description": text + text})
    assert changed["description"] == text + text
    _, found = await api.call("GET", f"/v1/jobs?name_contains={quote(text)}&tag={quote(text)}")
    assert [each["id"] for each in found["jobs"]] == [made["jobId"]]
    _, revisions = await api.call("GET", f"{path}/revisions")
    assert revisions["revisions"][-1]["job"]["metadata"] == {text: text}
    assert (await api.call("GET", "/v1/jobs"))[1]["total"] == 1


async def test_a_request_line_that_is_no_http_does_not_hurt(api: World) -> None:
    for data in (
        b"\0\0\0\0",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nA" * 9,
    ):
        _, writer = await asyncio.open_connection(api.client.host, api.client.port)
        writer.write(data)
        writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        writer.close()
    assert (await api.call("GET", "/v1/jobs"))[0] == 200
