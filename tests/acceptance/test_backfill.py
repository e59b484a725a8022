"""Backfills with a real server: killed half-way it resumes, and every instant has exactly one execution."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dts.adapters.kafka.settings import shard_of
from tests.acceptance.crash.clustersite import SHARDS, ClusterSite, cluster_site
from tests.acceptance.crash.site import Site, site, until
from tests.servers import Servers

WHOLE_S = 60.0
KILLS = 3

Place = Site | ClusterSite


def backfill(at: Place, id: str) -> dict[str, Any]:
    return at.call("GET", f"/v1/backfills/{id}")


def started(at: Place, job: str, size: int, parallel: int) -> str:
    """A backfill of the last `size` minutes of a job that is due each minute; its id."""
    now = time.time_ns() // 60_000_000_000 * 60
    body = {"from": stamp(now - 60 * size), "to": stamp(now), "parallel": parallel, "requestId": f"of {job}"}
    answer = at.call("POST", f"/v1/jobs/{job}/backfill", body)["backfill"]
    assert (answer["total"], answer["state"]) == (str(size), "RUNNING")
    id: str = answer["id"]
    assert at.call("POST", f"/v1/jobs/{job}/backfill", body)["backfill"]["id"] == id, "a repeat is the same backfill"
    return id


def stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def executions(at: Place, job: str) -> list[dict[str, Any]]:
    """All of cause backfill, from the record."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = at.call("GET", f"/v1/executions?jobId={job}&cause=backfill&lastId={token}".replace("~", "%7E"))
        found += page["executions"]
        token = page["nextPage"]
        if not token:
            return found


def run(folder: Path, size: int, parallel: int, kind: str) -> None:
    job: dict[str, Any] = {"name": "minutely", "id": "minutely", "cronExpression": "* * * * *"}
    if kind == "python":
        job["task"] = {"python": {"function": "crash_tasks:note"}}
    job["status"] = "PAUSED"
    with site(folder) as at:
        at.call("POST", "/v1/jobs", job)
        id = started(at, "minutely", size, parallel)
        for kill in range(1, KILLS + 1):
            until(
                "it goes on", lambda kill=kill: int(backfill(at, id)["started"]) > kill * size // (KILLS + 2), WHOLE_S
            )
            at.kill_server()
            at.process.wait()
            at.restart()
        until("it is over", lambda: backfill(at, id)["state"] == "DONE", WHOLE_S)
        over = backfill(at, id)
        assert (over["started"], over["completed"], over["open"]) == (str(size), str(size), "0")
        found = executions(at, "minutely")
        nonce = id.partition("~")[2]
        assert len(found) == len({each["id"] for each in found}) == size
        assert {each["id"].partition("~")[2] for each in found} == {nonce}
        instants = sorted(each["scheduledTime"] for each in found)
        assert len(set(instants)) == size
        assert {each["status"] for each in found} == {"COMPLETED"}
        audit = at.call("GET", f"/v1/audit?jobId=minutely&from={instants[0]}")
        assert (audit["clean"], audit["unexplained"]) == (True, "0"), "the audit passes over them"
    if kind == "python":
        lines = [line.split() for line in (folder / "lines").read_text().splitlines()]
        assert {line[0] for line in lines} == {each["id"] for each in found}


def test_10_000_instants_killed_half_way_end_with_exactly_10_000_executions(tmp_path: Path) -> None:
    run(tmp_path, 10_000, 250, "nothing")


@pytest.mark.soak
def test_10_000_instants_with_tasks_killed_half_way_end_with_exactly_10_000_executions(tmp_path: Path) -> None:
    run(tmp_path, 10_000, 200, "python")


def test_the_task_gets_its_instant_and_a_cancelled_backfill_ends(tmp_path: Path) -> None:
    shell = 'echo "$DTS_SCHEDULED_TIME $DTS_EXECUTION_ID" >>"$CRASH/times"; sleep 0.2'
    with site(tmp_path) as at:
        task = {"shell": {"command": shell}}
        at.call("POST", "/v1/jobs", {"name": "hourly", "id": "hourly", "cronExpression": "0 * * * *", "task": task})
        body = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z", "parallel": 2}
        planned = at.call("POST", "/v1/jobs/hourly/backfill", {**body, "dryRun": True})
        assert (planned["backfill"]["total"], len(planned["first"])) == ("24", 10)
        assert (planned["first"][0], planned["last"]) == ("2026-03-01T00:00:00Z", "2026-03-01T23:00:00Z")
        assert at.call("GET", "/v1/backfills?jobId=hourly")["backfills"] == []
        id = at.call("POST", "/v1/jobs/hourly/backfill", body)["backfill"]["id"]
        until("some ran", lambda: int(backfill(at, id)["completed"]) >= 4, WHOLE_S)
        cancelled = at.call("POST", f"/v1/backfills/{id}/cancel", {"reason": "enough"})
        assert (cancelled["state"], cancelled["reason"]) == ("CANCELLED", "enough")
        until("nothing is open", lambda: backfill(at, id)["open"] == "0", WHOLE_S)
        over = backfill(at, id)
        assert int(over["completed"]) + int(over["cancelled"]) == int(over["started"]) < 24
        assert int(over["cancelled"]) <= 2
        nonce = id.partition("~")[2]
        times = [line.split() for line in (tmp_path / "times").read_text().splitlines()]
        assert times[0] == ["2026-03-01T00:00:00.000Z", f"hourly@20260301T000000.000Z~{nonce}"]
        assert len(times) <= int(over["started"])
        done = at.served.dts("backfill", "cancel", id)
        assert (done.returncode, "CANCELLED" in done.stderr) == (5, True)


def test_another_scheduler_goes_on_with_it(tmp_path: Path, servers: Servers) -> None:
    size = 2_000
    with cluster_site(tmp_path, servers, schedulers=2, executions=1) as at:
        body = {"name": "minutely", "id": "minutely", "cronExpression": "* * * * *", "status": "PAUSED"}
        at.call("POST", "/v1/jobs", body)
        id = started(at, "minutely", size, 20)

        def progress() -> int:
            return int(at.call("GET", f"/v1/backfills/{id}")["started"])

        until("it goes on", lambda: progress() > size // 4, WHOLE_S)
        shard = shard_of("minutely", SHARDS)
        owner = next(each for each in at.cluster.of("scheduler") if shard in at.shards_of(each))
        before = progress()
        owner.kill()
        assert before < size, "it was over before its owner was killed"
        until("it is over", lambda: at.call("GET", f"/v1/backfills/{id}")["state"] == "DONE", WHOLE_S)
        over = at.call("GET", f"/v1/backfills/{id}")
        assert (over["started"], over["completed"], over["open"]) == (str(size), str(size), "0")
        until("all are in the record", lambda: len(executions(at, "minutely")) == size, WHOLE_S)
        assert len({each["id"] for each in executions(at, "minutely")}) == size


def test_the_command_line(tmp_path: Path) -> None:
    with site(tmp_path) as at:
        dts = at.served
        dts.out("job", "create", "--id", "j", "--name", "j", "--cron", "@every 1h")
        span = ("--from", "2026-03-01", "--to", "2026-03-03")
        plan = dts.dts("backfill", "j", *span, "--dry-run")
        assert plan.stdout.splitlines()[-2:] == ["...", "2026-03-02T23:00:00Z"]
        assert plan.stderr == "Would run: 48 instants, 10 at a time\n"
        done = dts.out("backfill", "j", *span, "--parallel", "5", "--wait", "-o", "json")
        over = json.loads(done)
        assert (over["state"], over["completed"], over["parallel"]) == ("DONE", "48", 5)
        shown = dts.out("backfill", "status", over["id"], "--watch")
        assert "48 of 48 ended (100 %)" in shown
        assert over["id"] in dts.out("backfill", "list", "--job", "j")
        assert "Total executions: 48" in dts.out("execution", "list", "--job", "j", "--cause", "backfill")
        wrong = dts.dts("backfill", "j", "--from", "+1h", "--to", "+2h")
        assert (wrong.returncode, "to: is after now" in wrong.stderr) == (2, True)
        assert dts.dts("backfill", "nope", *span).returncode == 4
