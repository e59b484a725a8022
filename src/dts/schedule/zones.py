"""Time zones from the `tzdata` package: offsets as tables in UTC seconds, and the wall clock as one line with gaps and folds.

The system's own zone files are not used: every process of one release computes the same instants.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache, lru_cache
from importlib import import_module, resources

from dts.errors import InvalidSchedule
from dts.schedule import civil
from dts.schedule.tzif import footer_changes, parse_tzif

BEGINNING = -(1 << 60)  # seconds: before every instant
FOREVER = 1 << 60  # seconds: after every instant

# What people write although it names no place: no likeness of letters would find these.
_ABBREVIATIONS = {
    "pst": "America/Los_Angeles",
    "pdt": "America/Los_Angeles",
    "mdt": "America/Denver",
    "cst": "America/Chicago",
    "cdt": "America/Chicago",
    "edt": "America/New_York",
    "bst": "Europe/London",
    "cest": "Europe/Berlin",
    "eest": "Europe/Helsinki",
    "ist": "Asia/Kolkata",
    "jst": "Asia/Tokyo",
    "kst": "Asia/Seoul",
    "aest": "Australia/Sydney",
    "aedt": "Australia/Sydney",
    "z": "UTC",
    "local": "UTC",
}


class Timeline:
    """How wall time runs in one zone under one fold policy. Span i begins at UTC second `starts[i]` with `offsets[i]`.

    Its wall seconds [first[i], end[i]) are those that count. Where a wall time occurs twice, `first` cuts the later span, `second` the
    earlier one and `both` none; so both lists grow, a wall time below `first[i]` and not below `end[i - 1]` does not exist, and a search
    never has to try one.
    """

    __slots__ = ("end", "first", "fixed", "offsets", "starts")

    def __init__(self, changes: list[tuple[int, int]], fold: str) -> None:
        self.starts = [start for start, _ in changes]
        self.offsets = [offset for _, offset in changes]
        self.first = [BEGINNING]
        self.end = []
        for i in range(1, len(changes)):
            start = self.starts[i]
            before, after = start + self.offsets[i - 1], start + self.offsets[i]
            self.end.append(min(before, after) if fold == "second" else before)
            self.first.append(max(before, after) if fold == "first" else after)
        self.end.append(FOREVER)
        self.fixed = len(changes) == 1

    def span(self, second: int) -> int:
        """The number of the span that contains a UTC second."""
        return bisect_right(self.starts, second) - 1


class Zone:
    """One IANA zone: `changes` is a list of (UTC second, offset in seconds east from then on), the first one at BEGINNING."""

    __slots__ = ("_timelines", "changes", "name")

    def __init__(self, name: str, changes: list[tuple[int, int]]) -> None:
        self.name = name
        self.changes = changes
        self._timelines = {fold: Timeline(changes, fold) for fold in ("first", "second", "both")}

    def timeline(self, fold: str) -> Timeline:
        return self._timelines[fold]

    def offset_at(self, instant: int) -> int:
        """Seconds east of UTC at an instant in ms."""
        line = self._timelines["both"]
        return line.offsets[line.span(instant // 1000)]

    def changes_after(self, instant: int, n: int) -> list[tuple[int, int, int]]:
        """The next n changes of the offset strictly after an instant in ms: (instant in ms, offset before, offset after)."""
        i = self._timelines["both"].span(instant // 1000) + 1
        found = range(i, min(i + n, len(self.changes)))
        return [(self.changes[k][0] * 1000, self.changes[k - 1][1], self.changes[k][1]) for k in found]

    def instants_of(self, wall: int) -> list[int]:
        """The UTC seconds at which the wall clock shows a wall second: none in a gap, two in a fold."""
        line = self._timelines["both"]
        i = bisect_right(line.end, wall)
        found = []
        while i < len(line.starts) and line.first[i] <= wall:
            if wall < line.end[i]:
                found.append(wall - line.offsets[i])
            i += 1
        return found

    def after_gap(self, wall: int) -> int:
        """The UTC second at which the gap that swallowed a wall second ends."""
        return self._timelines["both"].starts[bisect_right(self._timelines["both"].end, wall)]


@cache
def zone_names() -> frozenset[str]:
    """Every IANA name, links included, that the package in use knows."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="ascii").split())


@lru_cache(maxsize=1024)
def load_zone(name: str) -> Zone:
    """The zone of an IANA name, exactly as IANA spells it. Raises InvalidSchedule that names the nearest ones."""
    if name not in zone_names():
        near = nearest_names(name)
        shown = name if len(name) <= 60 else name[:57] + "..."
        hint = f"; did you mean {' or '.join(near)}?" if near else "; IANA names look like Europe/Paris"
        expected = " or ".join(near) or "an IANA name such as Europe/Paris"
        raise InvalidSchedule(f"unknown time zone {shown!r}{hint}", field="zone", read=shown, expected=expected)
    path = resources.files("tzdata").joinpath("zoneinfo")
    for part in name.split("/"):
        path = path.joinpath(part)
    parsed = parse_tzif(path.read_bytes())
    changes = [(BEGINNING, parsed.initial), *parsed.changes]
    if parsed.footer:
        last = changes[-1][0]
        first_year = civil.TABLE_FIRST_YEAR if last == BEGINNING else civil.civil_date(last // 86_400).year
        changes += [c for c in footer_changes(parsed.footer, first_year, civil.TABLE_LAST_YEAR) if c[0] > last]
    return Zone(name, _since_1970(changes))


def _since_1970(changes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Drop what was over two days before time begins, and changes that do not change the offset."""
    kept = [changes[0]]
    for start, offset in changes[1:]:
        if start < -2 * 86_400:
            kept = [(BEGINNING, offset)]
        elif offset != kept[-1][1]:
            kept.append((start, offset))
    return kept


@cache
def _spellings() -> tuple[dict[str, str], list[tuple[frozenset[str], str]]]:
    """Lower-case spellings of all zones, with and without the region, and the letter pairs of each."""
    by_key: dict[str, str] = {}
    for zone in sorted(zone_names(), key=lambda z: (z.count("/") == 0, z)):
        by_key[zone.lower()] = zone
        by_key.setdefault(zone.lower().rpartition("/")[2], zone)
    return by_key, [(_pairs(key), zone) for key, zone in by_key.items()]


def _pairs(text: str) -> frozenset[str]:
    padded = f" {text} "
    return frozenset(padded[k : k + 2] for k in range(len(padded) - 1))


def nearest_names(name: str, n: int = 3) -> list[str]:
    """Up to n zone names that somebody who wrote `name` may have meant, the likeliest first: by the letter pairs they share."""
    wanted = name.strip().replace(" ", "_").lower()[:60]
    if wanted in _ABBREVIATIONS:
        return [_ABBREVIATIONS[wanted]]
    by_key, spelled = _spellings()
    if wanted in by_key:
        return [by_key[wanted]]
    pairs = _pairs(wanted)
    scored = ((2 * len(pairs & theirs) / (len(pairs) + len(theirs)), zone) for theirs, zone in spelled)
    close = sorted(((-score, zone) for score, zone in scored if score > 0.55))
    return list(dict.fromkeys(zone for _, zone in close))[:n]


def rules_version() -> str:
    """The IANA release of the zone rules in use, such as '2026a'."""
    return str(import_module("tzdata").IANA_VERSION)
