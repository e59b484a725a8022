"""One step of a shard: reads its state and inputs, writes only the draft.

Order, and why:
1. Reports: what ended or was lost, so that its capacity and its retries take part in this very step.
2. Time: due instants up to now (or, after an outage, one jump of the watermark whose instants become a gap).
3. Changes: a revision whose `from` is behind the watermark reached in 2. An edited job's instants of this step are taken out of 2:
   the old revision owes those up to `from`, the new one those after it.
4. Owed: gaps and cursors are worked off within what is left of the step's limit.
5. Commands, against the state before this step; one that needs a revision of this step waits for the next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice

from dts import bounds
from dts.core.draft import Draft
from dts.core.policies import MISSED, PUBLISHED_LATE, retry_delay, settle
from dts.core.reports import decide_reports, lost_workers
from dts.core.shard import Shard
from dts.core.timetable import seen_by, times_of
from dts.model import (
    LAST_JOB,
    Block,
    Cancel,
    Cause,
    Change,
    Close,
    Command,
    Definition,
    Demand,
    Gap,
    Instant,
    JobState,
    Key,
    Owed,
    Range,
    Report,
    Retry,
    Run,
    Status,
    Term,
    WorkerRef,
)

Room = Callable[[Demand], int]  # at most so many executions of a demand could be placed now

__all__ = ["MISSED", "Room", "decide", "retry_delay"]


class Fires:
    """Collects keys into fresh blocks, one for each (demand, kind)."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.count = 0
        self._columns: dict[int, tuple[Demand, list[Key], list[int]]] = {}

    def due(self, instant: Instant, definitions: Iterable[Definition]) -> None:
        columns, new = self._columns, tuple.__new__
        last: Demand | None = None
        keys: list[Key] = []
        revisions: list[int] = []
        for definition in definitions:
            if definition.demand is not last:
                last = definition.demand
                _, keys, revisions = columns.setdefault(id(last), (last, [], []))
            keys.append(new(Key, (definition.job, instant, "")))
            revisions.append(definition.revision)
            self.count += 1

    def blocks(self, now: Instant) -> list[Block]:
        return [
            Block(keys, revisions, demand, Status.QUEUED, queued=now)
            for demand, keys, revisions in self._columns.values()
            if keys
        ]


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
    hold: bool = False,
    rules: str = "",
) -> Draft:
    """What to do now. `expired`: workers whose timed leases are over. `hold`: the clock is in doubt, the watermark stays."""
    draft = Draft(
        shard.shard, shard.epoch, shard.seq + 1, now, shard.watermark, shard.applied, shard.gaps, shard.held_commands
    )
    decide_reports(shard, draft, reports)
    lost_workers(shard, draft, expired)
    fires = Fires(draft)
    due = _time(shard, draft, now, limit) if not hold else []
    changed = _changes(shard, draft, changes, rules)
    for instant, definitions in due:
        fires.due(instant, [d for d in definitions if d.job not in changed] if changed else definitions)
    _work_off(shard, draft, fires, changed, limit)
    fresh = fires.blocks(now)
    _commands(shard, draft, commands, fresh)
    _retries(shard, draft, now, fresh)
    _ready(shard, draft, fresh, room)
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
    return due


def _any_due(shard: Shard, until: Instant) -> bool:
    following = shard.timetable.next_due()
    opening = shard.openings[0][0] if shard.openings else None
    return (following is not None and following <= until) or (opening is not None and opening <= until)


def _changes(shard: Shard, draft: Draft, changes: Sequence[Change], rules: str) -> set[str]:
    """Applies revisions that the watermark has reached, one a job; pauses that end by themselves. The jobs so handled."""
    handled: set[str] = set()
    definitions, _ = draft.applied
    nothing: dict[tuple[object, Instant, Instant], bool] = {}  # (schedules, from, until) -> no instant in between
    for change in changes:
        definition = change.value
        assert isinstance(definition, Definition)
        since = min(definition.since, draft.now)
        if definition.job in handled:
            draft.more = True
            break
        if since > seen_by(draft.watermark, definition.job):
            break  # the step that reaches it takes it
        draft.taken_changes += 1
        definitions = max(definitions, change.position[0])
        old = shard.definitions.get(definition.job)
        if old is None or definition.revision > old.revision:
            handled.add(definition.job)
            _revise(
                shard,
                draft,
                old,
                definition if definition.since == since else definition._replace(since=since),
                nothing,
            )
            _term(draft, old, draft.definitions[-1], rules)
    draft.applied = (definitions, draft.applied[1])
    _openings(shard, draft, handled)
    return handled


def _term(draft: Draft, old: Definition | None, new: Definition, rules: str) -> None:
    if old is not None:
        draft.closed.append(Close(old.job, old.revision, max(new.since, old.since)))
    if new.state is not JobState.DELETED:
        in_force = seen_by(draft.watermark, new.job)
        draft.opened.append(Term(new.job, new.revision, new.since, in_force, None, rules))


def _revise(
    shard: Shard,
    draft: Draft,
    old: Definition | None,
    new: Definition,
    nothing: dict[tuple[object, Instant, Instant], bool],
) -> None:
    job, since = new.job, new.since
    reached, before = seen_by(draft.watermark, job), seen_by(shard.watermark, job)
    pieces: list[Owed] = []
    if old is not None:
        since = max(since, old.since)
        new = new if new.since == since else new._replace(since=since)
        pieces = _old_pieces(shard, draft, old, since, before)
        _end_open(shard, draft, old, new)
    else:
        _leave_gaps(draft, job, since)
    stood = _stood(shard, old, pieces, since, before) if old is not None else ()
    pieces = [piece._replace(until=min(piece.until, since)) for piece in pieces]
    if since < reached and new.first and new.state <= JobState.PAUSED and new.schedules:
        name = (new.schedules, since, reached)
        if name not in nothing:
            following = times_of(new.schedules).next_after(since)
            nothing[name] = following is None or following > reached
        if not nothing[name]:
            pieces.append(_first(draft, Owed(new, since, reached, stood)))
    draft.definitions.append(new)
    left = tuple(piece for piece in pieces if piece.after < piece.until)
    if left or job in shard.owed:
        draft.owed[job] = left


def _leave_gaps(draft: Draft, job: str, since: Instant) -> list[Gap]:
    """Takes a job out of the gaps that would reach it (what it owes there is owed by name): those gaps."""
    reached = [gap for gap in draft.gaps if job > gap.done and job not in gap.skip]
    if any(since < gap.until for gap in reached):  # a revision younger than a gap owes nothing in it anyway
        draft.gaps = tuple(gap._replace(skip=gap.skip | {job}) if gap in reached else gap for gap in draft.gaps)
    return reached


def _old_pieces(shard: Shard, draft: Draft, old: Definition, since: Instant, before: Instant) -> list[Owed]:
    """What a job owes under its revisions so far: its cursors, its share of the gaps, its live or paused span up to `since`."""
    job = old.job
    pieces = list(shard.owed.get(job, ()))
    gaps = _leave_gaps(draft, job, since)
    if job in shard.timetable:
        pieces += [Owed(old, max(seen_by(gap.after, job), old.since), gap.until) for gap in gaps]
        pieces.append(Owed(old, max(before, old.since), since))
    elif job in shard.in_force:
        pieces.append(Owed(old, shard.in_force[job], since))
    return pieces


def _stood(
    shard: Shard, old: Definition, pieces: Sequence[Owed], since: Instant, before: Instant
) -> tuple[Instant, ...]:
    """Instants after `since` to which the old revision has already given a verdict: what was committed stands."""
    if old.job not in shard.timetable or before <= since:
        return ()
    start = since if old.until is None else max(since, old.until)
    most = bounds.FIRST_PUBLICATION_OWES_MS // 1_000
    stood = times_of(old.schedules).between(start, before, most)
    return tuple(instant for instant in stood if not any(piece.after < instant <= piece.until for piece in pieces))


def _first(draft: Draft, owed: Owed) -> Owed:
    """A first publication owes 24 h one by one; what is older is one range."""
    edge = draft.now - bounds.FIRST_PUBLICATION_OWES_MS
    if owed.after >= edge:
        return owed
    until = min(edge, owed.until)
    size = times_of(owed.definition.schedules).count(owed.after, until)
    if size:
        draft.ranges.append(
            Range(owed.definition.job, owed.definition.revision, owed.after, until, size, PUBLISHED_LATE)
        )
    return owed._replace(after=until)


def _end_open(shard: Shard, draft: Draft, old: Definition, new: Definition) -> None:
    """A cancelled or deleted job ends what it has open."""
    if new.state not in (JobState.CANCELLED, JobState.DELETED):
        return
    reason = "job cancelled" if new.state is JobState.CANCELLED else "job deleted"
    for key in shard.by_job.get(old.job, ()):
        if key not in draft.touched:
            _cancel(shard, draft, key, reason)


def _cancel(shard: Shard, draft: Draft, key: Key, reason: str) -> None:
    block, place = shard.open[key]
    one = replace(block, keys=[key], revisions=[block.revisions[place]], ends=())
    if block.status is Status.PLACED:
        draft.add(replace(one, cancel=reason))
    else:
        draft.add(replace(one, status=Status.CANCELLED, reason=reason, not_before=0, worker=None))


def _openings(shard: Shard, draft: Draft, handled: set[str]) -> None:
    """Pauses that end by themselves behind the draft's watermark: their range, and what is due since."""
    for until, job, revision in sorted(item for item in shard.openings if item[0] <= draft.watermark[0]):
        definition = shard.definitions.get(job)
        reached = seen_by(draft.watermark, job)
        if definition is None or definition.revision != revision or job in handled or reached < until:
            continue
        if job not in shard.in_force or job in shard.timetable:
            continue
        handled.add(job)
        _leave_gaps(draft, job, 0)
        piece = Owed(definition, shard.in_force[job], reached)
        draft.owed[job] = (*shard.owed.get(job, ()), piece)


def _work_off(shard: Shard, draft: Draft, fires: Fires, changed: set[str], limit: int) -> None:
    """Owed pieces and gaps, within the step's limit."""
    todo = [*draft.owed.items(), *(item for item in shard.owed.items() if item[0] not in draft.owed)]
    for job, pieces in todo:
        if fires.count >= limit:
            draft.more = True
            break
        left = _settle(shard, draft, fires, pieces, limit)
        if job in shard.owed or left:
            draft.owed[job] = left
        else:
            draft.owed.pop(job, None)
        draft.more = draft.more or bool(left)
    if shard.gaps:
        _work_off_gap(shard, draft, fires, changed, limit)


def _settle(shard: Shard, draft: Draft, fires: Fires, pieces: Sequence[Owed], limit: int) -> tuple[Owed, ...]:
    left: list[Owed] = []
    for piece in pieces:
        done = settle(piece, draft.now, limit - fires.count)
        draft.ranges += done.ranges
        for instant in done.fires:
            fires.due(instant, (piece.definition,))
        if done.fires and shard.definitions.get(piece.definition.job) is not piece.definition:
            draft.kept.append(piece.definition)
        if done.rest is not None:
            left.append(done.rest)
    return tuple(left)


def _work_off_gap(shard: Shard, draft: Draft, fires: Fires, changed: set[str], limit: int) -> None:
    """The oldest gap: jobs in id order above its cursor."""
    gap = draft.gaps[0]
    jobs = sorted(shard.definitions)
    start = bisect_right(jobs, gap.done)
    most = bounds.STEP_JOBS_OF_GAP
    for job in islice(jobs, start, start + most):
        if fires.count >= limit:
            draft.more = True
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
        draft.owed[job] = (*draft.owed.get(job, shard.owed.get(job, ())), *left)


def _retries(shard: Shard, draft: Draft, now: Instant, fresh: list[Block]) -> None:
    """Attempts whose time to be tried again has come: ready like a new fire."""
    for block, keys in shard.retries_due(now, bounds.STEP_FIRES):
        own = [key for key in keys if key not in draft.touched]
        draft.touched.update(own)
        revisions = [block.revisions[shard.open[key][1]] for key in own]
        fresh.append(replace(block, keys=own, revisions=revisions, status=Status.QUEUED, not_before=0, ends=()))


def _ready(shard: Shard, draft: Draft, fresh: list[Block], room: Room) -> None:
    """What may be placed: those waiting (as many as could find a place), then the fresh ones."""
    for demand, keys in shard.waiting.items():
        most = min(room(demand), bounds.STEP_FIRES)
        if most > 0 and keys:
            draft.ready += _waiting_blocks(shard, draft, keys, most)
    draft.fresh = len(draft.ready)
    draft.ready += fresh


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


def _commands(shard: Shard, draft: Draft, commands: Sequence[Change], fresh: list[Block]) -> None:
    held = [command for command in shard.held_commands if not _command(shard, draft, command, fresh)]
    position = draft.applied[1]
    changed = {definition.job for definition in draft.definitions}
    for change in commands:
        assert not isinstance(change.value, Definition)
        command: Command = change.value
        job = command.job if isinstance(command, Run) else command.key.job
        if job in changed:
            draft.more = True
            break
        draft.taken_commands += 1
        position = max(position, change.position[1])
        if command.id in shard.commands or command.id in draft.commands:
            draft.answers.append((command.id, str(_new_key(command))))
        elif not _command(shard, draft, command, fresh):
            held.append(command)
    draft.applied = (draft.applied[0], position)
    draft.held_commands = tuple(held)


def _new_key(command: Command) -> Key:
    if isinstance(command, Cancel):
        return command.key
    job = command.job if isinstance(command, Run) else command.key.job
    return Key(job, command.issued, command.id.hex()[:12])


def _command(shard: Shard, draft: Draft, command: Command, fresh: list[Block]) -> bool:
    """Decides a command; False: it waits for its revision."""
    if isinstance(command, Cancel):
        _cancel_command(shard, draft, command)
        return True
    key = _new_key(command)
    definition = shard.definitions.get(key.job)
    if definition is None or definition.revision < command.revision:
        if command.expires > draft.now:
            return False
        draft.commands.append(command.id)
        draft.answers.append((command.id, "!the job's revision did not arrive before the command expired"))
        demand = definition.demand if definition else Demand()
        draft.add(Block([key], [command.revision], demand, Status.SKIPPED, cause=_cause(command), reason="expired"))
        return True
    draft.commands.append(command.id)
    refused = _refusal(shard, draft, command, definition)
    if refused:
        draft.answers.append((command.id, f"!{refused}"))
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
        )
    )
    return True


def _cause(command: Command) -> Cause:
    return Cause.RETRY if isinstance(command, Retry) else Cause.MANUAL


def _refusal(shard: Shard, draft: Draft, command: Command, definition: Definition) -> str:
    if definition.state is JobState.CANCELLED:
        return f"job {definition.job!r} is cancelled: resume it first"
    if isinstance(command, Retry) and command.key in shard.open and command.key not in draft.touched:
        return f"execution {str(command.key)!r} has not ended: cancel it first"
    return ""


def _cancel_command(shard: Shard, draft: Draft, command: Cancel) -> None:
    draft.commands.append(command.id)
    key = command.key
    if key not in shard.open or key in draft.touched:
        draft.answers.append((command.id, f"!execution {str(key)!r} has ended"))
        return
    _cancel(shard, draft, key, command.reason or "cancelled by request")
    draft.answers.append((command.id, str(key)))
