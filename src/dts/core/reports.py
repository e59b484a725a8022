"""What workers say, decided: ends, attempts that a worker does not hold, workers that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from dts import bounds
from dts.core.draft import Draft
from dts.core.policies import retry_delay, tried_again
from dts.core.shard import Shard
from dts.model import Block, Delivery, End, Held, Key, Policies, Report, Status, WorkerRef

ENDS = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.LOST, Status.QUEUED)  # what a worker may say
_DEFAULT = Policies()


def decide_reports(shard: Shard, draft: Draft, reports: Sequence[Report], most: int = bounds.STEP_FIRES) -> None:
    """Reports of the draft's own epoch, in order; those of another one are passed over (their sender is asked again).

    `most`: of what a lost worker held at once. The report stays until there is nothing left of it.
    """
    for report in reports:
        for ended in report.ended:
            _ended(shard, draft, report.worker, ended)
        if report.gone:
            if not _gone(shard, draft, report, most):
                draft.more = True
                return
        elif report.epoch == shard.epoch:
            if report.full:
                _held(shard, draft, report)
            if report.beat:
                draft.beats[report.worker] = report.beat
        draft.taken_reports += 1


def lost_workers(shard: Shard, draft: Draft, workers: Iterable[WorkerRef], most: int = bounds.STEP_FIRES) -> None:
    """What these workers held is theirs no more, `most` of each; what of it ran is not known."""
    for worker in workers:
        keys = islice((key for key in shard.placed.get(worker, ()) if key not in draft.touched), most)
        _lost(shard, draft, list(keys), f"worker {worker.id} was lost", bounds.LOSS_RUNNING)


def _gone(shard: Shard, draft: Draft, report: Report, most: int) -> bool:
    """A dead worker; `report.held` is what is known to have run there when it died. Whether that was all."""
    ran: list[Key] = []
    waited: list[Key] = []
    held = set(report.held)
    keys = [key for key in shard.placed.get(report.worker, ()) if key not in draft.touched]
    for key in keys[:most]:
        (ran if Held(key, shard.open[key][0].attempt) in held else waited).append(key)
    reason = f"worker {report.worker.id} was lost"
    _lost(shard, draft, ran, reason, bounds.LOSS_RUNNING)
    _lost(shard, draft, waited, reason, bounds.LOSS_WAITING)
    return len(keys) <= most


def _held(shard: Shard, draft: Draft, report: Report) -> None:
    """A full report: what was placed before it and is not in it has not arrived; what is in it and not ours is stray."""
    held = set(report.held)
    missing: list[Key] = []
    for key in shard.placed.get(report.worker, ()):
        block, _ = shard.open[key]
        if key in draft.touched or Held(key, block.attempt) in held:
            continue
        if block.report < (report.epoch, report.number):
            missing.append(key)
    _lost(shard, draft, missing, f"worker {report.worker.id} does not hold it", bounds.LOSS_WAITING)
    for one in held:
        entry = shard.open.get(one.key)
        own = entry is not None and entry[0].worker == report.worker and entry[0].attempt == one.attempt
        if not own or (entry is not None and entry[0].cancel):
            draft.stray.setdefault(report.worker, []).append(one)


def _ended(shard: Shard, draft: Draft, worker: WorkerRef, ended: Block) -> None:
    """Every end is acknowledged after the commit; only that of a placed attempt of this worker decides anything."""
    draft.acks.setdefault(worker, []).extend(Held(key, ended.attempt) for key in ended.keys)
    sources: dict[int, tuple[Block, list[Key], list[int], list[End]]] = {}
    ends: Sequence[End] = ended.ends or [End()] * len(ended.keys)
    touched, opened = draft.touched, shard.open
    for key, end in zip(ended.keys, ends, strict=True):
        entry = opened.get(key)
        if entry is None or key in touched:
            continue
        block, place = entry
        if block.status is not Status.PLACED or block.attempt != ended.attempt or block.worker != worker:
            continue
        columns = sources.get(id(block))
        if columns is None:
            columns = sources[id(block)] = (block, [], [], [])
        columns[1].append(key)
        columns[2].append(block.revisions[place])
        columns[3].append(end)
    for block, keys, revisions, own in sources.values():
        _verdict(shard, draft, replace(block, keys=keys, revisions=revisions, ends=own), ended.status)


def _verdict(shard: Shard, draft: Draft, block: Block, said: Status) -> None:
    if said is Status.COMPLETED:
        draft.add(replace(block, status=Status.COMPLETED))
    elif block.cancel or said is Status.CANCELLED:
        draft.add(replace(block, status=Status.CANCELLED, reason=block.cancel or "cancelled"))
    elif said is Status.FAILED:
        _failed(shard, draft, block)
    else:
        reason = "handed back by its worker" if said is Status.QUEUED else "lost by its worker"
        _again(shard, draft, block, reason, handed_back=said is Status.QUEUED)


def _policies(shard: Shard, block: Block, place: int) -> Policies:
    definition = shard.definition(block.keys[place].job, block.revisions[place])
    return definition.policies if definition is not None else _DEFAULT


def _failed(shard: Shard, draft: Draft, block: Block) -> None:
    """Each failed execution is tried again or has failed for good."""
    failures = block.failures + 1
    final: list[int] = []
    for place, key in enumerate(block.keys):
        policies = _policies(shard, block, place)
        again = failures <= policies.max_retries and policies.delivery is not Delivery.AT_MOST_ONCE
        if not again or not tried_again(policies, block.ends[place]):
            final.append(place)
            continue
        delay = retry_delay(policies, failures, key)
        one = _part(block, [place])
        draft.add(replace(one, status=Status.RETRYING, failures=failures, not_before=draft.now + delay))
    if final:
        draft.add(replace(_part(block, final), status=Status.FAILED, failures=failures))


def _part(block: Block, places: Sequence[int]) -> Block:
    if len(places) == len(block.keys):
        return block
    return replace(
        block,
        keys=[block.keys[place] for place in places],
        revisions=[block.revisions[place] for place in places],
        ends=[block.ends[place] for place in places] if block.ends else (),
    )


def _lost(shard: Shard, draft: Draft, keys: Sequence[Key], reason: str, points: int) -> None:
    sources: dict[int, tuple[Block, list[Key], list[int]]] = {}
    for key in keys:
        block, place = shard.open[key]
        _, own, revisions = sources.setdefault(id(block), (block, [], []))
        own.append(key)
        revisions.append(block.revisions[place])
    for block, own, revisions in sources.values():
        _again(shard, draft, replace(block, keys=own, revisions=revisions, ends=()), reason, points)


def _again(
    shard: Shard,
    draft: Draft,
    block: Block,
    reason: str,
    points: int = bounds.LOSS_RUNNING,
    *,
    handed_back: bool = False,
) -> None:
    """An attempt that told nothing of its task: placed again, unless it was to run at most once or was lost too often."""
    if block.cancel:
        draft.add(replace(block, status=Status.CANCELLED, reason=block.cancel))
        return
    once: list[int] = []
    again: dict[int, list[int]] = {}  # by points
    for place in range(len(block.keys)):
        at_most_once = _policies(shard, block, place).delivery is Delivery.AT_MOST_ONCE
        unstarted = handed_back and not (block.ends and block.ends[place].started)
        if at_most_once and not unstarted:
            once.append(place)
        else:
            again.setdefault(bounds.LOSS_WAITING if unstarted else points, []).append(place)
    if once:
        losses = block.losses + points
        draft.add(replace(_part(block, once), status=Status.LOST, losses=losses, reason=f"{reason}; at most once"))
    for more, places in again.items():
        losses = block.losses + more
        status = Status.LOST if losses >= bounds.MAX_LOSSES else Status.QUEUED
        why = f"{reason}; too often" if status is Status.LOST else reason
        draft.add(replace(_part(block, places), status=status, losses=losses, reason=why, worker=None))
