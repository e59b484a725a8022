"""One step of a shard: reads its state and inputs, writes only the draft.

Order, and why:
1. Reports: what ended or was lost, so that its capacity and its retries take part in this very step.
2. Time: due instants up to now (or, after an outage, one jump of the watermark whose instants become a gap).
3. Changes (core/changes.py): revisions whose `from` is behind the watermark reached in 2. A changed job's instants of this step
   are taken out of 2: it owes them by name.
4. Owed: gaps and cursors are worked off within what is left of the step's limit.
5. Commands, against the state before this step; one about a job or an execution that this step changes waits for the next.
6. Backfills (core/backfill.py): what of them ended in this step is counted, and makes room for their next instants.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from dts import bounds
from dts.core import backfill
from dts.core.allocator import Order, order
from dts.core.changes import Account, cancel, decide_changes
from dts.core.draft import Draft
from dts.core.fires import Fires
from dts.core.policies import MISSED, TOO_LATE, retry_delay, settle
from dts.core.reports import decide_reports, lost_workers
from dts.core.shard import Shard, is_memo
from dts.core.streaks import decide_streaks, ends
from dts.core.timetable import seen_by
from dts.core.turns import Turns
from dts.model import (
    LAST_JOB,
    Block,
    Cancel,
    Cause,
    Change,
    Command,
    Definition,
    Demand,
    Gap,
    Instant,
    JobState,
    Key,
    Owed,
    Report,
    Resume,
    Retry,
    Run,
    StartBackfill,
    Status,
    StopBackfill,
    WorkerRef,
    answer_of,
    new_key,
)

Room = Callable[[Demand], int]  # at most so many executions of a demand could be placed now

MEMOS_AT_ONCE = 100  # looked at in one step

__all__ = ["MISSED", "Room", "decide", "retry_delay"]


def decide(
    shard: Shard,
    now: Instant,
    changes: Sequence[Change],
    commands: Sequence[Change],
    reports: Sequence[Report],
    room: Room,
    *,
    expired: Sequence[WorkerRef] = (),
    limit: int = bounds.STEP_FIRES,
    places: int = bounds.STEP_PLACES,
    most: int = bounds.STEP_FIRES,
    hold: bool = False,
    rules: str = "",
) -> Draft:
    """What to do now. `expired`: workers whose timed leases are over. `hold`: the clock is in doubt, the watermark stays.
    `limit`: new fires; `most`: open executions of one kind that are looked at."""
    draft = Draft(
        shard.shard, shard.epoch, shard.seq + 1, now, shard.watermark, shard.applied, shard.gaps, shard.held_commands
    )
    decide_reports(shard, draft, reports, most)
    lost_workers(shard, draft, expired, most)
    turns = Turns(shard, draft)
    fires = Fires(shard, draft, turns)
    due: Sequence[tuple[Instant, Sequence[Definition]]] = ()
    changed: dict[str, Account] = {}
    if not hold:
        due = _time(shard, draft, now, limit)
        changed = decide_changes(shard, draft, changes, rules)
    changed |= decide_streaks(shard, draft, changed)
    turns.free()
    for instant, definitions in due:
        fires.due(instant, [d for d in definitions if d.job not in changed] if changed else definitions)
    if not hold:
        _work_off(shard, draft, fires, changed, limit)
    fresh = fires.blocks(now)
    _commands(shard, draft, commands, fresh, turns)
    _retries(shard, draft, now, fresh, most)
    _overdue(shard, draft, most)
    backfill.bring_forward(shard, draft, fresh, turns, limit - fires.count)
    _ready(shard, draft, [*turns.freed(), *fresh], room, places, most)
    return draft


def _time(shard: Shard, draft: Draft, now: Instant, limit: int) -> list[tuple[Instant, Sequence[Definition]]]:
    """Moves the draft's watermark to now, or as far as the limit allows; after an outage, over it in one jump."""
    if now <= shard.watermark[0] and shard.watermark[1] == LAST_JOB:
        return []
    missed_until = now - bounds.LATE_WINDOW_MIN_MS
    if shard.watermark[0] < missed_until and _any_due(shard, missed_until):
        if len(shard.gaps) < bounds.MAX_GAPS:
            draft.gaps = (*shard.gaps, Gap(shard.watermark, missed_until))
            draft.watermark = (missed_until, LAST_JOB)
            draft.more = True
        return []
    due, draft.watermark = shard.timetable.due(now, limit)
    draft.more = draft.more or draft.watermark[0] < now
    if due or _any_due(shard, draft.watermark[0]):
        draft.keep_alive = True  # also if there is nothing (any more) to fire: or it would be looked at for ever
    return due


def _any_due(shard: Shard, until: Instant) -> bool:
    following = shard.timetable.next_due()
    opening = shard.openings[0][0] if shard.openings else None
    return (following is not None and following <= until) or (opening is not None and opening <= until)


def _work_off(shard: Shard, draft: Draft, fires: Fires, changed: Collection[str], limit: int) -> None:
    """Owed pieces and gaps, within the step's limit."""
    todo = chain(list(draft.owed.items()), (item for item in shard.owed.items() if item[0] not in changed))
    for job, pieces in todo:
        if fires.count >= limit:
            draft.more = True
            break
        left = _settle(shard, draft, fires, pieces, limit)
        if job in changed:
            draft.owed[job] = left
        elif left != pieces:
            draft.owed[job] = (*shard.given.get(job, ()), *left)
    _forget_memos(shard, draft)
    if shard.gaps:
        _work_off_gap(shard, draft, fires, changed, limit)


def _forget_memos(shard: Shard, draft: Draft) -> None:
    """Drops some memos that no revision, however late, can need any more. The oldest come first."""
    for job, memos in islice(shard.given.items(), MEMOS_AT_ONCE):
        bare = not any(memo.definition.schedules for memo in memos)  # but the revision of a deleted job
        needed = draft.now - (bounds.DELETED_KNOWN_MS if bare else bounds.CHANGE_LATE_MS)
        if job not in draft.owed and all(memo.until <= needed for memo in memos):
            draft.owed[job] = shard.owed.get(job, ())


def _settle(shard: Shard, draft: Draft, fires: Fires, pieces: Sequence[Owed], limit: int) -> tuple[Owed, ...]:
    left: list[Owed] = []
    for piece in pieces:
        definition = piece.definition
        if is_memo(piece):
            left.append(piece)
            continue
        done = settle(piece, draft.now, limit - fires.count)
        draft.ranges += done.ranges
        for instant in done.fires:
            fires.due(instant, (definition,))
        if done.fires:
            current = shard.definitions.get(definition.job)
            if current is None or current.revision != definition.revision:
                draft.kept.append(definition)
        if done.rest is not None:
            left.append(done.rest)
            if done.at <= draft.now:
                draft.more = True
            elif draft.owed_at is None or done.at < draft.owed_at:
                draft.owed_at = done.at
    return tuple(left)


def _work_off_gap(shard: Shard, draft: Draft, fires: Fires, changed: Collection[str], limit: int) -> None:
    """The oldest gap: jobs in id order above its cursor."""
    gap = draft.gaps[0]
    jobs = shard.sorted_jobs()
    start = bisect_right(jobs, gap.done)
    most = bounds.STEP_JOBS_OF_GAP
    for job in islice(jobs, start, start + most):
        if fires.count >= limit:
            break
        if job not in gap.skip and job not in changed:
            _gap_of(shard, draft, fires, job, gap, limit)
        gap = gap._replace(done=job)
    finished = start >= len(jobs) or gap.done == jobs[-1]
    draft.gaps = draft.gaps[1:] if finished else (gap, *draft.gaps[1:])
    draft.more = draft.more or bool(draft.gaps)


def _gap_of(shard: Shard, draft: Draft, fires: Fires, job: str, gap: Gap, limit: int) -> None:
    definition = shard.definitions[job]
    if job not in shard.timetable or not definition.schedules:
        return
    after = max(seen_by(gap.after, job), definition.since)
    left = _settle(shard, draft, fires, (Owed(definition, after, gap.until),), limit)
    if left:
        draft.owed[job] = (*draft.owed.get(job, (*shard.given.get(job, ()), *shard.owed.get(job, ()))), *left)


def _retries(shard: Shard, draft: Draft, now: Instant, fresh: list[Block], most: int) -> None:
    """Attempts whose time to be tried again has come: ready like a new fire."""
    for block, keys in shard.retries_due(now, most):
        own = [key for key in keys if key not in draft.touched]
        if not own:
            continue
        draft.touched.update(own)
        revisions = [block.revisions[shard.open[key][1]] for key in own]
        fresh.append(
            replace(
                block,
                keys=own,
                revisions=revisions,
                status=Status.QUEUED,
                worker=None,
                not_before=0,
                jitter=0,
                ends=(),
            )
        )


def _overdue(shard: Shard, draft: Draft, most: int) -> None:
    """What was not placed in the time that its job gives it is skipped."""
    for block, keys in shard.overdue(draft.now, most):
        own = [key for key in keys if key not in draft.touched]
        if own:
            revisions = [block.revisions[shard.open[key][1]] for key in own]
            draft.add(replace(block, keys=own, revisions=revisions, status=Status.SKIPPED, reason=TOO_LATE, held=False))


def _ready(shard: Shard, draft: Draft, fresh: list[Block], room: Room, places: int, at_once: int) -> None:
    """What may be placed: those waiting (as many as could find a place), then the fresh ones."""
    wanted = [
        (demand, keys, most) for demand, keys in shard.waiting.items() if (most := min(room(demand), len(keys))) > 0
    ]
    left = places
    if len(wanted) > left // at_once:  # those that come first, if not all can be offered

        def first(each: tuple[Demand, Iterable[Key], int]) -> Order:
            return order(each[0], shard.open[next(iter(each[1]))][0].queued, draft.now)

        wanted.sort(key=first)
    for _, keys, most in wanted:
        size = min(most, at_once, left)
        draft.cut = draft.cut or size < most
        left -= size
        if size:
            draft.ready += _waiting_blocks(shard, draft, keys, size)
    free = {group: shard.groups.free(group) for group in shard.groups.waiting}
    for group, demands in shard.groups.waiting.items():
        _grouped(shard, draft, group, demands, free, room, at_once)
    draft.more = draft.more or any(each.group in free for each in draft.definitions)  # the limit may be another
    draft.fresh = len(draft.ready)
    for block in fresh:
        if block.start_by and block.start_by < draft.now and not block.attempt:
            draft.add(replace(block, status=Status.SKIPPED, reason=TOO_LATE))
        elif block.held or block.jitter:
            draft.add(block)
        elif block.group:
            _within(shard, draft, block, free)
        else:
            draft.ready.append(block)


def _grouped(
    shard: Shard,
    draft: Draft,
    group: str,
    demands: Mapping[Demand, dict[Key, None]],
    free: dict[str, int],
    room: Room,
    at_once: int,
) -> None:
    """Those of a group that wait: by priority, then age, as many as the group lets be placed."""
    lines = [(demand, keys) for demand, keys in demands.items() if keys]
    lines.sort(key=lambda each: (-each[0].priority, shard.open[next(iter(each[1]))][0].queued))
    for demand, keys in lines:
        size = min(free[group], room(demand), at_once)
        if size > 0:
            found = _waiting_blocks(shard, draft, keys, size)
            free[group] -= sum(len(block.keys) for block in found)
            draft.ready += found


def _within(shard: Shard, draft: Draft, block: Block, free: dict[str, int]) -> None:
    """Of a new block of a group: what the group lets be placed may be, the rest waits."""
    left = free.setdefault(block.group, shard.groups.free(block.group))
    size = min(left, len(block.keys))
    free[block.group] = left - size
    if size:
        draft.ready.append(replace(block, keys=block.keys[:size], revisions=block.revisions[:size]))
    if size < len(block.keys):
        draft.add(replace(block, keys=block.keys[size:], revisions=block.revisions[size:]))


def _waiting_blocks(shard: Shard, draft: Draft, keys: Iterable[Key], most: int) -> list[Block]:
    found: list[Block] = []
    current: Block | None = None
    chosen: list[Key] = []
    revisions: list[int] = []
    for key in islice((key for key in keys if key not in draft.touched), most):
        block, place = shard.open[key]
        if block is not current:
            current, chosen, revisions = block, [], []
            found.append(replace(block, keys=chosen, revisions=revisions, ends=()))
        chosen.append(key)
        revisions.append(block.revisions[place])
    return found


def _commands(shard: Shard, draft: Draft, commands: Sequence[Change], fresh: list[Block], turns: Turns) -> None:
    changed = {definition.job for definition in draft.definitions}
    held: list[Command] = []
    for command in shard.held_commands:
        if _must_wait(draft, changed, command):
            draft.more = True  # its revision comes in this very step, perhaps
            held.append(command)
        elif not _command(shard, draft, command, fresh, turns):
            held.append(command)
    known = {command.id for command in held}
    position = draft.applied[1]
    for change in commands:
        assert not isinstance(change.value, Definition)
        command = change.value
        if _must_wait(draft, changed, command):
            draft.more = True
            break
        draft.taken_commands += 1
        position = max(position, change.position[1])
        if command.id in known:
            continue
        if command.id in shard.commands or command.id in draft.commands:
            first = draft.issued.get(command.id) or shard.issued.get(command.id) or command.issued
            draft.answers.append((command.id, answer_of(command._replace(issued=first))))
        elif _command(shard, draft, command, fresh, turns):
            continue
        elif len(held) >= bounds.HELD_COMMANDS:
            _crowded_out(shard, draft, command)
        else:
            held.append(command)
            known.add(command.id)
    draft.applied = (draft.applied[0], position)
    draft.held_commands = tuple(held)


def _must_wait(draft: Draft, changed: Collection[str], command: Command) -> bool:
    """Whether this step changes what the command is about."""
    match command:
        case Run() | StartBackfill():
            return command.job in changed
        case Resume():
            return command.job in changed or command.job in draft.streaks
        case StopBackfill():
            return command.job in changed or command.backfill in draft.backfills
    return command.key.job in changed or command.key in draft.touched


def _command(shard: Shard, draft: Draft, command: Command, fresh: list[Block], turns: Turns) -> bool:
    """Decides a command; False: it waits for its revision."""
    draft.issued[command.id] = command.issued
    match command:
        case Cancel():
            _cancel_command(shard, draft, command)
            return True
        case StartBackfill():
            return backfill.start(shard, draft, command)
        case StopBackfill():
            backfill.stop(shard, draft, command)
            return True
        case Resume():
            return ends(shard, draft, command)
    key = new_key(command)
    definition = shard.definitions.get(key.job)
    ready = definition is not None and definition.revision >= command.revision
    if command.expires <= draft.now:
        draft.commands.append(command.id)
        problem = "it was not decided in time" if ready else "the job's revision did not arrive in time"
        draft.answers.append((command.id, f"!NOT_FOUND the command expired: {problem}"))
        demand = definition.demand if definition else Demand()
        draft.add(Block([key], [command.revision], demand, Status.SKIPPED, cause=_cause(command), reason="expired"))
        return True
    if definition is None or not ready:
        return False
    draft.commands.append(command.id)
    refused = _refusal(shard, command, definition, turns)
    if refused:
        draft.answers.append((command.id, f"!FAILED_PRECONDITION {refused}"))
        return True
    draft.answers.append((command.id, str(key)))
    fresh.append(
        Block(
            [key],
            [definition.revision],
            definition.demand,
            Status.QUEUED,
            cause=_cause(command),
            queued=draft.now,
            retry_of=str(command.key) if isinstance(command, Retry) else "",
            arguments=command.arguments,
            group=definition.group,
            held=turns.by_hand(definition, key),
            start_by=draft.now + within if (within := definition.policies.start_within) else 0,
        )
    )
    return True


def _crowded_out(shard: Shard, draft: Draft, command: Command) -> None:
    """Its revision has not arrived, and too many others wait for theirs: each commit carries them all."""
    draft.commands.append(command.id)
    why = "too many commands wait for revisions that did not arrive"
    draft.answers.append((command.id, f"!RESOURCE_EXHAUSTED {why}"))
    if isinstance(command, Run | Retry):
        key = new_key(command)
        definition = shard.definitions.get(key.job)
        demand = definition.demand if definition else Demand()
        draft.add(Block([key], [command.revision], demand, Status.SKIPPED, cause=_cause(command), reason=why))


def _cause(command: Run | Retry) -> Cause:
    return Cause.RETRY if isinstance(command, Retry) else Cause.MANUAL


def _refusal(shard: Shard, command: Run | Retry, definition: Definition, turns: Turns) -> str:
    if definition.state is JobState.CANCELLED:
        return f"job {definition.job!r} is cancelled: resume it first"
    if isinstance(command, Retry) and command.key in shard.open:
        return f"execution {str(command.key)!r} has not ended: cancel it first"
    if turns.full(definition.job):
        return f"{bounds.OVERLAP_WAITING} executions of job {definition.job!r} wait for their turn: cancel some first"
    return ""


def _cancel_command(shard: Shard, draft: Draft, command: Cancel) -> None:
    draft.commands.append(command.id)
    key = command.key
    if key not in shard.open:
        draft.answers.append((command.id, f"!FAILED_PRECONDITION execution {str(key)!r} has ended"))
        return
    cancel(shard, draft, key, command.reason or "cancelled by request")
    draft.answers.append((command.id, str(key)))
