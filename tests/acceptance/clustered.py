"""A cluster of real processes over the real servers: its own topics, keyspace, ports; and what happens to its members."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.acceptance.served import BIN, Served, free_ports
from tests.servers import Servers

START_S = 90.0
STOP_S = 40.0
POLL_S = 0.05
TOKEN = "of-this-test"
KINDS = {
    "scheduler": ("scheduler-service", "SCHEDULER_SERVICE_GRPC_PORT", "SCHEDULER_SERVICE_HTTP_PORT"),
    "execution": ("execution-service", "EXECUTION_SERVICE_PORT", "EXECUTION_SERVICE_HTTP_PORT"),
    "job": ("job-service", "JOB_SERVICE_GRPC_PORT", "JOB_SERVICE_HTTP_PORT"),
}
_numbers = itertools.count()


class Member:
    """One service's process: `grpc` and `http` are its ports; `env` finds it."""

    def __init__(self, kind: str, name: str, env: Mapping[str, str], folder: Path) -> None:
        self.kind = kind
        self.name = name
        self.log = folder / f"{name}.log"
        command, grpc, http = KINDS[kind]
        self.grpc, self.http = free_ports(2)
        self.env = {**env, grpc: str(self.grpc), http: str(self.http), "DTS_WORKER_ID": name}
        self._command = [str(BIN / "dts"), command]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.log.parent
            )

    def again(self) -> None:
        """Starts it anew on its ports."""
        assert self.process.poll() is not None, f"{self.name} runs"
        self.process = self._start()

    def probe(self, path: str) -> int:
        """The status of a probe; 0: nobody answers."""
        try:
            with urlopen(f"http://localhost:{self.http}{path}", timeout=5) as answer:
                return int(answer.status)
        except URLError as error:
            return int(getattr(error, "code", 0) or 0)
        except OSError:
            return 0

    def wait(self, path: str = "/readyz") -> None:
        """Returns when a probe says yes."""
        deadline = time.monotonic() + START_S
        while self.probe(path) != 200:
            assert self.process.poll() is None, f"{self.name} ended:\n{self.tail()}"
            assert time.monotonic() < deadline, f"{self.name} is not ready:\n{self.tail()}"
            time.sleep(POLL_S)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """TERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


class Cluster:
    """Its members by name (scheduler-1, execution-1, job-1, ...). `dts` speaks to the first of each kind."""

    def __init__(self, folder: Path, servers: Servers, counts: Mapping[str, int], env: Mapping[str, str]) -> None:
        name = f"c{os.getpid()}n{next(_numbers)}"
        host, port = servers.cassandra
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DTS_", "KAFKA_", "CASSANDRA_"))}
        self.name = name
        self.folder = folder
        self.env = {
            **kept,
            "HOME": str(folder),
            "KAFKA_BROKERS": servers.kafka,
            "CASSANDRA_HOSTS": host,
            "CASSANDRA_PORT": str(port),
            "CASSANDRA_KEYSPACE": name,
            "DTS_CLUSTER": name,
            "DTS_WORKER_TOKEN": TOKEN,
            "KAFKA_JOB_TOPIC": f"{name}-jobs",
            "KAFKA_COMMAND_TOPIC": f"{name}-commands",
            "KAFKA_SCHEDULER_TOPIC": f"{name}-log",
            "KAFKA_EXECUTION_TOPIC": f"{name}-events",
            **env,
        }
        self.members: dict[str, Member] = {}
        for kind in KINDS:
            for number in range(counts.get(kind, 0)):
                self.add(kind, number + 1)

    def add(self, kind: str, number: int) -> Member:
        """One member more."""
        member = self.members[f"{kind}-{number}"] = Member(kind, f"{kind}-{number}", self.env, self.folder)
        return member

    def of(self, kind: str) -> list[Member]:
        """The members of a kind that run."""
        return [each for each in self.members.values() if each.kind == kind and each.process.poll() is None]

    def wait(self) -> None:
        """All of them are ready."""
        for member in self.members.values():
            member.wait()

    def client_env(
        self, jobs: str = "job-1", scheduler: str = "scheduler-1", executions: str = "execution-1"
    ) -> dict[str, str]:
        """What `dts` needs to speak to these members."""
        env = dict(self.env)
        for name in (jobs, scheduler, executions):
            member = self.members[name]
            _, grpc, http = KINDS[member.kind]
            env[grpc], env[http] = str(member.grpc), str(member.http)
        return env

    @property
    def served(self) -> Served:
        """As the tests of the embedded server see theirs."""
        first = self.members["job-1"]
        return Served(self.client_env(), first.log, first.process)

    def dts(self, *arguments: str) -> str:
        """What a command prints, which must succeed."""
        return self.served.out(*arguments)

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n\n".join(f"--- {name}\n{member.tail()}" for name, member in self.members.items())


@contextmanager
def cluster(
    folder: Path,
    servers: Servers,
    *,
    schedulers: int = 1,
    executions: int = 1,
    jobs: int = 1,
    env: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """A cluster that is ready; nothing of it is left afterwards."""
    counts = {"scheduler": schedulers, "execution": executions, "job": jobs}
    made = Cluster(folder, servers, counts, env or {})
    try:
        made.wait()
        yield made
    except BaseException:
        print(made.logs())
        raise
    finally:
        end(list(made.members.values()))


def end(members: Sequence[Member]) -> None:
    """TERM for all, KILL for who stays."""
    for member in members:
        if member.process.poll() is None:
            member.kill(signal.SIGCONT)
            member.kill(signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    for member in members:
        try:
            member.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            member.kill()
            member.process.wait()
