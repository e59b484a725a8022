"""Reading compiled time zones (TZif, RFC 9636) and the POSIX rule in their footer.

Only offsets are kept: (UTC second, offset from then on). Abbreviations and the daylight flag do not matter to a schedule.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from dts.schedule import civil

Changes = list[tuple[int, int]]  # (UTC second of the change, offset east of UTC in seconds from then on)


class ParsedZone(NamedTuple):
    initial: int  # the offset before the first change
    changes: Changes
    footer: str


class _Rule(NamedTuple):
    """One end of daylight time in a POSIX TZ string: a day of the year and seconds since its midnight."""

    form: str  # M, J or N (zero-based)
    numbers: tuple[int, ...]
    seconds: int

    def day(self, year: int) -> int:
        """The day number on which the rule applies in that year."""
        start = civil.day_number(year, 1, 1)
        if self.form == "N":
            return start + self.numbers[0]
        if self.form == "J":  # 1 to 365: 29 February is never counted
            return start + self.numbers[0] - 1 + (civil.is_leap(year) and self.numbers[0] >= 60)
        month, week, wanted = self.numbers
        first = civil.day_number(year, month, 1)
        length = civil.MONTH_LENGTHS[civil.is_leap(year)][month - 1]
        day = (wanted - civil.weekday(first)) % 7 + 7 * (week - 1)
        return first + (day if day < length else day - 7)


_NAME = r"(?:<[A-Za-z0-9+-]+>|[A-Za-z]+)"
_TIME = r"([+-]?\d{1,3}(?::\d{1,2}(?::\d{1,2})?)?)"
_POSIX = re.compile(rf"{_NAME}{_TIME}(?:{_NAME}{_TIME}?,([^,]+),([^,]+))?")
_DATE = re.compile(rf"(?:M(\d+)\.(\d+)\.(\d+)|(J?)(\d+))(?:/{_TIME})?")


def _seconds(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    hours, minutes, seconds = ([int(part) for part in text.lstrip("+-").split(":")] + [0, 0])[:3]
    return sign * (hours * 3600 + minutes * 60 + seconds)


def _rule(text: str) -> _Rule:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(f"bad date {text!r} in a POSIX TZ string")
    seconds = _seconds(match[6]) if match[6] else 7200
    if match[1]:
        return _Rule("M", (int(match[1]), int(match[2]), int(match[3])), seconds)
    return _Rule("J" if match[4] else "N", (int(match[5]),), seconds)


def footer_changes(footer: str, first_year: int, last_year: int) -> Changes:
    """The changes that a POSIX TZ string makes in the given years, in order; none if it has no daylight time."""
    match = _POSIX.fullmatch(footer)
    if match is None:
        raise ValueError(f"bad POSIX TZ string {footer!r}")
    if match[3] is None:
        return []
    standard = -_seconds(match[1])
    daylight = -_seconds(match[2]) if match[2] else standard + 3600
    begin, end = _rule(match[3]), _rule(match[4])
    changes = []
    for year in range(first_year, last_year + 1):
        changes.append((begin.day(year) * 86_400 + begin.seconds - standard, daylight))
        changes.append((end.day(year) * 86_400 + end.seconds - daylight, standard))
    return sorted(changes)


def parse_tzif(data: bytes) -> ParsedZone:
    """The changes and the footer of a TZif file of version 2 or later. Raises ValueError when it is none."""
    if data[:4] != b"TZif" or data[4:5] < b"2":
        raise ValueError("not a TZif file of version 2 or later")
    header = struct.Struct(">4sc15x6l")
    _, _, utc, std, leap, times, types, chars = header.unpack_from(data)
    at = header.size + times * 5 + types * 6 + chars + leap * 8 + std + utc
    _, _, utc, std, leap, times, types, chars = header.unpack_from(data, at)
    at += header.size
    instants = struct.unpack_from(f">{times}q", data, at)
    at += times * 8
    indices = data[at : at + times]
    at += times
    offsets = [struct.unpack_from(">lBB", data, at + 6 * k)[0] for k in range(types)]
    at += types * 6 + chars + leap * 12 + std + utc
    footer = data[at:].strip(b"\n").decode("ascii")
    changes = [(instant, offsets[index]) for instant, index in zip(instants, indices, strict=True)]
    return ParsedZone(offsets[0], changes, footer)
