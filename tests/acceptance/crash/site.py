"""A server that is killed, stopped and started again on the same file, with all the processes that belong to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.acceptance.served import BIN, STOP_S, Served, environment, wait_until_ready

TASKS = Path(__file__).parent  # what the worker imports
POLL_S = 0.02
REQUEST_S = 30.0
END_S = 10.0
GONE_S = 2.0  # how long what a killed worker had started may live


def until(what: str, condition: Callable[[], object], seconds: float) -> None:
    """Polls; raises AssertionError when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(POLL_S)


class Site:
    """`folder`: database, log, and what the tasks write."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        (folder / "locks").mkdir()
        env = {**environment(folder), "PYTHONPATH": str(TASKS), "CRASH": str(folder), **settings}
        self.served = Served(env, folder / "server.log", self._start(env))

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self.served.process

    def _start(self, env: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "server.log").open("ab") as out:
            return subprocess.Popen([BIN / "dts", "up"], env=env, stdout=out, stderr=out, cwd=self.folder)

    def restart(self) -> None:
        """Starts the next server at once; returns when it answers."""
        self.served.process = self._start(self.served.env)
        wait_until_ready(self.served)

    def start_and_kill(self, after_s: float) -> None:
        """A server that is killed while it starts, or just after."""
        self.served.process = self._start(self.served.env)
        time.sleep(after_s)
        self.process.kill()
        self.process.wait()

    def kill_server(self) -> None:
        self.process.kill()

    def kill_workers(self) -> None:
        """All that live: this server's and those of earlier ones."""
        for pid in self.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def guards(self) -> list[int]:
        """Pids of the workers' guards."""
        return [pid for pid in self._pids() if "\0-m\0dts.worker.guard\0" in _read(pid, "cmdline")]

    def workers(self) -> list[int]:
        """Pids of all workers of this database, also of those that only start."""
        return [pid for pid in self._pids() if _read(pid, "cmdline").endswith("\0-m\0dts.worker\0")]

    def strays(self) -> list[str]:
        """Processes of this database (tasks, workers, guards) that do not descend from the present server."""
        strays = [pid for pid in self._pids() if not self._descends(pid)]
        return [f"{pid} {_read(pid, 'cmdline').replace(chr(0), ' ')}" for pid in strays]

    def _pids(self) -> list[int]:
        """All processes of this database."""
        mark = f"\0DTS_DATABASE={self.served.env['DTS_DATABASE']}\0"
        pids = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())
        return [pid for pid in pids if mark in f"\0{_read(pid, 'environ')}"]

    def _descends(self, pid: int) -> bool:
        while pid > 1:
            if pid == self.process.pid:
                return True
            stat = _read(pid, "stat")
            pid = int(stat.rpartition(")")[2].split()[1]) if stat else 0
        return False

    def nothing_left(self) -> None:
        """Of a killed worker. Raises AssertionError naming what runs."""
        deadline = time.monotonic() + GONE_S
        while strays := self.strays():
            assert time.monotonic() < deadline, f"still running {GONE_S:g} s after the kill: {strays}"
            time.sleep(POLL_S)

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """One request over HTTP."""
        url = f"http://localhost:{self.served.env['JOB_SERVICE_HTTP_PORT']}{path}"
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(url, data, {"Content-Type": "application/json"}, method=method), timeout=REQUEST_S) as got:
            answer: dict[str, Any] = json.loads(got.read())
        return answer

    def stop(self) -> float:
        """TERM; how long it took (s). Raises AssertionError for an exit code other than 0."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_S)
        assert code == 0, f"exit code {code}\n{self.served.log.read_text()}"
        return time.monotonic() - began

    def end(self) -> None:
        """Nothing of it is left."""
        self.process.kill()
        self.process.wait()
        self.kill_workers()
        until("all processes are gone", lambda: not self.strays(), END_S)


def _read(pid: int, name: str) -> str:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes().decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def site(folder: Path, **settings: str) -> Iterator[Site]:
    """A server that answers; at the end nothing of it is left."""
    made = Site(folder, **settings)
    try:
        wait_until_ready(made.served)
        yield made
    finally:
        made.end()
