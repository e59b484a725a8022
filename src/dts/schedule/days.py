"""Which days: day of month, month, day of week and year as one pattern, answered by bit scans.

A pattern holds, for each of the 14 year types, one bit per day of the year, and one bit per year that has any day at all; so the next
29 February that is a Monday costs as much as the next weekday. Patterns of weekdays alone are tables of seven.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

from dts.schedule import civil
from dts.schedule.civil import NO_DAY_AFTER, NO_DAY_BEFORE, YEAR_START, YEAR_TYPE


class DayRule(NamedTuple):
    """The four day fields of an expression, as parsed. Two equal rules share one pattern."""

    days: int  # bit n: day n of the month, 1 to 31
    last: int  # bit n: n days before the last of the month (`L` is bit 0, `L-3` bit 3)
    nearest: int  # bit n: the weekday nearest to day n (`15W`)
    last_nearest: int  # bit n: the weekday nearest to the day n days before the last (`LW`, `L-3W`)
    months: int  # bit n: month n, 1 to 12
    weekdays: int  # bit n: weekday n, 0 (Sunday) to 6
    nth: int  # bit 8 * n + w: the n-th (1 to 5) weekday w of the month (`MON#2`)
    last_weekdays: int  # bit w: the last weekday w of the month (`5L`)
    either: bool  # day of month OR day of week; otherwise both must match
    years: int  # bit i: the year civil.TABLE_FIRST_YEAR + i


ALL_DOM = 0xFFFFFFFE
ALL_MONTHS = 0x1FFE
ALL_WEEKDAYS = 0x7F


def bits(mask: int) -> list[int]:
    """The values of a mask in order."""
    return [k for k in range(mask.bit_length()) if mask >> k & 1]


def _nearest_weekday(day: int, length: int, first: int) -> int:
    """Quartz's W: Saturday goes back to Friday and Sunday on to Monday, but never out of the month. `first`: weekday of the 1st."""
    day_of_week = (first + day - 1) % 7
    if day_of_week == 6:
        return day - 1 if day > 1 else day + 2
    if day_of_week == 0:
        return day + 1 if day < length else day - 2
    return day


def _special_days(rule: DayRule, length: int, first: int) -> int:
    """The day-of-month specials of one month, bit k = day k + 1. A month without that day has none."""
    mask = 0
    for back in bits(rule.last):
        if back < length:
            mask |= 1 << (length - 1 - back)
    targets = [day for day in bits(rule.nearest) if day <= length]
    targets += [length - back for back in bits(rule.last_nearest) if back < length]
    for day in targets:
        mask |= 1 << (_nearest_weekday(day, length, first) - 1)
    return mask


def _special_weekdays(rule: DayRule, length: int, first: int) -> int:
    """The day-of-week specials of one month, bit k = day k + 1. A month without a fifth one has none."""
    mask = 0
    for code in bits(rule.nth):
        nth, wanted = divmod(code, 8)
        day = (wanted - first) % 7 + 1 + 7 * (nth - 1)
        if day <= length:
            mask |= 1 << (day - 1)
    last = (first + length - 1) % 7
    for wanted in bits(rule.last_weekdays):
        mask |= 1 << (length - 1 - (last - wanted) % 7)
    return mask


def _year_masks(rule: DayRule) -> tuple[int, ...]:
    """For each type of year its days, one bit each."""
    special = rule.last or rule.nearest or rule.last_nearest or rule.nth or rule.last_weekdays
    days, weekdays, months = bits(rule.days), bits(rule.weekdays), bits(rule.months)
    masks = []
    for leap in range(2):
        by_date = in_month = 0
        for day in days:
            by_date |= civil.DOM_DAYS[leap][day - 1]
        for month in months:
            in_month |= civil.MONTH_DAYS[leap][month - 1]
        for first in range(7):
            dates, by_weekday = by_date, 0
            for day_of_week in weekdays:
                by_weekday |= civil.WEEKDAY_DAYS[leap * 7 + first][day_of_week]
            if special:
                for start, length in zip(civil.MONTH_STARTS[leap], civil.MONTH_LENGTHS[leap], strict=True):
                    dates |= _special_days(rule, length, (first + start) % 7) << start
                    by_weekday |= _special_weekdays(rule, length, (first + start) % 7) << start
            masks.append(in_month & (dates | by_weekday if rule.either else dates & by_weekday))
    return tuple(masks)


class Days:
    """A compiled day pattern over day numbers. Immutable; get one from `day_pattern`."""

    __slots__ = ("ahead", "behind", "masks", "years")

    def __init__(self, rule: DayRule) -> None:
        plain = not (rule.last or rule.nearest or rule.last_nearest or rule.nth or rule.last_weekdays)
        every_date = plain and rule.days == ALL_DOM and rule.months == ALL_MONTHS and not rule.either
        self.ahead: tuple[int, ...] = ()  # weekday -> days to the next match; () = not a weekday pattern
        self.behind: tuple[int, ...] = ()
        if every_date and rule.years == civil.ALL_YEARS and rule.weekdays:
            allowed = bits(rule.weekdays)
            self.ahead = tuple(min((w - d) % 7 for w in allowed) for d in range(7))
            self.behind = tuple(min((d - w) % 7 for w in allowed) for d in range(7))
            self.masks: tuple[int, ...] = ()
            self.years = civil.ALL_YEARS
            return
        self.masks = _year_masks(rule)
        alive = 0
        for type_, mask in enumerate(self.masks):
            if mask:
                alive |= civil.YEARS_OF_TYPE[type_]
        self.years = alive & rule.years

    def next(self, day: int) -> int:
        """The first matching day >= `day`, or NO_DAY_AFTER."""
        if self.ahead:
            return day + self.ahead[(day + 4) % 7]
        i = bisect_right(YEAR_START, day) - 1
        if i < 0:
            i, day = 0, YEAR_START[0]
        if self.years >> i & 1:
            mask = self.masks[YEAR_TYPE[i]] >> (day - YEAR_START[i])
            if mask:
                return day + (mask & -mask).bit_length() - 1
        later = self.years >> (i + 1)
        if not later:
            return NO_DAY_AFTER
        i += (later & -later).bit_length()
        mask = self.masks[YEAR_TYPE[i]]
        return YEAR_START[i] + (mask & -mask).bit_length() - 1

    def previous(self, day: int) -> int:
        """The last matching day <= `day`, or NO_DAY_BEFORE."""
        if self.ahead:
            return day - self.behind[(day + 4) % 7]
        i = bisect_right(YEAR_START, day) - 1
        if i >= civil.YEAR_COUNT:
            i, day = civil.YEAR_COUNT - 1, YEAR_START[-1] - 1
        if i < 0:
            return NO_DAY_BEFORE
        if self.years >> i & 1:
            mask = self.masks[YEAR_TYPE[i]] & ((2 << (day - YEAR_START[i])) - 1)
            if mask:
                return YEAR_START[i] + mask.bit_length() - 1
        earlier = self.years & ((1 << i) - 1)
        if not earlier:
            return NO_DAY_BEFORE
        i = earlier.bit_length() - 1
        return YEAR_START[i] + self.masks[YEAR_TYPE[i]].bit_length() - 1

    def count(self, first: int, end: int) -> int:
        """How many days match in [first, end)."""
        if end <= first:
            return 0
        if self.ahead:
            weeks, rest = divmod(end - first, 7)
            return weeks * self.ahead.count(0) + sum(not self.ahead[(first + k + 4) % 7] for k in range(rest))
        first, end = max(first, YEAR_START[0]), min(end, YEAR_START[-1])
        total = 0
        while first < end:
            i = bisect_right(YEAR_START, first) - 1
            stop = min(end, YEAR_START[i + 1])
            if self.years >> i & 1:
                mask = self.masks[YEAR_TYPE[i]] >> (first - YEAR_START[i])
                total += (mask & ((1 << (stop - first)) - 1)).bit_count()
            first = stop
        return total


@lru_cache(maxsize=4096)
def day_pattern(rule: DayRule) -> Days:
    """The one pattern of a rule (a bounded cache)."""
    return Days(rule)
