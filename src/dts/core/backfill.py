"""Backfills: the instants of a stretch of a job's schedule, run by hand, so many at a time.

Rules:
- A backfill is folded state (`Shard.backfills`): a commit carries whole each one that its step began or brought forward. So it
  goes on where it was after a restart and a take-over, and an instant gets one execution.
- Its instants are those of the schedule in force when it began; what runs is the job as it is when each is started.
- `parallel` bounds how many are open at once; a job whose overlap policy is not allow_all runs them one after another, behind
  each other (core/turns.py). A pause stops due instants alone.
- The cancellation or deletion of its job ends it. One that is cancelled ends what it has open, step after step until nothing is.
"""

from __future__ import annotations

from dts import bounds
from dts.core.changes import cancel
from dts.core.draft import Draft
from dts.core.shard import Shard
from dts.core.timetable import times_of
from dts.core.turns import Turns
from dts.model import (
    ENDS,
    Backfill,
    BackfillState,
    Block,
    Cause,
    Definition,
    Instant,
    JobState,
    Key,
    StartBackfill,
    Status,
    StopBackfill,
    answer_of,
)

EXPIRED = "expired"


def start(shard: Shard, draft: Draft, command: StartBackfill) -> bool:
    """Decides the command; False: it waits for its revision. The first executions come with `bring_forward`."""
    definition = shard.definitions.get(command.job)
    ready = definition is not None and definition.revision >= command.revision
    if command.expires <= draft.now:
        draft.commands.append(command.id)
        draft.answers.append((command.id, "!NOT_FOUND the command expired: it was not decided in time"))
        begun = _begun(command, definition, draft.now)
        draft.backfills[begun.nonce] = begun._replace(state=BackfillState.CANCELLED, ended=draft.now, reason=EXPIRED)
        return True
    if definition is None or not ready:
        return False
    draft.commands.append(command.id)
    begun = _begun(command, definition, draft.now)
    refused = _refusal(shard, draft, definition, begun)
    if refused:
        draft.answers.append((command.id, f"!FAILED_PRECONDITION {refused}"))
        return True
    draft.backfills[begun.nonce] = begun
    draft.answers.append((command.id, answer_of(command)))
    return True


def _begun(command: StartBackfill, definition: Definition | None, now: Instant) -> Backfill:
    schedules = definition.schedules if definition is not None else ()
    size = times_of(schedules).count(command.after, command.until) if schedules else 0
    return Backfill(
        command.id, command.job, now, command.after, command.until, schedules, command.parallel, size, command.after
    )


def _refusal(shard: Shard, draft: Draft, definition: Definition, begun: Backfill) -> str:
    job = repr(definition.job)
    if definition.state is JobState.CANCELLED:
        return f"job {job} is cancelled: resume it first"
    if not begun.size:
        return f"job {job} has no instant in that range" if begun.schedules else f"job {job} has no schedule"
    if begun.size > bounds.BACKFILL_INSTANTS:
        return f"{begun.size} instants; at most {bounds.BACKFILL_INSTANTS} in one backfill"
    running = sum(not _over(each) for each in {**shard.backfills, **draft.backfills}.values())
    if running >= bounds.BACKFILLS_RUNNING:
        return f"{running} backfills are running: wait for one, or cancel one"
    return ""


def _over(backfill: Backfill) -> bool:
    return backfill.state is not BackfillState.RUNNING and not backfill.open


def stop(shard: Shard, draft: Draft, command: StopBackfill) -> None:
    """Decides the command. What is open is ended by `bring_forward`."""
    draft.commands.append(command.id)
    found = shard.backfills.get(command.backfill)
    if found is None or found.job != command.job:
        draft.answers.append((command.id, f"!FAILED_PRECONDITION backfill {answer_of(command)!r} is not known"))
    elif found.state is not BackfillState.RUNNING:
        draft.answers.append((command.id, f"!FAILED_PRECONDITION backfill {str(found)!r} is over"))
    else:
        draft.backfills[found.nonce] = _cancelled(found, draft.now, command.reason or "cancelled by request")
        draft.answers.append((command.id, str(found)))


def _cancelled(backfill: Backfill, now: Instant, reason: str) -> Backfill:
    return backfill._replace(state=BackfillState.CANCELLED, ended=now, reason=reason)


def bring_forward(shard: Shard, draft: Draft, fresh: list[Block], turns: Turns, limit: int) -> None:
    """What ended is counted, and at most `limit` next instants become executions. After all else that ends executions."""
    known = {**shard.backfills, **draft.backfills}
    if not known:
        return
    changed = {definition.job for definition in draft.definitions}
    for name, backfill in _counted(draft, known).items():
        now = _end_if_over(shard, draft, backfill, changed)
        if now.state is BackfillState.CANCELLED and now.open:
            now = _end_open(shard, draft, now)
        elif now.state is BackfillState.RUNNING and now.job not in changed:
            now, made = _next(shard, draft, now, fresh, turns, limit)
            limit -= made
        elif now.state is BackfillState.RUNNING:
            draft.more = True  # the next step knows what its job is
        if now != shard.backfills.get(name):
            draft.backfills[name] = now
    _forget(shard, draft)


def _forget(shard: Shard, draft: Draft) -> None:
    """Of too many, the oldest that are over."""
    known = {**shard.backfills, **draft.backfills}
    excess = len(known) - bounds.BACKFILLS_KNOWN
    if excess <= 0:
        return
    over = sorted((each for each in known.values() if _over(each)), key=lambda each: (each.ended, each.id))
    for each in over[:excess]:
        if each.nonce in shard.backfills:
            draft.backfills[each.nonce] = each._replace(state=BackfillState.FORGOTTEN)
        else:
            del draft.backfills[each.nonce]


def _counted(draft: Draft, known: dict[str, Backfill]) -> dict[str, Backfill]:
    """The backfills with what ended in this step."""
    for block in draft.decided:
        if block.cause is Cause.BACKFILL and block.status.terminal:
            for key in block.keys:
                if key.nonce in known:
                    known[key.nonce] = _one_ended(known[key.nonce], block.status)
    return known


def _one_ended(backfill: Backfill, status: Status) -> Backfill:
    place = ENDS.index(status)
    tally = backfill.tally
    return backfill._replace(tally=(*tally[:place], tally[place] + 1, *tally[place + 1 :]))


def _end_if_over(shard: Shard, draft: Draft, backfill: Backfill, changed: set[str]) -> Backfill:
    if backfill.state is not BackfillState.RUNNING:
        return backfill
    if backfill.cursor >= backfill.until and not backfill.open:
        return backfill._replace(state=BackfillState.DONE, ended=draft.now)
    definition = shard.definitions.get(backfill.job)
    if backfill.job not in changed and (definition is None or definition.state is JobState.CANCELLED):
        return _cancelled(backfill, draft.now, "job deleted" if definition is None else "job cancelled")
    return backfill


def _end_open(shard: Shard, draft: Draft, backfill: Backfill) -> Backfill:
    """Ends what a cancelled backfill has open; what this step decided otherwise, the next one ends."""
    ended = 0
    for key in list(shard.by_job.get(backfill.job, ())):
        if key.nonce != backfill.nonce:
            continue
        block = shard.open[key][0]
        if key in draft.touched:
            draft.more = True
        elif not block.cancel:
            cancel(shard, draft, key, f"backfill {backfill}: {backfill.reason}")
            ended += block.status is not Status.PLACED
    for _ in range(ended):
        backfill = _one_ended(backfill, Status.CANCELLED)
    return backfill


def _next(
    shard: Shard, draft: Draft, backfill: Backfill, fresh: list[Block], turns: Turns, limit: int
) -> tuple[Backfill, int]:
    """The backfill with its next instants started, and how many."""
    room = backfill.parallel - backfill.open
    if room <= 0 or backfill.cursor >= backfill.until:
        return backfill, 0
    if limit <= 0:
        draft.more = True
        return backfill, 0
    most = min(room, limit)
    instants = times_of(backfill.schedules).between(backfill.cursor, backfill.until, most)
    if instants:
        definition = shard.definitions[backfill.job]
        fresh += _blocks(definition, [Key(backfill.job, instant, backfill.nonce) for instant in instants], turns, draft)
    whole = len(instants) < most
    cursor = backfill.until if whole else instants[-1]
    draft.more = draft.more or (most < room and not whole)
    now = backfill._replace(cursor=cursor, started=backfill.started + len(instants))
    if whole and not now.open:
        now = now._replace(state=BackfillState.DONE, ended=draft.now)
    return now, len(instants)


def _blocks(definition: Definition, keys: list[Key], turns: Turns, draft: Draft) -> list[Block]:
    """Those that may start, and those that wait for their turn."""
    waits = [turns.by_hand(definition, key) for key in keys]
    return [
        Block(
            some,
            [definition.revision] * len(some),
            definition.demand,
            Status.QUEUED,
            cause=Cause.BACKFILL,
            queued=draft.now,
            group=definition.group,
            held=held,
        )
        for held in (False, True)
        if (some := [key for key, wait in zip(keys, waits, strict=True) if wait is held])
    ]


__all__ = ["bring_forward", "start", "stop"]
