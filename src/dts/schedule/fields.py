"""One field of a cron expression: from text to bits, or to an error that says where and what instead.

    list     = element *("," element)
    element  = "*" ["/" step] | value ["-" value] ["/" step] | special
    value    = number | three-letter name of a month or weekday, any case
    special  = day of month: "?" | "L" ["-" n] ["W"] | "LW" | n "W";   day of week: "?" | value "L" | value "#" (1 to 5)

As cronie reads them, with Quartz's specials, with `5/15` (from 5 to the end by 15; a week ends on Saturday)
and with ranges that end on Sunday (`Fri-Sun`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from dts.errors import InvalidSchedule
from dts.schedule import civil

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A field's name and values. `valid` is what an error says would be accepted. There is one object of each kind."""

    name: str
    low: int
    high: int
    names: dict[str, int]
    valid: str


SECOND = Kind("second", 0, 59, {}, "0-59, *, lists, ranges and steps")
MINUTE = Kind("minute", 0, 59, {}, "0-59, *, lists, ranges and steps")
HOUR = Kind("hour", 0, 23, {}, "0-23, *, lists, ranges and steps")
DAY = Kind("day of month", 1, 31, {}, "1-31, *, ?, L, L-3, LW, 15W, lists, ranges and steps")
MONTH = Kind(
    "month", 1, 12, {name: i + 1 for i, name in enumerate(MONTHS)}, "1-12 or jan-dec, *, lists, ranges and steps"
)
WEEKDAY = Kind(
    "day of week",
    0,
    7,
    {name: i for i, name in enumerate(WEEKDAYS)},
    "0-7 or sun-sat (0 and 7 are Sunday), *, ?, 5L, mon#2, lists, ranges and steps",
)
YEAR = Kind("year", civil.FIRST_YEAR, civil.LAST_YEAR, {}, "1970-2199, *, lists, ranges and steps")


class Field(NamedTuple):
    """A parsed field. Masks have bit v set for value v; the specials are those of days.DayRule."""

    kind: Kind
    text: str
    mask: int = 0
    star: bool = False  # begins with `*` or `?`: leaves the day to the other day field
    last: int = 0
    nearest: int = 0
    last_nearest: int = 0
    nth: int = 0
    last_weekdays: int = 0

    @property
    def special(self) -> bool:
        return bool(self.last or self.nearest or self.last_nearest or self.nth or self.last_weekdays)


_NUMBER = re.compile(r"[0-9]{1,4}")
_LAST_DAY = re.compile(r"l(?:-([0-9]{1,2}))?(w?)|(l)w")
_NEAREST = re.compile(r"([0-9]{1,2})w")
_WEEKDAY_SPECIAL = re.compile(r"([0-9]|[a-z]{3})(?:(l)|#([0-9]+))")


def refused(kind: Kind, column: int, read: str, why: str, expected: str = "") -> InvalidSchedule:
    """The error for one piece of a field."""
    shown = read if len(read) <= 40 else read[:37] + "..."
    expected = expected or kind.valid
    said = "" if not shown or shown in why else f", not {shown!r}"
    return InvalidSchedule(
        f"{kind.name}, column {column}: {why}{said}; expected {expected}",
        field=kind.name,
        column=column,
        read=shown,
        expected=expected,
    )


class _FieldError(Exception):
    """A piece of a field that cannot be read: its offset in the field, what it is, why, and what is valid instead."""

    def __init__(self, offset: int, read: str, why: str, expected: str = "") -> None:
        super().__init__(why)
        self.offset = offset
        self.read = read
        self.why = why
        self.expected = expected


def parse_field(kind: Kind, text: str, column: int) -> Field:
    """Read one field that begins at a column. Raises InvalidSchedule with the column of the piece that is wrong."""
    try:
        return _read(kind, text)
    except _FieldError as error:
        raise refused(kind, column + error.offset, error.read, error.why, error.expected) from None


@lru_cache(maxsize=4096)
def _read(kind: Kind, text: str) -> Field:
    """Fields recur far more than expressions do, so each text is read once."""
    field = Field(kind, text, star=text[0] in "*?")
    at = 0
    for element in text.lower().split(","):
        field = _parse_element(field, element, at)
        at += len(element) + 1
    return field


def _parse_element(field: Field, element: str, at: int) -> Field:
    kind = field.kind
    if not element:
        raise _FieldError(at, "", "a list has an empty element")
    if element[0] == "h" and (len(element) == 1 or element[1] in "(/"):
        raise _FieldError(at, element, "H must be resolved with a job's id first", "a number")
    if kind is DAY or kind is WEEKDAY:
        special = _day_special(field, element, at) if kind is DAY else _weekday_special(field, element, at)
        if special is not None:
            return special
    return field._replace(mask=field.mask | _parse_range(kind, element, at))


def _day_special(field: Field, element: str, at: int) -> Field | None:
    if element == "?":
        return _question_mark(field, element, at)
    if match := _NEAREST.fullmatch(element):
        day = int(match[1])
        if not 1 <= day <= 31:
            raise _FieldError(at, element, f"there is no day {day}")
        return field._replace(nearest=field.nearest | 1 << day)
    if match := _LAST_DAY.fullmatch(element):
        back = int(match[1] or 0)
        if back > 30:
            raise _FieldError(at, element, f"no month has a day {back} before its last", "L, L-1 to L-30, LW")
        if match[2] or match[3]:
            return field._replace(last_nearest=field.last_nearest | 1 << back)
        return field._replace(last=field.last | 1 << back)
    return None


def _weekday_special(field: Field, element: str, at: int) -> Field | None:
    if element == "?":
        return _question_mark(field, element, at)
    if element == "l":
        raise _FieldError(
            at,
            element,
            "L alone is Saturday in Quartz and nothing elsewhere",
            "sat, or 6L for the last Saturday",
        )
    match = _WEEKDAY_SPECIAL.fullmatch(element)
    if match is None:
        return None
    day = _value(WEEKDAY, match[1], at) % 7
    if match[2]:
        return field._replace(last_weekdays=field.last_weekdays | 1 << day)
    nth = int(match[3][:3])
    if not 1 <= nth <= 5:
        raise _FieldError(at + match.start(3), match[3], "a month has a first to a fifth", "#1 to #5")
    return field._replace(nth=field.nth | 1 << (8 * nth + day))


def _question_mark(field: Field, element: str, at: int) -> Field:
    if field.text != "?":
        raise _FieldError(at, element, "? stands alone in its field")
    return field._replace(mask=_mask(field.kind, field.kind.low, field.kind.high, 1))


def _parse_range(kind: Kind, element: str, at: int) -> int:
    body, slash, step_text = element.partition("/")
    step = _step(kind, step_text, at + len(body) + 1) if slash else 1
    if slash and not body:
        raise _FieldError(at, element, "a value is missing before the step", f"*/{step}")
    if body == "*":
        return _mask(kind, kind.low, kind.high, step)
    first_text, dash, last_text = body.partition("-")
    first = _value(kind, first_text, at)
    if not dash:
        last = (
            (6 if kind is WEEKDAY else kind.high) if slash else first
        )  # 1/2 ends on Saturday: 7 is but Sunday's other name
        return _mask(kind, first, max(first, last), step)
    last = _value(kind, last_text, at + len(first_text) + 1)
    if kind is WEEKDAY and last == 0 and first > 0:
        last = 7  # Fri-Sun: the week may end on Sunday; Sun-Sun is Sunday alone
    if last < first:
        both = f"{first_text}-{kind.high},{kind.low}-{last_text}"
        raise _FieldError(at, body, f"the range {body!r} runs backwards", f"{both} if it should wrap")
    return _mask(kind, first, last, step)


def _mask(kind: Kind, first: int, last: int, step: int) -> int:
    if kind is WEEKDAY:
        if first == 0 and last == 7:
            last = 6  # `*` and `0-7` step through one week: Sunday does not count twice
        return _fold_sunday(sum(1 << v for v in range(first, last + 1, step)))
    if step == 1:
        return (2 << last) - (1 << first)
    return sum(1 << v for v in range(first, last + 1, step))


def _fold_sunday(mask: int) -> int:
    return (mask | mask >> 7) & 0x7F


def _value(kind: Kind, text: str, at: int) -> int:
    if _NUMBER.fullmatch(text):
        value = int(text)
        if kind.low <= value <= kind.high:
            return value
        raise _FieldError(at, text, f"{text} is not from {kind.low} to {kind.high}")
    if text in kind.names:
        return kind.names[text]
    if not text:
        raise _FieldError(at, text, "a value is missing")
    if text.isdigit():
        raise _FieldError(at, text, f"{text[:12]} is not from {kind.low} to {kind.high}")
    raise _FieldError(at, text, f"{text[:40]!r} is no {kind.name}")


def _step(kind: Kind, text: str, at: int) -> int:
    if not _NUMBER.fullmatch(text):
        raise _FieldError(at, text, "a step is a number", "a step from 1 on")
    step = int(text)
    if step == 0:
        raise _FieldError(at, text, "a step of 0 would never move on", "a step from 1 on")
    return step
