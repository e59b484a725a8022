"""What is read and how, and what is refused and with which words."""

from __future__ import annotations

import pytest

from dts.errors import InvalidSchedule
from dts.model import ScheduleSpec
from dts.schedule import compile, parse_instant  # noqa: A004
from dts.schedule.cron import CronSchedule

MARCH = parse_instant("2026-03-01T00:00:00Z") - 1  # 1 March 2026 is a Sunday
MONTH = 31 * 86_400_000


def march(text: str) -> list[int]:
    """The days of March 2026 on which it fires."""
    found = compile(ScheduleSpec(text)).between(MARCH, MARCH + MONTH, 10**6)
    return sorted({(at - MARCH - 1) // 86_400_000 + 1 for at in found})


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@Midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("  5   4 * * *  ", "5 4 * * *"),
        ("5\t4 * * *", "0 5 4 * * *"),
        ("0 5 4 * * *", "0 5 4 * * * *"),
        ("5/15 * * * *", "5,20,35,50 * * * *"),
        ("0 0 * JAN-Mar MON", "0 0 * 1-3 1"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * Fri-Sun", "0 0 * * 5,6,0"),
        ("0 0 * * 5-7", "0 0 * * 5,6,0"),
        ("0 0 * * Sun-Sun", "0 0 * * 0"),
        ("0 0 * * 0-7", "0 0 * * *"),
        ("0 0 * * 1/2", "0 0 * * 1,3,5"),
        ("0 0 ? * ?", "0 0 * * *"),
        ("0 0 L-0 * *", "0 0 L * *"),
        ("0 0 * * friL", "0 0 * * 5L"),
        ("*/90 * * * *", "0 * * * *"),
        ("007 4 * * *", "7 4 * * *"),
        ("CRON_TZ=UTC 5 4 * * *", "5 4 * * *"),
        ("TZ=UTC @daily", "0 0 * * *"),
        ("@every 1h30m", "@every PT90M"),
        ("@every 1d", "@every P1D"),
        ("@every 1.5m", "@every 90s"),
    ],
)
def test_two_ways_to_write_one(text: str, same: str) -> None:
    one, two = compile(ScheduleSpec(text)), compile(ScheduleSpec(same))
    assert one.between(MARCH, MARCH + 500 * 86_400_000, 2000) == two.between(MARCH, MARCH + 500 * 86_400_000, 2000)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0 0 13 * 5", [6, 13, 20, 27]),  # or
        ("0 0 */13 * 5", [27]),  # and: it begins with *
        ("0 0 13 * */5", [13]),  # and: Sunday or Friday; the 13th is a Friday
        ("0 0 L * *", [31]),
        ("0 0 L-3 * *", [28]),
        ("0 0 LW * *", [31]),
        ("0 0 L-2W * *", [30]),
        ("0 0 15W * *", [16]),  # Sunday: on to Monday
        ("0 0 1W * *", [2]),  # a Sunday
        ("0 0 7W * *", [6]),  # Saturday: back to Friday
        ("0 0 1,15W,L * *", [1, 16, 31]),
        ("0 0 * * 5L", [27]),
        ("0 0 * * MON#2", [9]),
        ("0 0 * * 1#5", [30]),
        ("0 0 * * 3#5", []),
        ("0 0 * * 7#5", [29]),
        ("0 0 1-5 * ?", [1, 2, 3, 4, 5]),
        ("0 0 0 29-31 3 ? 2026", [29, 30, 31]),
        ("0 0 0 * * ? 2027", []),
    ],
)
def test_days_of_march_2026(text: str, days: list[int]) -> None:
    assert march(text) == days


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("0 0 1W 8 *", ["2026-08-03", "2027-08-02", "2028-08-01"]),  # a Saturday: never back into July
        ("0 0 31W 5 *", ["2026-05-29", "2027-05-31", "2028-05-31"]),  # a Sunday: never on into June
        ("0 0 LW 2 *", ["2026-02-27", "2027-02-26", "2028-02-29"]),
        ("0 0 31W 2,3 *", ["2026-03-31", "2027-03-31", "2028-03-31"]),
        ("0 0 L-30 3-5 *", ["2026-03-01", "2026-05-01", "2027-03-01"]),
        ("0 0 L-28 2 *", ["2028-02-01", "2032-02-01", "2036-02-01"]),
        ("0 0 29 2 1#5", ["2028-02-29", "2032-02-29", "2036-02-29"]),  # either: a fifth Monday is the 29th too
    ],
)
def test_days_that_keep_within_their_month(text: str, dates: list[str]) -> None:
    new_year = parse_instant("2026-01-01T00:00:00Z") - 1
    assert compile(ScheduleSpec(text)).between(new_year, 10**15, 3) == [parse_instant(date) for date in dates]


@pytest.mark.parametrize(
    ("text", "field", "column", "read"),
    [
        ("60 * * * *", "minute", 1, "60"),
        ("0 24 * * *", "hour", 3, "24"),
        ("0 0 0 * *", "day of month", 5, "0"),
        ("0 0 32 * *", "day of month", 5, "32"),
        ("0 0 * 13 *", "month", 7, "13"),
        ("0 0 * * 8", "day of week", 9, "8"),
        ("0 0 0 * * * 1969", "year", 13, "1969"),
        ("0 0 * foo *", "month", 7, "foo"),
        ("0 0 * * monday", "day of week", 9, "monday"),
        ("1,2,,4 * * * *", "minute", 5, ""),
        ("1,2,99 * * * *", "minute", 5, "99"),
        ("0 9-17/0 * * *", "hour", 8, "0"),
        ("0 9-17/x * * *", "hour", 8, "x"),
        ("0 22-2 * * *", "hour", 3, "22-2"),
        ("0 0 * * 5-1", "day of week", 9, "5-1"),
        ("0 0 * * L", "day of week", 9, "l"),
        ("0 0 * * 1#6", "day of week", 11, "6"),
        ("0 0 L-31 * *", "day of month", 5, "l-31"),
        ("0 0 32W * *", "day of month", 5, "32w"),
        ("0 0 1,? * *", "day of month", 7, "?"),
        ("? * * * *", "minute", 1, "?"),
        ("-5 * * * *", "minute", 1, ""),
        ("5- * * * *", "minute", 3, ""),
        ("1~5 * * * *", "minute", 1, "1~5"),
        ("H * * * *", "minute", 1, "h"),
        ("* * * *", "schedule", 1, "* * * *"),
        ("* * * * * * * *", "schedule", 15, "* * * * * * * *"),
        ("", "schedule", 0, ""),
        ("  ", "schedule", 0, ""),
        ("CRON_TZ= * * * * *", "zone", 9, ""),
        ("CRON_TZ=Europe/Berln 0 0 * * *", "zone", 9, "Europe/Berln"),
        ("@reboot", "schedule", 1, "@reboot"),
        ("@fortnightly", "schedule", 1, "@fortnightly"),
        ("@daily 5", "schedule", 8, "5"),
        ("@every", "schedule", 1, "@every"),
        ("@every 0s", "duration", 8, "0s"),
        ("@every 999ms", "duration", 8, "999ms"),
        ("@every -5m", "duration", 8, "-5m"),
        ("@every P1M", "duration", 8, "P1M"),
        ("@every 5m 3", "schedule", 11, "3"),
        ("@at", "schedule", 1, "@at"),
        ("@at tomorrow", "instant", 5, "tomorrow"),
        ("@at 2026-02-30T00:00Z", "instant", 5, "2026-02-30T00:00Z"),
        ("@at 2027-01-01T09:00[Europe/Pariss]", "zone", 5, "Europe/Pariss"),
        ("0 0 30 2 *", "day of month", 0, "0 0 30 2 *"),
        ("0 0 31 4,6,9,11 *", "day of month", 0, "0 0 31 4,6,9,11 *"),
        ("0 0 é * *", "schedule", 5, "é"),
        ("0 0 * * *\n", "schedule", 10, "\n"),
    ],
)
def test_refused_with_field_column_and_what_was_read(text: str, field: str, column: int, read: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        compile(ScheduleSpec(text))
    error = caught.value
    assert (error.field, error.column, error.read) == (field, column, read)
    assert error.expected
    assert str(error)


def test_a_step_of_nothing_is_a_step_of_all() -> None:
    with pytest.raises(InvalidSchedule) as caught:
        compile(ScheduleSpec("/5 * * * *"))
    assert (caught.value.expected, caught.value.column) == ("*/5", 1)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (ScheduleSpec("0 0 * * *", gap="never"), "gap"),
        (ScheduleSpec("0 0 * * *", fold="third"), "fold"),
        (ScheduleSpec("@every 5m", gap="shift"), "gap"),
        (ScheduleSpec("@every 5m", fold="both"), "fold"),
        (ScheduleSpec("@at 2027-01-01T00:00:00Z", fold="both"), "fold"),
        (ScheduleSpec("0 0 * * *", start=5, end=4), "end"),
        (ScheduleSpec("0 0 * * *", start=1, end=2), "schedule"),
        (ScheduleSpec("TZ=Asia/Tokyo 0 0 * * *", "Europe/Paris"), "zone"),
        (ScheduleSpec("@at 2026-03-29T02:30", "Europe/Berlin", gap="skip"), "instant"),
    ],
)
def test_what_does_not_fit_together_is_refused(spec: ScheduleSpec, field: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        compile(spec)
    assert caught.value.field == field


def test_the_default_policy_follows_from_the_hour_field_alone() -> None:
    for text in ["0 * * * *", "*/5 * * * *", "30 */1 * * *", "0 0-23 * * 1", "* * * * * *"]:
        schedule = compile(ScheduleSpec(text, "Europe/Berlin"))
        assert isinstance(schedule, CronSchedule)
        assert (schedule.gap, schedule.fold) == ("skip", "both"), text
    for text in ["0 2 * * *", "* 2 * * *", "0 */2 * * *", "0 0-22 * * *", "0 0 2 * * *"]:
        schedule = compile(ScheduleSpec(text, "Europe/Berlin"))
        assert isinstance(schedule, CronSchedule)
        assert (schedule.gap, schedule.fold) == ("shift", "first"), text


def test_a_prefix_is_the_zone() -> None:
    prefixed = compile(ScheduleSpec("CRON_TZ=Asia/Tokyo 0 9 * * *"))
    assert prefixed.next_after(MARCH) == compile(ScheduleSpec("0 9 * * *", "Asia/Tokyo")).next_after(MARCH)
    assert compile(ScheduleSpec("TZ=Asia/Tokyo 0 9 * * *", "Asia/Tokyo")).next_after(MARCH) == prefixed.next_after(
        MARCH
    )


@pytest.mark.parametrize(
    ("text", "zone", "fold", "wanted"),
    [
        ("@at 2027-01-01T09:00[Europe/Paris]", "UTC", "", "2027-01-01T08:00:00Z"),
        ("@at 2027-01-01T09:00:00+09:00", "Europe/Paris", "", "2027-01-01T00:00:00Z"),
        ("@at 2027-01-01 09:00", "Asia/Tokyo", "", "2027-01-01T00:00:00Z"),
        ("@at 2026-03-29T02:30", "Europe/Berlin", "", "2026-03-29T01:00:00Z"),
        ("@at 2026-10-25T02:30", "Europe/Berlin", "", "2026-10-25T00:30:00Z"),
        ("@at 2026-10-25T02:30", "Europe/Berlin", "second", "2026-10-25T01:30:00Z"),
    ],
)
def test_one_instant(text: str, zone: str, fold: str, wanted: str) -> None:
    schedule = compile(ScheduleSpec(text, zone, fold=fold))
    at = parse_instant(wanted)
    assert schedule.between(0, 10**15, 9) == [at]
    assert schedule.next_after(at) is None
    assert schedule.previous_before(at + 1) == at
    assert schedule.previous_before(at) is None
