"""No text, zone, policy or bound makes anything but InvalidSchedule, and no text takes over 10 ms to read.

The long form walks from texts people wrote by random edits for DTS_FUZZ_SECONDS (60 by default) and prints its seed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dts.errors import InvalidSchedule
from dts.model import ScheduleSpec
from dts.schedule import compile, explain, parse_duration, parse_instant, resolve  # noqa: A004
from dts.schedule.clock import clock
from dts.schedule.compiling import _recent
from dts.schedule.days import day_pattern
from dts.schedule.fields import _read
from tests.unit.schedule.strategies import ZONES, any_expression
from tests.unit.schedule.test_oracle import SLOW

LIMIT = 0.010  # seconds
CORPUS = Path(__file__).parents[3] / "bench" / "schedule" / "expressions.txt"
SEEDS = [line for line in CORPUS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
SEEDS += [
    "@every 1h30m",
    "@every PT15M",
    "@at 2027-01-01T09:00[Europe/Paris]",
    "CRON_TZ=Asia/Tokyo 0 9 * * *",
    "H H(0-7) * * H/2",
]
SEEDS += [
    "2026-03-29T02:30:00.123+02:00",
    "P1DT12H30M5.5S",
    "1.5h250ms",
    "0 0 L-3W * ?",
    "@reboot",
    "0 0 29 2 MON 2028",
]
ALPHABET = "0123456789*/,-?#LWHlwh()@ \t\n[]:.+TZPMDS=_abcdefjmnorstuvyABCDEFMONSUFRI\u00b5\u00b2\u0660\u00e9\x00\ud800"
ZONE_TEXTS = [*ZONES, "", "UTC", "Nowhere", "../../etc/passwd", "europe/berlin", "\x00", "A" * 5000]


def questions(text: str, zone: str, spec: ScheduleSpec) -> list[Callable[[], object]]:
    return [
        lambda: compile(spec),
        lambda: compile(ScheduleSpec(resolve(text, "job-1"), zone)),
        lambda: parse_duration(text),
        lambda: parse_instant(text, zone),
    ]


def forget() -> None:
    """A text is new only if nothing of it is remembered."""
    for cache in (_recent, clock, day_pattern, _read):
        cache.cache_clear()


def ask(question: Callable[[], object]) -> float:
    began = time.perf_counter()
    try:
        question()
    except InvalidSchedule as error:
        refusal = error
    else:
        return time.perf_counter() - began
    took = time.perf_counter() - began
    assert str(refusal)
    assert refusal.field
    assert refusal.column >= 0
    return took


def check(text: str, zone: str, spec: ScheduleSpec) -> None:
    for question in questions(text, zone, spec):
        if ask(question) > LIMIT:  # a busy machine, or an input that is slow: then it is slow every time
            again = []
            for _ in range(5):
                forget()
                again.append(ask(question))
            assert min(again) <= LIMIT, (text, zone)
    try:
        explain(spec, 1_700_000_000_000, 3)
    except InvalidSchedule:
        pass


def edited(draw: random.Random, text: str) -> str:
    for _ in range(draw.choice((0, 1, 1, 2, 3, 6))):
        at = draw.randrange(len(text) + 1)
        form = draw.randrange(7)
        if form <= 1:
            text = text[:at] + draw.choice(ALPHABET) + text[at:]
        elif form == 2:
            text = text[:at] + text[at + 1 :]
        elif form == 3:
            text = text[:at] + draw.choice(ALPHABET) + text[at + 1 :]
        elif form == 4:
            text = text[:at] + draw.choice(SEEDS)[: draw.randrange(12)] + text[at:]
        elif form == 5:
            text = text[:at] + text[at : at + 4] * draw.choice((2, 3, 300)) + text[at + 4 :]
        else:
            text = text.replace(" ", draw.choice((",", "-", "/", "  ", "\t")), 1)
    return text


def bounds(draw: random.Random) -> tuple[int | None, int | None]:
    return tuple(draw.choice((None, None, None, 0, -1, 10**15, draw.randrange(8 * 10**12))) for _ in range(2))  # type: ignore[return-value]


def fuzz(seconds: float, seed: int) -> int:
    draw = random.Random(seed)
    until = time.monotonic() + seconds
    tried = 0
    while time.monotonic() < until:
        text = edited(draw, draw.choice(SEEDS))
        zone = draw.choice(ZONE_TEXTS)
        policies = (draw.choice(("", "", "shift", "skip", "x")), draw.choice(("", "", "first", "second", "both", "x")))
        try:
            check(text, zone, ScheduleSpec(text, zone, *bounds(draw), *policies))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {text!r} in {zone!r}") from error
        tried += 1
    return tried


def test_a_short_walk() -> None:
    assert fuzz(2.0, 20260329) > 100


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_long_walk() -> None:
    seed = random.randrange(1 << 32)
    seconds = float(os.environ.get("DTS_FUZZ_SECONDS", "60"))
    print(f"seed {seed}: {fuzz(seconds, seed)} texts in {seconds} s")


@settings(max_examples=150, **SLOW)
@given(
    text=st.one_of(st.text(), st.text(ALPHABET, max_size=60), any_expression()),
    zone=st.one_of(st.sampled_from(ZONES), st.text()),
)
def test_any_text(text: str, zone: str) -> None:
    check(text, zone, ScheduleSpec(text, zone))


@pytest.mark.parametrize(
    "text",
    [
        "*/1," * 249 + "* * * * *",
        "0-59," * 199 + "* * * * *",
        "0 0 " + "15W," * 240 + "L * ?",
        "0 0 " + "L-30W," * 160 + "L 2 2#5",
        "0 0 0 29 2 MON#5 2100-2103",
        "0 0 */29 2 1",
        "* " * 400,
        "@every " + "1h" * 400,
        "@every " + "9" * 900 + "s",
        "@at " + "[" * 900,
        "9" * 1000,
        "CRON_TZ=" + "A/" * 490,
        "H" * 1000,
        "H," * 499 + "H * * * *",
        "x" * 1_000_000,
    ],
)
def test_texts_made_to_be_slow(text: str) -> None:
    forget()
    check(text, "Europe/Berlin", ScheduleSpec(text, "Europe/Berlin"))
    for gap, fold in (("skip", "both"), ("shift", "second")):
        check(text, "Africa/Casablanca", ScheduleSpec(text, "Africa/Casablanca", None, None, gap, fold))


def test_a_schedule_that_lives_in_gaps_alone_is_found_out_at_once() -> None:
    """02:30 on the day of the change: skipped every year, so the search crosses every change there is."""
    forget()
    spec = ScheduleSpec("30 2 * 3 0L", "Europe/Berlin", 400_000_000_000, None, "skip", "")
    took = []
    for _ in range(5):
        forget()
        took.append(ask(lambda: compile(spec)))
    assert min(took) <= LIMIT
