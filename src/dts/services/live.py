"""What runs or waits now, read from the shards' state: views for people, never decisions."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import islice, takewhile

from dts.core.instance import Desk, Instance
from dts.core.policies import spread
from dts.core.shard import Shard
from dts.core.timetable import times_of
from dts.core.words import GROUP, JITTER, TURN
from dts.model import (
    LAST_JOB,
    NO_END,
    Backfill,
    Definition,
    Demand,
    End,
    Execution,
    ExecutionQuery,
    Instant,
    JobState,
    JobView,
    Key,
    Outlook,
    ShardView,
    Status,
    Streak,
    WorkerView,
)
from dts.schedule import format_instant


def next_run(definition: Definition, after: Instant) -> Instant | None:
    """The first instant of a job after an instant, as its revision stands. None: none, cancelled, or paused for good."""
    if not definition.schedules or definition.state >= JobState.CANCELLED:
        return None
    if definition.state is JobState.PAUSED:
        if definition.until is None:
            return None
        after = max(after, definition.until)
    return times_of(definition.schedules).next_after(after)


def view(desk: Desk, job: str, now: Instant) -> JobView | None:
    """What a job is doing; None when the shard does not know it."""
    definition = desk.shard.definitions.get(job)
    keys = desk.shard.by_job.get(job, ())
    if definition is None and not keys:
        return None
    counts = {Status.QUEUED: 0, Status.PLACED: 0, Status.RETRYING: 0}
    running = 0
    for key in keys:
        counts[desk.shard.open[key][0].status] += 1
        running += key in desk.running
    return JobView(
        next_run(definition, now) if definition is not None else None,
        counts[Status.QUEUED],
        counts[Status.PLACED],
        running,
        counts[Status.RETRYING],
        *_suspension(desk.shard, job),
    )


def _suspension(shard: Shard, job: str) -> tuple[Instant, str, int]:
    """Since when and why a job is suspended, and its failures in a row."""
    streak = shard.streaks.get(job) or Streak(job)
    return (streak.since, streak.reason, streak.failures) if job in shard.guises else (0, "", streak.failures)


def waits(core: Instance, desk: Desk, key: Key, now: Instant) -> str:
    """Why a QUEUED execution is not placed: its job's limits first, then what the workers lack."""
    block, _ = desk.shard.open[key]
    if block.held:
        return f"{TURN}: an execution of the job before it has not ended (overlap policy)"
    groups = desk.shard.groups
    if block.group and not groups.free(block.group):
        placed, most = groups.placed.get(block.group, 0), groups.limit(block.group)
        return f"{GROUP}: {placed} of {most} of group {block.group!r} are placed"
    if block.jitter and (at := block.queued + spread(key, block.jitter)) > now:
        return f"{JITTER}: it is placed from {format_instant(at)} on"
    return core.allocator.why_not(block.demand)


def execution(core: Instance, desk: Desk, key: Key, now: Instant) -> Execution | None:
    """An open execution, with why it waits; None when it is not open."""
    entry = desk.shard.open.get(key)
    if entry is None:
        return None
    block, place = entry
    reason = block.reason
    if block.status is Status.QUEUED:
        why = waits(core, desk, key, now)
        reason = f"{reason}; {why}" if reason else why
    attempt, started = desk.running.get(key, (0, 0))
    return Execution(
        key,
        block.revisions[place],
        block.status,
        block.attempt,
        block.cause,
        block.queued,
        block.placed,
        block.not_before,
        block.worker.id if block.worker else "",
        block.fencing,
        block.cancel or reason,
        block.retry_of,
        End(started=started) if attempt == block.attempt else (block.ends[place] if block.ends else NO_END),
        block.group,
    )


AHEAD = 10_000  # executions that come first are counted up to here


def outlook(core: Instance, desk: Desk, demand: Demand, queued: Instant, clock: str) -> Outlook:
    """Whether an execution of a job of this shard would find a place now."""
    number = {worker for worker, seen in desk.seen.items() if seen.number}
    found = core.allocator.outlook(demand, number.__contains__)
    return found._replace(ahead=_ahead(core, demand, queued), clock=clock)


def _ahead(core: Instance, demand: Demand, queued: Instant) -> int:
    """Waiting executions of a higher priority, and older ones of the same."""
    count = 0
    for desk in core.desks.values():
        for other, keys in desk.shard.waiting.items():
            if other.priority > demand.priority:
                count += len(keys)
            elif other.priority == demand.priority:
                older = (desk.shard.open[key][0].queued < queued for key in islice(keys, AHEAD))
                count += sum(takewhile(bool, older))
            if count >= AHEAD:
                return AHEAD
    return count


def order(key: Key) -> tuple[Instant, str, str]:
    """Executions are listed newest first in this order."""
    return key.at, key.job, key.nonce


def matching(desks: Iterable[Desk], query: ExecutionQuery) -> Iterable[Key]:
    """Keys of open executions that a query asks for."""
    for desk in desks:
        opened = desk.shard.open
        for key in desk.shard.by_job.get(query.job, ()) if query.job else opened:
            if query.statuses and opened[key][0].status not in query.statuses:
                continue
            if key.at >= query.start and (not query.until or key.at < query.until):
                yield key


def newest(desks: Iterable[Desk], query: ExecutionQuery, before: Key | None, limit: int) -> list[Key]:
    """The first `limit` of them, newest first, strictly before a key in that order."""
    keys = matching(desks, query)
    if before is not None:
        edge = order(before)
        keys = (key for key in keys if order(key) < edge)
    return heapq.nlargest(limit, keys, key=order)


def backfills(desks: Iterable[Desk], job: str) -> list[Backfill]:
    """Of one job, or of all (''), the latest first."""
    found = (each for desk in desks for each in desk.shard.backfills.values() if not job or each.job == job)
    return sorted(found, key=lambda each: (each.began, each.id), reverse=True)


def shard_view(desk: Desk) -> ShardView:
    """How a shard is."""
    shard = desk.shard
    counts = shard.counts
    return ShardView(
        shard.shard,
        shard.epoch,
        shard.seq,
        shard.watermark[0],
        len(shard.definitions),
        counts[Status.QUEUED],
        counts[Status.PLACED],
        counts[Status.RETRYING],
        _accounted(desk),
    )


def _accounted(desk: Desk) -> Instant:
    """The watermark's instant, or where the work behind it (outages, late changes) begins."""
    shard = desk.shard
    owed = (piece.after for pieces in shard.owed.values() for piece in pieces)
    # An instant at the watermark itself may be cut between two jobs.
    whole = shard.watermark[0] if shard.watermark[1] == LAST_JOB else shard.watermark[0] - 1
    return min([whole, *(gap.after[0] - 1 for gap in shard.gaps), *owed])


def worker_views(core: Instance) -> list[WorkerView]:
    """The workers that are attached or still hold something."""
    attempts: dict[str, int] = {}
    heard: dict[str, Instant] = {}
    for desk in core.desks.values():
        for ref, keys in desk.shard.placed.items():
            attempts[ref.id] = attempts.get(ref.id, 0) + len(keys)
        for ref, seen in desk.seen.items():
            heard[ref.id] = max(heard.get(ref.id, 0), seen.heard)
    return [
        WorkerView(
            member.info,
            core.fleet.taken(id),
            attempts.get(id, 0),
            member.attached,
            heard.get(id, 0),
            member.cordoned,
            member.leaving,
            core.fleet.credit_of(id),
        )
        for id, member in sorted(core.fleet.members.items())
    ]
