"""Workers that stand still, tasks that outlast their server, and creates that were acknowledged just before a kill."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from threading import Thread
from urllib.error import URLError

from tests.acceptance.crash.load import Load
from tests.acceptance.crash.site import Site, site, until

LEASE_S = 2


def test_a_worker_that_stands_still_is_ended_and_its_work_done_again(tmp_path: Path) -> None:
    with site(tmp_path, DTS_LEASE_SECONDS=str(LEASE_S)) as at:
        load = Load(at)
        load.create(shell=10, python=40)
        time.sleep(1.2)
        (worker,) = at.workers()
        os.kill(worker, signal.SIGSTOP)
        until("the stopped worker is ended", lambda: worker not in at.workers(), 4 * LEASE_S)
        at.nothing_left()
        load.pause()
        facts = load.check(once=False)
        assert max(facts.attempts) > 1


def test_a_guard_that_is_killed_takes_its_worker_and_all_tasks_along(tmp_path: Path) -> None:
    with site(tmp_path) as at:
        load = Load(at)
        load.create(shell=20, python=40)
        for _ in range(2):
            time.sleep(1.5)
            workers = at.workers()
            for guard in at.guards():
                os.kill(guard, signal.SIGKILL)
            until("its worker ended", lambda old=workers: not set(old) & set(at.workers()), 10)
            at.nothing_left()
            until("there is another", at.workers, 10)
        load.pause()
        load.check(once=False)


def test_workers_killed_as_they_start(tmp_path: Path) -> None:
    """The server goes on, and the one that is let live works."""
    with site(tmp_path) as at:
        for _ in range(6):
            until("there is a worker", at.workers, 10)
            at.kill_workers()
        load = Load(at)
        load.create(shell=4, python=4)
        time.sleep(1.2)
        load.pause()
        load.check(once=True)


def test_a_worker_of_the_server_before_that_stands_still(tmp_path: Path) -> None:
    with site(tmp_path, DTS_LEASE_SECONDS=str(LEASE_S)) as at:
        load = Load(at)
        load.create(shell=10, python=40)
        time.sleep(1.2)
        (worker,) = at.workers()
        os.kill(worker, signal.SIGSTOP)
        at.kill_server()
        at.process.wait()
        at.restart()
        until("the stopped worker is ended", lambda: worker not in at.workers(), 4 * LEASE_S)
        load.pause()
        load.check(once=False)


def test_a_task_longer_than_the_lease_outlasts_its_server(tmp_path: Path) -> None:
    """The worker of a killed server finishes it, hands the result to the next server, and ends."""
    with site(tmp_path, DTS_LEASE_SECONDS=str(LEASE_S)) as at:
        command = f'echo "$DTS_ATTEMPT" >>"$CRASH/lines"; sleep {3 * LEASE_S}'
        at.call("POST", "/v1/jobs", {"id": "long", "name": "long", "task": {"shell": {"command": command}}})
        execution = at.call("POST", "/v1/jobs/long/run", {})["executionId"]
        until("the task runs", (tmp_path / "lines").exists, 10)
        for _ in range(2):
            at.kill_server()
            at.process.wait()
            at.restart()
        status = lambda: at.call("GET", f"/v1/executions/{execution}")["status"]  # noqa: E731
        until("it is COMPLETED", lambda: status() == "COMPLETED", 8 * LEASE_S)
        assert (tmp_path / "lines").read_text() == "1\n"
        until("the former worker is gone", lambda: not at.strays(), 10)
        # This server's own worker still gets work.
        again = at.call("POST", "/v1/jobs/long/run", {"task": {"shell": {"command": "true"}}})["executionId"]
        until("it ran", lambda: at.call("GET", f"/v1/executions/{again}")["status"] == "COMPLETED", 10)


class Creator(Thread):
    """Creates jobs one after the other until the server is gone; keeps what was acknowledged."""

    def __init__(self, at: Site, turn: int) -> None:
        super().__init__()
        self.acknowledged: list[str] = []
        self._at = at
        self._turn = turn

    def run(self) -> None:
        for number in range(10_000):
            id = f"job-{self._turn}-{number}"
            body = {"id": id, "name": id, "cron_expression": "@every 1s", "task": {"shell": {"command": "true"}}}
            try:
                self._at.call("POST", "/v1/jobs", body)
            except (OSError, URLError, ValueError):
                return
            self.acknowledged.append(id)


def test_an_acknowledged_create_is_there_after_kill_9(tmp_path: Path) -> None:
    """And its instants are fired, however short the time between the answer and the kill was."""
    with site(tmp_path) as at:
        acknowledged: list[str] = []
        for turn in range(4):
            creator = Creator(at, turn)
            creator.start()
            time.sleep(random.uniform(0.02, 0.2))
            at.kill_server()
            at.process.wait()
            creator.join()
            acknowledged += creator.acknowledged
            at.restart()
        assert acknowledged
        for id in random.sample(acknowledged, min(len(acknowledged), 50)):
            at.call("GET", f"/v1/jobs/{id}")
        until(
            "all acknowledged jobs ran",
            lambda: all(
                at.call("GET", f"/v1/executions?job_id={id}&status=COMPLETED&page_size=1")["executions"]
                for id in acknowledged[-20:] + acknowledged[:20]
            ),
            20,
        )
        done = at.served.dts("audit", "--from", "-1h", "-o", "json")
        assert done.returncode == 0, done.stdout
