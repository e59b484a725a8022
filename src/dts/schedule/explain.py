"""One schedule explained: a sentence, hints, the next instants in local time, the next changes of the clock."""

from __future__ import annotations

from dataclasses import dataclass

from dts.model import ScheduleSpec
from dts.schedule.base import Schedule
from dts.schedule.compiling import compile  # noqa: A004
from dts.schedule.cron import CronSchedule
from dts.schedule.hints import cron_hints
from dts.schedule.instants import format_local, format_offset, format_time, format_wall
from dts.schedule.interval import AtSchedule, EverySchedule
from dts.schedule.zones import Zone

MAX_NEXT = 1_000  # occurrences in one explanation
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One instant: UTC ms, RFC 3339 in the schedule's zone, that offset in seconds east, and what the clock does there ('' = nothing)."""

    instant: int
    local: str
    offset_seconds: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of the zone's offset: at `instant` (UTC ms) the wall clock goes from `before` to `after` (local time, no offset)."""

    instant: int
    before: str
    after: str
    offset_before: int
    offset_after: int
    note: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a person needs to trust a schedule. `transitions` are the next two changes of the clock after the instant asked for."""

    sentence: str
    hints: tuple[str, ...]
    next: tuple[Occurrence, ...]
    transitions: tuple[Transition, ...]


def explain(spec: ScheduleSpec, after: int, n: int) -> Explanation:
    """Explain a schedule from an instant (UTC ms) on, with its next n occurrences (at most MAX_NEXT).

    Raises InvalidSchedule when the schedule is refused; its fields say where and what instead.
    """
    schedule = compile(spec)
    zone = zone_of(schedule)
    instants = schedule.between(after, schedule.high, max(0, min(n, MAX_NEXT)))
    return Explanation(
        sentence=schedule.describe(),
        hints=_hints(schedule, after, bool(instants) or n <= 0),
        next=tuple(
            Occurrence(at, format_local(at, zone), zone.offset_at(at), _note(schedule, zone, at)) for at in instants
        ),
        transitions=tuple(_transition(change) for change in zone.changes_after(after, 2)),
    )


def zone_of(schedule: Schedule) -> Zone:
    """The zone in which a schedule's instants are shown."""
    assert isinstance(schedule, CronSchedule | EverySchedule | AtSchedule), "a union has no zone of its own"
    return schedule.zone


def _hints(schedule: Schedule, after: int, more: bool) -> tuple[str, ...]:
    hints: tuple[str, ...] = ()
    if isinstance(schedule, CronSchedule):
        hints = cron_hints(schedule, after)
    elif isinstance(schedule, EverySchedule) and schedule.period % _DAY_MS == 0 and len(schedule.zone.changes) > 1:
        hints = (
            "a period is elapsed time: at a change of the clock its time of day moves; for a time of day write cron",
        )
    if not more:
        hints += ("no instant is left after the one asked for",)
    return hints


def _note(schedule: Schedule, zone: Zone, instant: int) -> str:
    """What the clock does at an occurrence: just after a gap, or in the first or second pass of a fold."""
    second = instant // 1000
    change = next(iter(zone.changes_after(instant - 1000, 1)), None)
    if change is not None and change[0] == instant and isinstance(schedule, CronSchedule) and change[2] > change[1]:
        wall = schedule.wall_match(second + change[1], second + change[2])
        if wall is not None and schedule.gap == "shift" and schedule.shifts(change[2] - change[1]):
            return f"{format_time(wall)} does not exist on this day"
    passes = zone.instants_of(second + zone.offset_at(instant))
    if len(passes) > 1:
        return f"{format_time(second + zone.offset_at(instant))} occurs twice on this day: this is the " + (
            "first" if second == passes[0] else "second"
        )
    return ""


def _transition(change: tuple[int, int, int]) -> Transition:
    instant, before, after = change
    second, moved = instant // 1000, abs(after - before)
    amount = f"{moved // 3600}h" if moved % 3600 == 0 else f"{moved // 60}min"
    way = "forward" if after > before else "back"
    note = f"the clock goes {way} by {amount}, from {format_offset(before)} to {format_offset(after)}"
    return Transition(instant, format_wall(second + before), format_wall(second + after), before, after, note)
