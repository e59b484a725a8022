"""The API over gRPC: one handler for each method, made from its descriptor; health and reflection beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import NoReturn

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dts import bounds
from dts.api.errors import problem_of
from dts.api.methods import Method, Service
from dts.api.reading import decode
from dts.api.streams import with_heartbeats
from dts.errors import Unavailable

# For grpc.aio.server(options=...): the bound on requests, and answers as large as a page may be.
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", bounds.REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent share
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # workers and services look whether the other end is there
)

Context = grpc.aio.ServicerContext[bytes, bytes]
UnaryHandler = Callable[[bytes, Context], Awaitable[bytes]]
StreamHandler = Callable[[bytes, Context], AsyncIterator[bytes]]


def add_grpc_services(
    server: grpc.aio.Server, served: Sequence[Service], ready: Callable[[], str] = lambda: ""
) -> health.aio.HealthServicer:
    """Adds the services, reflection and health; the health servicer is returned so that the process can set its state.

    While `ready` says why not (the server starts or stops), calls are UNAVAILABLE with that sentence.
    Requests arrive as bytes and are decoded here, so that a malformed one is INVALID_ARGUMENT and not an internal error.
    """
    names = [service.descriptor.full_name for service in served]
    for service in served:
        handlers = {method.descriptor.name: _handler(method, ready) for method in service.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.descriptor.full_name, handlers),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return servicer


def _handler(method: Method, ready: Callable[[], str]) -> grpc.RpcMethodHandler[bytes, bytes]:
    if method.streaming is not None:
        return grpc.unary_stream_rpc_method_handler(_streaming(method, ready))
    return grpc.unary_unary_rpc_method_handler(_unary(method, ready))


def _unary(method: Method, ready: Callable[[], str]) -> UnaryHandler:
    call, kind, name = method.unary, method.request, method.name
    assert call is not None, "a unary method has a unary call"

    async def handle(data: bytes, context: Context) -> bytes:
        try:
            _check(ready())
            answer = await call(decode(data, kind))
        except Exception as error:  # noqa: BLE001 - each becomes a status
            return await _abort(context, error, name)
        return answer.SerializeToString()

    return handle


def _streaming(method: Method, ready: Callable[[], str]) -> StreamHandler:
    call, kind, name = method.streaming, method.request, method.name
    assert call is not None, "a streaming method has a streaming call"

    async def handle(data: bytes, context: Context) -> AsyncIterator[bytes]:
        told = False
        try:
            _check(ready())
            async with aclosing(with_heartbeats(call(decode(data, kind)))) as answers:
                async for answer in answers:
                    if answer is not None:
                        yield answer.SerializeToString()
                    elif not told:  # nothing came yet: the client learns that it is connected
                        await context.send_initial_metadata(())
                    told = True
        except Exception as error:  # noqa: BLE001 - each becomes a status
            await _abort(context, error, name)

    return handle


def _check(why_not: str) -> None:
    if why_not:
        raise Unavailable(f"the server is not ready: {why_not}")


async def _abort(context: Context, error: Exception, name: str) -> NoReturn:
    found = problem_of(error, name)
    await context.abort(found.code, found.message)
    raise AssertionError("abort raises")
