"""From a spec to the one Schedule object that answers for it."""

from __future__ import annotations

from functools import lru_cache
from weakref import WeakValueDictionary

from dts.errors import InvalidSchedule
from dts.model import ScheduleSpec
from dts.schedule import civil
from dts.schedule.base import Schedule
from dts.schedule.cron import CronSchedule
from dts.schedule.crontext import Words, parse_cron, split
from dts.schedule.durations import parse_duration
from dts.schedule.instants import format_instant, parse_instant
from dts.schedule.interval import AtSchedule, EverySchedule
from dts.schedule.zones import Zone, load_zone

MIN_PERIOD_MS = 1_000
RECENT = 10_000  # schedules kept although nobody holds them
GAPS = ("", "shift", "skip")
FOLDS = ("", "first", "second", "both")

_alive: WeakValueDictionary[ScheduleSpec, Schedule] = WeakValueDictionary()


def compile(spec: ScheduleSpec) -> Schedule:  # noqa: A001 - the package's verb
    """The schedule of a spec: equal specs give one object as long as anybody holds it.

    Raises InvalidSchedule, and nothing else, for a text, zone, policy or bound that is refused; also for a schedule that never fires.
    """
    return _recent(spec)


@lru_cache(maxsize=RECENT)
def _recent(spec: ScheduleSpec) -> Schedule:
    schedule = _alive.get(spec)
    if schedule is None:
        schedule = _alive.setdefault(spec, _compile(spec))
    return schedule


def _compile(spec: ScheduleSpec) -> Schedule:
    words = split(spec.text)
    _check_policies(spec)
    _check_bounds(spec)
    zone = _zone(spec, words)
    kind = words.words[0][0].lower()
    schedule: Schedule
    if kind == "@every":
        schedule = _every(spec, words, zone)
    elif kind == "@at":
        schedule = _at(spec, words, zone)
    else:
        schedule = CronSchedule(spec, parse_cron(words.words), zone)
    if schedule.next_after(civil.FIRST_INSTANT - 1) is None:
        raise _never(spec, kind)
    return schedule


def _zone(spec: ScheduleSpec, words: Words) -> Zone:
    """A prefix names the zone unless the spec names another one: then nobody could tell which was meant."""
    if not words.zone:
        return load_zone(spec.zone)
    if spec.zone not in ("UTC", "", words.zone):
        raise InvalidSchedule(
            f"the expression says time zone {words.zone!r}, the schedule says {spec.zone!r}",
            field="zone",
            column=words.zone_column,
            read=words.zone,
            expected="one of the two alone",
        )
    try:
        return load_zone(words.zone)
    except InvalidSchedule as error:
        raise InvalidSchedule(
            f"column {words.zone_column}: {error}",
            field="zone",
            column=words.zone_column,
            read=error.read,
            expected=error.expected,
        ) from None


def _check_policies(spec: ScheduleSpec) -> None:
    for name, value, valid in (("gap", spec.gap, GAPS), ("fold", spec.fold, FOLDS)):
        if value not in valid:
            expected = ", ".join(valid[1:])
            raise InvalidSchedule(
                f"{name}: {value!r} is no policy; expected {expected}", field=name, read=value, expected=expected
            )


def _check_bounds(spec: ScheduleSpec) -> None:
    if spec.start is not None and spec.end is not None and spec.end < spec.start:
        raise InvalidSchedule(
            f"the schedule ends at {spec.end} before it starts at {spec.start}",
            field="end",
            expected="an end not before the start",
        )


def _every(spec: ScheduleSpec, words: Words, zone: Zone) -> Schedule:
    _refuse_policies(spec, "@every counts elapsed time, which has neither")
    duration, column = _argument(words, "@every 90s")
    try:
        period = parse_duration(duration)
    except InvalidSchedule as error:
        raise InvalidSchedule(
            f"column {column}: {error}", field="duration", column=column, read=error.read, expected=error.expected
        ) from None
    if period < MIN_PERIOD_MS:
        raise InvalidSchedule(
            f"column {column}: a period of {duration!r} is too short; expected 1s or more",
            field="duration",
            column=column,
            read=duration,
            expected="1s or more",
        )
    return EverySchedule(spec, period, zone)


def _at(spec: ScheduleSpec, words: Words, zone: Zone) -> Schedule:
    if spec.fold == "both":
        raise InvalidSchedule(
            "fold: @at fires once; expected first or second", field="fold", read="both", expected="first or second"
        )
    _argument(words, "@at 2027-01-01T09:00:00Z")
    column = words.words[1][1]
    text = " ".join(word for word, _ in words.words[1:])
    try:
        instant = parse_instant(text, zone.name, fold=spec.fold or "first", gap=spec.gap or "shift")
    except InvalidSchedule as error:
        raise InvalidSchedule(
            f"column {column}: {error}", field=error.field, column=column, read=error.read, expected=error.expected
        ) from None
    named = text.partition("[")[2].rstrip("]")
    return AtSchedule(spec, instant, load_zone(named) if named else zone)


def _argument(words: Words, example: str) -> tuple[str, int]:
    if len(words.words) < 2:
        name, column = words.words[0]
        raise InvalidSchedule(
            f"column {column}: {name} says nothing; expected {example}",
            field="schedule",
            column=column,
            read=name,
            expected=example,
        )
    if len(words.words) > 2 and words.words[0][0].lower() == "@every":
        extra, column = words.words[2]
        raise InvalidSchedule(
            f"column {column}: {extra[:40]!r} follows the duration; expected {example}",
            field="schedule",
            column=column,
            read=extra[:40],
            expected=example,
        )
    return words.words[1]


def _refuse_policies(spec: ScheduleSpec, why: str) -> None:
    for name, value in (("gap", spec.gap), ("fold", spec.fold)):
        if value:
            raise InvalidSchedule(f"{name}: {why}", field=name, read=value, expected=f"no {name} policy")


def _never(spec: ScheduleSpec, kind: str) -> InvalidSchedule:
    bounds = []
    if spec.start is not None:
        bounds.append(f"from {_bound(spec.start)}")
    if spec.end is not None:
        bounds.append(f"to {_bound(spec.end)}")
    if bounds:
        return InvalidSchedule(
            f"{spec.text!r} never fires {' '.join(bounds)}",
            field="schedule",
            read=spec.text,
            expected="an instant within its bounds",
        )
    if kind == "@at":
        return InvalidSchedule(f"{spec.text!r} never fires", field="schedule", read=spec.text, expected="an instant")
    return InvalidSchedule(
        f"{spec.text!r} can never fire: no date matches (30 February is none)",
        field="day of month",
        read=spec.text,
        expected="a date that exists",
    )


def _bound(instant: int) -> str:
    return format_instant(instant) if civil.FIRST_INSTANT <= instant <= civil.LAST_INSTANT else f"{instant} ms"
