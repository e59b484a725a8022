"""The Scheduler instances as they are known now, and a channel to each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

import grpc

from dts.bounds import REQUEST_BYTES
from dts.errors import DtsError, FailedPrecondition, NotFound, OutcomeUnknown, QueueFull, Unavailable
from dts.gen.live.v1 import live_pb2_grpc
from dts.model import ShardId

CALL_S = 3.0  # how long an instance may take to answer
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 16 * REQUEST_BYTES),
)

T = TypeVar("T")
Instances = Callable[[], Mapping[str, frozenset[ShardId]]]  # address -> the shards that the group gives it


class Peers:
    """Stubs by address; those of instances that are gone are closed."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._channels: dict[str, tuple[grpc.aio.Channel, live_pb2_grpc.LiveServiceAsyncStub]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def stubs(self) -> dict[str, live_pb2_grpc.LiveServiceAsyncStub]:
        """Of all instances that are known now."""
        known = self._instances()
        for address in self._channels.keys() - known.keys():
            self._close(address)
        return {address: self._stub(address) for address in known}

    def owner(self, shard: ShardId) -> tuple[str, live_pb2_grpc.LiveServiceAsyncStub] | None:
        """Who the group says owns a shard."""
        for address, shards in self._instances().items():
            if shard in shards:
                return address, self._stub(address)
        return None

    def _stub(self, address: str) -> live_pb2_grpc.LiveServiceAsyncStub:
        found = self._channels.get(address)
        if found is None:
            channel = grpc.aio.insecure_channel(address, options=CHANNEL)
            stub: live_pb2_grpc.LiveServiceAsyncStub = live_pb2_grpc.LiveServiceStub(channel)
            found = self._channels[address] = channel, stub
        return found[1]

    def _close(self, address: str) -> None:
        channel, _ = self._channels.pop(address)
        task = asyncio.get_running_loop().create_task(channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Ends all channels."""
        for address in list(self._channels):
            self._close(address)
        await asyncio.gather(*self._closing)


_ERRORS: dict[grpc.StatusCode, type[DtsError]] = {
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QueueFull,
    grpc.StatusCode.UNKNOWN: OutcomeUnknown,
}


def error_of(error: grpc.aio.AioRpcError, address: str) -> DtsError:
    """What an instance's refusal means to us; one that did not answer is Unavailable."""
    details = error.details() or ""
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return NotFound("job or execution", details)
    kind = _ERRORS.get(error.code())
    if kind is not None:
        return kind(details)
    return Unavailable(f"the scheduler at {address} does not answer: {details or error.code().name}")
