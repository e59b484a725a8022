"""kill -9 at random moments under 200 fires a second: nothing is lost, nothing runs twice that need not, nothing overlaps."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.crash.load import Facts, Load
from tests.acceptance.crash.site import Site, site, until

SHELL, PYTHON = 40, 160  # fires a second
SHORT_PAUSE_S = (0.3, 1.5)
PAUSE_S = (0.3, 2.5)  # between two kills; so that hardly anything that runs for 0.3 s is hit five times in a row
SOME_S = 1.0
WORKER_S = 10.0  # until a killed worker is replaced
STARTING, STARTING_S = 0.4, (0.1, 1.2)  # how often and when a starting server is killed
KINDS = ("server", "worker", "both")


def kill(at: Site, kind: str, dice: random.Random) -> None:
    """One round. After it a server answers, and of a killed worker nothing runs. A next server may be killed as it starts."""
    until("there is a worker", at.workers, WORKER_S)
    if kind != "worker":
        at.kill_server()
    if kind != "server":
        at.kill_workers()
    if kind != "worker":
        at.process.wait()
        if dice.random() < STARTING:
            at.start_and_kill(dice.uniform(*STARTING_S))
            if kind != "server":
                at.kill_workers()
        at.restart()
    if kind != "server":
        at.nothing_left()


def rounds(folder: Path, kind: str, count: int, pause_s: tuple[float, float]) -> Facts:
    """So many kills; what was found when all was over."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # with a failure only: what the machine does is not repeated by it
    dice = random.Random(seed)
    with site(folder) as at:
        load = Load(at)
        load.create(shell=SHELL, python=PYTHON)
        until("tasks run", (folder / "lines").exists, WORKER_S)
        for _ in range(count):
            time.sleep(dice.uniform(*pause_s))  # the random moment is the point
            kill(at, kind, dice)
        load.pause()
        facts = load.check(once=kind == "server")
    print(
        f"{kind}: {count} rounds, {facts.due} due, {len(facts.lines)} starts, attempts {dict(sorted(facts.attempts.items()))}"
    )
    return facts


@pytest.mark.parametrize("kind", KINDS)
def test_kill_9(tmp_path: Path, kind: str) -> None:
    rounds(tmp_path, kind, 2, SHORT_PAUSE_S)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_kill_9_again_and_again(tmp_path: Path, kind: str) -> None:
    rounds(tmp_path, kind, 25, PAUSE_S)


def stopped(folder: Path, seconds: float) -> None:
    with site(folder) as at:
        load = Load(at)
        load.create(shell=SHELL, python=PYTHON)
        time.sleep(SOME_S)
        at.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        at.process.send_signal(signal.SIGCONT)
        time.sleep(SOME_S)
        load.pause()
        facts = load.check(once=True)
    print(f"stopped for {seconds:g} s: {facts.due} due, {len(facts.lines)} starts")


def test_a_server_that_stands_still(tmp_path: Path) -> None:
    stopped(tmp_path, 2)


@pytest.mark.soak
def test_a_server_that_stands_still_for_20_s(tmp_path: Path) -> None:
    stopped(tmp_path, 20)
