"""Instants as text: RFC 3339, and ISO 8601 with a zone in brackets (RFC 9557). An instant is an int: UTC milliseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from dts.errors import InvalidSchedule
from dts.schedule import civil
from dts.schedule.zones import Zone, load_zone

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?\s?([Zz]|[+-]\d\d:?\d\d)?(?:\[([^\]\s]+)\])?",
    re.ASCII,
)
_EXPECTED = "an instant such as 2027-01-01T09:00:00Z, 2027-01-01T09:00+01:00 or 2027-01-01T09:00[Europe/Paris]"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_instant(text: str, zone: str = "UTC", *, fold: str = "first", gap: str = "shift") -> int:
    """UTC milliseconds of a date and time. Without an offset it is wall time in the zone in brackets, or else in `zone`.

    A wall time that does not exist becomes the first instant after the gap (`gap='skip'`: refused); one that occurs twice is the first
    of the two (`fold='second'`: the second). Without a time it is midnight. Digits beyond milliseconds are cut.
    Raises InvalidSchedule for anything else, for an offset that the named zone does not have then, and outside of 1970 to 2199.
    """
    stripped = text.strip()
    match = _INSTANT.fullmatch(stripped)
    if match is None:
        raise _refused(text, "this is no instant")
    year, month, day, hour, minute, second, fraction, offset, named = match.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError as error:
        raise _refused(text, str(error)) from None
    wall = round((moment - _EPOCH).total_seconds())
    seconds = _resolve(wall, offset, named, zone, text, fold, gap)
    instant = seconds * 1000 + int((fraction or "0").ljust(3, "0")[:3])
    if not civil.FIRST_INSTANT <= instant <= civil.LAST_INSTANT:
        raise _refused(text, f"time runs from {civil.FIRST_YEAR} to {civil.LAST_YEAR}")
    return instant


def _resolve(wall: int, offset: str | None, named: str | None, zone: str, text: str, fold: str, gap: str) -> int:
    """The UTC second of a wall second, given what the text says of its offset and zone."""
    place: Zone | None = load_zone(named) if named else None
    if offset is not None:
        east = 0
        if offset not in "Zz":
            hours, minutes = int(offset[1:3]), int(offset[-2:])
            if hours > 23 or minutes > 59:
                raise _refused(text, f"there is no offset {offset}")
            east = (hours * 3600 + minutes * 60) * (-1 if offset[0] == "-" else 1)
        if place is not None and offset not in "Zz" and place.offset_at((wall - east) * 1000) != east:
            raise _refused(text, f"{named} is not at {offset} then")
        return wall - east
    place = place or load_zone(zone)
    found = place.instants_of(wall)
    if found:
        return found[-1] if fold == "second" else found[0]
    if gap == "skip":
        raise _refused(text, f"in {place.name} the clock skips this time")
    return place.after_gap(wall)


def format_instant(instant: int) -> str:
    """RFC 3339 in UTC, '2026-03-29T01:00:00Z', with milliseconds only if there are any."""
    seconds, ms = divmod(instant, 1000)
    return f"{format_wall(seconds)}{f'.{ms:03d}' if ms else ''}Z"


def format_local(instant: int, zone: Zone) -> str:
    """RFC 3339 with the zone's offset at that instant: '2026-03-29T03:00:00+02:00'."""
    seconds, ms = divmod(instant, 1000)
    offset = zone.offset_at(instant)
    return f"{format_wall(seconds + offset)}{f'.{ms:03d}' if ms else ''}{format_offset(offset)}"


def format_offset(offset: int) -> str:
    """'+02:00'; seconds are shown only where a zone has them ('-00:44:30')."""
    sign = "-" if offset < 0 else "+"
    minutes, seconds = divmod(abs(offset), 60)
    text = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    return f"{text}:{seconds:02d}" if seconds else text


def format_wall(wall: int) -> str:
    """A wall second (seconds since 1970 on some clock) as '2026-03-29T02:30:00'."""
    day, second = divmod(wall, 86_400)
    minute, second = divmod(second, 60)
    return f"{civil.civil_date(day).isoformat()}T{minute // 60:02d}:{minute % 60:02d}:{second:02d}"


def format_minute(wall: int) -> str:
    """A wall second without needless seconds: '2026-03-29 02:30'."""
    return f"{format_wall(wall)[:10]} {format_time(wall)}"


def format_time(wall: int) -> str:
    """The time of day of a wall second: '02:30', or '02:30:15'."""
    return format_wall(wall)[11:].removesuffix(":00") or "00:00"


def _refused(text: str, why: str) -> InvalidSchedule:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return InvalidSchedule(
        f"instant {shown!r}: {why}; write {_EXPECTED}", field="instant", read=shown, expected=_EXPECTED
    )
