"""`python -m bench [NAME ...]`: burst, sustained, lateness, shell, create, stored; all without a name. JSON goes to bench/results/."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.embedded import figures, stored

Row = figures.Row
BENCHES: dict[str, tuple[Callable[[], Row], int]] = {
    "burst": (lambda: figures.burst(10_000), 5),
    "burst-50k": (lambda: figures.burst(50_000), 3),
    "lateness": (lambda: figures.sustained(1_000, 30), 5),
    "sustained": (lambda: figures.sustained(8_000, 60), 1),
    "shell": (figures.shell, 3),
    "create": (figures.create, 3),
    "stored": (stored.stored, 1),
}


def middle(rows: list[Row]) -> Row:
    """The median of each figure."""
    return {name: median(row[name] for row in rows) if len(rows) > 1 else rows[0][name] for name in rows[0]}  # type: ignore[type-var]


def main(names: list[str]) -> None:
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    for name in names or BENCHES:
        run, rounds = BENCHES[name]
        rows = [run() for _ in range(rounds)]
        print(f"\n{name} (median of {rounds})")
        for figure, value in middle(rows).items():
            print(f"  {figure:40} {value}")
        sys.stdout.flush()
        (results / f"{name}.json").write_text(json.dumps({"rounds": rows, "median": middle(rows)}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
