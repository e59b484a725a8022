"""Durations: Go's (`1h30m`, `1.5s`, `250ms`) and ISO 8601's (`PT15M`, `P1DT12H`), in milliseconds.

`d` and `w` are accepted beside Go's units: 24 hours and 7 days of elapsed time. Years and months of ISO 8601 are refused: they have no
fixed length.
"""

from __future__ import annotations

import re
from fractions import Fraction

from dts.errors import InvalidSchedule

_UNITS = {
    "ns": Fraction(1, 1_000_000),
    "us": Fraction(1, 1_000),
    "µs": Fraction(1, 1_000),  # U+00B5
    "μs": Fraction(1, 1_000),  # U+03BC: Go accepts both micro signs
    "ms": Fraction(1),
    "s": Fraction(1_000),
    "m": Fraction(60_000),
    "h": Fraction(3_600_000),
    "d": Fraction(86_400_000),
    "w": Fraction(604_800_000),
}
_GO_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h|d|w)")
_ISO = re.compile(r"P(?:(\d{1,9}(?:[.,]\d{1,9})?)W)?(?:(\d{1,9}(?:[.,]\d{1,9})?)D)?(T.*)?", re.ASCII)
_ISO_TIME = re.compile(
    r"T(?:(\d{1,12}(?:[.,]\d{1,9})?)H)?(?:(\d{1,12}(?:[.,]\d{1,9})?)M)?(?:(\d{1,12}(?:[.,]\d{1,9})?)S)?", re.ASCII
)
MAX_TEXT = 100  # characters
MAX_DURATION_MS = 100 * 366 * 86_400_000  # a century: what is longer is a mistake
_EXPECTED = "a duration such as 90s, 1h30m, 250ms, PT15M or P1D"


def parse_duration(text: str) -> int:
    """Milliseconds of a Go or ISO 8601 duration; zero is a duration, a negative one is not.

    Raises InvalidSchedule when the text is neither, is negative, is not a whole number of milliseconds, or is longer than a century.
    """
    stripped = text.strip()
    if len(stripped) > MAX_TEXT:
        raise _refused(text, f"it is longer than {MAX_TEXT} characters")
    if stripped.startswith("-"):
        raise _refused(text, "a duration cannot be negative")
    upper = stripped.upper()
    total = _iso(upper, text) if upper.startswith("P") else _go(stripped, text)
    if total.denominator != 1:
        raise _refused(text, "a duration must be a whole number of milliseconds")
    if total > MAX_DURATION_MS:
        raise _refused(text, "a duration must not be longer than a century")
    return int(total)


def format_duration(ms: int) -> str:
    """A duration in Go's form, largest units first: 5400000 -> '1h30m', 0 -> '0s'. Days are written as hours, as Go does."""
    if ms < 0:
        raise ValueError("a duration cannot be negative")
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        number, ms = divmod(ms, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def _go(stripped: str, text: str) -> Fraction:
    body = stripped.removeprefix("+")
    if body == "0":
        return Fraction(0)
    total, at = Fraction(0), 0
    while at < len(body):
        part = _GO_PART.match(body, at)
        if part is None:
            break
        total += Fraction(part[1]) * _UNITS[part[2]]
        at = part.end()
    if not body or at < len(body):
        raise _refused(text, "this is no duration")
    return total


def _iso(upper: str, text: str) -> Fraction:
    if "Y" in upper or "M" in upper.partition("T")[0]:
        raise _refused(text, "years and months have no fixed length")
    date = _ISO.fullmatch(upper)
    time = _ISO_TIME.fullmatch(date[3]) if date and date[3] else None
    if date is None or (date[3] and time is None) or upper in ("P", "PT") or upper.endswith("T"):
        raise _refused(text, "this is no ISO 8601 duration")
    values = [date[1], date[2], *(time.groups() if time else ())]
    sizes = ("w", "d", "h", "m", "s")
    return sum(
        (Fraction(v.replace(",", ".")) * _UNITS[u] for v, u in zip(values, sizes, strict=False) if v), Fraction(0)
    )


def _refused(text: str, why: str) -> InvalidSchedule:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return InvalidSchedule(
        f"duration {shown!r}: {why}; write {_EXPECTED}", field="duration", read=shown, expected=_EXPECTED
    )
