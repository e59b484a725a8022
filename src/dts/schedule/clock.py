"""Which seconds of a day: hour, minute and second fields as two sorted tuples."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache

DAY_SECONDS = 86_400


class Clock:
    """The times of day of an expression. `minutes` are minutes of the day, `seconds` the seconds within each of them."""

    __slots__ = ("first", "last", "minutes", "per_day", "seconds", "single")

    def __init__(self, hours: int, minutes: int, seconds: int) -> None:
        within = [m for m in range(60) if minutes >> m & 1]
        self.minutes = tuple(60 * h + m for h in range(24) if hours >> h & 1 for m in within)
        self.seconds = tuple(s for s in range(60) if seconds >> s & 1)
        self.per_day = len(self.minutes) * len(self.seconds)
        self.first = self.minutes[0] * 60 + self.seconds[0]
        self.last = self.minutes[-1] * 60 + self.seconds[-1]
        self.single = len(self.seconds) == 1

    def at_or_after(self, second: int) -> int:
        """The first time of day >= `second` (0 to 86399), or -1."""
        minutes, seconds = self.minutes, self.seconds
        minute, rest = divmod(second, 60)
        i = bisect_left(minutes, minute)
        if i == len(minutes):
            return -1
        if minutes[i] == minute:
            if rest <= seconds[-1]:
                return minute * 60 + seconds[bisect_left(seconds, rest)]
            i += 1
            if i == len(minutes):
                return -1
        return minutes[i] * 60 + seconds[0]

    def at_or_before(self, second: int) -> int:
        """The last time of day <= `second` (0 to 86399), or -1."""
        minutes, seconds = self.minutes, self.seconds
        minute, rest = divmod(second, 60)
        i = bisect_right(minutes, minute) - 1
        if i < 0:
            return -1
        if minutes[i] == minute:
            if rest >= seconds[0]:
                return minute * 60 + seconds[bisect_right(seconds, rest) - 1]
            i -= 1
            if i < 0:
                return -1
        return minutes[i] * 60 + seconds[-1]

    def count_before(self, second: int) -> int:
        """How many times of day are < `second` (0 to 86400)."""
        minute, rest = divmod(second, 60)
        i = bisect_left(self.minutes, minute)
        total = i * len(self.seconds)
        if i < len(self.minutes) and self.minutes[i] == minute:
            total += bisect_left(self.seconds, rest)
        return total


@lru_cache(maxsize=4096)
def clock(hours: int, minutes: int, seconds: int) -> Clock:
    """The one clock of three masks (a bounded cache): most schedules share a few hundred."""
    return Clock(hours, minutes, seconds)
