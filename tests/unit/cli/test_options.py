"""Values on the command line, and values as people read them."""

from __future__ import annotations

import click
import pytest

from dts.cli import options, show
from dts.cli.options import parse_when
from dts.cli.show import span
from dts.errors import InvalidSchedule
from dts.schedule import parse_instant

NOW = parse_instant("2026-03-29T12:00:00Z")
HOUR = 3_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("NOW", NOW),
        ("-1h", NOW - HOUR),
        ("+30m", NOW + HOUR // 2),
        ("2h ago", NOW - 2 * HOUR),
        ("1d ago", NOW - 24 * HOUR),
        ("in 5m", NOW + HOUR // 12),
        ("-PT1H", NOW - HOUR),
        ("2026-03-29T12:00:00Z", NOW),
        ("2026-03-29T14:00:00+02:00", NOW),
        ("2026-03-29 14:00[Europe/Paris]", NOW),
        ("2026-03-29", NOW - 12 * HOUR),
    ],
)
def test_instants(text: str, expected: int) -> None:
    assert parse_when(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "ago", "in", "1h", "--1h", "2026-13-01", "5 minutes ago"])
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(InvalidSchedule):
        parse_when(text, NOW)
    with pytest.raises(click.BadParameter, match="is no time"):
        options.instant(text)


def test_durations() -> None:
    assert options.duration("90") == options.duration("1m30s") == 90_000
    assert options.duration("PT15M") == 900_000
    for wrong in ("", "x", "-5s"):
        with pytest.raises(click.BadParameter):
            options.duration(wrong)


def test_numbers_fit_the_api() -> None:
    assert options.integer("-5") == -5
    assert options.amount("0") == 0
    for kind, wrong in ((options.amount, "-1"), (options.integer, "2147483648"), (options.revision, "x")):
        with pytest.raises(click.BadParameter):
            kind(wrong)


def test_json() -> None:
    assert options.json_object('{"a": [1, null]}') == {"a": [1, None]}
    assert options.json_list("[1]") == [1]
    for kind, wrong in ((options.json_object, "[1]"), (options.json_list, "{}"), (options.json_list, "[" * 100_000)):
        with pytest.raises(click.BadParameter):
            kind(wrong)


def test_pairs() -> None:
    assert options.pair("a=b=c") == ("a", "b=c")
    for wrong in ("a", "=b"):
        with pytest.raises(click.BadParameter):
            options.pair(wrong)


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (4, "0.004s"), (1250, "1.25s"), (61_000, "1m 1s"), (3_600_000, "1h"), (90_061_000, "1d 1h")],
)
def test_spans(ms: int, text: str) -> None:
    assert span(ms) == text


def test_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "now_ms", lambda: NOW)
    assert show.distance(NOW + 4 * 60_000) == "in 4m"
    assert show.distance(NOW - 26 * HOUR) == "1d 2h ago"
    assert show.distance(NOW + 100) == "now"
    assert show.distance(0) == ""
    assert show.moment(NOW - HOUR) == "2026-03-29T11:00:00Z (1h ago)"
