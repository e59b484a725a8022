"""Each policy with a real server and real tasks: what the tasks' own records say, and what the executions' records show.

One server runs all the jobs; each test has its own. docs/reference/policies.md is the table that these tests hold.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from tests.acceptance.crash.site import Site, site, until

WAIT_S = 60.0
TOLD_S = 0.05  # a record's times are cut to ms, and a task is told apart from its shell


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("policies")) as running:
        yield running


def create(at: Site, id: str, command: str, policies: dict[str, Any], **more: Any) -> None:
    body = {"id": id, "name": id, "task": {"shell": {"command": command}}, "policies": policies, **more}
    at.call("POST", "/v1/jobs", body)


def executions(at: Site, job: str) -> list[dict[str, Any]]:
    """Of a job, oldest first."""
    found: list[dict[str, Any]] = at.call("GET", f"/v1/executions?jobId={job}&pageSize=250")["executions"]
    return found[::-1]


def ended(at: Site, job: str) -> Counter[tuple[str, str]]:
    """How many have which status and reason."""
    return Counter(
        (each["status"], each["reason"]) for each in executions(at, job) if each["status"] not in ("QUEUED", "RUNNING")
    )


def statuses(at: Site, job: str) -> Counter[str]:
    return Counter(each["status"] for each in executions(at, job))


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def most_at_once(found: list[dict[str, Any]]) -> int:
    """How many of some executions ran at the same time at most, by what their workers said."""
    ran = [each for each in found if each["startTime"] and each["endTime"]]
    edges = [(seconds(each["startTime"]) + TOLD_S, 1) for each in ran] + [
        (seconds(each["endTime"]), -1) for each in ran
    ]
    now = most = 0
    for _, change in sorted(edges):
        now += change
        most = max(most, now)
    return most


def pause(at: Site, job: str) -> None:
    at.call("POST", f"/v1/jobs/{job}/pause", {"note": "enough seen"})


def test_overlap_skip(at: Site) -> None:
    create(at, "skip", "sleep 2.3", {"overlap": "skip"}, cronExpression="@every 1s")
    reason = "overlap (skip): the execution before had not ended"
    until("two ran", lambda: ended(at, "skip")["COMPLETED", ""] >= 2, WAIT_S)
    pause(at, "skip")
    found = ended(at, "skip")
    assert found["SKIPPED", reason] >= 2
    assert set(found) == {("COMPLETED", ""), ("SKIPPED", reason)}
    assert most_at_once(executions(at, "skip")) == 1


def test_overlap_allow_all_is_the_default(at: Site) -> None:
    create(at, "beside", "sleep 2.3", {}, cronExpression="@every 1s")
    until("two ran", lambda: ended(at, "beside")["COMPLETED", ""] >= 2, WAIT_S)
    pause(at, "beside")
    assert most_at_once(executions(at, "beside")) >= 2
    assert not ended(at, "beside").keys() - {("COMPLETED", "")}


def test_overlap_buffer_one(at: Site) -> None:
    create(at, "one", "sleep 2.3", {"overlap": "buffer_one"}, cronExpression="@every 1s")
    reason = "overlap (buffer_one): another one was waiting"
    until("three ran", lambda: ended(at, "one")["COMPLETED", ""] >= 3, WAIT_S)
    pause(at, "one")
    assert ended(at, "one")["SKIPPED", reason] >= 2
    assert most_at_once(executions(at, "one")) == 1
    ran = [each for each in executions(at, "one") if each["status"] == "COMPLETED"]
    gaps = [seconds(b["startTime"]) - seconds(a["endTime"]) for a, b in pairwise(ran)]
    assert min(gaps) < 0.5, "the one that waits starts when the one before has ended, not at the next instant"


def test_overlap_buffer_all(at: Site) -> None:
    create(at, "all", "sleep 1.7", {"overlap": "buffer_all", "overlapLimit": 2}, cronExpression="@every 1s")
    reason = "overlap (buffer_all): as many as may were waiting"
    until("some were too many", lambda: ended(at, "all")["SKIPPED", reason] >= 1, WAIT_S)
    waiting = [each for each in executions(at, "all") if each["status"] == "QUEUED"]
    pause(at, "all")
    assert len(waiting) <= 2
    assert any("has not ended" in each["reason"] for each in waiting)
    until("all that waited ran", lambda: not statuses(at, "all").keys() & {"QUEUED", "RUNNING"}, WAIT_S)
    assert most_at_once(executions(at, "all")) == 1


def test_overlap_cancel_other(at: Site) -> None:
    create(at, "newest", "sleep 60", {"overlap": "cancel_other"}, cronExpression="@every 2s")
    reason = "overlap (cancel_other): the next one was due"
    until("two gave way", lambda: ended(at, "newest")["CANCELLED", reason] >= 2, WAIT_S)
    at.call("POST", "/v1/jobs/newest/cancel", {})
    until("all ended", lambda: not statuses(at, "newest").keys() & {"QUEUED", "RUNNING"}, WAIT_S)
    assert most_at_once(executions(at, "newest")) == 1


def test_a_run_by_hand_waits_for_its_turn(at: Site) -> None:
    create(at, "turn", "sleep 1.5", {"overlap": "skip"})
    for _ in range(3):
        at.call("POST", "/v1/jobs/turn/run", {})
    until("all ran", lambda: statuses(at, "turn") == {"COMPLETED": 3}, WAIT_S)
    assert most_at_once(executions(at, "turn")) == 1


def test_a_group_has_one_limit_over_its_jobs(at: Site) -> None:
    jobs = ["alpha", "beta", "gamma"]
    for job in jobs:
        create(at, job, "sleep 0.7", {"group": "database", "groupLimit": 2})
    for job in jobs * 3:
        at.call("POST", f"/v1/jobs/{job}/run", {})
    waiting = [each for job in jobs for each in executions(at, job) if each["status"] == "QUEUED"]
    assert any("2 of 2 of group 'database'" in each["reason"] for each in waiting)
    until("all ran", lambda: all(statuses(at, job) == {"COMPLETED": 3} for job in jobs), WAIT_S)
    assert most_at_once([each for job in jobs for each in executions(at, job)]) == 2


def test_a_group_is_fixed_at_creation(at: Site) -> None:
    create(at, "grouped", "true", {"group": "database", "groupLimit": 2})
    refused = at.served.dts("job", "update", "grouped", "--group", "other")
    assert refused.returncode != 0
    assert "fixed at creation" in refused.stderr
    shown = at.call("PUT", "/v1/jobs/grouped", {"policies": {"overlap": "skip"}})
    assert (shown["policies"]["group"], shown["policies"]["groupLimit"]) == ("database", 2)


def test_jitter_delays_the_start_and_nothing_else(at: Site) -> None:
    create(at, "spread", "true", {"jitter": "0.9s"}, cronExpression="@every 1s")
    until("eight ran", lambda: statuses(at, "spread")["COMPLETED"] >= 8, WAIT_S)
    pause(at, "spread")
    found = [each for each in executions(at, "spread") if each["status"] == "COMPLETED"]
    delays = [seconds(each["placedTime"]) - seconds(each["queuedTime"]) for each in found]
    assert max(delays) > 0.2, "each execution has its own delay"
    assert max(delays) - min(delays) > 0.1
    assert all(seconds(each["scheduledTime"]) % 1 == 0 for each in found), "the instant stays as it is"


def test_start_within(at: Site) -> None:
    create(at, "impatient", "true", {"startWithin": "1.5s"}, requirements={"cpu": 900_000})
    at.call("POST", "/v1/jobs/impatient/run", {})
    until(
        "it was given up", lambda: ended(at, "impatient")["SKIPPED", "start within: it was not placed in time"], WAIT_S
    )
    (found,) = executions(at, "impatient")
    assert found["attempt"] == 0


def test_only_some_failures_are_tried_again(at: Site) -> None:
    policies = {"retryOnly": ["75", "100-110"], "retryBackoff": "constant", "retryInitial": "0.1s", "retryJitter": 0}
    for id, code in (("again", 75), ("never", 3), ("range", 105)):
        create(at, id, f"exit {code}", policies, maxRetries=2)
        at.call("POST", f"/v1/jobs/{id}/run", {})
    create(at, "slow", "sleep 60", {"retryNever": ["timeout"]}, maxRetries=2, timeout=1)
    at.call("POST", "/v1/jobs/slow/run", {})
    jobs = ("again", "never", "range", "slow")
    until("all failed", lambda: all(statuses(at, job) == {"FAILED": 1} for job in jobs), WAIT_S)
    attempts = {job: executions(at, job)[0]["attempt"] for job in jobs}
    assert attempts == {"again": 3, "never": 1, "range": 3, "slow": 1}


def test_pause_after_failures_and_resume(at: Site) -> None:
    create(at, "broken", "test -e mended", {"pauseAfter": 3}, cronExpression="@every 1s")
    until("it is paused", lambda: shown(at, "broken")["status"] == "PAUSED", WAIT_S)
    found = shown(at, "broken")
    assert (found["pause"]["note"], found["pause"]["by"]) == ("paused: 3 failures in a row", "dts")
    assert not found.get("nextRun")
    assert statuses(at, "broken") == {"FAILED": 3}
    assert "broken" in at.served.out("job", "list", "--status", "paused")

    at.kill_server()
    at.process.wait()
    at.restart()
    assert shown(at, "broken")["pause"]["failures"] == 3, "it is durable"
    time.sleep(1.2)  # that an instant is due meanwhile is what is looked at
    assert statuses(at, "broken") == {"FAILED": 3}
    assert json.loads(at.served.out("audit", "--job", "broken", "-o", "json"))["verdicts"].get("paused (open)")

    (at.folder / "mended").touch()
    assert "SCHEDULED" in at.served.out("job", "resume", "broken", "--catch-up", "newest")
    until("it runs again", lambda: statuses(at, "broken")["COMPLETED"] >= 3, WAIT_S)
    pause(at, "broken")
    ranges = [each["range"] for each in verdicts(at, "broken") if "range" in each]
    assert [each["reason"] for each in ranges if each["reason"] != "paused"] == ["paused: 3 failures in a row"]


@pytest.mark.parametrize("catch_up", ["skip", "newest", "all"])
def test_a_resume_says_what_becomes_of_what_was_missed(at: Site, catch_up: str) -> None:
    job = f"missed-{catch_up}"
    create(at, job, "true", {}, cronExpression="@every 1s")
    until("it runs", lambda: statuses(at, job)["COMPLETED"], WAIT_S)
    pause(at, job)
    began = time.time()
    until("some are missed", lambda: time.time() > began + 4.2 and 0.2 < time.time() % 1 < 0.5, WAIT_S)
    missed = list(range(math.ceil(began), math.floor(time.time()) + 1))
    at.call("POST", f"/v1/jobs/{job}/resume", {"catchUp": catch_up})
    until("it runs again", lambda: scheduled(at, job)[-1] > missed[-1] + 1, WAIT_S)
    pause(at, job)
    expected = {"skip": [], "newest": missed[-1:], "all": missed}[catch_up]
    assert [each for each in scheduled(at, job) if missed[0] <= each <= missed[-1]] == expected
    assert not at.served.dts("audit", "--job", job).returncode


def scheduled(at: Site, job: str) -> list[float]:
    return [seconds(each["scheduledTime"]) for each in executions(at, job)]


def shown(at: Site, job: str) -> dict[str, Any]:
    return at.call("GET", f"/v1/jobs/{job}")


def verdicts(at: Site, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = at.call("GET", f"/v1/verdicts?jobId={job}&pageSize=250")["verdicts"]
    return found


def test_the_audit_is_clean(at: Site) -> None:
    """Of all the jobs above, whatever their policies did."""
    done = at.served.dts("audit")
    assert done.returncode == 0, done.stdout


def test_the_command_line_sets_and_shows_them(at: Site) -> None:
    flags = "--overlap buffer_all --overlap-limit 5 --group g --group-limit 3 --jitter 30s --start-within 10m"
    more = "--retry-backoff constant --retry-jitter 0.1 --retry-only 75 --retry-never timeout --pause-after 4"
    at.served.out("job", "create", "--name", "many", "--shell", "true", *flags.split(), *more.split())
    (job,) = (each for each in at.call("GET", "/v1/jobs?nameContains=many")["jobs"])
    text = at.served.out("job", "get", job["id"], "-o", "table")
    for words in ("overlap buffer_all", "overlap limit 5", "group g (limit 3)", "jitter 30s", "start within 10m"):
        assert words in text
    for words in ("retry backoff constant", "retry only 75", "retry never timeout", "pause after 4 failures"):
        assert words in text
