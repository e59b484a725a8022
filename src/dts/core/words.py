"""Words of core/explain.py: what executions, schedules and policies are called when a person asks why."""

from __future__ import annotations

from dts.core.policies import MISSED, PAUSED, PUBLISHED_LATE, TOO_OLD, tried_again
from dts.core.timetable import times_of
from dts.model import Definition, Execution, Instant, ScheduleSpec, Status
from dts.schedule import explain as explain_schedule
from dts.schedule import format_duration, format_instant

DAY_MS, DAYS = 86_400_000, 3  # spans of so many days and more are told in days


def schedule_words(spec: ScheduleSpec, after: Instant) -> str:
    """What a schedule means, and its next instant."""
    told = explain_schedule(spec, after, 1)
    if not told.next:
        return f"{spec.text!r}: {told.sentence}; no instant is left"
    following = told.next[0]
    return f"{spec.text!r}: {told.sentence}; next {following.local}{f' ({following.note})' if following.note else ''}"


def is_due(definition: Definition, at: Instant) -> bool:
    """Whether a revision's schedules have this very instant."""
    return bool(times_of(definition.schedules).count(at - 1, at))


def plural(count: int) -> str:
    """The s of more than one."""
    return "" if count == 1 else "s"


def duration(ms: int) -> str:
    """A time for people: whole seconds where there are any, days where there are many."""
    if ms >= DAYS * DAY_MS:
        return f"{ms // DAY_MS} days"
    return format_duration(ms if ms < 1_000 else ms // 1_000 * 1_000)


def at_worker(found: Execution) -> str:
    """Where it ran or runs, if anywhere."""
    return f" at worker {found.worker}" if found.worker else ""


def failure_words(found: Execution) -> str:
    """The first line of what went wrong."""
    first = (found.end.error or found.reason).strip().partition("\n")[0]
    return first or (f"exit code {found.end.code}" if found.end.code else "no error was told")


def ended_words(found: Execution) -> str:
    """Why it ended as it did, to follow its status; nothing for what completed."""
    if found.status is Status.COMPLETED:
        return ""
    return f": {found.reason or failure_words(found)}"


def open_words(found: Execution) -> str:
    """What an open execution is doing."""
    match found.status:
        case Status.QUEUED:
            return f"waits: {found.reason or 'it is about to be placed'}"
        case Status.RETRYING:
            return f"is tried again at {format_instant(found.not_before)}: {failure_words(found)}"
        case _ if found.end.started:
            return f"runs since {format_instant(found.end.started)}{at_worker(found)}"
        case _:
            return f"is leased{at_worker(found)} and waits there for its turn"


def reasons_of(found: Execution) -> tuple[str, str]:
    """Why an execution waits, as its owner says: by the job's limits, or for want of a place."""
    return (found.reason, "") if found.reason.startswith(LIMITS) else ("", found.reason)


TURN = "its turn has not come"
GROUP = "its group is full"
JITTER = "jitter"
LIMITS = (TURN, GROUP, JITTER)


def retries_words(definition: Definition | None, used: int) -> str:
    """How many retries are used, with the coming one."""
    if definition is None:
        return "the policy of its revision is not known any more"
    return f"retries: {used + 1} of {definition.policies.max_retries} used"


def final_words(found: Execution, definition: Definition | None) -> str:
    """Why a failure is final."""
    if definition is None:
        return "the policy of its revision is not known any more"
    policies = definition.policies
    if not policies.max_retries:
        return "no retries: max_retries is 0"
    if not tried_again(policies, found.end):
        return "not tried again: the retry policy leaves failures of this kind out"
    return f"all {policies.max_retries} retries are used up"


def range_words(definition: Definition, reason: str) -> str:
    """A range's reason, said in full."""
    policies = definition.policies
    match reason:
        case str() if reason == MISSED:
            window = format_duration(policies.late_window)
            return (
                f"{reason}: the scheduler came to it over {window} late (it was down, or behind), and misfire "
                f"{policies.misfire.value} leaves it out"
            )
        case str() if reason == TOO_OLD:
            return f"{reason} of {format_duration(policies.grace)}"
        case str() if reason == PAUSED:
            return "the job was paused"
        case str() if reason == PUBLISHED_LATE:
            return reason
        case _:
            return reason or "no reason was recorded"
