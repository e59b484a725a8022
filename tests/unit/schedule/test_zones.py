"""Our tables against zoneinfo, over every zone of the tzdata package."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from dts.errors import InvalidSchedule
from dts.schedule import rules_version
from dts.schedule.tzif import footer_changes, parse_tzif
from dts.schedule.zones import load_zone, nearest_names, zone_names
from tests.unit.schedule.oracle import zone

LAST = 7_258_118_399  # the last second of 2199


def offset(name: str, second: int) -> int:
    found = datetime.fromtimestamp(second, UTC).astimezone(zone(name)).utcoffset()
    assert found is not None
    return round(found.total_seconds())


def check(name: str, probes: int) -> None:
    ours = load_zone(name)
    seconds = [start + d for start, _ in ours.changes[1:] for d in (-1, 0) if 0 <= start + d <= LAST]
    draw = random.Random(name)
    if len(seconds) > probes:
        seconds = draw.sample(seconds, probes)
    seconds += [draw.randrange(LAST) for _ in range(probes)]
    for second in seconds:
        assert ours.offset_at(second * 1000) == offset(name, second), (name, second)


def test_a_few_offsets_of_every_zone() -> None:
    for name in sorted(zone_names()):
        check(name, 12)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_change_of_every_zone() -> None:
    for name in sorted(zone_names()):
        check(name, 1000)


def test_changes_lie_far_enough_apart_for_the_search() -> None:
    """The engine takes spans of wall time as ordered: no span may be shorter than the shifts at its ends."""
    for name in sorted(zone_names()):
        for fold in ("first", "second", "both"):
            line = load_zone(name).timeline(fold)
            assert all(a < b for a, b in zip(line.first, line.end, strict=True)), name
            assert line.first == sorted(line.first), name
            assert line.end == sorted(line.end), name


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("berlin", "Europe/Berlin"),
        ("europe/paris", "Europe/Paris"),
        ("PST", "America/Los_Angeles"),
        ("New York", "America/New_York"),
        ("Asia/Calcuta", "Asia/Calcutta"),
        ("Z", "UTC"),
    ],
)
def test_an_unknown_zone_names_the_nearest(written: str, meant: str) -> None:
    assert nearest_names(written)[0] == meant
    with pytest.raises(InvalidSchedule, match=f"did you mean .*{meant}") as caught:
        load_zone(written)
    assert caught.value.field == "zone"
    assert caught.value.read == written


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../zones", "/etc/localtime", "Europe", "xx", "Europe/Berlin\n", "é" * 500]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidSchedule, match="unknown time zone"):
        load_zone(name)


def test_the_release_of_the_rules() -> None:
    assert len(rules_version()) == 5
    assert rules_version()[:4].isdigit()


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        ("CET-1CEST,M3.5.0,M10.5.0/3", (1774746000, 7200)),
        ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", (1775314800, 37_800)),
        ("EST5EDT,J60,J300", (1772348400, -14_400)),
        ("EST5EDT,59,299/-1:30", (1772348400, -14_400)),
        ("UTC0", None),
    ],
)
def test_posix_rules(rule: str, first: tuple[int, int] | None) -> None:
    changes = footer_changes(rule, 2026, 2026)
    assert (changes[0] if changes else None) == first


@pytest.mark.parametrize("rule", ["", "CET", "CET-1CEST,M3.5.0", "CET-1CEST,X,Y"])
def test_a_bad_posix_rule_is_an_error(rule: str) -> None:
    with pytest.raises(ValueError, match="POSIX TZ"):
        footer_changes(rule, 2026, 2026)


def test_what_is_no_tzif_is_an_error() -> None:
    with pytest.raises(ValueError, match="TZif"):
        parse_tzif(b"TZif1" + bytes(60))
