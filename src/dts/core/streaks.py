"""Pause after N failures in a row: a suspension of a job in folded state.

Rules:
- Each verdict of the job counts, whatever started it: FAILED and LOST are failures, COMPLETED ends the row, the others say nothing.
- A suspended job is paused from the watermark of the step that saw the last failure: what it owed by then is paused too.
- What runs or waits goes on, and a person may start executions; only due instants become none.
- A job without a schedule is not suspended: there is nothing to pause.
- A revision begins a new row. It does not end a suspension, a resume does (a command); a cancelled or deleted job has none.
"""

from __future__ import annotations

from collections.abc import Mapping

from dts.core.changes import Account, Empty, leave_gaps
from dts.core.draft import Draft
from dts.core.policies import suspended_as
from dts.core.shard import Shard, is_memo
from dts.core.timetable import seen_by
from dts.model import JobState, Owed, Resume, Status, Streak

FAILURES = (Status.FAILED, Status.LOST)


def reason_of(failures: int) -> str:
    """Why a job is suspended, for people and for the record."""
    return f"paused: {failures} failures in a row" if failures > 1 else "paused: it failed"


def decide_streaks(shard: Shard, draft: Draft, changed: Mapping[str, Account]) -> dict[str, Account]:
    """Counts what this step's verdicts say of the jobs that are watched; the accounts of those that it suspends."""
    if not shard.watched:
        return {}
    rows = _count(shard, draft)
    suspended: dict[str, Account] = {}
    for job, failures in rows.items():
        if job in changed and changed[job].current is not changed[job].old:
            continue  # a revision begins a new row
        known = draft.streaks.get(job) or shard.streaks.get(job)
        streak = (known or Streak(job))._replace(failures=failures)
        most = shard.definitions[job].policies.pause_after
        if 0 < most <= failures and not streak.since and job in shard.timetable and job not in changed:
            suspended[job] = Account(shard, shard.gaps, job)
            before = suspended[job].before
            streak = streak._replace(since=before, at=draft.now, reason=reason_of(failures))
        if streak.since or failures or known is not None:
            draft.streaks[job] = streak
    for job, account in suspended.items():
        _pause(shard, draft, job, account)
    leave_gaps(draft, suspended)
    return suspended


def _count(shard: Shard, draft: Draft) -> dict[str, int]:
    """Failures in a row of the watched jobs that had a verdict in this step."""
    rows: dict[str, int] = {}
    for block in draft.decided:
        failed = block.status in FAILURES
        if not failed and block.status is not Status.COMPLETED:
            continue
        for key in block.keys:
            job = key.job
            if job in shard.watched:
                known = draft.streaks.get(job) or shard.streaks.get(job)
                before = known.failures if known is not None else 0
                rows[job] = rows.get(job, before) + 1 if failed else 0
    return rows


def _pause(shard: Shard, draft: Draft, job: str, account: Account) -> None:
    """What a suspended job owes is paused like what is still to come."""
    streak = draft.streaks[job]
    pieces = (
        piece._replace(definition=suspended_as(piece.definition), reason=streak.reason)
        for piece in account.pieces
        if not is_memo(piece)
    )
    owed = (*shard.given.get(job, ()), *pieces)
    if owed or job in shard.owed:
        draft.owed[job] = owed


def resume(shard: Shard, draft: Draft, command: Resume, empty: Empty) -> None:
    """Ends a suspension: its span is owed, and the command says what becomes of it. Of no suspension: nothing is to do."""
    job = command.job
    draft.commands.append(command.id)
    draft.answers.append((command.id, job))
    streak = draft.streaks.get(job) or shard.streaks.get(job)
    if streak is None:
        return
    draft.streaks[job] = Streak(job)
    guise = shard.definitions.get(job)
    if not streak.since or guise is None or job not in shard.guises:
        return
    reached = seen_by(draft.watermark, job)
    if not empty(guise.schedules, streak.since, reached):
        known = draft.owed.get(job, (*shard.given.get(job, ()), *shard.owed.get(job, ())))
        piece = Owed(guise, streak.since, reached, (), streak.reason, command.catch_up)
        draft.owed[job] = (*known, piece)
    draft.more = True
    leave_gaps(draft, {job: Account(shard, (), job)})


def ends(shard: Shard, draft: Draft, command: Resume) -> bool:
    """Decides the command; False: it waits for its revision."""
    definition = shard.definitions.get(command.job)
    if command.expires <= draft.now:
        draft.commands.append(command.id)
        draft.answers.append((command.id, "!NOT_FOUND the command expired: it was not decided in time"))
        return True
    if definition is None or definition.revision < command.revision:
        return False
    if definition.state is JobState.CANCELLED:
        draft.commands.append(command.id)
        draft.answers.append((command.id, f"!FAILED_PRECONDITION job {command.job!r} is cancelled: resume it first"))
        return True
    resume(shard, draft, command, Empty())
    return True


__all__ = ["decide_streaks", "ends", "reason_of"]
