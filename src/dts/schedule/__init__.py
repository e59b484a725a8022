"""Time: schedules as pure functions. No clock, no I/O; usable alone as a library (docs/schedule-library.md).

Instants are int UTC milliseconds; intervals are half-open `(after, until]`. Every text that is refused raises dts.errors.InvalidSchedule.
"""

from dts.schedule.base import Schedule
from dts.schedule.batch import compile_all, next_after_many
from dts.schedule.compiling import compile  # noqa: A004 - the package's verb; nobody needs the builtin here
from dts.schedule.durations import format_duration, parse_duration
from dts.schedule.explain import Explanation, Occurrence, Transition, explain
from dts.schedule.instants import format_instant, parse_instant
from dts.schedule.spread import jitter, resolve
from dts.schedule.wall import WallTime, is_wall_time, wall_time
from dts.schedule.zones import rules_version

__all__ = [
    "Explanation",
    "Occurrence",
    "Schedule",
    "Transition",
    "WallTime",
    "compile",
    "compile_all",
    "explain",
    "format_duration",
    "format_instant",
    "is_wall_time",
    "jitter",
    "next_after_many",
    "parse_duration",
    "parse_instant",
    "resolve",
    "rules_version",
    "wall_time",
]
