"""Selectors: each form, and what is refused."""

from __future__ import annotations

import pytest

from dts.core.selector import MAX_TERMS, matches
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
        ("gpu=", True),
        ("zone=", False),
    ],
)
def test_matches(selector: str, expected: bool) -> None:
    assert matches(selector, LABELS) is expected


@pytest.mark.parametrize(
    "selector",
    [
        "=a",
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
