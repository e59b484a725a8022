"""The engine against the brute-force oracle: around every change of the clock, and over whole decades of dates."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dts.errors import InvalidSchedule
from dts.model import ScheduleSpec
from dts.schedule import compile  # noqa: A004
from tests.unit.schedule.oracle import Expression, Window, offset_changes
from tests.unit.schedule.strategies import ZONES, any_expression, expressions, policies

HOUR = 3600
SLOW = {"suppress_health_check": list(HealthCheck)}

# What people write, plus one of each kind of trouble: every time of day that a change of the clock can touch.
_USUAL = """
30 2 * * * | 0 2 * * * | 0 3 * * * | 30 1 * * * | 15 0 * * * | 0 0 * * * | 59 23 * * * | * * * * * |
*/5 * * * * | 0 * * * * | 30 * * * * | 0 */2 * * * | 0 */6 * * * | 45 0-23 * * * | * 2 * * * |
*/15 1-3 * * * | */20 0,1,23 * * * | 0 0,1,2,3 * * 0 | 15 2 * * sun | 30 1,2 L * * | 0 1 8-14 3 * |
30 2 1-7 * 0 | 10 0 * 10,11,3,4 6,7 | 0 30 2 * * * | */30 59 1,2 * * ? | 15,45 */10 2 * * *
"""
USUAL = [text.strip() for text in _USUAL.replace("\n", " ").split("|")]
FEW = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "America/Havana",
]
FEW += [
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Antarctica/Troll",
    "Antarctica/Casey",
    "Europe/Dublin",
    "Asia/Gaza",
    "America/St_Johns",
]


@cache
def changes(zone: str, first: int, last: int) -> list[int]:
    return offset_changes(zone, first, last)


def check(text: str, window: Window, gap: str = "", fold: str = "") -> None:
    """All questions a schedule answers, over one window."""
    margin = 2 * HOUR  # at its edges a window cannot tell whether a wall time has another pass outside
    after, until = (window.begin + margin) * 1000 - 1, (window.end - margin) * 1000
    wanted = [at for at in window.fires(Expression(text), gap, fold) if after < at <= until]
    try:
        schedule = compile(ScheduleSpec(text, window.zone, gap=gap, fold=fold))
    except InvalidSchedule:
        assert not wanted
        return
    said = (text, window.zone, gap, fold)
    assert schedule.between(after, until, 10**9) == wanted, said
    assert schedule.count(after, until) == len(wanted), said
    instant, found = after, []
    while (following := schedule.next_after(instant)) is not None and following <= until:
        found.append(following)
        instant = following
        if len(found) > 3000:
            break
    assert found == wanted[: len(found)], said
    instant, found = until + 1, []
    while (previous := schedule.previous_before(instant)) is not None and previous > after:
        found.append(previous)
        instant = previous
        if len(found) > 3000:
            break
    assert found == wanted[::-1][: len(found)], said


def around(zone: str, change: int) -> Window:
    begin = (change - 30 * HOUR) // 60 * 60
    return Window(zone, begin, begin + 60 * HOUR)


@pytest.mark.parametrize("zone", FEW)
def test_every_usual_expression_at_recent_changes(zone: str) -> None:
    for change in changes(zone, 1990, 2037)[-1:] + changes(zone, 1990, 2037)[-2:-1] + changes(zone, 1990, 2037)[:4]:
        window = around(zone, change)
        for text in USUAL[::2]:
            check(text, window)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("zone", ZONES)
def test_every_usual_expression_at_every_change_from_1990_to_2037(zone: str) -> None:
    for change in changes(zone, 1990, 2037):
        window = around(zone, change)
        for text in USUAL:
            check(text, window)
            if text.count("*") > 1:
                for gap, fold in (("shift", "first"), ("skip", "second"), ("shift", "both"), ("skip", "both")):
                    check(text, window, gap, fold)


@pytest.mark.parametrize("zone", ["Pacific/Apia", "Pacific/Kwajalein", "Pacific/Fakaofo"])
def test_a_skipped_date_does_not_run(zone: str) -> None:
    (skipped,) = (
        at for at in changes(zone, 1990, 2015) if around(zone, at).gaps and len(around(zone, at).gaps[0][0]) == 1440
    )
    window = around(zone, skipped)
    missing = window.gaps[0][0][0].date()
    for text in ["0 12 * * *", f"0 12 {missing.day} {missing.month} *", "30 2 * * *", "0 * * * *"]:
        check(text, window)


@settings(max_examples=60, **SLOW)
@given(text=any_expression(), zone=st.sampled_from(FEW), which=st.integers(0, 200), how=policies())
def test_any_expression_at_any_change(text: str, zone: str, which: int, how: tuple[str, str]) -> None:
    found = changes(zone, 1990, 2037)
    check(text, around(zone, found[which % len(found)]), *how)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=20_000, **SLOW)
@given(text=any_expression(), zone=st.sampled_from(ZONES), which=st.integers(0, 200), how=policies())
def test_any_expression_at_any_change_long(text: str, zone: str, which: int, how: tuple[str, str]) -> None:
    found = changes(zone, 1990, 2037)
    assume(found)
    check(text, around(zone, found[which % len(found)]), *how)


def check_dates(text: str, first: int, years: int) -> None:
    """Every date of some years in UTC, one fire a day."""
    minute_hour, *rest = text.split(" ", 2)
    del minute_hour
    text = f"0 12 {rest[1]}"
    expression = Expression(text)
    begin = date(first, 1, 1)
    span = (date(first + years, 1, 1) - begin).days
    wanted = [day for k in range(span) if expression.date_matches(day := begin + timedelta(k))]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    try:
        schedule = compile(ScheduleSpec(text))
    except InvalidSchedule:
        assert not wanted, text
        return
    after = (datetime(first, 1, 1, tzinfo=UTC) - epoch) // timedelta(milliseconds=1) - 1
    until = after + span * 86_400_000
    found = schedule.between(after, until, 10**9)
    assert [(epoch + timedelta(milliseconds=at)).date() for at in found] == wanted, text
    assert schedule.count(after, until) == len(wanted), text
    assert all(a == schedule.previous_before(b) for a, b in pairwise(found)), text


@settings(max_examples=40, **SLOW)
@given(text=expressions(), first=st.integers(1970, 2190))
def test_any_date_rule_over_nine_years(text: str, first: int) -> None:
    check_dates(text, first, 9)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=3_000, **SLOW)
@given(text=expressions(), first=st.integers(1970, 2170))
def test_any_date_rule_over_thirty_years(text: str, first: int) -> None:
    check_dates(text, first, 30)


@pytest.mark.parametrize(
    "text", ["0 12 29 2 *", "0 12 */29 2 1", "0 12 L 2 *", "0 12 31 * *", "0 12 * 2 1#5", "0 12 15W * *"]
)
def test_rare_dates_over_all_of_time(text: str) -> None:
    check_dates(text, 1970, 230)
