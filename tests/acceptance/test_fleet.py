"""A server's fleet, as a person has it: cordon, uncordon and drain; two workers that were given one name."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.served import BIN, Served, served

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("cordon")) as running:
        yield running


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def worker(server: Served, id: str = "local") -> dict[str, object]:
    found = json.loads(server.out("worker", "list", "-o", "json"))["workers"]
    return next((each for each in found if each["id"] == id), {})


def run(server: Served, command: str, *more: str) -> str:
    """A job's first execution, asked for by hand: its id."""
    made = server.out("job", "create", "--name", "by hand", "--shell", command, *more)
    job = made.split("ID: ")[1].split()[0]
    server.out("job", "run", job)
    found = json.loads(server.out("execution", "list", "--job", job, "-o", "json"))["executions"]
    return str(found[0]["id"])


def execution(server: Served, id: str) -> dict[str, object]:
    return dict(json.loads(server.out("execution", "get", id, "-o", "json")))


def test_nothing_new_goes_to_a_cordoned_worker_until_it_is_uncordoned(server: Served, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = run(server, f"until [ -e {gate} ]; do sleep 0.05; done")
    until(lambda: execution(server, running)["status"] == "RUNNING")
    assert server.out("worker", "cordon", "local") == "Worker cordoned: local\n"
    until(lambda: worker(server).get("cordoned"))
    assert " cordoned " in server.out("worker", "list")
    waiting = run(server, "true")
    assert execution(server, waiting)["status"] == "QUEUED"
    assert "cordoned" in server.out("explain", waiting)
    gate.touch()
    until(lambda: execution(server, running)["status"] == "COMPLETED")
    assert execution(server, waiting)["status"] == "QUEUED"
    assert server.out("worker", "uncordon", "local") == "Worker uncordoned: local\n"
    until(lambda: execution(server, waiting)["status"] == "COMPLETED")


def test_a_drain_with_a_grace_time_moves_what_runs_to_another_worker(server: Served, tmp_path: Path) -> None:
    """The second worker is another machine's: it needs the address and the token alone."""
    marks = tmp_path / "marks"
    running = run(server, f"echo $DTS_ATTEMPT >> {marks}; [ $DTS_ATTEMPT -gt 1 ] || exec sleep 300")
    until(lambda: execution(server, running)["status"] == "RUNNING")
    address = f"127.0.0.1:{server.env['SCHEDULER_SERVICE_GRPC_PORT']}"
    command = [BIN / "dts", "worker", "--scheduler", address, "--id", "other", "--slots", "2", "--label", "zone=b"]
    with (tmp_path / "other.log").open("wb") as log:
        other = subprocess.Popen(command, env=server.env, stdout=log, stderr=log)
    try:
        until(lambda: worker(server, "other"))
        assert server.out("worker", "drain", "local", "--grace", "1s", "--wait") == "Worker drains: local\n"
        until(lambda: execution(server, running)["status"] == "COMPLETED")
        assert execution(server, running)["attempt"] == 2
        assert marks.read_text().split() == ["1", "2"]
        assert worker(server, "other")["labels"] == {"zone": "b"}
    finally:
        server.out("worker", "uncordon", "local")
        other.terminate()
        assert other.wait(PATIENCE_S) == 0


def test_a_worker_that_is_not_there(server: Served) -> None:
    done = server.dts("worker", "drain", "nobody")
    assert done.returncode == 4
    assert "worker 'nobody' not found" in done.stderr
    assert server.dts("worker", "drain", "local", "--grace", "999d").returncode == 2
    assert not worker(server)["cordoned"]


def test_two_workers_of_one_name_are_one_worker_by_capacity(server: Served, tmp_path: Path) -> None:
    """A cloned machine: what both run together is what one of them may, and nothing runs twice."""
    address = f"127.0.0.1:{server.env['SCHEDULER_SERVICE_GRPC_PORT']}"
    command = [BIN / "dts", "worker", "--scheduler", address, "--id", "twin", "--slots", "2", "--label", "twin=yes"]
    with ExitStack() as stack:
        for number in (1, 2):
            log = stack.enter_context((tmp_path / f"{number}.log").open("wb"))
            env = {**server.env, "TWIN": str(number)}
            twin = subprocess.Popen(command, env=env, stdout=log, stderr=log)
            stack.callback(twin.wait, PATIENCE_S)
            stack.callback(twin.terminate)
        until(lambda: all("attached to" in (tmp_path / f"{number}.log").read_text() for number in (1, 2)))
        marks = tmp_path / "marks"
        script = f"echo start $TWIN $DTS_EXECUTION_ID $DTS_ATTEMPT >> {marks}; sleep 0.4; echo end >> {marks}"
        more = ["--selector", "twin=yes", "--cpu", "1"]
        made = server.out("job", "create", "--name", "twins", "--shell", script, *more)
        job = made.split("ID: ")[1].split()[0]
        for _ in range(8):
            server.out("job", "run", job)
        until(lambda: marks.exists() and marks.read_text().count("end") == 8)
    running = most = 0
    for line in marks.read_text().splitlines():
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    assert most == 2
    starts = [tuple(line.split()[2:]) for line in marks.read_text().splitlines() if line.startswith("start")]
    assert len(set(starts)) == len(starts) == 8
