"""The engine beside cronsim and croniter, over the dialects they share.

Where they differ for good (docs/reference/schedules.md, "Where others differ") the pair is left out here, by the rule that explains it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from croniter import CroniterBadDateError, croniter
from cronsim import CronSim, CronSimError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dts.errors import InvalidSchedule
from dts.model import ScheduleSpec
from dts.schedule import compile  # noqa: A004
from tests.unit.schedule.oracle import MONTHS, WEEKDAYS, offset_changes, plain, zone
from tests.unit.schedule.strategies import ZONES, expressions
from tests.unit.schedule.test_oracle import FEW, SLOW, USUAL, changes

HOUR = 3600
FIFTY_YEARS = 50 * 365 * 86_400  # both give up after that long without a match
SAME_RANGE = re.compile(r"\b(\w+)-\1\b", re.IGNORECASE)


def ours(spec: ScheduleSpec, after: int, until: int, limit: int) -> list[int] | None:
    try:
        schedule = compile(spec)
    except InvalidSchedule:
        return None
    return [at // 1000 for at in schedule.between(after * 1000, until * 1000, limit)]


def drain(source: Iterator[Any], until: int, limit: int) -> list[int]:
    found: list[int] = []
    while len(found) < limit:
        try:
            second = int(next(source).timestamp())
        except (StopIteration, CroniterBadDateError):
            break
        if second > until:
            break
        found.append(second)
    return found


def cronsim(text: str, name: str, after: int, until: int, limit: int) -> list[int] | None:
    try:
        return drain(CronSim(text, datetime.fromtimestamp(after, UTC).astimezone(zone(name))), until, limit)
    except CronSimError:
        return None


def by_croniter(text: str, name: str, after: int, until: int, limit: int) -> list[int] | None:
    start = datetime.fromtimestamp(after, UTC).astimezone(zone(name))
    source = croniter(text, start, ret_type=datetime, second_at_beginning=True, max_years_between_matches=60)
    return drain(source, until, limit)


def values(element: str) -> tuple[str, str]:
    """Both ends of a range, names as numbers."""
    first, _, last = element.partition("/")[0].partition("-")
    return tuple(str(WEEKDAYS.get(part.lower(), part)) for part in (first, last))  # type: ignore[return-value]


def same_ends(text: str) -> bool:
    """Has a range such as 7-7, sun-0 or apr-4: cronsim reads 3-3/3 as 3/3, croniter reads 7-7 as all."""
    months = {name: str(number) for name, number in MONTHS.items()}
    for element in re.split(r"[ ,]", text):
        first, last = (months.get(part.lower(), part) for part in values(element))
        if first == last or {first, last} == {"0", "7"}:
            return True
    return False


def check_cronsim(text: str, after: int) -> None:
    assume(not re.search(r"\?|W|L-", text.upper().replace("WED", "")))  # not in its dialect
    assume(not same_ends(text))
    assume(not re.search(r"-(0|sun)\b", text.rsplit(maxsplit=1)[-1], re.IGNORECASE))  # it refuses fri-sun
    assume(not re.search(r"(^|,)\w+/", text.rsplit(maxsplit=1)[-1]))  # its week ends on Sunday: 1/2 has a Sunday
    until = after + FIFTY_YEARS
    wanted = cronsim(text, "UTC", after, until, 8)
    found = ours(ScheduleSpec(text), after, until, 8)
    if wanted is None or found is None:
        assert not wanted, text  # what it refuses, or we do, never fires
        assert not found, text
    else:
        assert found[: len(wanted)] == wanted, text


def check_croniter(text: str, after: int) -> None:
    words = text.split()[-5:]
    assume(
        not re.search(r"[?WL#]", text.upper().replace("WED", "").replace("JUL", ""))
    )  # other words for the same, or none
    assume(not same_ends(text))
    assume(not any(words[k][0] == "*" and words[k] != "*" for k in (2, 4)))  # it takes */2 for a restricted day
    assume(words[2] == "*" or len(plain(words[2], 1, 31, {})) < 31)  # and 1-31 or 0-6 for none
    assume(words[4] == "*" or len({value % 7 for value in plain(words[4], 0, 7, WEEKDAYS)}) < 7)
    assume(not re.search(r"\b(7|sun)/", words[4].lower()))  # it takes 7/2 for 0/2
    until = after + FIFTY_YEARS
    found = ours(ScheduleSpec(text), after, until, 8)
    wanted = by_croniter(text, "UTC", after, until, 8)
    assert (found or [])[: len(wanted or [])] == wanted, text


SHARED = st.one_of(expressions(specials=False), expressions(), expressions(seconds=True))
INSTANTS = st.integers(0, 60 * 365 * 86_400)


@settings(max_examples=150, **SLOW)
@given(text=SHARED, after=INSTANTS)
def test_cronsim_agrees(text: str, after: int) -> None:
    check_cronsim(text, after)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=15_000, **SLOW)
@given(text=SHARED, after=INSTANTS)
def test_cronsim_agrees_long(text: str, after: int) -> None:
    check_cronsim(text, after)


@settings(max_examples=100, **SLOW)
@given(text=st.one_of(expressions(specials=False), expressions(seconds=True, specials=False)), after=INSTANTS)
def test_croniter_agrees(text: str, after: int) -> None:
    check_croniter(text, after)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=10_000, **SLOW)
@given(text=st.one_of(expressions(specials=False), expressions(seconds=True, specials=False)), after=INSTANTS)
def test_croniter_agrees_long(text: str, after: int) -> None:
    check_croniter(text, after)


def shift_of(name: str, change: int) -> int:
    """By how many seconds the clock goes forward at a change."""
    place = zone(name)
    before, after = (datetime.fromtimestamp(at, UTC).astimezone(place).utcoffset() for at in (change - 1, change))
    assert before is not None
    assert after is not None
    return round((after - before).total_seconds())


def at_changes(name: str, found: list[int], step: int = 1) -> int:
    """Both peers around changes of the clock, each under the policy that it has built in. Returns how many pairs were compared."""
    compared = 0
    for change in found[::step]:
        moved = shift_of(name, change)
        begin = (change - 30 * HOUR) // 60 * 60
        until = begin + 60 * HOUR
        if any(abs(other - change) < 40 * HOUR and other != change for other in found) or moved >= 3 * HOUR:
            continue  # a gap of 3 h or more: a date or part of it that we do not run, and both of them do
        whole = moved % HOUR == 0 and on_the_hour(name, change)
        for text in USUAL:
            if "?" in text:
                continue
            words = text.split()
            wild = words[0][0] == "*" or words[1][0] == "*" or len(words) > 5
            if whole or not wild:  # where a change is not on the hour cronsim loses fires of wildcard schedules
                policy = {"gap": "skip", "fold": "both"} if wild else {"gap": "shift", "fold": "first"}
                found_here = ours(ScheduleSpec(text, name, **policy), begin, until, 10**6)
                assert found_here == cronsim(text, name, begin, until, 10**6), (text, name, change)
                compared += 1
            if whole and abs(moved) == HOUR and words[2] == "*" and len(words) == 5:  # it fires in both passes
                found_here = ours(ScheduleSpec(text, name, fold="both"), begin, until, 10**6)
                assert found_here == by_croniter(text, name, begin, until, 10**6), (text, name, change)
                compared += 1
    return compared


def on_the_hour(name: str, change: int) -> bool:
    wall = datetime.fromtimestamp(change, UTC).astimezone(zone(name))
    return wall.minute == 0 and wall.second == 0


@pytest.mark.parametrize("name", FEW)
def test_peers_agree_at_a_few_changes(name: str) -> None:
    found = changes(name, 1990, 2037)
    at_changes(name, found, max(1, len(found) // 2))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ZONES)
def test_peers_agree_at_every_change_from_1990_to_2037(name: str) -> None:
    found = offset_changes(name, 1990, 2037)
    compared = at_changes(name, found)
    print(f"{name}: {len(found)} changes, {compared} comparisons")
