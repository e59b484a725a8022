"""Schedulers in processes of their own (tests/cluster/pump.py), and what is published to them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dts.adapters.kafka.feed import KafkaFeed
from dts.adapters.kafka.fold import fold
from dts.adapters.kafka.settings import KafkaSettings
from dts.model import (
    Commit,
    Definition,
    Demand,
    Instant,
    JobState,
    Key,
    Policies,
    ScheduleSpec,
    Status,
    intern_demand,
)
from tests.servers import ROOT

ANSWER_S = 60.0


class Pump:
    """One process."""

    def __init__(self, settings: KafkaSettings, **options: int) -> None:
        given = [json.dumps(settings._asdict()), json.dumps(options)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.pump", *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        )
        self._rest = b""
        self.leases: list[str] = []  # that it said so far
        assert self.wait_for("ready") == "ready"

    def order(self, *orders: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{each}\n" for each in orders).encode())
        self.process.stdin.flush()

    def line(self, timeout_s: float = ANSWER_S) -> str:
        """The next line it says; '' after the time-out."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                return ""
            got = os.read(self.process.stdout.fileno(), 65_536)
            assert got, "it ended"
            self._rest += got
        line, self._rest = self._rest.split(b"\n", 1)
        said = line.decode()
        if said.startswith("lease "):
            self.leases.append(said)
        return said

    def wait_for(self, start: str, timeout_s: float = ANSWER_S) -> str:
        """The next line that begins so; what comes before is passed over (leases are kept)."""
        deadline = time.monotonic() + timeout_s
        while True:
            said = self.line(max(deadline - time.monotonic(), 0))
            assert said, f"no {start!r} within {timeout_s:g} s"
            if said.startswith(start):
                return said

    def ask(self, order: str, start: str) -> str:
        self.order(order)
        return self.wait_for(start)

    def status(self) -> dict[str, Any]:
        """Shards, clock, notes."""
        found: dict[str, Any] = json.loads(self.ask("status", "status ").split(" ", 1)[1])
        return found

    def until(self, what: str, true: object, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """Polls its status."""
        deadline = time.monotonic() + timeout_s
        while not true(found := self.status()):  # type: ignore[operator]
            assert time.monotonic() < deadline, f"{what}: {found}"
            time.sleep(0.05)
        return found

    def owns(self) -> set[int]:
        return {int(each) for each in self.status()["shards"]}

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def pumps(settings: KafkaSettings, count: int, **options: int) -> Iterator[list[Pump]]:
    """So many, none of which is left at the end."""
    found: list[Pump] = []
    try:
        for _ in range(count):
            found.append(Pump(settings, **options))
        yield found
    finally:
        for each in found:
            each.kill()


def now_ms() -> Instant:
    return time.time_ns() // 1_000_000


def job(name: str, *schedules: str, revision: int = 1, since: Instant | None = None) -> Definition:
    """A revision in force from now on."""
    specs = tuple(ScheduleSpec(each) for each in schedules)
    at = now_ms() if since is None else since
    return Definition(name, revision, at, JobState.ACTIVE, None, specs, intern_demand(Demand()), Policies(), b"body")


async def publish(settings: KafkaSettings, *definitions: Definition) -> None:
    feed = KafkaFeed(settings, settings.partitions)
    try:
        await feed.publish(definitions)
    finally:
        await feed.close()


def log_of(settings: KafkaSettings, shard: int = 0) -> list[Commit]:
    """The shard's commits: `fold` refuses a log that is not in order."""
    return fold(settings, shard).commits


def begun(commits: list[Commit]) -> list[Key]:
    """Executions in the order in which they first appear, each time that one appears as new."""
    known: set[Key] = set()
    found = []
    for commit in commits:
        for block in commit.blocks:
            for key in block.keys:
                if key not in known or (block.status is Status.QUEUED and block.attempt == 0):
                    found.append(key)
                known.add(key)
    return found


def placements(commits: list[Commit]) -> list[tuple[Key, int]]:
    """(execution, attempt) of each placement."""
    return [
        (key, block.attempt)
        for commit in commits
        for block in commit.blocks
        if block.status is Status.PLACED and block.fencing == commit.seq
        for key in block.keys
    ]


def seconds(name: str, keys: list[Key]) -> list[int]:
    """The instants of a job, in seconds."""
    return [key.at // 1_000 for key in keys if key.job == name]
