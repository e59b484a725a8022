"""Runs seeds: `python -m tests.simulation.run --seed N [--trace]` replays one, `--seeds A..B` runs many."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from tests.simulation.generator import Generator
from tests.simulation.site import Build
from tests.simulation.world import World


class Result(NamedTuple):
    """How a run went. `problem`: a Violation's text, or what was raised; '': all laws hold."""

    seed: int
    problem: str
    detail: str
    commits: int
    starts: int
    digest: int
    trace: list[str]
    seen: Counter[str]


def simulate(seed: int, build: Build | None = None, *, trace: bool = False) -> Result:
    """One run, a function of its seed."""
    world = World(seed, trace=trace)
    generator = Generator(world, build or Build())
    problem = detail = ""
    try:
        generator.run()
    except Exception as error:
        problem = str(error) or repr(error)
        if not isinstance(error, AssertionError) or not problem[:1].isdigit():
            problem = f"0: {type(error).__name__}: {problem}"
        detail = traceback.format_exc()
    checkers = generator.site.checkers
    return Result(
        seed, problem, detail, checkers.commits, checkers.starts, world.digest, world.trace or [], checkers.seen
    )


def first_broken(seeds: Iterable[int], build: Build) -> Result | None:
    """The first seed under which a law is seen to be broken."""
    return next((found for seed in seeds if (found := simulate(seed, build)).problem), None)


def main() -> int:
    """0: all laws held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", default="", metavar="A..B")
    parser.add_argument("--trace", action="store_true", help="print what happened")
    chosen = parser.parse_args()
    first, _, last = chosen.seeds.partition("..")
    seeds = range(int(first), int(last) + 1) if first else [chosen.seed or 0]
    began, commits, starts, failed = time.process_time(), 0, 0, 0
    seen: Counter[str] = Counter()
    for seed in seeds:
        result = simulate(seed, trace=chosen.trace)
        commits, starts = commits + result.commits, starts + result.starts
        seen += result.seen
        for line in result.trace:
            print(line)
        if result.problem:
            failed += 1
            print(f"seed {seed}: {result.problem}", flush=True)
            if len(seeds) == 1:
                print(result.detail)
    print(", ".join(f"{name} {count}" for name, count in sorted(seen.items())))
    took = time.process_time() - began
    print(f"{len(seeds)} seeds, {failed} failed, {commits} commits, {starts} starts, {took:.1f} s of processor time")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
