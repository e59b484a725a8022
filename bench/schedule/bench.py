"""Schedules side by side in one run: dts, croniter, cronsim and APScheduler's CronTrigger, over expressions people wrote.

    python bench/schedule/bench.py [--quick] [--json FILE]

Measured: the next instant when stepping on, the next instant from an arbitrary one, reading a text, and memory. Each library is asked
in the way it is fastest at, with objects it keeps. Times are processor time, so that a busy machine changes little. What a library
refuses it is not asked, and the table says how many it read.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from croniter import croniter
from cronsim import CronSim

from dts.model import ScheduleSpec
from dts.schedule import rules_version
from dts.schedule.clock import clock
from dts.schedule.compiling import _compile
from dts.schedule.days import day_pattern

EXPRESSIONS = Path(__file__).with_name("expressions.txt")
START = datetime(2026, 3, 15, 12, 0, 30, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
LIBRARIES = ("dts", "cronsim", "croniter", "apscheduler")
Step = Callable[[int], None]  # ask for that many next instants


def groups() -> dict[str, list[str]]:
    """Every expression under the kind of schedule it is."""
    found: dict[str, list[str]] = {}
    for line in EXPRESSIONS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            found.setdefault(kind(line), []).append(line)
    return dict(sorted(found.items()))


def kind(text: str) -> str:
    """By how often it fires; specials apart."""
    if text.startswith("@"):
        return {"@daily": "once a day", "@weekly": "on weekdays", "@monthly": "on dates"}[text]
    words = text.split()
    if any(mark in f" {text.upper()} " for mark in ("#", " L ", "LW", "5W ", "6L", "5L")):
        return "specials (L, W, #)"
    if len(words) > 5:
        if words[0] not in ("0", "00"):
            return "with seconds"
        words = words[1:6]
    minute, hour, day, month, weekday = words
    if month != "*" or day not in ("*", "?"):
        return "on dates"
    if weekday not in ("*", "?"):
        return "on weekdays"
    if hour == "*":
        return "every minute to hour"
    return "once a day" if hour.isdigit() and minute.isdigit() else "several times a day"


def dts_step(text: str, zone: str) -> Step:
    schedule = _compile(ScheduleSpec(text, zone))

    def run(steps: int) -> None:
        after, at = schedule.next_after, START_MS
        for _ in range(steps):
            at = after(at) or START_MS

    return run


def cronsim_step(text: str, zone: str) -> Step:
    def run(steps: int) -> None:
        source = CronSim(text, START.astimezone(ZoneInfo(zone)) if zone != "UTC" else START)
        for _ in range(steps):
            next(source)

    run(1)
    return run


def croniter_step(text: str, zone: str) -> Step:
    start = START.astimezone(ZoneInfo(zone)) if zone != "UTC" else START
    source = croniter(text, start, ret_type=float, second_at_beginning=True)
    source.get_next(float)
    begin = START.timestamp()

    def run(steps: int) -> None:
        source.set_current(begin, force=True)
        step = source.get_next
        for _ in range(steps):
            step(float)

    return run


def apscheduler_trigger(text: str, zone: str) -> CronTrigger:
    words = text.split()
    if text.startswith("@") or len(words) > 6:
        raise ValueError("not read")
    names = ["minute", "hour", "day", "month", "day_of_week"]
    named = dict(zip(["second", *names] if len(words) == 6 else names, words, strict=True))
    return CronTrigger(timezone=ZoneInfo(zone), **{key: "*" if value == "?" else value for key, value in named.items()})


def apscheduler_step(text: str, zone: str) -> Step:
    trigger = apscheduler_trigger(text, zone)
    start = START.astimezone(ZoneInfo(zone))
    if trigger.get_next_fire_time(None, start) is None:
        raise ValueError("never")

    def run(steps: int) -> None:
        at = start
        step = trigger.get_next_fire_time
        for _ in range(steps):
            at = step(at, at) or start

    return run


STEPPERS = {"dts": dts_step, "cronsim": cronsim_step, "croniter": croniter_step, "apscheduler": apscheduler_step}


def dts_random(text: str, zone: str, instants: list[datetime]) -> Callable[[], None]:
    schedule = _compile(ScheduleSpec(text, zone))
    asked = [int(at.timestamp() * 1000) for at in instants]
    return lambda: [schedule.next_after(at) for at in asked] and None


def cronsim_random(text: str, zone: str, instants: list[datetime]) -> Callable[[], None]:
    local = [at.astimezone(ZoneInfo(zone)) if zone != "UTC" else at for at in instants]
    CronSim(text, local[0])
    return lambda: [next(CronSim(text, at)) for at in local] and None  # it has no other way to be asked


def croniter_random(text: str, zone: str, instants: list[datetime]) -> Callable[[], None]:
    start = START.astimezone(ZoneInfo(zone)) if zone != "UTC" else START
    source = croniter(text, start, ret_type=float, second_at_beginning=True)
    asked = [at.timestamp() for at in instants]
    return lambda: [source.get_next(float, start_time=at) for at in asked] and None


def apscheduler_random(text: str, zone: str, instants: list[datetime]) -> Callable[[], None]:
    trigger = apscheduler_trigger(text, zone)
    local = [at.astimezone(ZoneInfo(zone)) for at in instants]
    return lambda: [trigger.get_next_fire_time(None, at) for at in local] and None


RANDOM = {"dts": dts_random, "cronsim": cronsim_random, "croniter": croniter_random, "apscheduler": apscheduler_random}


def timed(call: Callable[[], object], asked: int) -> float:
    """Microseconds of processor time for one question; the better of two runs."""
    best = float("inf")
    for _ in range(2):
        began = time.process_time_ns()
        call()
        best = min(best, time.process_time_ns() - began)
    return best / asked / 1000


def stepping(text: str, zone: str, steps: int) -> dict[str, float]:
    found = {}
    for library, make in STEPPERS.items():
        try:
            step = make(text, zone)
            step(2)
        except Exception:
            continue  # not its dialect, or nothing left
        found[library] = timed(lambda run=step: run(steps), steps)
    return found


def arbitrary(text: str, zone: str, instants: list[datetime]) -> dict[str, float]:
    found = {}
    for library, make in RANDOM.items():
        try:
            call = make(text, zone, instants)
            call()
        except Exception:
            continue
        found[library] = timed(call, len(instants))
    return found


def forget() -> None:
    clock.cache_clear()
    day_pattern.cache_clear()


PARSERS: dict[str, Callable[[str], object]] = {
    "dts": lambda text: _compile(ScheduleSpec(text, "UTC")),
    "cronsim": lambda text: CronSim(text, START),
    "croniter": lambda text: croniter(text, START, ret_type=float, second_at_beginning=True),
    "apscheduler": lambda text: apscheduler_trigger(text, "UTC"),
}


def parsing(texts: list[str]) -> dict[str, dict[str, float]]:
    """Microseconds for one text that was never seen before, and bytes that each object keeps, all of them held."""
    found = {}
    for library, parse in PARSERS.items():
        times = []
        forget()
        for text in texts:
            began = time.process_time_ns()
            try:
                parse(text)
            except Exception:
                continue
            times.append((time.process_time_ns() - began) / 1000)
        forget()
        gc.collect()
        tracemalloc.start()
        held = []
        for text in texts:
            try:
                held.append(parse(text))
            except Exception:
                continue
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        found[library] = {
            "read": len(times),
            "median_us": statistics.median(times),
            "mean_us": statistics.mean(times),
            "bytes": size / len(held),
        }
        held.clear()
    return found


def summary(measured: list[dict[str, float]]) -> dict[str, object]:
    """Medians of a group, and how many times as fast dts is, as the median over the expressions both read."""
    row: dict[str, object] = {"expressions": len(measured)}
    for library in LIBRARIES:
        times = [one[library] for one in measured if library in one]
        row[library] = {"read": len(times), "median_us": round(statistics.median(times), 3) if times else None}
        if library != "dts":
            ratios = [one[library] / one["dts"] for one in measured if library in one and "dts" in one]
            row[f"times_{library}"] = round(statistics.median(ratios), 1) if ratios else None
            row[f"worst_{library}"] = round(min(ratios), 2) if ratios else None
    return row


def table(title: str, rows: dict[str, dict[str, object]]) -> None:
    print(
        f"\n{title}: median microseconds (expressions read); in brackets how many times as fast dts is: median, worst\n"
    )
    print(f"{'group':22} {'dts':>14} {'cronsim':>30} {'croniter':>30} {'APScheduler':>32}")
    for name, row in rows.items():
        cells = []
        for library in LIBRARIES:
            cell = row[library]
            assert isinstance(cell, dict)
            text = "-" if cell["median_us"] is None else f"{cell['median_us']:.2f} ({cell['read']})"
            if library != "dts" and cell["median_us"] is not None:
                text += f" [{row[f'times_{library}']}x, {row[f'worst_{library}']}x]"
            cells.append(text)
        print(f"{name:22} {cells[0]:>14} {cells[1]:>30} {cells[2]:>30} {cells[3]:>32}")


def measure(
    zone: str, steps: int, instants: list[datetime]
) -> tuple[dict[str, dict[str, object]], dict[str, dict[str, object]]]:
    walked: dict[str, dict[str, object]] = {}
    jumped: dict[str, dict[str, object]] = {}
    every_walk: list[dict[str, float]] = []
    every_jump: list[dict[str, float]] = []
    for name, texts in groups().items():
        walk = [stepping(text, zone, steps) for text in texts]
        jump = [arbitrary(text, zone, instants) for text in texts]
        walked[name], jumped[name] = summary(walk), summary(jump)
        every_walk += walk
        every_jump += jump
    walked["all"], jumped["all"] = summary(every_walk), summary(every_jump)
    return walked, jumped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer questions to each expression")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    steps = 20 if arguments.quick else 100
    draw = random.Random(7)
    instants = [
        datetime.fromtimestamp(draw.randrange(1_704_067_200, 1_956_528_000), UTC)
        for _ in range(8 if arguments.quick else 25)
    ]
    libraries = {name: version(name) for name in ("cronsim", "croniter", "apscheduler")}
    result: dict[str, object] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "zone_rules": rules_version(),
        "libraries": libraries,
    }
    print(f"Python {platform.python_version()}, {libraries}, zone rules {rules_version()}")
    for zone in ("UTC", "Europe/Berlin"):
        walked, jumped = measure(zone, steps, instants)
        table(f"Stepping, {zone}", walked)
        table(f"From an arbitrary instant, {zone}", jumped)
        result[zone] = {"stepping": walked, "arbitrary": jumped}
    texts = [text for several in groups().values() for text in several]
    read = parsing(texts)
    print("\nReading a text never seen before, and memory of one object with all of them held\n")
    for library, row in read.items():
        print(
            f"{library:12} {row['read']:5} read {row['median_us']:8.1f} us median {row['mean_us']:8.1f} us mean {row['bytes']:8.0f} bytes"
        )
    result["reading"] = read
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    else:
        json.dump(result, sys.stdout)
        print()


if __name__ == "__main__":
    main()
