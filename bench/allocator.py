"""`python -m bench.allocator`: 1 000 workers, 100 000 queued executions of 100 distinct demands; `--profile` says what dominates.

Aim: one placement round under 200 ms, whatever the queue looks like. Processor time, medians of 5 runs.
"""

from __future__ import annotations

import cProfile
import gc
import pstats
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import process_time

from dts import bounds
from dts.core.allocator import Allocator
from dts.core.draft import Draft
from dts.core.fleet import Fleet
from dts.core.instance import Desk, Instance
from dts.core.shard import Shard
from dts.model import START, Block, Commit, Demand, Key, Report, Status, WorkerInfo, WorkerRef, intern_demand

WORKERS, QUEUED, DEMANDS, SHARDS = 1_000, 100_000, 100, 16
NOW = 1_774_742_400_000
AIM_MS = 200
ROUNDS = 5


def demands() -> list[Demand]:
    """As a company's jobs may be: a third slots alone, the others with cpu and memory, some with labels or a gpu."""
    draw = random.Random(1)
    found: set[Demand] = set()
    while len(found) < DEMANDS:
        kind = draw.random()
        wants = kind > 0.3
        found.add(
            Demand(
                cpu=draw.randrange(100, 2_000, 50) if wants else 0,
                memory=draw.randrange(64, 4_096, 64) if wants else 0,
                slots=draw.choice([1, 1, 1, 2, 3]),
                custom=(("gpu", 1),) if kind > 0.9 else (),
                selector=draw.choice(["", "", "zone=a", "zone in (a, b)", "disk=ssd, !spot"]),
                priority=draw.randrange(10),
            )
        )
    return [intern_demand(each) for each in sorted(found, key=repr)]


def fleet() -> Fleet:
    """Three sizes of machines in three zones."""
    made = Fleet()
    for number in range(WORKERS):
        size = (1, 2, 4)[number % 3]
        total = Demand(
            cpu=16_000 * size,
            memory=32_768 * size,
            storage=100_000,
            slots=30 * size,
            custom=(("gpu", 4),) if number % 10 == 0 else (),
        )
        labels = [("zone", "abc"[number // 3 % 3]), ("disk", "ssd" if number % 2 else "hdd"), ("host", f"h{number}")]
        labels += [("spot", "")] if number % 7 == 0 else []
        made.attach(WorkerInfo(WorkerRef(f"w{number:04d}", "1"), total, 100, tuple(labels)))
    return made


def drafts(size: int, shards: int, queued: int = QUEUED) -> list[Draft]:
    """A queue in blocks of so many executions, of all ages, over the shards."""
    draw = random.Random(2)
    made = [Draft(shard, 1, 1, NOW, START, (0, 0), (), ()) for shard in range(shards)]
    kinds = demands()
    for number in range(queued // size):
        keys = [Key(f"job-{number}-{each}", NOW) for each in range(size)]
        since = NOW - draw.randrange(bounds.FIRST_AFTER_MS * 2)
        block = Block(keys, [1] * size, kinds[number % DEMANDS], Status.QUEUED, queued=since)
        made[number % shards].ready.append(block)
    return made


@dataclass
class Seen:
    """One case."""

    name: str
    ms: float
    placed: int


def place(name: str, size: int, shards: int, queued: int = QUEUED) -> Seen:
    """A round over an empty fleet."""
    took, placed = [], 0
    for _ in range(ROUNDS):
        allocator, ready = Allocator(fleet()), drafts(size, shards, queued)
        gc.collect()
        started = process_time()
        allocator.begin()
        found = allocator.place(ready, lambda shard, worker: 1, NOW)
        took.append((process_time() - started) * 1_000)
        placed = sum(each.size for some in found.values() for each in some)
    return Seen(name, median(took), placed)


def waiting(shards: int) -> Instance:
    """An instance whose shards hold the whole queue, with all workers there."""
    core = Instance()
    for draft in drafts(10, shards):
        state = Shard(draft.shard)
        state.restore([Commit(draft.shard, 1, 1, NOW, START, (0, 0), blocks=draft.ready)])
        core.desks[draft.shard] = Desk(state, adopted=NOW, committed=NOW, fresh=False)
    core.fleet = fleet()
    core.allocator = Allocator(core.fleet)
    for member in core.fleet.members.values():
        for shard in core.desks:
            core.receive_report(shard, Report(member.info.ref, 1, 1, full=True), NOW)
    for desk in core.desks.values():
        desk.reports.clear()
    return core


def step(name: str, shards: int, *, full: bool) -> Seen:
    """One step of an instance: what is ready, places, the commits."""
    took, placed = [], 0
    for _ in range(ROUNDS):
        core = waiting(shards)
        if full:
            for member in core.fleet.members.values():
                member.add(Demand(slots=member.ours[3] + member.backlog), 1)
        core.nudge()
        gc.collect()
        started = process_time()
        commits = core.step(NOW)
        took.append((process_time() - started) * 1_000)
        placed = sum(len(block.keys) for commit in commits for block in commit.blocks if block.status is Status.PLACED)
    return Seen(name, median(took), placed)


CASES: list[Callable[[], Seen]] = [
    lambda: place("a round with all of them, blocks of 1 000, an empty fleet", 1_000, 1),
    lambda: place(f"... of {SHARDS} shards", 100, SHARDS),
    lambda: place("... in blocks of 10 of all ages, ten times what a step offers", 10, 1),
    lambda: place("10 000, what a step offers, each of its own age", 1, 1, bounds.STEP_PLACES),
    lambda: step("a whole step: what is ready, places, commits", 1, full=False),
    lambda: step(f"... of {SHARDS} shards", SHARDS, full=False),
    lambda: step("... when no worker has room", 1, full=True),
    lambda: step(f"... when no worker has room, {SHARDS} shards", SHARDS, full=True),
]


def main(arguments: list[str]) -> None:
    """All cases; with `--profile` each one's ten dearest functions."""
    for case in CASES:
        profile = cProfile.Profile()
        if "--profile" in arguments:
            profile.enable()
        seen = case()
        profile.disable()
        mark = "" if seen.ms < AIM_MS else "  OVER"
        print(f"{seen.name}: {seen.ms:.0f} ms, {seen.placed} placed (aim: under {AIM_MS}){mark}", flush=True)
        if "--profile" in arguments:
            pstats.Stats(profile).sort_stats("tottime").print_stats(10)


if __name__ == "__main__":
    main(sys.argv[1:])
