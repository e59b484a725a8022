"""`python -m bench.timetable`: one shard's timetable with 1 000 000 jobs over 1 000 schedules.

Aims: nothing due is seen in under 1 ms; 100 000 fires due at one instant are taken in under 200 ms.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from statistics import median
from time import perf_counter

from dts.core.timetable import Timetable
from dts.model import LAST_JOB, Definition, Demand, JobState, Policies, ScheduleSpec

JOBS = 1_000_000
SCHEDULES = 1_000
BURST = 100_000
T0 = 1_774_742_400_000
ROUNDS = 5


def definition(job: str, specs: tuple[ScheduleSpec, ...]) -> Definition:
    return Definition(job, 1, 0, JobState.ACTIVE, None, specs, Demand(), Policies(), b"")


def timed(work: Callable[[], object]) -> float:
    """Ms, the median of some rounds."""
    took = []
    for _ in range(ROUNDS):
        gc.collect()
        started = perf_counter()
        work()
        took.append((perf_counter() - started) * 1_000)
    return median(took)


def main() -> None:
    timetable = Timetable((T0, LAST_JOB))
    specs = [(ScheduleSpec(f"{n % 60} {n // 60} 1 * *"),) for n in range(SCHEDULES)]
    definitions = [definition(f"job-{number:07d}", specs[number % SCHEDULES]) for number in range(JOBS)]
    gc.freeze()
    started = perf_counter()
    for each in definitions:
        timetable.put(each)
    print(f"put {JOBS} jobs over {SCHEDULES} schedules: {perf_counter() - started:.2f} s")
    print(f"none due: {timed(lambda: timetable.due(T0 + 1, BURST)):.3f} ms (aim: under 1)")
    print(f"next due: {timed(timetable.next_due):.3f} ms")
    burst = (ScheduleSpec("@at 2026-03-29T00:01:00Z"),)
    for number in range(BURST):
        timetable.put(definition(f"burst-{number:06d}", burst))
    count = sum(len(some) for _, some in timetable.due(T0 + 60_000, BURST)[0])
    print(
        f"{count} due at one instant of one schedule: {timed(lambda: timetable.due(T0 + 60_000, BURST)):.1f} ms (aim: under 200)"
    )
    spread = Timetable((T0, LAST_JOB))
    for number in range(BURST):
        spread.put(
            definition(
                f"job-{number:07d}", (ScheduleSpec("@at 2026-03-29T00:01:00Z", end=T0 + 10**9 + number % SCHEDULES),)
            )
        )
    count = sum(len(some) for _, some in spread.due(T0 + 60_000, BURST)[0])
    print(
        f"{count} due at one instant of {SCHEDULES} schedules: {timed(lambda: spread.due(T0 + 60_000, BURST)):.1f} ms (aim: under 200)"
    )
    cut = timetable.due(T0 + 60_000, BURST // 2)[1]
    timetable.advance(cut)
    print(f"the rest after a cut: {timed(lambda: timetable.due(T0 + 60_000, BURST)):.1f} ms")


if __name__ == "__main__":
    main()
