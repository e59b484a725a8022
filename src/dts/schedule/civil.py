"""The calendar as tables: day numbers, year types and one bit per day of a year.

A day number counts days since 1970-01-01. A weekday is 0 (Sunday) to 6. A year type is one of 14: leap or not, times the weekday of
1 January; all that a yearly pattern of days can depend on is in its type. Masks have bit k set for day k (from 0) of the year.

Time runs from FIRST_INSTANT to LAST_INSTANT (1970 to the end of 2199, UTC): no schedule fires outside, so every search is bounded.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import date

FIRST_YEAR = 1970
LAST_YEAR = 2199
FIRST_INSTANT = 0  # ms
LAST_INSTANT = (date(LAST_YEAR + 1, 1, 1).toordinal() - date(1970, 1, 1).toordinal()) * 86_400_000 - 1  # ms

# One year more on each side: 1 January 1970 in UTC is still 1969 in Honolulu, the end of 2199 is already 2200 in Apia.
TABLE_FIRST_YEAR = FIRST_YEAR - 1
TABLE_LAST_YEAR = LAST_YEAR + 1

# Answers of a search for a day that found none: far outside of the tables, so that the caller's clipping refuses them.
NO_DAY_AFTER = 1_000_000
NO_DAY_BEFORE = -1_000_000

_EPOCH = date(1970, 1, 1).toordinal()


def day_number(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01. Raises ValueError when there is no such date."""
    return date(year, month, day).toordinal() - _EPOCH


def civil_date(day: int) -> date:
    """The date of a day number."""
    return date.fromordinal(day + _EPOCH)


def is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def weekday(day: int) -> int:
    """0 (Sunday) to 6 (Saturday): 1970-01-01 was a Thursday."""
    return (day + 4) % 7


YEAR_START = tuple(day_number(year, 1, 1) for year in range(TABLE_FIRST_YEAR, TABLE_LAST_YEAR + 2))
YEAR_TYPE = tuple(
    is_leap(year) * 7 + weekday(day_number(year, 1, 1)) for year in range(TABLE_FIRST_YEAR, TABLE_LAST_YEAR + 1)
)
YEAR_COUNT = len(YEAR_TYPE)
ALL_YEARS = (1 << YEAR_COUNT) - 1  # bit i = the year TABLE_FIRST_YEAR + i
YEARS_OF_TYPE = tuple(sum(1 << i for i, type_ in enumerate(YEAR_TYPE) if type_ == wanted) for wanted in range(14))

MONTH_LENGTHS = (
    (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31),
    (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31),
)
MONTH_STARTS = tuple(tuple(sum(lengths[:m]) for m in range(12)) for lengths in MONTH_LENGTHS)  # [leap][month - 1]
ALL_DAYS = ((1 << 365) - 1, (1 << 366) - 1)  # [leap]


def year_index(day: int) -> int:
    """The place of a day's year in the tables; days outside of them get the first or the last year."""
    return min(max(bisect_right(YEAR_START, day) - 1, 0), YEAR_COUNT - 1)


def _month_masks(leap: int) -> tuple[int, ...]:
    starts, lengths = MONTH_STARTS[leap], MONTH_LENGTHS[leap]
    return tuple(((1 << length) - 1) << start for start, length in zip(starts, lengths, strict=True))


def _dom_masks(leap: int) -> tuple[int, ...]:
    starts, lengths = MONTH_STARTS[leap], MONTH_LENGTHS[leap]
    return tuple(
        sum(1 << (start + day - 1) for start, length in zip(starts, lengths, strict=True) if day <= length)
        for day in range(1, 32)
    )


MONTH_DAYS = (_month_masks(0), _month_masks(1))  # [leap][month - 1]: the days of that month
DOM_DAYS = (_dom_masks(0), _dom_masks(1))  # [leap][day - 1]: that day of every month which has it


def _weekday_mask(type_: int, wanted: int) -> int:
    leap, first = divmod(type_, 7)
    return sum(1 << k for k in range((wanted - first) % 7, 365 + leap, 7))


WEEKDAY_DAYS = tuple(tuple(_weekday_mask(type_, wanted) for wanted in range(7)) for type_ in range(14))
