"""Owners in processes of their own, to be stopped and killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dts.adapters.kafka.fold import Folded, fold
from dts.adapters.kafka.settings import KafkaSettings
from tests.servers import ROOT

ANSWER_S = 60.0


class Child:
    """One process of tests/cluster/owner.py."""

    def __init__(self, settings: KafkaSettings) -> None:
        given = json.dumps(settings._asdict())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.owner", given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        )
        self._rest = b""
        assert self.answer() == "ready"

    def order(self, *orders: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{each}\n" for each in orders).encode())
        self.process.stdin.flush()

    def answer(self, timeout_s: float = ANSWER_S) -> str:
        """The next line it says."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
            assert ready, "no answer in time"
            got = os.read(self.process.stdout.fileno(), 4_096)
            assert got, "it ended"
            self._rest += got
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def ask(self, *orders: str) -> str:
        """Orders, and the next line that is said."""
        self.order(*orders)
        return self.answer()

    def stop(self) -> None:
        """SIGSTOP: it stands still, its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def owners(settings: KafkaSettings, count: int) -> Iterator[list[Child]]:
    """So many processes, none of which is left at the end."""
    found: list[Child] = []
    try:
        for _ in range(count):
            found.append(Child(settings))
        yield found
    finally:
        for child in found:
            child.kill()


def log_of(settings: KafkaSettings) -> Folded:
    """What the log of shard 0 holds."""
    return fold(settings, 0)
