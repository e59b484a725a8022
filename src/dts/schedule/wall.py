"""A wall time in a zone: at which instants the clock shows it, if it does."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dts.schedule.instants import format_minute, format_offset, parse_instant
from dts.schedule.zones import load_zone

_WALL = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class WallTime:
    """`instants` (UTC ms): none in a gap, two in a fold. `note`: what the clock did there, '' for nothing. `after`: the gap's end."""

    text: str
    zone: str
    instants: tuple[int, ...]
    note: str = ""
    after: int = 0


def is_wall_time(text: str) -> bool:
    """Whether a text is a date and a time without an offset or a zone."""
    return _WALL.fullmatch(text.strip()) is not None


def wall_time(text: str, name: str) -> WallTime:
    """Looks a wall time up in the zone of this name. Raises InvalidSchedule for what is no date and time, or no zone."""
    wall = parse_instant(f"{text.strip()}Z") // 1000
    zone = load_zone(name)
    found = zone.instants_of(wall)
    shown = format_minute(wall)
    if not found:
        after = zone.after_gap(wall)
        before, then = zone.offset_at(after * 1000 - 1000), zone.offset_at(after * 1000)
        note = (
            f"{shown} did not exist in {name}: the clock went from {format_minute(after + before)[11:]} "
            f"to {format_minute(after + then)[11:]}"
        )
        return WallTime(shown, name, (), note, after * 1000)
    note = ""
    if len(found) > 1:
        offsets = [format_offset(wall - second) for second in found]
        note = f"{shown} occurred twice in {name}: at {offsets[0]} and again at {offsets[1]}"
    return WallTime(shown, name, tuple(second * 1000 for second in found), note)
