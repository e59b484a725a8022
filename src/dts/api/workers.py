"""worker.v1.WorkerService: the workers' streams become calls of the inbox, their outboxes become messages; output is stored."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

import grpc

from dts import amounts, codec
from dts.bounds import RESOURCE_MAX
from dts.errors import DtsError
from dts.gen.worker.v1 import worker_pb2 as pb
from dts.gen.worker.v1 import worker_pb2_grpc
from dts.model import Block, Demand, Held, Key, Report, Status, WorkerInfo, WorkerRef
from dts.services.workers import (
    Acks,
    Ask,
    Cancels,
    Cordon,
    Down,
    Echo,
    GiveBack,
    Leased,
    Leave,
    Peers,
    Reception,
    Session,
    Want,
)

PROTOCOL = "1"
NO_DEMAND = Demand()
PEERS_LOOK_S = 0.25  # how often what Welcome says is compared with what it said

Context = grpc.aio.ServicerContext[pb.AttachRequest, pb.AttachResponse]
Outputs = Callable[[Key, int, int, bytes, bool], Awaitable[None]]
OutputContext = grpc.aio.ServicerContext[pb.PutOutputRequest, pb.PutOutputResponse]


class OutputServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Takes what attempts wrote, nothing else: an Execution Service. `token`: what a worker must say to be let in."""

    def __init__(self, outputs: Outputs, token: str) -> None:
        self._outputs = outputs
        self._token = token

    async def Attach(
        self, requests: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        """Not here."""
        async for _ in requests:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "workers attach to a Scheduler Service, not to this one")
        nothing: tuple[pb.AttachResponse, ...] = ()
        for each in nothing:
            yield each

    async def PutOutput(
        self, requests: AsyncIterator[pb.PutOutputRequest], context: OutputContext
    ) -> pb.PutOutputResponse:
        """Stores what attempts wrote; the answer says that all of it is stored."""
        metadata = dict(context.invocation_metadata() or ())
        if not self._authentic(str(metadata.get("dts-token", ""))):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the worker's token is not this server's")
        async for got in requests:
            key = Key(got.job, got.instant, got.nonce)
            try:
                await self._outputs(key, got.attempt, got.offset, got.data, got.last)
            except DtsError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return pb.PutOutputResponse()

    def _authentic(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode())


class WorkerServicer(OutputServicer):
    """`token` and `database`: what a worker must say of both to be let in; `lease_ms`: L. `address`: what the others call this
    instance; `schedulers`: the addresses of all live instances, this one included (none: it is alone); `outputs`: those of the
    Execution Services, to which output goes (none: here). Both are asked again and again, workers are told what changes."""

    def __init__(
        self,
        reception: Reception,
        *,
        token: str,
        database: str,
        instance: str,
        lease_ms: int,
        address: str = "",
        schedulers: Callable[[], Sequence[str]] | None = None,
        outputs: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        super().__init__(reception.output, token)
        self._reception = reception
        self._database = database
        self._welcome = pb.Welcome(instance=instance, lease_ms=lease_ms, address=address)
        self._schedulers = schedulers or tuple
        self._outputs_at = outputs or tuple
        self._alone = schedulers is None and outputs is None
        self._streams = 0
        self._told: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._teller: asyncio.Task[None] | None = None

    def _peers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(sorted(self._schedulers())), tuple(sorted(self._outputs_at()))

    async def _tell_peers(self) -> None:
        """While there are streams: what changes of what Welcome said."""
        while self._streams:
            await asyncio.sleep(PEERS_LOOK_S)
            peers = self._peers()
            if peers != self._told:
                self._told = peers
                self._reception.peers(*peers)

    def _welcomed(self) -> pb.Welcome:
        """The answer to one more Hello."""
        if self._alone:
            return self._welcome
        schedulers, outputs = peers = self._peers()
        if peers != self._told:
            self._told = peers
            self._reception.peers(*peers)
        if self._teller is None or self._teller.done():
            self._teller = asyncio.create_task(self._tell_peers(), name="who tells workers of instances")
        welcome = pb.Welcome(schedulers=schedulers, outputs=outputs)
        welcome.MergeFrom(self._welcome)
        return welcome

    async def Attach(
        self, requests: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        """One worker's stream, until either side ends it."""
        info = await self._admit(requests, context)
        self._streams += 1
        reader: asyncio.Task[None] | None = None
        try:
            yield pb.AttachResponse(welcome=self._welcomed())
            session = self._reception.arrive(info)
            reader = asyncio.create_task(self._read(requests, session), name=f"reader of worker {info.ref.id}")
            reader.add_done_callback(lambda _: session.close())
            while items := await session.drain():
                for item in items:
                    for message in encode(item):
                        yield message
        finally:
            self._streams -= 1
            if reader is not None:
                self._reception.depart(session)
                reader.cancel()
                await asyncio.wait([reader])
        if not reader.cancelled() and isinstance(problem := reader.exception(), ValueError):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(problem))

    async def _admit(self, requests: AsyncIterator[pb.AttachRequest], context: Context) -> WorkerInfo:
        """Reads Hello. Aborts the call for a wrong token, database, protocol or first message."""
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("message") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message of a worker must be Hello")
        hello = first.hello
        if not self._authentic(hello.token):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the worker's token is not this server's")
        if hello.database and hello.database != self._database:
            problem = f"the worker belongs to database {hello.database!r}, this server has {self._database!r}"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, problem)
        if hello.protocol != PROTOCOL:
            problem = f"the worker speaks protocol {hello.protocol!r}, this server {PROTOCOL!r}: give both one version"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, problem)
        numbers = [hello.cpu, hello.memory, hello.storage, hello.slots, hello.backlog, *hello.custom.values()]
        if not hello.worker or not hello.incarnation or not all(0 <= each <= RESOURCE_MAX for each in numbers):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a worker needs id, incarnation, capacity >= 0")
        return _info(hello)

    async def _read(self, requests: AsyncIterator[pb.AttachRequest], session: Session) -> None:
        """Hands on what the worker says. Raises ValueError for a message that no worker of ours sends."""
        worker, timed = session.info.ref, session.info.timed
        promised: dict[int, tuple[int, int]] = {}  # by shard: its last report's (epoch, number), which ends go with
        async for request in requests:
            match request.WhichOneof("message"):
                case "ended":
                    shard = request.ended.shard
                    epoch, number = promised.get(shard, (0, 0))
                    report = Report(worker, epoch, number, timed, ended=[_ended_in(request.ended)])
                    await self._reception.report(session, shard, report)
                case "started":
                    held = list(_held_in([request.started.attempts]))
                    if len(held) != len(request.started.started):
                        raise ValueError("started: as many instants as attempts are needed")
                    self._reception.started(session, request.started.shard, held, list(request.started.started))
                case "beat":
                    beat = request.beat
                    _, number = promised.get(beat.shard, (0, 0))
                    report = Report(worker, beat.epoch, number, timed, beat=beat.beat)
                    await self._reception.report(session, beat.shard, report)
                case "leaving":
                    self._reception.leaving(session)
                case "standing":
                    self._reception.standing(session, request.standing.cordoned)
                case "credit":
                    credit = request.credit
                    size = amounts.CUSTOM + len(session.info.total.custom)
                    if len(credit.amounts) != size or min(credit.amounts) < 0:
                        raise ValueError(f"credit: {size} amounts are needed, none below 0")
                    self._reception.credit(session, credit.number, tuple(credit.amounts), credit.returns)
                case "report":
                    full = request.report
                    promised[full.shard] = (full.epoch, full.number)
                    ended = [_ended_in(each) for each in full.ended]
                    report = Report(worker, full.epoch, full.number, timed, True, list(_held_in(full.held)), ended)
                    await self._reception.report(session, full.shard, report)
                case other:
                    raise ValueError(f"a message {other!r} is not expected here")


def _info(hello: pb.Hello) -> WorkerInfo:
    custom = tuple(sorted(hello.custom.items()))
    return WorkerInfo(
        WorkerRef(hello.worker, hello.incarnation),
        Demand(hello.cpu, hello.memory, hello.storage, hello.slots, custom),
        hello.backlog,
        tuple(sorted(hello.labels.items())),
        hello.timed,
        hello.host,
        hello.pid,
        hello.version,
        hello.credited,
        hello.cordoned,
    )


def _held_in(groups: Iterable[pb.Attempts]) -> Iterator[Held]:
    for group in groups:
        for key in codec.keys(group.jobs, group.instants, group.nonces):
            yield Held(key, group.attempt)


def _ended_in(got: pb.Ended) -> Block:
    keys = codec.keys(got.attempts.jobs, got.attempts.instants, got.attempts.nonces)
    ends = [codec.end_in(end) for end in got.ends]
    if ends and len(ends) != len(keys):
        raise ValueError("ended: as many ends as attempts, or none, are needed")
    return Block(keys, (), NO_DEMAND, Status(got.status), got.attempts.attempt, ends=ends)


def _attempts(keys: Sequence[Key], attempt: int) -> pb.Attempts:
    jobs, instants, nonces = codec.columns(keys)
    return pb.Attempts(jobs=jobs, instants=instants, nonces=nonces, attempt=attempt)


def _held_out(held: Iterable[Held]) -> list[pb.Attempts]:
    groups: dict[int, list[Key]] = {}
    for key, attempt in held:
        groups.setdefault(attempt, []).append(key)
    return [_attempts(keys, attempt) for attempt, keys in groups.items()]


def encode(item: Down) -> Iterator[pb.AttachResponse]:
    """A message of the outbox for the wire."""
    match item:
        case Leased(shard, _):
            yield pb.AttachResponse(lease=_lease_out(shard, item))
        case Acks(shard, held):
            yield pb.AttachResponse(ack=pb.Ack(shard=shard, attempts=_held_out(held)))
        case Echo(shard, epoch, beat):
            yield pb.AttachResponse(echo=pb.Echo(shard=shard, epoch=epoch, beat=beat))
        case Ask(shard, epoch):
            yield pb.AttachResponse(ask=pb.Ask(shard=shard, epoch=epoch))
        case Cancels(shard, epoch, items):
            reasons: dict[str, list[Held]] = {}
            for held_one, reason in items:
                reasons.setdefault(reason, []).append(held_one)
            for reason, held in reasons.items():
                for attempts in _held_out(held):
                    cancel = pb.Cancel(shard=shard, epoch=epoch, attempts=attempts, reason=reason)
                    yield pb.AttachResponse(cancel=cancel)
        case _:
            yield _fleet_out(item)


def _fleet_out(item: Leave | Peers | Want | GiveBack | Cordon) -> pb.AttachResponse:
    """What is about the worker as a whole."""
    match item:
        case Leave(grace_ms, reason):
            return pb.AttachResponse(leave=pb.Leave(grace_ms=grace_ms, reason=reason))
        case Peers(schedulers, outputs):
            return pb.AttachResponse(peers=pb.Peers(schedulers=schedulers, outputs=outputs))
        case Want(more, one):
            return pb.AttachResponse(want=pb.Want(more=more, one=one))
        case Cordon(cordoned, drain, grace_ms):
            return pb.AttachResponse(cordon=pb.Cordon(cordoned=cordoned, drain=drain, grace_ms=grace_ms))
        case GiveBack(number, kept, shards):
            return pb.AttachResponse(give_back=pb.Return(number=number, kept=kept, shards=shards))


def _lease_out(shard: int, item: Leased) -> pb.Lease:
    block, bodies = item.lease.block, item.lease.bodies
    places: dict[bytes, int] = {}
    body = [places.setdefault(each, len(places)) for each in bodies]
    epoch, number = block.report
    return pb.Lease(
        shard=shard,
        epoch=epoch,
        number=number,
        attempts=_attempts(block.keys, block.attempt),
        bodies=list(places),
        body=body if len(places) > 1 else (),
        fencing=block.fencing,
        slots_only=block.demand.slots_only,
        demand=codec.demand_out(block.demand),
    )
