"""Execution ids as text: `<job>@20260329T010000.000Z`, by hand, retry and backfill with `~<12 hex>`."""

from __future__ import annotations

import re
from calendar import timegm
from datetime import UTC, datetime
from functools import lru_cache

from dts.errors import InvalidArgument
from dts.model import Instant, Key

_FORM = re.compile(
    r"([A-Za-z0-9._-]{1,64})@(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.(\d{3})Z(?:~([0-9a-f]{12}))?", re.ASCII
)
FORM = "<job>@20260329T010000.000Z, of a run by hand or a retry with ~<12 hex digits> after it"


def parse_execution_id(text: str, field: str = "id") -> Key:
    """The key. Raises InvalidArgument, which says the form, when the text is no execution's id."""
    match = _FORM.fullmatch(text)
    if match is not None and match[1] not in (".", ".."):
        at = _instant(*(int(part) for part in match.groups()[1:8]))
        if at is not None:
            return Key(match[1], at, match[9] or "")
    shown = text if len(text) <= 120 else text[:117] + "..."
    raise InvalidArgument(field, f"{shown!r} is no execution id; its form is {FORM}")


_BACKFILL = re.compile(r"([A-Za-z0-9._-]{1,64})~([0-9a-f]{12})", re.ASCII)


def parse_backfill_id(text: str, field: str = "id") -> tuple[str, str]:
    """The job and the nonce of the executions. Raises InvalidArgument, which says the form, for what is no backfill's id."""
    match = _BACKFILL.fullmatch(text)
    if match is None or match[1] in (".", ".."):
        shown = text if len(text) <= 120 else text[:117] + "..."
        raise InvalidArgument(field, f"{shown!r} is no backfill's id; its form is <job>~<12 hex digits>")
    return match[1], match[2]


@lru_cache(maxsize=1_000)
def _instant(year: int, month: int, day: int, hour: int, minute: int, second: int, ms: int) -> Instant | None:
    """UTC ms, or None for a date or time that does not exist."""
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return timegm(moment.timetuple()) * 1000 + ms if year >= 1970 else None
