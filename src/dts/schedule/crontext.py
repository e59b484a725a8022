"""A whole cron expression: its prefix, macro or fields, each with its place in the text.

Five fields are minute, hour, day of month, month, day of week, as cronie reads them. Six have seconds in front; seven have years behind
as well. Nothing else decides how an expression is read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dts.errors import InvalidSchedule
from dts.schedule import civil
from dts.schedule.days import DayRule
from dts.schedule.fields import DAY, HOUR, MINUTE, MONTH, SECOND, WEEKDAY, YEAR, Field, Kind, parse_field

MAX_TEXT = 1000  # characters: beyond that it is no schedule
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
KINDS_BY_COUNT: dict[int, tuple[Kind, ...]] = {
    5: (MINUTE, HOUR, DAY, MONTH, WEEKDAY),
    6: (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY),
    7: (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY, YEAR),
}
_PREFIX = re.compile(r"\s*(?:CRON_TZ|TZ)=(\S*)\s*")
_FOREIGN = re.compile(r"[^ -~\tµμ]")  # both micro signs are for @every
_WORD = re.compile(r"[^ \t]+")
_FORMS = (
    "five fields (minute hour day month weekday), six with seconds in front, seven with years behind, "
    "@daily and the like, @every or @at"
)


class Words(NamedTuple):
    """The pieces of an expression before any is understood."""

    zone: str  # of a CRON_TZ= or TZ= prefix, or ''
    zone_column: int  # from 1; 0 without a prefix
    words: tuple[tuple[str, int], ...]  # (text, column from 1)


class Cron(NamedTuple):
    """A parsed expression. `macro` is the name it came from, or ''."""

    fields: tuple[Field, ...]
    macro: str

    def field(self, kind: Kind) -> Field | None:
        """The field of that kind, or None when the form has none."""
        return next((field for field in self.fields if field.kind is kind), None)

    def mask(self, kind: Kind, default: int) -> int:
        field = self.field(kind)
        return default if field is None else field.mask


def split(text: str) -> Words:
    """Prefix and words of an expression. Raises InvalidSchedule when it is empty, too long, or holds characters no schedule has."""
    if len(text) > MAX_TEXT:
        raise InvalidSchedule(
            f"the schedule is {len(text)} characters long; {MAX_TEXT} is the most",
            field="schedule",
            read=text[:40] + "...",
            expected=f"at most {MAX_TEXT} characters",
        )
    if foreign := _FOREIGN.search(text):
        column, char = foreign.start() + 1, foreign[0]
        raise InvalidSchedule(
            f"column {column}: the character {char!r} is in no schedule",
            field="schedule",
            column=column,
            read=char,
            expected="plain ASCII on one line",
        )
    prefix = _PREFIX.match(text)
    zone, zone_column, at = "", 0, 0
    if prefix is not None:
        zone, zone_column, at = prefix[1], prefix.start(1) + 1, prefix.end()
        if not zone:
            raise InvalidSchedule(
                f"column {zone_column}: the time zone prefix names no zone",
                field="zone",
                column=zone_column,
                expected="CRON_TZ=Europe/Paris",
            )
    words = tuple((match[0], match.start() + 1) for match in _WORD.finditer(text, at))
    if not words:
        raise InvalidSchedule(f"the schedule is empty; expected {_FORMS}", field="schedule", expected=_FORMS)
    return Words(zone, zone_column, words)


def parse_cron(words: tuple[tuple[str, int], ...]) -> Cron:
    """The fields of a cron expression. Raises InvalidSchedule with field and column of what is wrong."""
    first, column = words[0]
    if first.startswith("@"):
        macro = first.lower()
        if macro not in MACROS or len(words) > 1:
            raise _bad_macro(words)
        fields = zip(KINDS_BY_COUNT[5], MACROS[macro].split(), strict=True)
        return Cron(tuple(parse_field(kind, text, column) for kind, text in fields), macro)
    kinds = KINDS_BY_COUNT.get(len(words))
    if kinds is None:
        raise _bad_count(words)
    return Cron(tuple(parse_field(kind, text, at) for kind, (text, at) in zip(kinds, words, strict=True)), "")


def day_rule(cron: Cron) -> DayRule:
    """The day fields as one rule. Day of month and day of week are OR only if neither begins with `*` (crontab(5)), else AND."""
    day, weekday = cron.field(DAY), cron.field(WEEKDAY)
    assert day is not None, "every form has a day of month"
    assert weekday is not None, "every form has a day of week"
    years = civil.ALL_YEARS
    if (field := cron.field(YEAR)) is not None and field.text != "*":
        years = field.mask >> civil.TABLE_FIRST_YEAR
    return DayRule(
        days=day.mask,
        last=day.last,
        nearest=day.nearest,
        last_nearest=day.last_nearest,
        months=cron.mask(MONTH, 0),
        weekdays=weekday.mask,
        nth=weekday.nth,
        last_weekdays=weekday.last_weekdays,
        either=not (day.star or weekday.star),
        years=years,
    )


def _bad_macro(words: tuple[tuple[str, int], ...]) -> InvalidSchedule:
    first, column = words[0]
    expected = ", ".join(MACROS) + ", @every 90s, @at 2027-01-01T09:00:00Z"
    why = f"{first[:40]!r} is no schedule"
    if first.lower() == "@reboot":
        why = "@reboot is no time: a scheduler has no boot of its own"
    elif first.lower() in MACROS:
        (first, column), why = words[1], f"nothing may follow {first}"
    return InvalidSchedule(
        f"column {column}: {why}; expected {expected}",
        field="schedule",
        column=column,
        read=first[:40],
        expected=expected,
    )


def _bad_count(words: tuple[tuple[str, int], ...]) -> InvalidSchedule:
    column = words[-1][1] if len(words) > 7 else words[0][1]
    read = " ".join(text for text, _ in words)
    return InvalidSchedule(
        f"there are {len(words)} fields; expected {_FORMS}",
        field="schedule",
        column=column,
        read=read if len(read) <= 60 else read[:57] + "...",
        expected=_FORMS,
    )
