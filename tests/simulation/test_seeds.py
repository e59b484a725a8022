"""1 000 seeded worlds, 100 a test: after each step all laws hold. A failing one is replayed by `python -m tests.simulation.run`."""

from __future__ import annotations

import os

import pytest

from tests.simulation.run import simulate

PART = 100
SHORT = range(0, 1_000, PART)
LONG = range(1_000, int(os.environ.get("DTS_SEEDS", "20000")), PART)


def all_laws_hold(first: int) -> None:
    """Runs PART seeds from `first` on."""
    broken = [
        f"seed {found.seed}: {found.problem}" for n in range(first, first + PART) if (found := simulate(n)).problem
    ]
    assert broken == []


@pytest.mark.parametrize("first", SHORT)
def test_all_laws_hold(first: int) -> None:
    all_laws_hold(first)


@pytest.mark.soak
@pytest.mark.parametrize("first", LONG)
def test_all_laws_hold_for_long(first: int) -> None:
    all_laws_hold(first)


def test_a_seed_is_one_world() -> None:
    assert simulate(7).digest == simulate(7).digest
