"""What holds for every schedule: strictly after, monotonic, and all questions agree with each other."""

from __future__ import annotations

import gc
import time
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dts.errors import InvalidSchedule
from dts.model import ScheduleSpec
from dts.schedule import Schedule, compile, compile_all, next_after_many, parse_instant  # noqa: A004
from tests.unit.schedule.strategies import ZONES, any_expression, policies
from tests.unit.schedule.test_oracle import SLOW

DAY = 86_400_000
END = 229 * 365 * DAY
EXAMPLES = 120
LONG = 30_000

INSTANTS = st.one_of(st.integers(0, END), st.integers(0, END // 1000).map(lambda second: second * 1000))
EVERY = st.integers(1_000, 400 * DAY).map("@every {}ms".format)
AT = st.integers(0, END // 1000).map(lambda s: f"@at {1970 + s // (366 * 86_400)}-03-29T02:30:{s % 60:02d}")


@st.composite
def specs(draw: st.DrawFn) -> ScheduleSpec:
    """Any schedule at all, with or without bounds."""
    text = draw(st.one_of(any_expression(), any_expression(), any_expression(), EVERY, AT))
    gap, fold = ("", "") if text.startswith("@") else draw(policies())
    start, end = sorted(draw(st.tuples(INSTANTS, INSTANTS)))
    use_start, use_end = draw(st.booleans()), draw(st.booleans())
    zone = draw(st.sampled_from(ZONES))
    return ScheduleSpec(text, zone, start if use_start else None, end if use_end else None, gap, fold)


def compiled(spec: ScheduleSpec) -> Schedule:
    try:
        return compile(spec)
    except InvalidSchedule:
        assume(False)
        raise


def check_laws(spec: ScheduleSpec, instant: int, other: int) -> None:
    schedule = compiled(spec)
    following = schedule.next_after(instant)
    walked = []
    at = instant
    while (later := schedule.next_after(at)) is not None and len(walked) < 25:
        assert later > at, "strictly after"
        assert schedule.low <= later <= schedule.high
        if spec.start is not None:
            assert later >= spec.start
        if spec.end is not None:
            assert later <= spec.end
        assert schedule.next_after(later - 1) == later, "nothing between"
        assert schedule.next_after((at + later) // 2) == later
        walked.append(later)
        at = later
    high = schedule.next_after(max(instant, other))
    low = schedule.next_after(min(instant, other))
    assert high is None or (low is not None and low <= high), "monotonic"
    if walked:
        assert following == walked[0]
        assert schedule.between(instant, at, 10**6) == walked, "between is iterating"
        assert schedule.between(instant, at, len(walked) - 1) == walked[:-1], "the earliest ones"
        assert schedule.count(instant, at) == len(walked)
        assert schedule.count(instant, at - 1) == len(walked) - 1
        back = []
        step: int | None = at + 1
        while len(back) < len(walked) and step is not None and (step := schedule.previous_before(step)) is not None:
            back.append(step)
        assert back == walked[::-1], "previous mirrors next"
        for earlier, later in pairwise(walked):
            assert schedule.previous_before((earlier + later + 1) // 2) == earlier, "from in between, too"
        before = schedule.previous_before(walked[0])
        assert before is None or before <= instant
    assert schedule.between(instant, instant, 5) == []
    assert schedule.count(instant, instant) == 0


@settings(max_examples=EXAMPLES, **SLOW)
@given(spec=specs(), instant=INSTANTS, other=INSTANTS)
def test_laws(spec: ScheduleSpec, instant: int, other: int) -> None:
    check_laws(spec, instant, other)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=LONG, **SLOW)
@given(spec=specs(), instant=INSTANTS, other=INSTANTS)
def test_laws_long(spec: ScheduleSpec, instant: int, other: int) -> None:
    check_laws(spec, instant, other)


@pytest.mark.parametrize("change", ["2027-03-28T01:00:00Z", "2027-10-31T01:00:00Z"])
@pytest.mark.parametrize("fold", ["first", "second", "both"])
@pytest.mark.parametrize(
    "text", ["30 2 * * *", "0 2 * * *", "0 3 * * *", "15,45 2 * * *", "*/20 * * * *", "59 1,2,3 * * *"]
)
def test_backwards_from_each_minute_around_a_change_of_the_clock(text: str, fold: str, change: str) -> None:
    schedule = compiled(ScheduleSpec(text, "Europe/Vienna", fold=fold))
    at = parse_instant(change)
    known = schedule.between(at - 2 * DAY, at + DAY, 1_000)
    for instant in range(at - DAY // 6, at + DAY // 6, 60_000):
        assert schedule.previous_before(instant) == max(each for each in known if each < instant)


@settings(max_examples=40, **SLOW)
@given(st.lists(specs(), min_size=1, max_size=4), INSTANTS, st.integers(1, 40))
def test_a_union_is_the_set_of_all_instants(several: list[ScheduleSpec], after: int, days: int) -> None:
    parts = [compiled(spec) for spec in several]
    union = compile_all(several)
    until = after + days * DAY
    assume(sum(part.count(after, until) for part in parts) < 20_000)
    wanted = sorted({at for part in parts for at in part.between(after, until, 10**9)})
    assert union.between(after, until, 10**9) == wanted
    assert union.between(after, until, 3) == wanted[:3]
    assert union.count(after, until) == len(wanted)
    assert union.next_after(after) == (min((n for p in parts if (n := p.next_after(after)) is not None), default=None))
    assert union.previous_before(until + 1) == max(
        (n for p in parts if (n := p.previous_before(until + 1)) is not None), default=None
    )


@pytest.mark.parametrize("period", ["1s", "7s", "90s", "1h30m", "PT15M", "24h", "1.5s"])
def test_an_interval_is_anchored_and_survives_a_restart(period: str) -> None:
    free = compile(ScheduleSpec(f"@every {period}"))
    now = parse_instant("2026-03-29T00:59:59.999Z")
    first, second = free.between(now, now + 3 * DAY, 2)
    assert first % (second - first) == 0, "multiples of the period since 1970"
    start = parse_instant("2026-01-01T00:00:00.250Z")
    anchored = compile(ScheduleSpec(f"@every {period}", start=start))
    assert anchored.next_after(start - 1) == start, "the start is the first instant"
    at = anchored.next_after(now)
    assert at is not None
    assert (at - start) % (second - first) == 0


def test_bounds_are_inclusive() -> None:
    noon = parse_instant("2026-05-05T12:00:00Z")
    spec = ScheduleSpec("0 12 * * *", start=noon, end=noon + 2 * DAY)
    assert compile(spec).between(0, 10**15, 9) == [noon, noon + DAY, noon + 2 * DAY]
    with pytest.raises(InvalidSchedule, match="never fires from"):
        compile(spec._replace(start=noon + 1, end=noon + 2))


def test_equal_specs_are_one_object_also_after_the_cache_forgot_them() -> None:
    held = compile(ScheduleSpec("*/3 * * * *", "Asia/Tokyo"))
    for minute in range(60):
        for hour in range(24):
            for day in range(1, 9):
                compile(ScheduleSpec(f"{minute} {hour} {day} * *"))
    assert compile(ScheduleSpec("*/3 * * * *", "Asia/Tokyo")) is held
    gc.collect()


def test_counting_every_second_of_thirty_days_is_fast() -> None:
    schedule = compile(ScheduleSpec("* * * * * *", "Europe/Berlin"))
    after = parse_instant("2026-03-15T00:00:00Z")
    began = time.perf_counter()
    assert schedule.count(after, after + 30 * DAY) == 30 * 86_400
    assert time.perf_counter() - began < 0.005


def test_the_batch_form_answers_each_in_order() -> None:
    texts = ["* * * * *", "0 0 1 1 *", "@every 90s", "@at 2020-01-01T00:00:00Z", "* * * * *"]
    schedules = [compile(ScheduleSpec(text)) for text in texts]
    now = parse_instant("2026-03-29T01:00:30Z")
    assert next_after_many(schedules, now) == [schedule.next_after(now) for schedule in schedules]
