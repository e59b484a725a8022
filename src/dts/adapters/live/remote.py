"""ports.Live over processes: reads ask every instance and put the parts together; a command goes to its shard's owner.

A read that must be whole (open executions) waits a moment while a shard moves from one instance to another, and is
Unavailable when it stays without an owner. What jobs do now is told as far as it is known.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias, TypeVar

import grpc

from dts import codec, livecodec
from dts.adapters.live.peers import CALL_S, Instances, Peers, error_of
from dts.bounds import ANSWER_WAIT_S, WATCH_QUEUE
from dts.errors import OutcomeUnknown, Unavailable
from dts.gen.live.v1 import live_pb2 as pb
from dts.gen.live.v1 import live_pb2_grpc
from dts.model import (
    Backfill,
    Command,
    Demand,
    Execution,
    ExecutionQuery,
    Instant,
    JobView,
    Key,
    Outlook,
    Range,
    ShardId,
    ShardView,
    WorkerView,
)
from dts.ports import JobFeed

WHOLE_WAIT_S = 12.0  # a shard that moves has an owner again within
WHOLE_POLL_S = 0.2
OWNER_WAIT_S = 1.5  # until a shard's owner is known, before a command is only published
WATCH_AGAIN_S = 0.5  # between two looks for instances that are not watched yet

Stub: TypeAlias = "live_pb2_grpc.LiveServiceAsyncStub"
Event = Execution | Range | int


class _Part(Protocol):
    @property
    def shards(self) -> Sequence[int]: ...


T = TypeVar("T")
P = TypeVar("P", bound=_Part)


class RemoteLive:
    """The port Live. `instances`: who is there now; `shards`: all there are; `shard_of`: where a command belongs."""

    def __init__(
        self,
        instances: Instances,
        shards: Iterable[ShardId],
        shard_of: Callable[[Command], ShardId],
        feed: JobFeed,
    ) -> None:
        self._peers = Peers(instances)
        self._shards = frozenset(shards)
        self._shard_of = shard_of
        self._feed = feed

    async def close(self) -> None:
        """Ends the channels."""
        await self._peers.close()

    # ---- reads

    async def views(self, jobs: Sequence[str]) -> dict[str, JobView]:
        """See ports.Live."""
        if not jobs:
            return {}
        request = pb.ViewsRequest(jobs=jobs)
        found: dict[str, JobView] = {}
        for _, answer in await self._each(lambda stub: stub.Views(request, timeout=CALL_S)):
            if isinstance(answer, pb.ViewsResponse):
                found.update((each.job, livecodec.view_in(each)) for each in answer.views)
        return found

    async def execution(self, key: Key) -> Execution | None:
        """See ports.Live. Also one that ended a moment ago: history may not have it yet."""
        request = pb.GetExecutionRequest(key=livecodec.key_out(key))
        parts = await self._whole(lambda stub: stub.GetExecution(request, timeout=CALL_S))
        found = [livecodec.execution_in(part.execution) for part in parts if part.HasField("execution")]
        return max(found, key=lambda each: (each.attempt, each.status), default=None)

    async def executions(self, query: ExecutionQuery, before: Key | None, limit: int) -> Sequence[Execution]:
        """See ports.Live."""
        request = pb.ListExecutionsRequest(
            query=livecodec.query_out(query), before=livecodec.key_out(before) if before else None, limit=limit
        )
        parts = await self._whole(lambda stub: stub.ListExecutions(request, timeout=CALL_S))
        found = {each.key: each for part in parts for each in map(livecodec.execution_in, part.executions)}
        return heapq.nlargest(limit, found.values(), key=lambda each: (each.key.at, each.key.job, each.key.nonce))

    async def count(self, query: ExecutionQuery) -> int:
        """See ports.Live."""
        request = pb.CountExecutionsRequest(query=livecodec.query_out(query))
        parts = await self._whole(lambda stub: stub.CountExecutions(request, timeout=CALL_S))
        return sum(part.count for part in parts)

    async def backfills(self, job: str) -> Sequence[Backfill]:
        """See ports.Live."""
        request = pb.ListBackfillsRequest(job=job)
        parts = await self._whole(lambda stub: stub.ListBackfills(request, timeout=CALL_S))
        found = {each.id: each for part in parts for each in map(codec.backfill_in, part.backfills)}
        return sorted(found.values(), key=lambda each: (each.began, each.id), reverse=True)

    async def settled(self, job: str, revision: int, timeout_s: float) -> bool:
        """See ports.Live. A job that no instance knows counts as settled: it was deleted, or its shard moves."""
        request = pb.SettleRequest(job=job, revision=revision, timeout_ms=int(timeout_s * 1000))
        answers = await self._each(lambda stub: stub.Settle(request, timeout=timeout_s + CALL_S))
        known = [each for _, each in answers if isinstance(each, pb.SettleResponse) and each.known]
        return all(each.settled for each in known)

    async def workers(self) -> Sequence[WorkerView]:
        """See ports.Live: a worker serves several instances, what each of them has taken of it is added up."""
        merged: dict[str, WorkerView] = {}
        for _, answer in await self._described():
            for view in map(livecodec.worker_in, answer.workers):
                known = merged.get(view.info.ref.id)
                merged[view.info.ref.id] = view if known is None else _together(known, view)
        return [view for _, view in sorted(merged.items())]

    async def outlook(self, job: str, demand: Demand, queued: Instant) -> Outlook | None:
        """See ports.Live."""
        request = pb.OutlookRequest(job=job, demand=codec.demand_out(demand), queued=queued)
        answers = await self._each(lambda stub: stub.Outlook(request, timeout=CALL_S))
        found = [livecodec.outlook_in(each) for _, each in answers if isinstance(each, pb.OutlookResponse)]
        return next((each for each in found if each is not None), None)

    async def status(self) -> tuple[Sequence[ShardView], str, Sequence[str]]:
        """See ports.Live: of all instances; a shard without an owner is said in the notes."""
        shards: dict[ShardId, ShardView] = {}
        clock, notes = "ok", []
        for address, answer in await self._described():
            for shard in map(livecodec.shard_in, answer.shards):
                known = shards.get(shard.shard)
                shards[shard.shard] = shard if known is None or shard.epoch > known.epoch else known
            clock = answer.clock if answer.clock != "ok" and clock == "ok" else clock
            notes += [f"{address}: {note}" for note in answer.notes]
        if missing := sorted(self._shards - shards.keys()):
            notes.append(f"without an owner at this moment: {_named(missing)}")
        return [view for _, view in sorted(shards.items())], clock, notes

    async def cordon(self, worker: str, *, cordoned: bool, drain: bool = False, grace_ms: int = 0) -> bool:
        """See ports.Live: one instance that it is attached to is enough, it tells the others."""
        request = pb.CordonRequest(worker=worker, cordoned=cordoned, drain=drain, grace_ms=grace_ms)
        answers: list[tuple[str, grpc.aio.AioRpcError | None]] = []
        for address, stub in self._peers.stubs().items():
            try:
                if (await stub.Cordon(request, timeout=CALL_S)).known:
                    return True
                answers.append((address, None))
            except grpc.aio.AioRpcError as error:
                answers.append((address, error))
        if all(isinstance(answer, grpc.aio.AioRpcError) for _, answer in answers):
            raise _nobody(answers)
        return False

    async def _described(self) -> list[tuple[str, pb.DescribeResponse]]:
        request = pb.DescribeRequest()
        answers = await self._each(lambda stub: stub.Describe(request, timeout=CALL_S))
        found = [(address, answer) for address, answer in answers if isinstance(answer, pb.DescribeResponse)]
        if not found:
            raise _nobody(answers)
        return found

    async def _each(self, ask: Callable[[Stub], Awaitable[T]]) -> list[tuple[str, T | grpc.aio.AioRpcError]]:
        """What each instance answers."""

        async def one(address: str, stub: Stub) -> tuple[str, T | grpc.aio.AioRpcError]:
            try:
                return address, await ask(stub)
            except grpc.aio.AioRpcError as error:
                return address, error

        return await asyncio.gather(*(one(address, stub) for address, stub in self._peers.stubs().items()))

    async def _whole(self, ask: Callable[[Stub], Awaitable[P]]) -> list[P]:
        """The answers of instances that together own every shard. Raises Unavailable when there are none for WHOLE_WAIT_S."""
        deadline = time.monotonic() + WHOLE_WAIT_S
        while True:
            answers = await self._each(ask)
            parts = [answer for _, answer in answers if not isinstance(answer, grpc.aio.AioRpcError)]
            missing = self._shards.difference(*(part.shards for part in parts)) if parts else self._shards
            if not missing:
                return parts
            if time.monotonic() > deadline:
                raise _nobody(answers) if not parts else Unavailable(f"{_named(sorted(missing))} have no owner now")
            await asyncio.sleep(WHOLE_POLL_S)

    # ---- commands

    async def submit(self, command: Command) -> str:
        """See ports.Live. Where no owner can be asked it is published all the same: durable, the outcome unknown."""
        owner = await self._owner(self._shard_of(command))
        if owner is not None:
            address, stub = owner
            request = pb.SubmitRequest(command=codec.command_out(command))
            try:
                return (await stub.Submit(request, timeout=ANSWER_WAIT_S + CALL_S)).answer
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise error_of(error, address) from error
        await self._feed.publish([command])  # a second time at most: an owner passes over ids that it knows
        raise OutcomeUnknown(
            f"command {command.id.hex()[:12]} is stored and will be carried out, but its shard has no owner at this moment: "
            "see 'dts status'"
        )

    async def _owner(self, shard: ShardId) -> tuple[str, Stub] | None:
        deadline = time.monotonic() + OWNER_WAIT_S
        while True:
            found = self._peers.owner(shard)
            if found is not None or time.monotonic() > deadline:
                return found
            await asyncio.sleep(WHOLE_POLL_S)

    # ---- watch

    async def watch(self, job: str) -> AsyncIterator[Event]:
        """See ports.Live. A stream that broke is told as one event missed at least."""
        events: asyncio.Queue[Event] = asyncio.Queue(WATCH_QUEUE)
        watched: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for address, stub in self._peers.stubs().items():
                    task = watched.get(address)
                    if task is None or task.done():
                        watched[address] = asyncio.get_running_loop().create_task(self._follow(stub, job, events))
                try:
                    async with asyncio.timeout(WATCH_AGAIN_S):
                        event = await events.get()
                except TimeoutError:
                    continue
                yield event
        finally:
            for task in watched.values():
                task.cancel()

    async def _follow(self, stub: Stub, job: str, events: asyncio.Queue[Event]) -> None:
        call = stub.Watch(pb.WatchRequest(job=job))
        begun = False
        try:
            async for got in call:
                begun = True
                await events.put(_event(got))
        except grpc.aio.AioRpcError:
            if begun:
                await events.put(1)
        finally:
            call.cancel()


def _event(got: pb.WatchResponse) -> Event:
    match got.WhichOneof("event"):
        case "execution":
            return livecodec.execution_in(got.execution)
        case "range":
            return livecodec.range_in(got.range)
    return got.missed


def _together(one: WorkerView, other: WorkerView) -> WorkerView:
    newer = other if other.heard >= one.heard else one
    custom = dict(one.taken.custom)
    for name, amount in other.taken.custom:
        custom[name] = custom.get(name, 0) + amount
    taken = replace(
        one.taken,
        cpu=one.taken.cpu + other.taken.cpu,
        memory=one.taken.memory + other.taken.memory,
        storage=one.taken.storage + other.taken.storage,
        slots=one.taken.slots + other.taken.slots,
        custom=tuple(sorted(custom.items())),
    )
    return newer._replace(
        taken=taken,
        attempts=one.attempts + other.attempts,
        attached=one.attached or other.attached,
        heard=max(one.heard, other.heard),
    )


def _named(shards: Sequence[ShardId]) -> str:
    return f"shard{'s' if len(shards) > 1 else ''} {', '.join(str(each) for each in shards)}"


def _nobody(answers: Sequence[tuple[str, object]]) -> Unavailable:
    for address, answer in answers:
        if isinstance(answer, grpc.aio.AioRpcError):
            return Unavailable(str(error_of(answer, address)))
    return Unavailable("no Scheduler Service is there: is one running on this cluster (DTS_CLUSTER, KAFKA_BROKERS)?")
