"""A worker on another machine that is told to end gets nothing more, and what it hands back runs elsewhere at once."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.crash.site import Site, site, until
from tests.acceptance.served import BIN

ELSEWHERE_S = 20.0  # its grace time, a kill, and a busy machine; its lease would be 60 s
HURRY_S = 3.0


@contextmanager
def remote(at: Site) -> Iterator[subprocess.Popen[bytes]]:
    """`dts worker` beside the server's own; it finds the token beside the database."""
    target = f"localhost:{at.served.env['SCHEDULER_SERVICE_GRPC_PORT']}"
    command = [BIN / "dts", "worker", "--scheduler", target, "--id", "remote", "--label", "place=remote"]
    with (at.folder / "remote.log").open("wb") as log:
        process = subprocess.Popen(command, env=at.served.env, stdout=log, stderr=log)
    until("it is attached", lambda: "remote" in {each["id"] for each in at.call("GET", "/v1/workers")["workers"]}, 15)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_nothing_more_comes_to_a_worker_that_leaves(tmp_path: Path) -> None:
    with site(tmp_path) as at, remote(at) as process:
        stay = {"shell": {"command": '[ "$DTS_ATTEMPT" != 1 ] || { touch "$CRASH/began"; sleep 60; }'}}
        only = {"selector": "place=remote"}
        at.call("POST", "/v1/jobs", {"id": "stay", "task": stay, "requirements": only})
        at.call(
            "POST", "/v1/jobs", {"id": "tick", "cronExpression": "@every 1s", "task": {"shell": {"command": "true"}}}
        )
        execution = at.call("POST", "/v1/jobs/stay/run", {})["executionId"]
        until("the task runs", (at.folder / "began").exists, 10)

        process.send_signal(signal.SIGTERM)
        time.sleep(HURRY_S)  # instants come due while it waits for its task
        process.send_signal(signal.SIGTERM)
        assert process.wait(ELSEWHERE_S) == 0

        found = at.call("GET", f"/v1/executions/{execution}")
        assert (found["status"], found["attempt"]) == ("QUEUED", 1), found
        ticks = at.call("GET", "/v1/executions?job_id=tick&status=COMPLETED")["executions"]
        assert len(ticks) >= 2
        assert max(each["attempt"] for each in ticks) <= 2, "instants bounced from the worker that left"
