"""The engine of cron schedules: the next instant by bit scans over days and by bisection in tables.

Wall time is searched without zones (`_wall_from`, `_wall_until`); the zone's Timeline then says which UTC second a wall second is. Where
the two part, the policy decides: a wall time that a gap shorter than GAP_LIMIT swallowed fires at the gap's end (`shift`) or not at all
(`skip`); one that a fold repeats fires the first time, the second time, or both. A longer gap is a date that the zone did not have.
"""

from __future__ import annotations

from bisect import bisect_right

from dts.model import ScheduleSpec
from dts.schedule.base import Schedule
from dts.schedule.clock import DAY_SECONDS, clock
from dts.schedule.crontext import Cron, day_rule
from dts.schedule.days import day_pattern
from dts.schedule.fields import HOUR, MINUTE, SECOND
from dts.schedule.words import cron_sentence
from dts.schedule.zones import Zone

GAP_LIMIT = 3 * 3600  # seconds
EVERY_HOUR = (1 << 24) - 1


class CronSchedule(Schedule):
    """A compiled cron expression in a zone. `gap` and `fold` are the policies in force, defaults resolved."""

    __slots__ = ("_clock", "_days", "_line", "_memo", "_shift", "cron", "every_hour", "fold", "gap", "zone")

    def __init__(self, spec: ScheduleSpec, cron: Cron, zone: Zone) -> None:
        super().__init__(spec)
        self.cron = cron
        self.zone = zone
        hours = cron.mask(HOUR, 0)
        # Every hour: real time matters, so each hour that passes counts once. Otherwise wall time does: each time of day runs once a day.
        elapsed = hours == EVERY_HOUR
        self.every_hour = elapsed
        self.gap = spec.gap or ("skip" if elapsed else "shift")
        self.fold = spec.fold or ("both" if elapsed else "first")
        self._shift = self.gap == "shift"
        self._line = zone.timeline(self.fold)
        self._days = day_pattern(day_rule(cron))
        self._clock = clock(hours, cron.mask(MINUTE, 0), cron.mask(SECOND, 1))
        # The last day answered from: between lo and hi the next instant is one bisection away. A pure cache, replaced as one value.
        self._memo: tuple[int, int, tuple[int, ...]] = (0, -1, ())

    def next_after(self, instant: int) -> int | None:
        low, high, minutes = self._memo
        if low <= instant < high:
            return low + 60_000 * minutes[bisect_right(minutes, (instant - low) // 60_000)]
        if instant < self.low:
            instant = self.low - 1
        elif instant >= self.high:
            return None
        answer = self._next_second(instant // 1000) * 1000
        return answer if answer <= self.high else None

    def previous_before(self, instant: int) -> int | None:
        if instant <= self.low:
            return None
        if instant > self.high:
            instant = self.high + 1
        answer = self._previous_second((instant - 1) // 1000) * 1000
        return answer if answer >= self.low else None

    def between(self, after: int, until: int, limit: int) -> list[int]:
        found: list[int] = []
        until = min(until, self.high)
        instant = after
        while len(found) < limit:
            following = self.next_after(instant)
            if following is None or following > until:
                break
            found.append(following)
            instant = following
            low, high, minutes = self._memo
            if low <= instant < high:  # the rest of that day at once
                begin = bisect_right(minutes, (instant - low) // 60_000)
                end = min(bisect_right(minutes, (until - low) // 60_000), begin + limit - len(found))
                if begin < end:
                    found += [low + 60_000 * minute for minute in minutes[begin:end]]
                    instant = found[-1]
        return found

    def count(self, after: int, until: int) -> int:
        first = max(after, self.low - 1) // 1000 + 1
        last = min(until, self.high) // 1000
        if last < first:
            return 0
        line = self._line
        total = 0
        for i in range(line.span(first), line.span(last) + 1):
            offset = line.offsets[i]
            begin = max(line.first[i], first + offset)
            total += self._count_wall(begin, min(line.end[i], last + 1 + offset))
            if self._shift and line.starts[i] >= first and self._fires_for_gap(i):
                total += 1
        return total

    def describe(self) -> str:
        return cron_sentence(self.cron, self.zone.name)

    def wall_match(self, begin: int, end: int) -> int | None:
        """The first wall second in [begin, end) that the fields match, whatever the zone makes of it; None if there is none."""
        wall = self._wall_from(begin)
        return wall if wall < end else None

    def shifts(self, gap: int) -> bool:
        """Whether a wall time in a gap of so many seconds runs right after it."""
        return self._shift and gap < GAP_LIMIT

    def _next_second(self, second: int) -> int:
        """The first UTC second > `second` at which it fires, clipping aside."""
        line = self._line
        first, end, offsets = line.first, line.end, line.offsets
        i = 0 if line.fixed else bisect_right(line.starts, second) - 1
        wall = second + offsets[i] + 1
        if wall < first[i]:
            wall = first[i]  # the second pass of a fold whose first one counts
        elif wall > end[i]:
            i += 1
            wall = first[i]  # the first pass of a fold whose second one counts
        wall = self._wall_from(wall)
        if wall >= end[i]:
            i += 1
            if first[i] < end[i - 1]:
                wall = self._wall_from(first[i])  # both passes count: the clock goes back to where it was
            i = bisect_right(end, wall, i)
            while wall < first[i]:  # in a gap
                if self._shift and first[i] - end[i - 1] < GAP_LIMIT:
                    return line.starts[i]
                wall = self._wall_from(first[i])
                i = bisect_right(end, wall, i)
        self._remember(i, wall)
        return wall - offsets[i]

    def _previous_second(self, second: int) -> int:
        """The last UTC second <= `second` at which it fires, clipping aside."""
        line = self._line
        first, end, offsets = line.first, line.end, line.offsets
        i = 0 if line.fixed else bisect_right(line.starts, second) - 1
        wall = self._wall_until(min(second + offsets[i], end[i] - 1))
        if wall >= first[i]:
            return wall - offsets[i]
        if i and end[i - 1] > min(
            first[i], second + offsets[i]
        ):  # in the second pass of a fold, all of the first lies before
            wall = self._wall_until(end[i - 1] - 1)
        i = bisect_right(first, wall, 0, i) - 1
        while wall >= end[i]:  # in a gap
            if self._shift and first[i + 1] - end[i] < GAP_LIMIT:
                return line.starts[i + 1]
            wall = self._wall_until(end[i] - 1)
            i = bisect_right(first, wall, 0, i + 1) - 1
        return wall - offsets[i]

    def _wall_from(self, wall: int) -> int:
        """The first matching wall second >= `wall`."""
        day, second = divmod(wall, DAY_SECONDS)
        found = self._days.next(day)
        if found == day:
            at = self._clock.at_or_after(second)
            if at >= 0:
                return day * DAY_SECONDS + at
            found = self._days.next(day + 1)
        return found * DAY_SECONDS + self._clock.first

    def _wall_until(self, wall: int) -> int:
        """The last matching wall second <= `wall`."""
        day, second = divmod(wall, DAY_SECONDS)
        found = self._days.previous(day)
        if found == day:
            at = self._clock.at_or_before(second)
            if at >= 0:
                return day * DAY_SECONDS + at
            found = self._days.previous(day - 1)
        return found * DAY_SECONDS + self._clock.last

    def _count_wall(self, begin: int, end: int) -> int:
        """How many wall seconds in [begin, end) match."""
        if end <= begin:
            return 0
        times, days = self._clock, self._days
        first_day, first_second = divmod(begin, DAY_SECONDS)
        last_day, last_second = divmod(end, DAY_SECONDS)
        total = days.count(first_day, last_day) * times.per_day
        if first_second and days.count(first_day, first_day + 1):
            total -= times.count_before(first_second)
        if last_second and days.count(last_day, last_day + 1):
            total += times.count_before(last_second)
        return total

    def _fires_for_gap(self, i: int) -> bool:
        """Whether span i begins after a gap in whose place it fires, and would not fire anyway."""
        line = self._line
        if not i or not 0 < line.first[i] - line.end[i - 1] < GAP_LIMIT:
            return False
        return self._wall_from(line.end[i - 1]) < line.first[i] and self._wall_from(line.first[i]) != line.first[i]

    def _remember(self, i: int, wall: int) -> None:
        """Keep the day of an answer, if it fires more than once, no change of offset touches it and no bound cuts it."""
        times, line = self._clock, self._line
        if not times.single or len(times.minutes) == 1:
            return
        day = wall - wall % DAY_SECONDS
        if line.first[i] <= day and day + DAY_SECONDS <= line.end[i]:
            low = (day - line.offsets[i] + times.seconds[0]) * 1000
            high = low + times.minutes[-1] * 60_000
            if self.low <= low and high <= self.high:
                self._memo = (low, high, times.minutes)
