"""The worker's stream to its scheduler: attaches, again and again, hands what comes to the agent and sends what it has."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from enum import Enum

import grpc

from dts import __version__
from dts.bounds import LEASE_MS, REQUEST_BYTES
from dts.gen.worker.v1 import worker_pb2 as pb
from dts.gen.worker.v1 import worker_pb2_grpc
from dts.worker import wire
from dts.worker.agent import Agent
from dts.worker.options import WorkerOptions

log = logging.getLogger(__name__)

PROTOCOL = "1"
RETRY_S = (0.05, 1.0)  # first and longest wait before attaching again
WELCOME_S = 10.0  # how long a server may take to answer Hello
FLUSH_S = 0.002  # messages go up at most so often, so that ends come in blocks
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", REQUEST_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
)
REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
}

Call = grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse]
Eof = type(grpc.aio.EOF)


class Standing(Enum):
    """How the worker stands with its server."""

    ATTACHED = 1
    AWAY = 2
    REFUSED = 3  # this server does not take this worker


class Link:
    """One scheduler's address (output.Store too). `since` is when `standing` last changed (monotonic seconds)."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self.standing = Standing.AWAY
        self.since = time.monotonic()
        self.attached_once = False
        self._told = False  # that there is a problem
        self.lease_ms = LEASE_MS
        self._stream = 0
        self._stub: worker_pb2_grpc.WorkerServiceAsyncStub | None = None
        self._there = asyncio.Event()

    @property
    def token(self) -> str:
        return self._options.token

    async def stub(self) -> worker_pb2_grpc.WorkerServiceAsyncStub:
        """Of the present connection; waits for one."""
        await self._there.wait()
        assert self._stub is not None
        return self._stub

    async def run(self, agent: Agent) -> None:
        """Keeps a stream open, for ever."""
        wait = RETRY_S[0]
        while True:
            welcomed = await self._attach(agent)
            wait = RETRY_S[0] if welcomed else min(2 * wait, RETRY_S[1])
            await asyncio.sleep(wait)

    async def _attach(self, agent: Agent) -> bool:
        """One stream, from Hello to its end. Whether the server welcomed us."""
        self._stream += 1
        stream, welcomed = self._stream, False
        async with grpc.aio.insecure_channel(self._options.target, options=CHANNEL) as channel:
            stub: worker_pb2_grpc.WorkerServiceAsyncStub = worker_pb2_grpc.WorkerServiceStub(channel)
            call = stub.Attach()
            try:
                async with asyncio.timeout(WELCOME_S):
                    await call.write(pb.AttachRequest(hello=_hello(self._options)))
                    first = await call.read()
                if not isinstance(first, pb.AttachResponse) or first.WhichOneof("message") != "welcome":
                    self._stand(Standing.AWAY, "the server ended the stream")
                    return False
                welcomed = True
                self._welcome(agent, stub, first.welcome)
                await self._talk(agent, call)
                self._stand(Standing.AWAY, "the server ended the stream")
            except grpc.aio.AioRpcError as problem:
                refused = problem.code() in REFUSALS
                self._stand(Standing.REFUSED if refused else Standing.AWAY, problem.details() or str(problem.code()))
            except TimeoutError:
                self._stand(Standing.AWAY, "the server does not answer")
            except (asyncio.InvalidStateError, ValueError) as problem:
                self._stand(Standing.AWAY, f"the stream broke: {problem}")
            finally:
                call.cancel()
                self._there.clear()
                self._stub = None
                agent.tell(lambda leases, _: leases.detach(stream))
        return welcomed

    def _welcome(self, agent: Agent, stub: worker_pb2_grpc.WorkerServiceAsyncStub, got: pb.Welcome) -> None:
        self.lease_ms = got.lease_ms or LEASE_MS
        stream, lease_ms = self._stream, self.lease_ms
        agent.tell(lambda leases, _: leases.attach(stream, lease_ms))
        self._stub = stub
        self._there.set()
        self.attached_once = True
        self._stand(Standing.ATTACHED, "")
        log.info("attached to %s at %s", got.instance, self._options.target)

    def _stand(self, standing: Standing, problem: str) -> None:
        if problem and (standing is not self.standing or not self._told):
            log.warning("no scheduler at %s: %s", self._options.target, problem)
        self._told = bool(problem)
        if standing is not self.standing:
            self.standing, self.since = standing, time.monotonic()

    async def _talk(self, agent: Agent, call: Call) -> None:
        """Until the stream ends."""
        sender = asyncio.create_task(self._send(agent, call), name="sender of the worker's stream")
        sender.add_done_callback(lambda _: call.cancel())
        try:
            while isinstance(message := await call.read(), pb.AttachResponse):
                self._take(agent, message)
        finally:
            sender.cancel()
            await asyncio.wait([sender])
            if not sender.cancelled() and (problem := sender.exception()):
                log.debug("the worker's stream broke while sending: %s", problem)

    async def _send(self, agent: Agent, call: Call) -> None:
        told = False
        while True:
            await agent.news.wait()
            if agent.leaving.is_set() and not told:  # before what is handed back: it is not to come again
                told = True
                await call.write(pb.AttachRequest(leaving=pb.Leaving()))
            for item in agent.messages():
                if item.stream == self._stream:
                    for message in wire.up(item):
                        await call.write(message)
            await asyncio.sleep(FLUSH_S)

    def _take(self, agent: Agent, message: pb.AttachResponse) -> None:
        """Gives one message to the leases. Raises ValueError for one whose columns do not agree."""
        stream = self._stream
        match message.WhichOneof("message"):
            case "lease":
                lease = wire.lease(message.lease)
                agent.tell(lambda leases, now: leases.lease(message.lease.shard, lease, now))
            case "ack":
                held = list(wire.held(message.ack.attempts))
                agent.tell(lambda leases, _: leases.ack(message.ack.shard, held))
            case "echo":
                echo = message.echo
                agent.tell(lambda leases, _: leases.echo(echo.shard, echo.epoch, echo.beat))
            case "ask":
                ask = message.ask
                agent.tell(lambda leases, now: leases.ask(stream, ask.shard, ask.epoch, now))
            case "cancel":
                cancel = message.cancel
                items = [(each, cancel.reason) for each in wire.held([cancel.attempts])]
                agent.tell(lambda leases, now: leases.cancel(cancel.shard, cancel.epoch, items, now))
            case "leave":
                agent.leave(message.leave.grace_ms, message.leave.reason)
            case other:
                log.warning("a message %r of a newer server is not understood", other)


def _hello(options: WorkerOptions) -> pb.Hello:
    total = options.capacity
    return pb.Hello(
        worker=options.worker,
        incarnation=options.incarnation,
        token=options.token,
        database=options.database,
        timed=options.timed,
        host=socket.gethostname(),
        pid=os.getpid(),
        version=__version__,
        labels=dict(options.labels),
        cpu=total.cpu,
        memory=total.memory,
        storage=total.storage,
        slots=total.slots,
        backlog=options.backlog,
        custom=dict(total.custom),
        protocol=PROTOCOL,
    )
