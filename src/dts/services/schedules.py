"""Schedules as the use cases need them: checked and resolved for a job, the next instant, a preview."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from dts.errors import InvalidArgument, InvalidSchedule
from dts.model import Instant, JobState, ScheduleSpec
from dts.schedule import compile as compile_schedule
from dts.schedule import format_instant, resolve
from dts.schedule.explain import Explanation, explain

__all__ = ["Explanation", "Timing", "checked", "explain", "format_instant", "next_run", "unexpired"]

CHECKED = 10_000  # recently checked schedules remembered


class Timing(NamedTuple):
    """What decides a job's next instant."""

    schedules: tuple[ScheduleSpec, ...]
    state: JobState
    until: Instant | None


def checked(spec: ScheduleSpec, job: str, field: str) -> ScheduleSpec:
    """The spec with every `H` resolved for the job. Raises InvalidArgument naming the field, the column and what would be valid."""
    try:
        text = resolve(spec.text, job)
        resolved = spec if text == spec.text else spec._replace(text=text)
        _compiles(resolved)
    except InvalidSchedule as error:
        raise InvalidArgument(field, str(error)) from None
    return resolved


@lru_cache(maxsize=CHECKED)
def _compiles(spec: ScheduleSpec) -> bool:
    compile_schedule(spec)
    return True


def unexpired(spec: ScheduleSpec, now: Instant, field: str) -> None:
    """Raises InvalidArgument when the schedule has no instant after now any more."""
    last = _last(spec)
    if last <= now:
        when = f"its last one was {format_instant(last)}"
        raise InvalidArgument(field, f"{spec.text!r} has no instant after now ({format_instant(now)}): {when}")


@lru_cache(maxsize=CHECKED)
def _last(spec: ScheduleSpec) -> Instant:
    schedule = compile_schedule(spec)
    last = schedule.previous_before(schedule.high + 1)
    assert last is not None, "a schedule without any instant is not compiled"
    return last


def next_run(timing: Timing, after: Instant) -> Instant | None:
    """The first instant after `after` at which the job is due, pauses taken into account."""
    if timing.state >= JobState.CANCELLED or (timing.state is JobState.PAUSED and timing.until is None):
        return None
    if timing.state is JobState.PAUSED and timing.until is not None:
        after = max(after, timing.until)
    return _next(timing.schedules, after)


def _next(specs: Sequence[ScheduleSpec], after: Instant) -> Instant | None:
    return min((at for spec in specs if (at := compile_schedule(spec).next_after(after)) is not None), default=None)
