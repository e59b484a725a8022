"""A job's policies: from the wire's form, checked, to the core's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from dts import bounds
from dts.api import values
from dts.errors import InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.model import CatchUp, Policies

REMEMBERED = 10_000  # distinct ones
FACTOR_MAX = 100.0
EXPONENTIAL, CONSTANT = "exponential", "constant"

_GROUP = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
_CODES = re.compile(r"[0-9]{1,9}(?:-[0-9]{1,9})?")
_KIND = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")
_DEFAULTS = Policies()

C = TypeVar("C", bound=StrEnum)


def group_of(wanted: job.Policies) -> str:
    """The concurrency group. Raises InvalidArgument for what is no name, or for a limit without a group."""
    if not wanted.group:
        if wanted.group_limit:
            raise InvalidArgument("policies.group_limit", "belongs to policies.group, which is empty")
        return ""
    if _GROUP.fullmatch(wanted.group) is None:
        raise InvalidArgument("policies.group", f"{wanted.group[:80]!r} is no name of a group")
    return wanted.group


@lru_cache(maxsize=REMEMBERED)
def policies_of(encoded: bytes, max_retries: int) -> Policies:
    """The core's policies from an encoded job.v1.Policies (empty: none are given). Raises InvalidArgument naming the field."""
    values.within(max_retries, 0, bounds.MAX_RETRIES, "max_retries")
    if not encoded:
        return _DEFAULTS._replace(max_retries=max_retries) if max_retries else _DEFAULTS
    wanted = job.Policies.FromString(encoded)
    initial = _duration(wanted, "retry_initial", _DEFAULTS.retry_initial)
    cap = _duration(wanted, "retry_cap", max(_DEFAULTS.retry_cap, initial))
    if cap < initial:
        raise InvalidArgument("policies.retry_cap", "is below policies.retry_initial")
    group = group_of(wanted)
    return _DEFAULTS._replace(
        misfire=_choice(wanted.misfire, "misfire", _DEFAULTS.misfire),
        misfire_limit=_limit(wanted.misfire_limit, bounds.MISFIRE_RUN_ALL, "misfire_limit", _DEFAULTS.misfire_limit),
        late_window=_duration(wanted, "late_window", _DEFAULTS.late_window, bounds.LATE_WINDOW_MIN_MS),
        grace=_duration(wanted, "grace_period", _DEFAULTS.grace),
        max_retries=max_retries,
        retry_initial=initial,
        retry_cap=cap,
        retry_factor=_factor(wanted),
        retry_jitter=_jitter(wanted),
        delivery=_choice(wanted.delivery, "delivery", _DEFAULTS.delivery),
        overlap=_choice(wanted.overlap, "overlap", _DEFAULTS.overlap),
        overlap_limit=_limit(wanted.overlap_limit, bounds.OVERLAP_WAITING, "overlap_limit", _DEFAULTS.overlap_limit),
        group_limit=_limit(wanted.group_limit, bounds.GROUP_LIMIT, "group_limit", 1) if group else 0,
        jitter=_duration(wanted, "jitter", 0),
        start_within=_duration(wanted, "start_within", 0),
        retry_only=_failures(wanted.retry_only, "retry_only"),
        retry_never=_failures(wanted.retry_never, "retry_never"),
        pause_after=_limit(wanted.pause_after, bounds.PAUSE_AFTER, "pause_after", 0),
    )


def catch_up_of(text: str) -> CatchUp:
    """What becomes of what was missed in a pause; '' is SKIP. Raises InvalidArgument."""
    if text and text not in {str(each) for each in CatchUp}:
        raise InvalidArgument("catch_up", f"{text[:40]!r} is none of {', '.join(CatchUp)}")
    return CatchUp(text or CatchUp.SKIP)


def _duration(wanted: job.Policies, name: str, default: int, least: int = 0) -> int:
    if not wanted.HasField(name):  # type: ignore[arg-type]
        return default
    return values.duration(getattr(wanted, name), f"policies.{name}", least)


def _choice(value: str, name: str, default: C) -> C:
    kind = type(default)
    if value and value not in {str(each) for each in kind}:
        raise InvalidArgument(f"policies.{name}", f"{value[:40]!r} is none of {', '.join(kind)}")
    return kind(value) if value else default


def _limit(value: int, most: int, name: str, default: int) -> int:
    return values.within(value, 0, most, f"policies.{name}") or default


def _factor(wanted: job.Policies) -> float:
    factor = wanted.retry_factor
    if wanted.retry_backoff not in ("", EXPONENTIAL, CONSTANT):
        raise InvalidArgument(
            "policies.retry_backoff", f"{wanted.retry_backoff[:40]!r} is none of {EXPONENTIAL}, {CONSTANT}"
        )
    if wanted.retry_backoff == CONSTANT:
        if factor not in (0, 1):
            raise InvalidArgument("policies.retry_factor", "a constant backoff does not grow: leave it out")
        return 1.0
    if not factor:
        return _DEFAULTS.retry_factor
    if not math.isfinite(factor) or not 1 <= factor <= FACTOR_MAX:
        raise InvalidArgument("policies.retry_factor", f"must be from 1 to {FACTOR_MAX:g}")
    return factor


def _jitter(wanted: job.Policies) -> float:
    if not wanted.HasField("retry_jitter"):
        return _DEFAULTS.retry_jitter
    if not 0 <= wanted.retry_jitter <= 1:
        raise InvalidArgument("policies.retry_jitter", "must be from 0 to 1: the part of a wait that is left to chance")
    return wanted.retry_jitter


def _failures(names: Iterable[str], field: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(names))
    if len(found) > bounds.RETRY_NAMES:
        raise InvalidArgument(f"policies.{field}", f"{len(found)} of them; at most {bounds.RETRY_NAMES}")
    for at, name in enumerate(found):
        if _CODES.fullmatch(name) is None and _KIND.fullmatch(name) is None:
            raise InvalidArgument(
                f"policies.{field}[{at}]", f"{name[:80]!r} is no exit code (75, 64-78) and no kind of error (timeout)"
            )
    return found
