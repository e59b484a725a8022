"""The API over HTTP: one handler for all methods, found by their annotations; every error has a JSON body with code and message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from urllib.parse import parse_qsl

import grpc
import orjson
from aiohttp import web
from aiohttp.typedefs import Middleware
from google.protobuf.message import Message

from dts import bounds
from dts.api.cors import Origins
from dts.api.errors import INVALID, Problem, problem, problem_of
from dts.api.methods import Method, Service, all_methods
from dts.api.openapi import openapi
from dts.api.page import DOCS
from dts.api.reading import parse_json, parse_query
from dts.api.routes import Match, Router
from dts.api.streams import with_heartbeats
from dts.errors import InvalidArgument
from dts.wirejson import to_json

JSON, EVENTS, LINES = "application/json", "text/event-stream", "application/x-ndjson"
QUERY_PARAMETERS = 1_000
HEARTBEAT_S = 15.0  # a quiet stream of events says that it is alive
CLOSING: web.AppKey[asyncio.Event] = web.AppKey("closing", asyncio.Event)  # the server stops: streams end
Ready = Callable[[], str]  # '' or why not
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """A request that is answered with a problem."""

    def __init__(self, found: Problem) -> None:
        super().__init__(found.message)
        self.found = found


def http_app(
    served: Sequence[Service], *, version: str, origins: Sequence[str] = (), ready: Ready = lambda: ""
) -> web.Application:
    """The application: /v1/..., /openapi.json, /docs, and the probes /healthz (it runs), /startupz (it has started), /readyz (it
    can do its work). Pages may be added to it."""
    gate = Origins(origins)
    methods = all_methods(served)
    router = Router(methods)
    app = web.Application(middlewares=[_middleware(gate, router)], client_max_size=bounds.REQUEST_BYTES)
    app[CLOSING] = asyncio.Event()
    app.on_shutdown.append(_close)
    document = orjson.dumps(openapi(router.routes, version))

    async def described(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type=JSON)

    async def docs(_: web.Request) -> web.Response:
        return web.Response(text=DOCS, content_type="text/html")

    async def alive(_: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def able(_: web.Request) -> web.Response:
        why = ready()
        if why:
            raise Refused(problem(grpc.StatusCode.UNAVAILABLE, why))
        return _json({"status": "ok"})

    async def call(request: web.Request) -> web.StreamResponse:
        return await _call(router, gate, request)

    app.router.add_get("/openapi.json", described)
    app.router.add_get("/docs", docs)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/startupz", alive)
    app.router.add_get("/readyz", able)
    app.router.add_route("*", "/v1/{rest:.*}", call)
    return app


async def _close(app: web.Application) -> None:
    app[CLOSING].set()


def _middleware(gate: Origins, router: Router) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin", "")
        if request.method == "OPTIONS":
            verbs = router.allowed(request.rel_url.raw_path) or ("GET",)
            wanted = request.headers.get("Access-Control-Request-Headers", "")
            return web.Response(status=204, headers=gate.preflight(origin, wanted, verbs))
        try:
            response = await handler(request)
        except Refused as refused:
            response = _refusal(refused.found)
        except web.HTTPException as error:
            response = _refusal(_problem_of_http(error)) if error.status >= 400 else error
        except Exception as error:  # noqa: BLE001 - each becomes an answer
            response = _refusal(problem_of(error, f"{request.method} {request.path}"))
        if not response.prepared:
            response.headers.update(gate.headers(origin))
        return response

    return guard


def _problem_of_http(error: web.HTTPException) -> Problem:
    """aiohttp's own refusals in our form."""
    match error.status:
        case 404:
            return problem(grpc.StatusCode.NOT_FOUND, "no such path; /docs lists them")
        case 405:
            return problem(grpc.StatusCode.UNIMPLEMENTED, "this method is not for this path", 405)
        case 413:
            most = f"the body is larger than {bounds.REQUEST_BYTES} bytes"
            return problem(grpc.StatusCode.RESOURCE_EXHAUSTED, most, 413)
    return problem(INVALID, error.reason, error.status)


def _refusal(found: Problem) -> web.Response:
    return _json(found.body(), found.status)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type=JSON)


async def _call(router: Router, gate: Origins, request: web.Request) -> web.StreamResponse:
    verb = "GET" if request.method == "HEAD" else request.method
    found = router.match(verb, request.rel_url.raw_path)
    if isinstance(found, Problem):
        response = _refusal(found)
        if found.status == 405:
            response.headers["Allow"] = ", ".join(router.allowed(request.rel_url.raw_path))
        return response
    method = found.route.method
    message = method.request()
    await _read(request, found, message)
    if method.unary is not None:
        answer = await method.unary(message)
        return _json(to_json(answer))
    return await _stream(request, gate, method, message)


async def _read(request: web.Request, found: Match, message: Message) -> None:
    """The message from the body, the query and the path; the path has the last word."""
    if found.route.body:
        if (request.content_length or 0) > bounds.REQUEST_BYTES:
            raise web.HTTPRequestEntityTooLarge(max_size=bounds.REQUEST_BYTES, actual_size=request.content_length or 0)
        parse_json(await request.read(), message)
    try:
        pairs = parse_qsl(
            request.rel_url.raw_query_string,
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_PARAMETERS,
        )
        if pairs and found.route.body:
            raise InvalidArgument(
                "", f"{pairs[0][0][:80]!r}: this method takes its fields in the body, none in the query"
            )
        parse_query(pairs, message)
    except UnicodeDecodeError:
        raise InvalidArgument("", "the query holds text that is not UTF-8") from None
    except ValueError as error:  # too many parameters
        raise InvalidArgument("", str(error)) from None
    named = request.headers.get("Idempotency-Key", "")
    if named and "request_id" in message.DESCRIPTOR.fields_by_name and not getattr(message, "request_id"):  # noqa: B009
        setattr(message, "request_id", named)  # noqa: B010 - not every message has one
    for name, value in found.values.items():
        if getattr(message, name) not in ("", value):
            raise InvalidArgument(name, "is another one in the body than in the path")
        setattr(message, name, value)


async def _stream(request: web.Request, gate: Origins, method: Method, message: Message) -> web.StreamResponse:
    """Answers as they come: server-sent events if the client accepts them, else a line of JSON each."""
    assert method.streaming is not None, "only streaming methods come here"
    events = EVENTS in request.headers.get("Accept", "")
    response = web.StreamResponse(
        headers={
            **gate.headers(request.headers.get("Origin", "")),
            "Content-Type": EVENTS if events else LINES,
            "Cache-Control": "no-store",
        }
    )
    try:
        async with aclosing(with_heartbeats(method.streaming(message))) as answers:
            await _pump(request, response, answers, events)
    except ConnectionError:  # the client went away
        return response
    except Exception as error:
        if not response.prepared:
            raise
        body = orjson.dumps({"error": problem_of(error, method.name).body()})
        with suppress(ConnectionError):
            await response.write(b"event: error\ndata: " + body + b"\n\n" if events else body + b"\n")
    if response.prepared:
        with suppress(ConnectionError):
            await response.write_eof()
    return response


async def _pump(
    request: web.Request, response: web.StreamResponse, answers: AsyncIterator[Message | None], events: bool
) -> None:
    """Writes until the answers end, the client has gone or the server stops."""
    closing, clock = request.app[CLOSING], asyncio.get_running_loop().time
    spoken = clock()
    async for answer in answers:
        if request.transport is None or request.transport.is_closing() or closing.is_set():
            return
        if not response.prepared:
            await response.prepare(request)
        if answer is not None:
            line = orjson.dumps(to_json(answer))
            await response.write(b"data: " + line + b"\n\n" if events else line + b"\n")
            spoken = clock()
        elif events and clock() - spoken >= HEARTBEAT_S:
            await response.write(b": still here\n\n")
            spoken = clock()
    if not response.prepared:
        await response.prepare(request)
