"""The watchdog over real processes: one whose loop is blocked is ended, one that is stopped and continued is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from dts.server.watchdog import EXIT_CODE, STRIKES
from tests.servers import ROOT

EVERY_S = 0.05
WAIT_S = 20.0
PROGRAM = f"""
import asyncio, sys, time
from dts.server.watchdog import Watchdog

def stuck():
    time.sleep(600)

async def main():
    loop = asyncio.get_running_loop()
    dog = Watchdog(loop, {EVERY_S})
    dog.start()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("ready", flush=True)
    while line := (await lines.readline()).strip():
        if line == b"block":
            stuck()
        elif line == b"slices":
            for _ in range(3 * {STRIKES}):
                time.sleep({EVERY_S})
                dog.progress()
        print("well", flush=True)
    dog.stop()

asyncio.run(main())
"""


class Process:
    def __init__(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()

    def say(self, word: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{word}\n")
        self.child.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Its exit code and last words."""
        assert self.child.stderr is not None
        words = self.child.communicate(timeout=WAIT_S)[1]
        return self.child.returncode, words


def test_a_blocked_loop_ends_the_process() -> None:
    process = Process()
    process.say("block")
    begun = time.monotonic()
    code, words = process.end()
    assert code == EXIT_CODE
    assert time.monotonic() - begun >= (STRIKES - 1) * EVERY_S
    assert "the event loop made no turn in 10 wake-ups 0.05 s apart" in words
    assert "in stuck" in words, "it says where"


@pytest.mark.parametrize("times", [1, 3])
def test_a_stopped_process_is_not_a_stuck_one(times: int) -> None:
    process = Process()
    for _ in range(times):
        process.child.send_signal(signal.SIGSTOP)
        time.sleep(3 * STRIKES * EVERY_S)  # this is what is tested: time passes, wake-ups do not
        process.child.send_signal(signal.SIGCONT)
        process.say("?")
        assert process.line() == "well"
    process.say("")
    assert process.end()[0] == 0


def test_slices_of_work_are_progress() -> None:
    process = Process()
    process.say("slices")
    assert process.line() == "well"
    process.say("")
    assert process.end()[0] == 0
