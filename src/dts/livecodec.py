"""Between the domain's views of now and live.v1: what Scheduler instances tell DTS's other services."""

from __future__ import annotations

from dts import codec
from dts.gen.live.v1 import live_pb2 as live
from dts.gen.log.v1 import log_pb2 as log
from dts.model import (
    Block,
    Demand,
    Execution,
    ExecutionQuery,
    JobView,
    Key,
    Obstacle,
    Outlook,
    Range,
    ShardView,
    Status,
    WorkerInfo,
    WorkerRef,
    WorkerView,
)

NO_DEMAND = Demand()


def key_out(key: Key) -> live.Key:
    """To live.v1."""
    return live.Key(job=key.job, at=key.at, nonce=key.nonce)


def key_in(got: live.Key) -> Key:
    """From live.v1."""
    return Key(got.job, got.at, got.nonce)


def execution_out(found: Execution) -> log.Block:
    """An execution as a block of one key; of its demand, its losses and its worker's incarnation nothing is told."""
    return codec.block_out(
        Block(
            [found.key],
            [found.revision],
            NO_DEMAND,
            found.status,
            found.attempt,
            found.cause,
            found.queued,
            found.not_before,
            worker=WorkerRef(found.worker, "") if found.worker else None,
            fencing=found.fencing,
            placed=found.placed,
            reason=found.reason,
            retry_of=found.retry_of,
            ends=[found.end],
            group=found.group,
        )
    )


def execution_in(got: log.Block) -> Execution:
    """The inverse of `execution_out`."""
    block = codec.block_in(got)
    return Execution(
        block.keys[0],
        block.revisions[0],
        block.status,
        block.attempt,
        block.cause,
        block.queued,
        block.placed,
        block.not_before,
        block.worker.id if block.worker else "",
        block.fencing,
        block.reason,
        block.retry_of,
        block.ends[0],
        block.group,
    )


def range_out(found: Range) -> log.Range:
    """To log.v1."""
    return log.Range(
        job=found.job,
        revision=found.revision,
        after=found.after,
        until=found.until,
        count=found.size,
        reason=found.reason,
    )


def range_in(got: log.Range) -> Range:
    """From log.v1."""
    return Range(got.job, got.revision, got.after, got.until, got.count, got.reason)


def query_out(query: ExecutionQuery) -> live.Query:
    """To live.v1."""
    return live.Query(job=query.job, statuses=sorted(query.statuses), start=query.start, until=query.until)


def query_in(got: live.Query) -> ExecutionQuery:
    """From live.v1."""
    return ExecutionQuery(got.job, frozenset(Status(each) for each in got.statuses), got.start, got.until)


def view_out(job: str, view: JobView) -> live.View:
    """To live.v1."""
    return live.View(job=job, **view._asdict())


def view_in(got: live.View) -> JobView:
    """From live.v1."""
    following = got.next_run if got.HasField("next_run") else None
    counts = (got.queued, got.placed, got.running, got.retrying)
    return JobView(following, *counts, got.suspended, got.suspension, got.failures)


def outlook_out(found: Outlook | None) -> live.OutlookResponse:
    """To live.v1."""
    if found is None:
        return live.OutlookResponse()
    obstacles = [live.Obstacle(**each._asdict()) for each in found.obstacles]
    rest = {**found._asdict(), "obstacles": obstacles}
    return live.OutlookResponse(known=True, **rest)


def outlook_in(got: live.OutlookResponse) -> Outlook | None:
    """From live.v1."""
    if not got.known:
        return None
    obstacles = [
        Obstacle(each.kind, each.workers, each.resource, each.need, each.have, each.detail) for each in got.obstacles
    ]
    return Outlook(got.workers, got.open, tuple(obstacles), got.ahead, got.clock, got.kept)


def worker_out(view: WorkerView) -> live.Worker:
    """To live.v1."""
    info = view.info
    return live.Worker(
        id=info.ref.id,
        incarnation=info.ref.incarnation,
        total=codec.demand_out(info.total),
        backlog=info.backlog,
        labels=dict(info.labels),
        timed=info.timed,
        host=info.host,
        pid=info.pid,
        version=info.version,
        taken=codec.demand_out(view.taken),
        attempts=view.attempts,
        attached=view.attached,
        heard=view.heard,
        cordoned=view.cordoned,
        leaving=view.leaving,
        credit=codec.demand_out(view.credit) if view.credit is not None else None,
    )


def worker_in(got: live.Worker) -> WorkerView:
    """From live.v1."""
    labels = tuple(sorted(got.labels.items()))
    ref, total = WorkerRef(got.id, got.incarnation), codec.demand_in(got.total)
    info = WorkerInfo(ref, total, got.backlog, labels, got.timed, got.host, got.pid, got.version)
    credit = codec.demand_in(got.credit) if got.HasField("credit") else None
    taken = codec.demand_in(got.taken)
    return WorkerView(info, taken, got.attempts, got.attached, got.heard, got.cordoned, got.leaving, credit)


def shard_out(view: ShardView) -> live.Shard:
    """To live.v1."""
    return live.Shard(**view._asdict())


def shard_in(got: live.Shard) -> ShardView:
    """From live.v1."""
    return ShardView(
        got.shard,
        got.epoch,
        got.seq,
        got.watermark,
        got.jobs,
        got.queued,
        got.placed,
        got.retrying,
        got.accounted,
    )
