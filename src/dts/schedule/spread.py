"""Spreading load by job id: `H` in cron fields, and a delay after the nominal instant. The same on every instance, for ever."""

from __future__ import annotations

import re
from hashlib import blake2b

from dts.schedule.crontext import KINDS_BY_COUNT, split
from dts.schedule.fields import DAY, WEEKDAY, YEAR, Kind, refused

_H = re.compile(r"[hH](?:\(([0-9]{1,4})-([0-9]{1,4})\))?(?:/([0-9]{1,4}))?")
_TOP = {DAY.name: 28, WEEKDAY.name: 6}  # H must fall into every month, and Sunday counts once


def stable_hash(*parts: str) -> int:
    """A 64-bit number that depends on the parts alone."""
    return int.from_bytes(blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def resolve(text: str, job_id: str) -> str:
    """The text with every `H`, `H(0-29)` and `H/15` replaced by the job's own numbers; any other text comes back as it is.

    Call it once, when the job is created: the numbers then are part of its schedule. In the day of month H is from 1 to 28. The same
    field of the same job always gets the same number. Raises InvalidSchedule for a malformed H; other mistakes are left to compile.
    """
    if "h" not in text.lower() or "@" in text:
        return text
    words = split(text).words
    kinds = KINDS_BY_COUNT.get(len(words))
    if kinds is None:
        return text
    pieces, done = [], 0
    for kind, (word, column) in zip(kinds, words, strict=True):
        pieces += [text[done : column - 1], _resolve_field(kind, word, column, job_id)]
        done = column - 1 + len(word)
    return "".join(pieces) + text[done:]


def _resolve_field(kind: Kind, word: str, column: int, job_id: str) -> str:
    elements = []
    for element in word.split(","):
        is_h = element[:1] in ("h", "H") and (len(element) == 1 or element[1] in "(/")
        elements.append(_resolve_h(kind, element, column, job_id) if is_h else element)
        column += len(element) + 1
    return ",".join(elements)


def _resolve_h(kind: Kind, element: str, column: int, job_id: str) -> str:
    match = _H.fullmatch(element)
    if match is None or kind is YEAR:
        raise refused(
            kind, column, element, f"{element[:40]!r} is no spread", "H, H(0-29), H/15 or H(0-29)/10 (not for years)"
        )
    low, high = kind.low, _TOP.get(kind.name, kind.high)
    if match[1]:
        low, high = int(match[1]), int(match[2])
        if not kind.low <= low <= high <= kind.high:
            raise refused(kind, column, element, f"{low}-{high} is no range from {kind.low} to {kind.high}")
    number = stable_hash("H", kind.name, job_id)
    if not match[3]:
        return str(low + number % (high - low + 1))
    step = int(match[3])
    if step == 0:
        raise refused(kind, column, element, "a step of 0 would never move on", "a step from 1 on")
    first = low + number % min(step, high - low + 1)
    return f"{first}-{high}/{step}" if first + step <= high else str(first)


def jitter(job_id: str, instant: int, window_ms: int, next_instant: int | None) -> int:
    """How many ms after `instant` the job may be placed: from 0 to `window_ms`, and always before `next_instant`.

    The share of the window depends on the job id alone, so a job's runs keep their distance. A window wider than the way to the next
    instant is narrowed to it; 0 for a window that is not positive.
    """
    room = window_ms if next_instant is None else min(window_ms, next_instant - instant - 1)
    if room <= 0:
        return 0
    return stable_hash("jitter", job_id) * (room + 1) >> 64
