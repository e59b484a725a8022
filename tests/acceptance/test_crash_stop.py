"""A clean stop: what runs may finish, what waits is handed back, the end comes in bounded time; a second TERM hurries."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from dts.bounds import KILL_GRACE_S, STOP_GRACE_S
from tests.acceptance.crash.load import Load
from tests.acceptance.crash.site import Site, site, until
from tests.acceptance.served import BIN, Served, environment, free_ports, wait_until_ready

QUICK_S = 4.0  # a stop with nothing to wait for
SLACK_S = 6.0  # a busy machine


def begin(at: Site, command: str, marker: str) -> str:
    """Runs a shell command as a job's; returns when it has made its marker file: the execution's id."""
    at.call("POST", "/v1/jobs", {"id": "long", "name": "long", "task": {"shell": {"command": command}}})
    execution: str = at.call("POST", "/v1/jobs/long/run", {})["executionId"]
    until("the task runs", (at.folder / marker).exists, 10)
    return execution


def ended(at: Site, execution: str, status: str, attempt: int) -> None:
    until(f"{execution} is {status}", lambda: at.call("GET", f"/v1/executions/{execution}")["status"] == status, 20)
    assert at.call("GET", f"/v1/executions/{execution}")["attempt"] == attempt


def test_before_the_worker_has_attached(tmp_path: Path) -> None:
    with site(tmp_path) as at:
        assert at.stop() < QUICK_S
        assert at.strays() == []
        at.restart()


@pytest.mark.parametrize("after_s", [0.2, 0.5, 0.8])
def test_while_it_starts(tmp_path: Path, after_s: float) -> None:
    env, log = environment(tmp_path), tmp_path / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen([BIN / "dts", "up"], env=env, stdout=out, stderr=out, cwd=tmp_path)
    time.sleep(after_s)  # any moment is right
    process.send_signal(signal.SIGTERM)
    assert process.wait(QUICK_S + SLACK_S) in (0, -signal.SIGTERM)
    assert "Traceback" not in log.read_text()


def test_running_tasks_finish(tmp_path: Path) -> None:
    with site(tmp_path) as at:
        execution = begin(
            at, "touch began; sleep 1.5; echo done; touch finished".replace("touch ", 'touch "$CRASH"/'), "began"
        )
        assert at.stop() < QUICK_S + SLACK_S
        assert (tmp_path / "finished").exists()
        assert at.strays() == [], "the worker outlived its server's clean stop"
        at.restart()
        ended(at, execution, "COMPLETED", 1)


def test_a_second_term_hurries(tmp_path: Path) -> None:
    """What ran is handed back: the next server runs it again, as the next attempt."""
    with site(tmp_path) as at:
        execution = begin(at, 'touch "$CRASH/began"; [ "$DTS_ATTEMPT" != 1 ] || sleep 60', "began")
        at.process.send_signal(signal.SIGTERM)
        until("it is stopping", lambda: "stopping" in at.served.log.read_text(), 5)
        assert at.stop() < QUICK_S + SLACK_S
        assert at.strays() == []
        at.restart()
        ended(at, execution, "COMPLETED", 2)


def test_a_worker_of_the_server_before_stops_too(tmp_path: Path) -> None:
    with site(tmp_path) as at:
        execution = begin(at, 'touch "$CRASH/began"; [ "$DTS_ATTEMPT" != 1 ] || sleep 60', "began")
        at.kill_server()
        at.process.wait()
        at.restart()
        until("the former worker has attached", lambda: len(at.workers()) == 2 and attached(at) == 2, 10)
        at.process.send_signal(signal.SIGTERM)
        until("it is stopping", lambda: at.served.log.read_text().count("stopping") == 1, 5)
        assert at.stop() < QUICK_S + SLACK_S
        assert at.strays() == []
        at.restart()
        ended(at, execution, "COMPLETED", 2)


def attached(at: Site) -> int:
    """How many times a worker said that it had attached."""
    return (at.folder / "dts.db.worker.log").read_text().count("attached to") - 1


def test_under_load(tmp_path: Path) -> None:
    """Stopped and started again and again: each execution ran once."""
    with site(tmp_path) as at:
        load = Load(at)
        load.create(shell=20, python=80)
        for _ in range(2):
            time.sleep(1.2)
            assert at.stop() < QUICK_S + SLACK_S
            assert at.strays() == []
            at.restart()
        load.pause()
        load.check(once=True)


@pytest.mark.soak
def test_a_task_that_does_not_listen(tmp_path: Path) -> None:
    with site(tmp_path) as at:
        command = 'trap "" TERM; touch "$CRASH/began"; [ "$DTS_ATTEMPT" != 1 ] || { sleep 60; sleep 60; }'
        execution = begin(at, command, "began")
        took = at.stop()
        assert STOP_GRACE_S <= took < STOP_GRACE_S + KILL_GRACE_S + SLACK_S
        at.nothing_left()
        at.restart()
        ended(at, execution, "COMPLETED", 2)


# ---- two servers -----------------------------------------------------------------------------------------------------


def second(at: Site, **settings: str) -> str:
    """What another `dts up` says before it ends, which must be a failure."""
    env = {**at.served.env, **settings}
    done = subprocess.run([BIN / "dts", "up"], env=env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode not in (0, -signal.SIGKILL)
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


def test_two_servers_on_one_file(tmp_path: Path) -> None:
    with site(tmp_path) as at:
        others = dict(
            zip((name for name in at.served.env if name.endswith("_PORT")), map(str, free_ports(6)), strict=True)
        )
        said = second(at, **others)
        assert str(at.process.pid) in said, said
        assert at.served.env["JOB_SERVICE_GRPC_PORT"] in said, said
        at.call("GET", "/v1/jobs")
        assert second(at, DTS_DATABASE=str(tmp_path / "other.db")).find(at.served.env["JOB_SERVICE_GRPC_PORT"]) >= 0
        at.call("GET", "/v1/jobs")
        at.kill_server()
        at.process.wait()
        at.restart()


def test_a_file_is_free_again_at_once_after_kill_9(tmp_path: Path) -> None:
    with site(tmp_path) as at:
        for _ in range(3):
            at.kill_server()
            at.process.wait()
            at.restart()
        wait_until_ready(Served(at.served.env, at.served.log, at.process))
