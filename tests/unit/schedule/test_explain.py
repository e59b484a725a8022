"""Sentences, hints, notes and changes of the clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dts.errors import InvalidSchedule
from dts.model import ScheduleSpec
from dts.schedule import explain, parse_instant
from tests.unit.schedule.strategies import ZONES, any_expression
from tests.unit.schedule.test_oracle import SLOW

NOW = parse_instant("2026-03-28T12:00:00Z")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("* * * * *", "Every minute, UTC time"),
        ("* * * * * *", "Every second, UTC time"),
        ("*/5 * * * *", "Every 5 minutes, UTC time"),
        ("5/15 * * * *", "Every 15 minutes from minute 5 on, UTC time"),
        ("0 * * * *", "At the start of every hour, UTC time"),
        ("30 2 * * *", "At 02:30 every day, UTC time"),
        ("30 2 * * 1-5", "At 02:30 on Monday to Friday, UTC time"),
        ("0 9,17 * * sat,sun", "At 09:00 and 17:00 on Sunday and Saturday, UTC time"),
        ("0 0 1,15 * *", "At 00:00 on the 1st and the 15th of every month, UTC time"),
        ("0 0 29 2 *", "At 00:00 on 29 February, UTC time"),
        ("0 0 13 * 5", "At 00:00 on the 13th of every month and also on Friday, UTC time"),
        ("0 0 */2 * 1", "At 00:00 on every 2nd day of every month from the 1st, if that is Monday, UTC time"),
        ("0 0 L * *", "At 00:00 on the last day of every month, UTC time"),
        ("0 0 L-1 * *", "At 00:00 on the day 1 day before the last of every month, UTC time"),
        ("0 0 15W 3 *", "At 00:00 on the weekday nearest to the 15th in March, UTC time"),
        ("0 0 * * 5L", "At 00:00 on the last Friday of the month, UTC time"),
        ("0 0 * * MON#2", "At 00:00 on the second Monday of the month, UTC time"),
        ("*/15 9-17 * * *", "Every 15 minutes from 09:00 to 17:59, UTC time"),
        ("0 */2 * * *", "Every 2nd hour from 00:00, UTC time"),
        ("0 9-17 * * 1-5", "Every hour from 09:00 to 17:00 on Monday to Friday, UTC time"),
        ("30 */2 * * *", "At minute 30 of every 2nd hour from 00:00, UTC time"),
        ("15 30 2 * * ? 2027", "At 02:30:15 every day in 2027, UTC time"),
        ("@every 90s", "Every 1m30s of elapsed time, counted from 1970-01-01T00:00Z"),
        ("@at 2027-01-01T09:00[Europe/Paris]", "Once, at 2027-01-01T09:00:00+01:00 (Europe/Paris)"),
    ],
)
def test_sentences(text: str, sentence: str) -> None:
    assert explain(ScheduleSpec(text), NOW, 0).sentence == sentence


@pytest.mark.parametrize(
    ("text", "zone", "hint"),
    [
        ("0 0 31 * *", "UTC", "the 31st: February, April, June, September and November have none"),
        ("0 0 29 2 *", "UTC", "29 February: only in leap years"),
        ("0 0 30 1,2 *", "UTC", "the 30th: February has none"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 02:30 does not exist in Europe/Berlin: it runs at 03:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 02:30 occurs twice in Europe/Berlin: it runs the first time alone"),
        ("*/7 * * * *", "UTC", "after 56 comes 0, 4 minutes later"),
        ("*/90 * * * *", "UTC", "write @every 90m"),
        ("0 0 */2 * *", "UTC", "starts anew on the 1st"),
        ("* 2 * * *", "UTC", "60 times in each of its hours"),
        ("0 0 13 * 5", "UTC", "the day of month or the day of week"),
        ("0 0 */13 * 5", "UTC", "must both match"),
        ("0 0 * * 1#5", "UTC", "without a fifth one"),
        ("0 0 12 ? * 2", "UTC", "Quartz reads 1 as Sunday"),
        ("0 0 12 * * ?", "UTC", "6 fields: the first is seconds"),
        ("0 0 * * 1/2", "UTC", "1/2 in the day of week ends on Saturday"),
        ("0 0 0 1 1 ? 2030", "UTC", "7 fields: the first is seconds, the last years"),
        ("@every 24h", "Europe/Rome", "at a change of the clock its time of day moves"),
        ("0 0 0 1 1 ? 2020", "UTC", "no instant is left"),
    ],
)
def test_hints(text: str, zone: str, hint: str) -> None:
    assert any(hint in one for one in explain(ScheduleSpec(text, zone), NOW, 3).hints), explain(
        ScheduleSpec(text, zone), NOW, 3
    ).hints


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("0 * * * *", "Europe/Berlin"),
        ("30 4 * * *", "Europe/Berlin"),
        ("0 9 * * 1-5", "Asia/Tokyo"),
        ("0 0 1 * *", "UTC"),
        ("@every 90s", "UTC"),
    ],
)
def test_nothing_to_say(text: str, zone: str) -> None:
    assert explain(ScheduleSpec(text, zone), NOW, 3).hints == ()


def test_occurrences_in_local_time_and_the_next_two_changes() -> None:
    found = explain(ScheduleSpec("30 2 * * *", "Europe/Berlin"), NOW, 2)
    first, second = found.next
    assert (first.local, first.offset_seconds, first.note) == (
        "2026-03-29T03:00:00+02:00",
        7200,
        "02:30 does not exist on this day",
    )
    assert (second.local, second.note) == ("2026-03-30T02:30:00+02:00", "")
    spring, autumn = found.transitions
    assert (spring.before, spring.after) == ("2026-03-29T02:00:00", "2026-03-29T03:00:00")
    assert "forward by 1h, from +01:00 to +02:00" in spring.note
    assert (autumn.instant, autumn.offset_after) == (parse_instant("2026-10-25T01:00:00Z"), 3600)
    repeated = explain(ScheduleSpec("30 2 25 10 *", "Europe/Berlin", fold="both"), NOW, 2).next
    assert [one.note for one in repeated] == [
        "02:30 occurs twice on this day: this is the first",
        "02:30 occurs twice on this day: this is the second",
    ]
    assert explain(ScheduleSpec("0 0 * * *", "UTC"), NOW, 1).transitions == ()


@settings(max_examples=60, **SLOW)
@given(text=any_expression(), zone=st.sampled_from(ZONES), after=st.integers(0, 6 * 10**12))
def test_anything_that_compiles_is_explained(text: str, zone: str, after: int) -> None:
    try:
        found = explain(ScheduleSpec(text, zone), after, 3)
    except InvalidSchedule:
        return
    assert found.sentence.endswith(f", {zone} time")
    assert "  " not in found.sentence
    assert all(one.instant > after for one in found.next)
