"""`python -m bench [NAME ...]`; without a name all of the embedded server, `cluster` all of the cluster. JSON goes to bench/results/."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.cluster import figures as cluster
from bench.embedded import figures, stored
from tests import servers

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
CLUSTER: dict[str, tuple[Callable[[], Row], int]] = {
    "cluster-burst": (lambda: cluster.burst(10_000), 5),
    "cluster-lateness": (lambda: cluster.sustained(1_000, 30), 5),
    "cluster-sustained": (lambda: cluster.sustained(3_000, 60), 5),
    "cluster-create": (cluster.create, 5),
}


def middle(rows: list[Row]) -> Row:
    """The median of each figure."""
    return {name: median(row[name] for row in rows) if len(rows) > 1 else rows[0][name] for name in rows[0]}  # type: ignore[type-var]


def main(names: list[str]) -> None:
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    every = {**BENCHES, **CLUSTER}
    for name in CLUSTER if names == ["cluster"] else names or BENCHES:
        run, rounds = every[name]
        rows = [run() for _ in range(rounds)]
        print(f"\n{name} (median of {rounds})")
        for figure, value in middle(rows).items():
            print(f"  {figure:40} {value}")
        sys.stdout.flush()
        (results / f"{name}.json").write_text(json.dumps({"rounds": rows, "median": middle(rows)}, indent=2) + "\n")
    servers.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
