"""live.v1.LiveService: one Scheduler instance's part of the present, told to DTS's other services."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import NoReturn

import grpc

from dts import codec, livecodec
from dts.errors import DtsError
from dts.gen.live.v1 import live_pb2 as pb
from dts.gen.live.v1 import live_pb2_grpc
from dts.model import Execution, Range
from dts.services.scheduler import Scheduler

MOST = 10_000  # executions or jobs in one answer
LONGEST_SETTLE_S = 60.0

Context = grpc.aio.ServicerContext[object, object]


class LiveServicer(live_pb2_grpc.LiveServiceServicer):
    """Over one Scheduler. Errors of ours travel as their gRPC status."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def Views(self, request: pb.ViewsRequest, context: Context) -> pb.ViewsResponse:
        """What jobs are doing."""
        del context
        views = await self._scheduler.views(list(request.jobs[:MOST]))
        return pb.ViewsResponse(views=[livecodec.view_out(job, view) for job, view in views.items()])

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        """One execution that is open, or ended a moment ago."""
        del context
        found = await self._scheduler.execution(livecodec.key_in(request.key))
        return pb.GetExecutionResponse(
            execution=livecodec.execution_out(found) if found else None, shards=self._scheduler.owned()
        )

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """Open executions, newest first."""
        del context
        before = livecodec.key_in(request.before) if request.HasField("before") else None
        query, limit = livecodec.query_in(request.query), min(request.limit, MOST)
        found = await self._scheduler.executions(query, before, limit)
        return pb.ListExecutionsResponse(
            executions=[livecodec.execution_out(each) for each in found], shards=self._scheduler.owned()
        )

    async def CountExecutions(self, request: pb.CountExecutionsRequest, context: Context) -> pb.CountExecutionsResponse:
        """How many open executions."""
        del context
        count = await self._scheduler.count(livecodec.query_in(request.query))
        return pb.CountExecutionsResponse(count=count, shards=self._scheduler.owned())

    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        """Publishes a command and waits for the owner's commit."""
        try:
            answer = await self._scheduler.submit(codec.command_in(request.command))
        except DtsError as error:
            await _abort(context, error)
        return pb.SubmitResponse(answer=answer)

    async def Settle(self, request: pb.SettleRequest, context: Context) -> pb.SettleResponse:
        """Waits until a revision is applied."""
        del context
        if not await self._scheduler.views([request.job]):
            return pb.SettleResponse()
        wait = min(request.timeout_ms / 1000, LONGEST_SETTLE_S)
        settled = await self._scheduler.settled(request.job, request.revision, wait)
        return pb.SettleResponse(known=True, settled=settled)

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        """Transitions and ranges as they are committed. What follows the first metadata is complete."""
        await context.send_initial_metadata(())
        async with aclosing(_generator(self._scheduler.watch(request.job))) as events:
            async for event in events:
                yield _event(event)

    async def ListBackfills(self, request: pb.ListBackfillsRequest, context: Context) -> pb.ListBackfillsResponse:
        """Backfills that run or ran."""
        del context
        found = await self._scheduler.backfills(request.job)
        return pb.ListBackfillsResponse(
            backfills=[codec.backfill_out(each) for each in found], shards=self._scheduler.owned()
        )

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        """Workers, shards, clock."""
        del request, context
        shards, clock, notes = await self._scheduler.status()
        workers = await self._scheduler.workers()
        return pb.DescribeResponse(
            workers=[livecodec.worker_out(each) for each in workers],
            shards=[livecodec.shard_out(each) for each in shards],
            clock=clock,
            notes=notes,
        )

    async def Outlook(self, request: pb.OutlookRequest, context: Context) -> pb.OutlookResponse:
        """Whether an execution would find a place now."""
        del context
        demand = codec.demand_in(request.demand)
        return livecodec.outlook_out(await self._scheduler.outlook(request.job, demand, request.queued))

    async def Cordon(self, request: pb.CordonRequest, context: Context) -> pb.CordonResponse:
        """Nothing new for a worker, or something again."""
        del context
        known = await self._scheduler.cordon(
            request.worker, cordoned=request.cordoned, drain=request.drain, grace_ms=request.grace_ms
        )
        return pb.CordonResponse(known=known)


def _event(event: Execution | Range | int) -> pb.WatchResponse:
    match event:
        case Execution():
            return pb.WatchResponse(execution=livecodec.execution_out(event))
        case Range():
            return pb.WatchResponse(range=livecodec.range_out(event))
        case missed:
            return pb.WatchResponse(missed=missed)


async def _generator(events: AsyncIterator[Execution | Range | int]) -> AsyncGenerator[Execution | Range | int, None]:
    async for event in events:
        yield event


async def _abort(context: Context, error: DtsError) -> NoReturn:
    await context.abort(grpc.StatusCode[error.status], str(error))
    raise AssertionError("abort raises")
