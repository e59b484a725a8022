"""What a cron expression means, by brute force, written from the rules alone (docs/reference/schedules.md).

Nothing here is shared with dts.schedule: fields are read with split and sets, dates with `calendar`, zones with `zoneinfo` (over the
tzdata package), and time is walked minute by minute of the UTC line. Slow on purpose.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

MONTHS = {name.lower(): k for k, name in enumerate(calendar.month_abbr) if name}
WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}


@cache
def zone(name: str) -> ZoneInfo:
    """The zone from the tzdata package, never from the system."""
    path = resources.files("tzdata").joinpath("zoneinfo")
    for part in name.split("/"):
        path = path.joinpath(part)
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def number(text: str, names: dict[str, int]) -> int:
    return names[text.lower()] if text.lower() in names else int(text)


def plain(text: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    """A list of ranges with steps. For weekdays `high` is 7 and the caller folds Sunday."""
    values: set[int] = set()
    for element in text.split(","):
        body, _, step = element.partition("/")
        if body == "*":
            first, last = low, high
        elif "-" in body:
            first, last = (number(part, names) for part in body.split("-"))
            if names is WEEKDAYS and last == 0 and first > 0:
                last = 7
        else:
            first = number(body, names)
            last = max(first, 6 if names is WEEKDAYS else high) if step else first  # the week ends on Saturday
        values |= set(range(first, last + 1, int(step or 1)))
    return values


@dataclass
class Expression:
    """An expression read into sets and lists of specials."""

    text: str
    seconds: set[int] = field(default_factory=lambda: {0})
    years: set[int] | None = None

    def __post_init__(self) -> None:
        words = self.text.split()
        if len(words) >= 6:
            self.seconds = plain(words.pop(0), 0, 59, {})
        if len(words) == 6:
            year = words.pop()
            self.years = None if year == "*" else plain(year, 1970, 2199, {})
        minute, hour, self.day, month, self.weekday = words
        self.minutes = plain(minute, 0, 59, {})
        self.hours = plain(hour, 0, 23, {})
        self.months = plain(month, 1, 12, MONTHS)

    @property
    def elapsed(self) -> bool:
        return self.hours == set(range(24))

    def date_matches(self, day: date) -> bool:
        if day.month not in self.months or (self.years is not None and day.year not in self.years):
            return False
        first, second = self.day_matches(day), self.weekday_matches(day)
        if self.day[0] in "*?" or self.weekday[0] in "*?":
            return first and second
        return first or second

    def day_matches(self, day: date) -> bool:
        return any(self.one_day(element.upper(), day) for element in self.day.split(","))

    @staticmethod
    def one_day(element: str, day: date) -> bool:
        last = calendar.monthrange(day.year, day.month)[1]
        if element == "?":
            return True
        if element.startswith("L"):
            back = element[1:].rstrip("W").lstrip("-")
            target = last - int(back or 0)
            return target >= 1 and day.day == (nearest(day, target, last) if element.endswith("W") else target)
        if element.endswith("W"):
            target = int(element[:-1])
            return target <= last and day.day == nearest(day, target, last)
        return day.day in plain(element, 1, 31, {})

    def weekday_matches(self, day: date) -> bool:
        return any(self.one_weekday(element, day) for element in self.weekday.split(","))

    @staticmethod
    def one_weekday(element: str, day: date) -> bool:
        today = day.isoweekday() % 7
        if element == "?":
            return True
        if element[-1] in "lL" and element[0] != "*":
            return today == number(element[:-1], WEEKDAYS) % 7 and (day + timedelta(7)).month != day.month
        if "#" in element:
            name, _, nth = element.partition("#")
            return today == number(name, WEEKDAYS) % 7 and (day.day - 1) // 7 + 1 == int(nth)
        high = 6 if element.startswith(("*", "0-7")) else 7  # a whole week has seven days
        element = element.replace("0-7", "0-6") if element.startswith("0-7") else element
        return today in {value % 7 for value in plain(element, 0, high, WEEKDAYS)}


def nearest(day: date, target: int, last: int) -> int:
    """The Monday to Friday nearest to a day of that month, within the month."""
    choices = [d for d in range(1, last + 1) if date(day.year, day.month, d).isoweekday() <= 5]
    return min(choices, key=lambda d: (abs(d - target), d))


@dataclass
class Window:
    """Every minute of a stretch of UTC with what the wall clock shows; built once, asked by many expressions."""

    zone: str
    begin: int  # UTC seconds, whole minutes
    end: int
    passes: dict[datetime, list[int]] = field(default_factory=dict)  # wall minute -> UTC seconds at which it is shown
    gaps: list[tuple[list[datetime], int]] = field(
        default_factory=list
    )  # wall minutes never shown, the UTC second after

    def __post_init__(self) -> None:
        place = zone(self.zone)
        minute = timedelta(minutes=1)
        before: datetime | None = None
        for second in range(self.begin, self.end, 60):
            wall = datetime.fromtimestamp(second, UTC).astimezone(place).replace(tzinfo=None)
            if before is not None and wall > before + minute:
                missing = [before + minute * k for k in range(1, (wall - before) // minute)]
                self.gaps.append((missing, second))
            self.passes.setdefault(wall, []).append(second)
            before = wall
        self.gaps = [([w for w in missing if w not in self.passes], after) for missing, after in self.gaps]
        self.dates = sorted(
            {wall.date() for wall in self.passes} | {w.date() for missing, _ in self.gaps for w in missing}
        )

    def fires(self, expression: Expression, gap: str = "", fold: str = "") -> list[int]:
        """UTC ms of every fire in [begin, end), in order."""
        gap = gap or ("skip" if expression.elapsed else "shift")
        fold = fold or ("both" if expression.elapsed else "first")
        dates = {day for day in self.dates if expression.date_matches(day)}

        def matches(wall: datetime) -> bool:
            return wall.date() in dates and wall.hour in expression.hours and wall.minute in expression.minutes

        found: set[int] = set()
        for wall, seconds in self.passes.items():
            if matches(wall):
                chosen = {"first": seconds[:1], "second": seconds[-1:], "both": seconds}[fold]
                found |= {at + s for at in chosen for s in expression.seconds}
        if gap == "shift":
            found |= {after for missing, after in self.gaps if len(missing) < 180 and any(map(matches, missing))}
        return [at * 1000 for at in sorted(found)]


@cache
def window(name: str, begin: int, end: int) -> Window:
    return Window(name, begin, end)


def offset_changes(name: str, first_year: int, last_year: int) -> list[int]:
    """The UTC seconds at which the zone's offset changes, found by looking at every noon and bisecting."""
    place = zone(name)

    def offset(second: int) -> timedelta:
        return datetime.fromtimestamp(second, UTC).astimezone(place).utcoffset() or timedelta(0)

    changes = []
    step = 6 * 3600
    begin = int(datetime(first_year, 1, 1, tzinfo=UTC).timestamp())
    end = int(datetime(last_year + 1, 1, 1, tzinfo=UTC).timestamp())
    for at in range(begin, end, step):
        if offset(at) != offset(at + step):
            low, high = at, at + step
            while high - low > 1:
                middle = (low + high) // 2
                if offset(middle) == offset(low):
                    low = middle
                else:
                    high = middle
            changes.append(high)
    return changes
