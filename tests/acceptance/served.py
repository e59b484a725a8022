"""A server as a person starts it: `dts up` as a process of its own, with its own ports, file and home; and `dts` as they type it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PORTS = {
    "JOB_SERVICE_GRPC_PORT": "50054",
    "JOB_SERVICE_HTTP_PORT": "8080",
    "SCHEDULER_SERVICE_GRPC_PORT": "50052",
    "SCHEDULER_SERVICE_HTTP_PORT": "8081",
    "EXECUTION_SERVICE_PORT": "50053",
    "EXECUTION_SERVICE_HTTP_PORT": "8082",
}
START_S = 30.0
STOP_S = 30.0
COMMAND_S = 60.0
POLL_S = 0.05


@dataclass
class Served:
    """A running server. `env`: what finds it; `log`: what it prints."""

    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes]

    def dts(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command; its outcome is the caller's to judge, but never a traceback."""
        done = subprocess.run(
            [BIN / "dts", *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    def out(self, *arguments: str, stdin: str | None = None) -> str:
        """What a command prints, which must succeed."""
        done = self.dts(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: exit code {done.returncode}\n{done.stderr}"
        return done.stdout

    def local(self, text: str) -> str:
        """A text of the docs with this server's ports in the place of the usual ones."""
        for name, usual in PORTS.items():
            text = text.replace(f"localhost:{usual}", f"localhost:{self.env[name]}")
        return text


def free_ports(count: int) -> list[int]:
    """Ports of this machine that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment(folder: Path) -> dict[str, str]:
    """A fresh home, a database in it and free ports."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DTS_", "KAFKA_", "CASSANDRA_"))}
    ports = {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**kept, **ports, "PATH": path, "HOME": str(folder), "DTS_DATABASE": str(folder / "dts.db")}


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A server that answers; stopped at the end, cleanly."""
    env, log = environment(folder), folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen([BIN / "dts", "up"], env=env, stdout=out, stderr=out, cwd=folder)
    running = Served(env, log, process)
    try:
        wait_until_ready(running)
        yield running
    finally:
        stop(running)


def wait_until_ready(running: Served) -> None:
    """Until /readyz says so. Raises AssertionError with the server's log when it does not come to that."""
    deadline = time.monotonic() + START_S
    url = f"http://localhost:{running.env['JOB_SERVICE_HTTP_PORT']}/readyz"
    while True:
        assert running.process.poll() is None, f"the server ended:\n{running.log.read_text()}"
        try:
            with urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            pass
        assert time.monotonic() < deadline, f"the server does not answer:\n{running.log.read_text()}"
        time.sleep(POLL_S)


def stop(running: Served) -> None:
    """TERM, and KILL for one that does not listen, which is a failure."""
    if running.process.poll() is None:
        running.process.send_signal(signal.SIGTERM)
    try:
        running.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()
        raise AssertionError(f"the server does not stop:\n{running.log.read_text()}") from None
