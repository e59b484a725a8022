#!/usr/bin/env python3
"""A whole cluster on 127.0.0.1: Kafka, Cassandra (servers.py) and the services of DTS, each on ports of its own.

cluster.py up DIR [--schedulers 3] [--executions 2] [--jobs 2]   starts what does not run, waits until all are ready
cluster.py down DIR                                              stops the services cleanly, then the servers
cluster.py status DIR                                            what runs

All state lies under DIR: NAME.pid and NAME.log for each process (kafka, cassandra, scheduler-1, execution-1, job-1 ...), `env`
with the variables that find them, `token`, which workers attach with. The first copy of each service has the usual ports (so
`dts` finds it without a variable), the second ones 10 above, and so on.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_S = 120.0
STOP_S = 40.0
POLL_S = 0.1
APART = 10  # ports between two copies


class Kind(NamedTuple):
    """A service: its command, and its variables and usual ports for gRPC and HTTP."""

    command: str
    grpc: tuple[str, int]
    http: tuple[str, int]


KINDS = {
    "scheduler": Kind(
        "scheduler-service", ("SCHEDULER_SERVICE_GRPC_PORT", 50052), ("SCHEDULER_SERVICE_HTTP_PORT", 8081)
    ),
    "execution": Kind("execution-service", ("EXECUTION_SERVICE_PORT", 50053), ("EXECUTION_SERVICE_HTTP_PORT", 8082)),
    "job": Kind("job-service", ("JOB_SERVICE_GRPC_PORT", 50054), ("JOB_SERVICE_HTTP_PORT", 8080)),
}


class Copy(NamedTuple):
    """One process."""

    kind: Kind
    name: str
    number: int  # from 0

    @property
    def grpc(self) -> int:
        return self.kind.grpc[1] + APART * self.number

    @property
    def http(self) -> int:
        return self.kind.http[1] + APART * self.number


def copies(counts: dict[str, int]) -> list[Copy]:
    """All processes, schedulers first."""
    return [
        Copy(kind, f"{name}-{number + 1}", number) for name, kind in KINDS.items() for number in range(counts[name])
    ]


def pid_of(folder: Path, name: str) -> int:
    """The process of a name, if it runs; else 0."""
    try:
        pid = int((folder / f"{name}.pid").read_text())
        os.kill(pid, 0)
        state = (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] if Path("/proc/self").exists() else ""
        )
    except (OSError, ValueError):
        return 0
    return 0 if state == "Z" else pid


def servers(what: str, folder: Path) -> dict[str, str]:
    """Runs servers.py; the variables that it prints."""
    done = subprocess.run(
        [sys.executable, str(HERE / "servers.py"), what, str(folder)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def dts() -> str:
    """The command of this checkout, or that of the path."""
    own = ROOT / ".venv/bin/dts"
    return str(own) if own.exists() else "dts"


def token(folder: Path) -> str:
    """What workers attach with: made once."""
    file = folder / "token"
    if not file.exists():
        file.touch(0o600)
        file.write_text(secrets.token_hex(16))
    return file.read_text()


def start(folder: Path, copy: Copy, shared: dict[str, str]) -> None:
    """Starts one process that does not run yet."""
    if pid_of(folder, copy.name):
        return
    env = {
        **os.environ,
        **shared,
        copy.kind.grpc[0]: str(copy.grpc),
        copy.kind.http[0]: str(copy.http),
        "DTS_WORKER_ID": f"worker-{copy.number + 1}",
    }
    with (folder / f"{copy.name}.log").open("ab") as log:
        made = subprocess.Popen(
            [dts(), copy.kind.command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=folder,
        )
    (folder / f"{copy.name}.pid").write_text(str(made.pid))


def why_not_ready(copy: Copy) -> str:
    """What its readiness probe says; empty: it is ready."""
    try:
        with urllib.request.urlopen(f"http://localhost:{copy.http}/readyz", timeout=5) as answer:
            return "" if answer.status == 200 else str(answer.status)
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)


def wait(folder: Path, copy: Copy) -> None:
    """Returns when a process is ready."""
    deadline = time.monotonic() + START_S
    while why := why_not_ready(copy):
        ended = not pid_of(folder, copy.name)
        if ended or time.monotonic() > deadline:
            tail = (folder / f"{copy.name}.log").read_text(errors="replace").splitlines()[-20:]
            problem = "ended" if ended else f"is not ready: {why}"
            sys.exit(f"cluster: {copy.name} {problem}; the end of its log:\n" + "\n".join(tail))
        time.sleep(POLL_S)


def up(folder: Path, counts: dict[str, int]) -> None:
    """All of them are ready on return."""
    shared = {**servers("up", folder), "DTS_WORKER_TOKEN": token(folder)}
    (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in sorted(shared.items())))
    (folder / "env").chmod(0o600)
    all_of = copies(counts)
    for copy in all_of:
        start(folder, copy, shared)
    for copy in all_of:
        wait(folder, copy)
        print(f"{copy.name:14} gRPC localhost:{copy.grpc}  HTTP http://localhost:{copy.http}", flush=True)
    print("First job: dts job create --name hello --cron '@every 10s' --shell 'echo hello'")


def names(folder: Path) -> list[str]:
    """The services that were started here, in the order in which they are stopped."""
    found = [path.stem for path in sorted(folder.glob("*.pid"))]
    return [name for kind in ("job", "execution", "scheduler") for name in found if name.startswith(f"{kind}-")]


def down(folder: Path) -> None:
    """Nothing of this folder runs on return."""
    for kind in ("job", "execution", "scheduler"):
        pids = {name: pid_of(folder, name) for name in names(folder) if name.startswith(kind)}
        for pid in filter(None, pids.values()):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for name, pid in pids.items():
            while pid and pid_of(folder, name):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass
                time.sleep(POLL_S)
            (folder / f"{name}.pid").unlink(missing_ok=True)
    servers("down", folder)


def status(folder: Path) -> None:
    """Prints what runs."""
    for name in ("kafka", "cassandra", *names(folder)):
        pid = pid_of(folder, name)
        print(f"{name:14} {f'pid {pid}' if pid else 'does not run'}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["up", "down", "status"])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--schedulers", type=int, default=3)
    parser.add_argument("--executions", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    folder = options.dir.resolve()
    if options.what == "up":
        up(folder, {"scheduler": options.schedulers, "execution": options.executions, "job": options.jobs})
    elif options.what == "down":
        down(folder)
    else:
        status(folder)


if __name__ == "__main__":
    main()
