"""Durations and instants as text, the spread by job id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dts.errors import InvalidSchedule
from dts.model import ScheduleSpec
from dts.schedule import compile, format_duration, format_instant, jitter, parse_duration, parse_instant, resolve  # noqa: A004


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90s", 90_000),
        ("1h30m", 5_400_000),
        ("1.5s", 1_500),
        (".5s", 500),
        ("250ms", 250),
        ("1000us", 1),
        ("2000000ns", 2),
        ("1000µs", 1),
        ("0", 0),
        ("+5m", 300_000),
        ("1d", 86_400_000),
        ("1w2d", 777_600_000),
        ("PT15M", 900_000),
        ("pt1h", 3_600_000),
        ("P1DT12H", 129_600_000),
        ("PT1.5S", 1_500),
        ("PT0,5S", 500),
        ("P2W", 1_209_600_000),
        ("PT0S", 0),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "5x",
        "h",
        "-5s",
        "-PT5S",
        "1h-5m",
        "P",
        "PT",
        "P1Y",
        "P1M",
        "PT1H5",
        "1us",
        "1e3s",
        "9" * 50 + "h",
        "200000000h",
        "1 h",
    ],
)
def test_no_durations(text: str) -> None:
    with pytest.raises(InvalidSchedule, match="duration"):
        parse_duration(text)


@given(st.integers(0, 10**12))
def test_a_duration_survives_being_written(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


@pytest.mark.parametrize(
    ("text", "zone", "wanted"),
    [
        ("2026-03-29T01:00:00Z", "Asia/Tokyo", "2026-03-29T01:00:00Z"),
        ("2026-03-29t01:00:00.5z", "UTC", "2026-03-29T01:00:00.500Z"),
        ("2026-03-29 03:00:00+02:00", "UTC", "2026-03-29T01:00:00Z"),
        ("2026-03-29T03:00+0200", "UTC", "2026-03-29T01:00:00Z"),
        ("2026-03-29", "Asia/Tokyo", "2026-03-28T15:00:00Z"),
        ("2026-03-29T09:00[Asia/Tokyo]", "Europe/Paris", "2026-03-29T00:00:00Z"),
        ("2026-03-29T09:00+09:00[Asia/Tokyo]", "UTC", "2026-03-29T00:00:00Z"),
        ("2026-03-29T00:00Z[Asia/Tokyo]", "UTC", "2026-03-29T00:00:00Z"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:00:00Z"),
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30:00Z"),
        ("2026-10-25T02:30+01:00[Europe/Berlin]", "UTC", "2026-10-25T01:30:00Z"),
        ("2026-01-01T00:00:00.123456789Z", "UTC", "2026-01-01T00:00:00.123Z"),
    ],
)
def test_instants(text: str, zone: str, wanted: str) -> None:
    assert format_instant(parse_instant(text, zone)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026",
        "2026-13-01",
        "2026-02-30",
        "2026-01-01T24:00Z",
        "2026-01-01T09",
        "1969-12-31",
        "2200-01-01",
        "2026-01-01T09:00[",
        "2026-01-01T09:00+25:00",
    ],
)
def test_no_instants(text: str) -> None:
    with pytest.raises(InvalidSchedule, match="instant"):
        parse_instant(text)


def test_an_offset_that_the_zone_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidSchedule, match="is not at"):
        parse_instant("2026-07-01T09:00+01:00[Europe/Paris]")


@given(st.integers(0, 7_258_118_399_999))
def test_an_instant_survives_being_written(instant: int) -> None:
    assert parse_instant(format_instant(instant)) == instant


def test_resolved_numbers_are_stable_for_ever() -> None:
    """Pinned: a release that changes these would move every job that was created with an H."""
    assert resolve("H H * * *", "job-1") == resolve("H H * * *", "job-1")
    assert [
        resolve(text, "nightly-report") for text in ("H H * * *", "H(0-29) 2 * * *", "H/15 * * * *", "0 H H * H")
    ] == PINNED


PINNED = ["36 0 * * *", "6 2 * * *", "6-59/15 * * * *", "0 0 3 * 4"]


@given(
    st.text(min_size=1, max_size=20),
    st.sampled_from(["H H H * H", "H(10-20) H(1-3) * H *", "H/7 H/5 H/9 * H/3", "H H(0-7)/2 * * *", "H H H H * ?"]),
)
def test_resolved_texts_are_read_and_in_range(job: str, text: str) -> None:
    resolved = resolve(text, job)
    assert "H" not in resolved
    assert compile(ScheduleSpec(resolved)).next_after(0) is not None
    assert resolve(resolved, job) == resolved
    if text.startswith("H(10-20)"):
        minute, hour = resolved.split()[:2]
        assert 10 <= int(minute) <= 20
        assert 1 <= int(hour) <= 3


def test_jobs_spread_over_the_whole_hour() -> None:
    minutes = [int(resolve("H * * * *", f"job-{k}").split()[0]) for k in range(6000)]
    counts = [minutes.count(minute) for minute in range(60)]
    assert min(counts) > 60
    assert max(counts) < 150


@pytest.mark.parametrize(
    "text", ["0 9 * * THU", "0 0 * mar 1", "@hourly", "@every 1h", "", "HELLO", "TZ=Asia/Shanghai 0 0 * * *"]
)
def test_what_has_no_h_comes_back_as_it_is(text: str) -> None:
    assert resolve(text, "job") == text


def test_a_prefix_and_spaces_stay() -> None:
    assert resolve("CRON_TZ=Asia/Shanghai  H(3-3)   2 * * *", "job") == "CRON_TZ=Asia/Shanghai  3   2 * * *"


@pytest.mark.parametrize(
    "text", ["H(5-1) * * * *", "H(0-60) * * * *", "H/0 * * * *", "H( * * * *", "H(1) * * * *", "0 0 0 1 1 ? H"]
)
def test_a_malformed_h_is_refused(text: str) -> None:
    with pytest.raises(InvalidSchedule):
        resolve(text, "job")


@given(st.text(min_size=1), st.integers(0, 10**12), st.integers(-5, 10**7), st.one_of(st.none(), st.integers(1, 10**8)))
def test_jitter_is_bounded_and_never_passes_the_next_instant(
    job: str, instant: int, window: int, gap: int | None
) -> None:
    following = None if gap is None else instant + gap
    delay = jitter(job, instant, window, following)
    assert 0 <= delay <= max(window, 0)
    assert following is None or instant + delay < following
    assert delay == jitter(job, instant, window, following)
    assert following is not None or delay == jitter(job, instant + 1, window, None), "a job keeps its share"


def test_jitter_spreads_evenly() -> None:
    delays = sorted(jitter(f"job-{k}", 0, 60_000, None) for k in range(3000))
    assert all(abs(delay - 20 * k) < 3_000 for k, delay in enumerate(delays))
