"""A stream to one Scheduler instance: attaches, again and again, hands what comes to the agent and sends what it has."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Protocol

import grpc

from dts import __version__
from dts.amounts import CUSTOM, Vector
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
    ("grpc.http2.max_pings_without_data", 0),  # a stream to an instance that has nothing to say is watched, too
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


class Owner(Protocol):
    """Who keeps the links (links.Links)."""

    def next_stream(self) -> int:
        """A number for one more stream."""
        ...

    def welcomed(self, link: Link, welcome: pb.Welcome) -> None:
        """A stream was welcomed."""
        ...

    def told(self, link: Link, schedulers: Sequence[str], outputs: Sequence[str]) -> None:
        """An instance says who is there."""
        ...

    def moved(self) -> None:
        """A link's standing changed."""
        ...


class Link:
    """A stream to one Scheduler instance, kept open. `since` is when `standing` last changed (monotonic seconds)."""

    def __init__(self, target: str, options: WorkerOptions, owner: Owner) -> None:
        self.target = target
        self.address = target  # what the other instances call it, once it was welcomed
        self.standing = Standing.AWAY
        self.since = time.monotonic()
        self.stub: worker_pb2_grpc.WorkerServiceAsyncStub | None = None  # of the present connection
        self.lease_ms = LEASE_MS
        self.stream = 0
        self._options = options
        self._owner = owner
        self._told = False  # that there is a problem
        self._call: Call | None = None

    async def run(self, agent: Agent) -> None:
        """Keeps a stream open, for ever."""
        wait = RETRY_S[0]
        while True:
            welcomed = await self._attach(agent)
            wait = RETRY_S[0] if welcomed else min(2 * wait, RETRY_S[1])
            await asyncio.sleep(wait * (0.5 + random.random()))

    def hang_up(self, reason: str) -> None:
        """Ends the present stream; another one follows."""
        if self._call is not None:
            self._stand(Standing.AWAY, reason)
            self._call.cancel()

    async def _attach(self, agent: Agent) -> bool:
        """One stream, from Hello to its end. Whether the server welcomed us."""
        self.stream = stream = self._owner.next_stream()
        welcomed = False
        async with grpc.aio.insecure_channel(self.target, options=CHANNEL) as channel:
            stub: worker_pb2_grpc.WorkerServiceAsyncStub = worker_pb2_grpc.WorkerServiceStub(channel)
            self._call = call = stub.Attach()
            try:
                async with asyncio.timeout(WELCOME_S):
                    cordoned = agent.leases.cordoned
                    await call.write(pb.AttachRequest(hello=_hello(self._options, cordoned)))
                    first = await call.read()
                if not isinstance(first, pb.AttachResponse) or first.WhichOneof("message") != "welcome":
                    self._stand(Standing.AWAY, "the server ended the stream")
                    return False
                welcomed = True
                self._welcome(agent, stub, first.welcome)
                await self._talk(agent, call, cordoned)
                self._stand(Standing.AWAY, "the server ended the stream")
            except grpc.aio.AioRpcError as problem:
                refused = problem.code() in REFUSALS
                self._stand(Standing.REFUSED if refused else Standing.AWAY, problem.details() or str(problem.code()))
            except TimeoutError:
                self._stand(Standing.AWAY, "the server does not answer")
            except asyncio.CancelledError:
                # A call that we cancel (hang_up, a sender that broke) ends its reader so, too: only the task's own end is passed on.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self._stand(Standing.AWAY, "the stream was ended here")
            except (asyncio.InvalidStateError, ValueError) as problem:
                self._stand(Standing.AWAY, f"the stream broke: {problem}")
            finally:
                call.cancel()
                self._call = self.stub = None
                agent.detach(stream)
                self._stand(Standing.REFUSED if self.standing is Standing.REFUSED else Standing.AWAY, "")
        return welcomed

    def _welcome(self, agent: Agent, stub: worker_pb2_grpc.WorkerServiceAsyncStub, got: pb.Welcome) -> None:
        self.lease_ms = got.lease_ms or LEASE_MS
        self.address = got.address or self.target
        self.stub = stub
        agent.attach(self.stream, self.address, self.lease_ms)
        self._owner.welcomed(self, got)
        self._stand(Standing.ATTACHED, "")
        log.info("attached to %s at %s", got.instance, self.target)

    def _stand(self, standing: Standing, problem: str) -> None:
        if problem and (standing is not self.standing or not self._told):
            log.warning("no scheduler at %s: %s", self.target, problem)
        self._told = bool(problem) or (self._told and standing is not Standing.ATTACHED)
        if standing is not self.standing:
            self.standing, self.since = standing, time.monotonic()
            self._owner.moved()

    async def _talk(self, agent: Agent, call: Call, cordoned: bool) -> None:
        """Until the stream ends."""
        sender = asyncio.create_task(self._send(agent, call, cordoned), name="sender of the worker's stream")
        sender.add_done_callback(lambda _: call.cancel())
        try:
            while isinstance(message := await call.read(), pb.AttachResponse):
                self._take(agent, message)
        finally:
            sender.cancel()
            await asyncio.wait([sender])
            if not sender.cancelled() and (problem := sender.exception()):
                log.debug("the worker's stream broke while sending: %s", problem)

    async def _send(self, agent: Agent, call: Call, cordoned: bool) -> None:
        told, stream = False, self.stream
        news = agent.news(stream)
        while True:
            await news.wait()
            news.clear()
            if agent.leaving.is_set() and not told:  # before what is handed back: it is not to come again
                told = True
                await call.write(pb.AttachRequest(leaving=pb.Leaving()))
            if agent.leases.cordoned is not cordoned:
                cordoned = agent.leases.cordoned
                await call.write(pb.AttachRequest(standing=pb.Standing(cordoned=cordoned)))
            for item in agent.leases.take_messages(stream):
                for message in wire.up(item):
                    await call.write(message)
            for grant in agent.grants(stream):
                credit = pb.Credit(number=grant.number, amounts=grant.share, returns=grant.returns)
                await call.write(pb.AttachRequest(credit=credit))
            await asyncio.sleep(FLUSH_S)

    def _take(self, agent: Agent, message: pb.AttachResponse) -> None:
        """Gives one message to the leases. Raises ValueError for one whose columns do not agree."""
        stream = self.stream
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
                agent.share(lambda shares: shares.moved())
            case "cancel":
                cancel = message.cancel
                items = [(each, cancel.reason) for each in wire.held([cancel.attempts])]
                agent.tell(lambda leases, now: leases.cancel(cancel.shard, cancel.epoch, items, now))
            case "leave":
                agent.leave(message.leave.grace_ms, message.leave.reason)
            case "cordon":
                cordon = message.cordon
                log.info("cordoned%s", " and drained" if cordon.drain else "") if cordon.cordoned else log.info(
                    "uncordoned"
                )
                agent.tell(lambda leases, now: leases.cordon(cordon.cordoned, cordon.drain, cordon.grace_ms, now))
            case "peers":
                self._owner.told(self, message.peers.schedulers, message.peers.outputs)
            case "want":
                more, one = (self._vector(each) for each in (message.want.more, message.want.one))
                agent.share(lambda shares: shares.want(stream, more, one))
            case "give_back":
                number, kept = message.give_back.number, self._vector(message.give_back.kept)
                gone = message.give_back.shards
                agent.tell(lambda leases, _: leases.disown(stream, gone))
                agent.share(lambda shares: shares.returned(stream, number, kept, moved=bool(gone)))
            case other:
                log.warning("a message %r of a newer server is not understood", other)

    def _vector(self, given: Iterable[int]) -> Vector:
        """Amounts of this worker. Raises ValueError when they are not as many as its own, or less than 0."""
        vector = tuple(given)
        if len(vector) != CUSTOM + len(self._options.capacity.custom) or min(vector) < 0:
            raise ValueError("amounts that are not this worker's")
        return vector


def _hello(options: WorkerOptions, cordoned: bool) -> pb.Hello:
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
        credited=options.timed,
        cordoned=cordoned,
    )
