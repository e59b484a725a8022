"""The core, the leases and the models under seeded worlds; and what is deliberately broken is seen to be.

DTS_SEEDS: how many seeds the long form runs (20 000), from DTS_FIRST_SEED on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.broken import VARIANTS
from tests.simulation.run import Result, first_broken, simulate

SEEDS = 1_000
PART = 100
KINDS = [  # what a thousand worlds must have in them, or they prove little
    *("QUEUED", "PLACED", "RETRYING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED", "LOST"),
    *("does not hold it", "was lost", "handed back", "lost by its worker", "placed again", "cancelled while placed"),
    *("fenced", "unknown", "refused", "leases refused", "killed by the guard", "gap", "owed", "range", "commands held"),
    *("a job again", "taken over with work", "told twice", "cloned", "clock set back", "clock set forward"),
    *("overlap (skip)", "overlap (buffer_one)", "overlap (buffer_all)", "held by buffer_all", "held by buffer_one"),
    *("held by cancel_other", "group full", "jitter", "start within", "not tried again", "suspended", "resumed"),
]
seen: Counter[str] = Counter()


def text(result: Result) -> str:
    return f"{result.problem}\nreplay: python -m tests.simulation.run --seed {result.seed} --trace\n{result.detail}"


@pytest.mark.parametrize("part", range(SEEDS // PART))
def test_all_laws_hold(part: int) -> None:
    for seed in range(1 + part * PART, 1 + (part + 1) * PART):
        result = simulate(seed)
        assert not result.problem, text(result)
        seen.update(result.seen)


def test_the_worlds_were_wild() -> None:
    if not seen:  # chosen alone
        for seed in range(1, SEEDS // 2):
            seen.update(simulate(seed).seen)
    assert not [kind for kind in KINDS if not seen[kind]]


@pytest.mark.soak
@pytest.mark.timeout(7_200)
def test_all_laws_hold_for_long() -> None:
    first = int(os.environ.get("DTS_FIRST_SEED", "1000000"))
    for seed in range(first, first + int(os.environ.get("DTS_SEEDS", "20000"))):
        result = simulate(seed)
        assert not result.problem, text(result)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_broken_is_seen(name: str) -> None:
    variant = VARIANTS[name]
    found = first_broken(range(1, variant.seeds + 1), variant.build)
    assert found is not None, f"{variant.seeds} seeds did not show that {name}"
    assert found.problem.startswith((f"{variant.law}: ", "0: Bug: ")), text(
        found
    )  # a checker, or the core's own asserts


def test_a_seed_is_one_world() -> None:
    """Also in another process, whose hashes differ."""
    script = "from tests.simulation.run import simulate; print([simulate(s, trace=True).digest for s in range(1, 8)])"
    expected = str([simulate(seed, trace=True).digest for seed in range(1, 8)])
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected
