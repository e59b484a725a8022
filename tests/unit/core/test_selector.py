"""Selectors: each form, and what is refused."""

from __future__ import annotations

import pytest

from dts.core.selector import MAX_TERMS, matches, parse
from dts.errors import InvalidArgument

LABELS = {"zone": "a", "disk": "ssd", "gpu": "", "example.com/tier": "gold"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", True),
        ("  ", True),
        ("zone=a", True),
        ("zone=b", False),
        ("zone != b", True),
        ("zone!=a", False),
        ("missing!=a", True),
        ("missing=a", False),
        ("gpu", True),
        ("missing", False),
        ("!spot", True),
        ("! zone", False),
        ("zone in (a|b)", True),
        ("zone in (b|c)", False),
        ("example.com/tier in (gold|silver), zone=a, !spot, gpu", True),
        ("example.com/tier=gold, zone=b", False),
        ("zone in (b, a)", True),
        ("zone in ( b , c ),gpu", False),
        ("zone in(a)", True),
        ("zone notin (b, c)", True),
        ("zone notin (a|b)", False),
        ("missing notin (a)", True),
        ("in in (a)", False),
        ("!in, !notin", True),
        ("inside", False),
        ("gpu=", True),
        ("zone=", False),
    ],
)
def test_matches(selector: str, expected: bool) -> None:
    assert matches(selector, LABELS) is expected


@pytest.mark.parametrize(
    ("selector", "problem"),
    [
        ("zone ~ a", r"position 6: '~ a' where there should be =, !=, in \(...\), notin"),
        ("zone=a;gpu", "position 7: ';gpu' where there should be a comma"),
        ("zone=a,", "position 8: the end where there should be a label"),
        ("zone in a", "position 9: 'a' where there should be the values in parentheses"),
        ("zone notin (a", r"position 14: the end where there should be .* '\)'"),
        ("a, !", "position 5: the end where there should be a label that must not be there"),
        ("x" * 64, "position 1: .* is over 63 characters"),
        ("a=" + "x" * 64, "position 3: .* is over 63 characters"),
        ("a in (" + ",".join("x" * 65) + ")", "over 64 values"),
    ],
)
def test_says_where_and_what_could_stand_there(selector: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        parse(selector)


@pytest.mark.parametrize(
    "selector",
    [
        "=a",
        "a notin",
        "a notin b",
        "zone==a",
        "zone in a",
        "zone in ()a",
        "zone=(a|b)",
        "a b",
        "!",
        ",",
        "zone=a,",
        "zön=a",
        "a=b\n=c",
    ],
)
def test_refuses_by_name(selector: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        matches(selector, LABELS)
    assert refused.value.field == "selector"


def test_refuses_too_many_terms() -> None:
    with pytest.raises(InvalidArgument, match="16 at most"):
        matches(",".join(["a"] * (MAX_TERMS + 1)), LABELS)
