"""`dts explain` against a real server and real workers: the sentences a person reads at 3 a.m."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.acceptance.served import BIN, POLL_S, Served, served

WAIT_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("explain")) as running:
        yield running


@pytest.fixture(scope="module")
def fleet(server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two workers of 4 GiB in two zones, and one that is cordoned."""
    with ExitStack() as stack:
        for id, zone in (("w1", "a"), ("w2", "b"), ("w3", "c")):
            stack.enter_context(worker(server, tmp_path_factory.mktemp(id), id, zone))
        until(lambda: all(f"{id} " in server.out("worker", "list") for id in ("w1", "w2", "w3")))
        server.out("worker", "cordon", "w3")
        yield


@contextmanager
def worker(server: Served, folder: Path, id: str, zone: str) -> Iterator[None]:
    token = Path(server.env["DTS_DATABASE"] + ".token").read_text().strip()
    address = f"localhost:{server.env['SCHEDULER_SERVICE_GRPC_PORT']}"
    command = [BIN / "dts", "worker", "--scheduler", address, "--id", id, "--slots", "4", "--memory", "4096"]
    labels = ["--label", "pool=x", "--label", f"zone={zone}"]
    with (folder / "worker.log").open("wb") as log:
        env = {**server.env, "HOME": str(folder), "DTS_WORKER_TOKEN": token}
        process = subprocess.Popen([*command, *labels], env=env, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(POLL_S)


def create(server: Served, id: str, *arguments: str) -> str:
    server.out("job", "create", "--id", id, "--name", id, *arguments)
    return id


def run(server: Served, job: str) -> str:
    return server.out("job", "run", job).split()[-1]


def answer(server: Served, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.out("explain", *arguments, "-o", "json"))
    return found


def stops(found: dict[str, Any]) -> list[str]:
    return [each["topic"] for each in found["steps"] if each["verdict"] == "no"]


def executions(server: Served, job: str, status: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        server.out("execution", "list", "--job", job, "--status", status, "-o", "json")
    )["executions"]
    return found


def test_one_that_ran_by_schedule(server: Served) -> None:
    job = create(server, "ticks", "--cron", "@every 1s", "--shell", "true")
    until(lambda: bool(executions(server, job, "completed")))
    id = executions(server, job, "completed")[0]["id"]
    shown = server.out("explain", id)
    assert shown.startswith(f"{id}: it ran at worker local and completed after ")
    assert "+  schedule  it was due at " in shown
    found = answer(server, id)
    assert (found["outcome"], found["jobId"], found["executionId"], stops(found)) == ("completed", job, id, [])
    server.out("job", "pause", job, "--note", "a migration", "--by", "ann")
    found = answer(server, job)
    assert (found["outcome"], stops(found)) == ("will_not_run", ["pause"])
    assert "until it is resumed by ann: a migration" in found["answer"]
    paused = time.time()
    until(lambda: time.time() > paused + 2)
    found = answer(server, job, "--at", "now")
    assert (found["outcome"], stops(found)) == ("not_run", ["pause"])
    server.out("job", "resume", job)
    until(lambda: answer(server, job)["outcome"] != "will_not_run")
    # The paused span is one range now.
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(paused + 1))
    until(lambda: "one verdict over" in json.dumps(answer(server, job, "--at", at)))
    found = answer(server, job, "--at", at)
    assert (found["outcome"], found["answer"]) == ("not_run", "it did not run: the job was paused by ann: a migration")
    server.out("job", "delete", job)
    assert answer(server, job)["answer"].startswith("it will not run: the job is deleted since ")


def test_what_each_worker_lacks(server: Served, fleet: None) -> None:
    hog = create(server, "hog", "--selector", "pool=x", "--memory", "3072", "--spread", "zone", "--shell", "sleep 600")
    held = [run(server, hog), run(server, hog)]
    until(lambda: len(executions(server, hog, "running")) == 2)
    assert {each["workerId"] for each in executions(server, hog, "running")} == {"w1", "w2"}, "spread over zones"
    job = create(server, "wants", "--selector", "pool=x", "--memory", "2048", "--shell", "true")
    id = run(server, job)
    lacks = "4 workers: 2 lack memory (need 2048, free 1024), 1 "
    until(lambda: answer(server, id)["answer"].startswith(f"it waits: {lacks}"))
    found = answer(server, id)
    assert (found["outcome"], stops(found)) == ("waits", ["placement"])
    assert "1 is cordoned" in found["answer"]
    assert "1 lacks the labels (pool=x)" in found["answer"]
    shown = server.out("execution", "get", id)
    assert lacks in shown, "the list says the same"
    never = create(server, "never", "--memory", "8000000", "--shell", "true")
    assert "are too small: memory (need 8000000, have " in answer(server, never)["answer"] + json.dumps(
        answer(server, run(server, never))
    )
    server.out("execution", "cancel", held[0])
    until(lambda: answer(server, id)["outcome"] == "completed")
    server.out("execution", "cancel", held[1])


def test_policies_and_turns(server: Served) -> None:
    job = create(server, "slow", "--cron", "@every 1s", "--overlap", "skip", "--shell", "sleep 2")
    until(lambda: bool(executions(server, job, "skipped")))
    found = answer(server, executions(server, job, "skipped")[0]["id"])
    assert (found["outcome"], stops(found)) == ("skipped", ["policy"])
    assert found["answer"] == "it was skipped: overlap (skip): the execution before had not ended"
    server.out("job", "delete", job)
    line = create(server, "line", "--overlap", "buffer_all", "--shell", "sleep 600")
    first, second = run(server, line), run(server, line)
    until(lambda: answer(server, first)["outcome"] == "running")
    found = answer(server, second)
    assert (found["outcome"], stops(found)) == ("waits", ["limits"])
    assert found["answer"].startswith("it waits: its turn has not come: ")
    one = create(server, "one", "--group", "etl", "--group-limit", "1", "--shell", "sleep 600")
    other = create(server, "other", "--group", "etl", "--group-limit", "1", "--shell", "true")
    started = run(server, one)
    until(lambda: answer(server, started)["outcome"] == "running")
    found = answer(server, run(server, other))
    assert found["answer"] == "it waits: its group is full: 1 of 1 of group 'etl' are placed"
    for each in (line, one, other):
        server.out("job", "delete", each)


def test_a_failure_says_why_it_is_final(server: Served) -> None:
    job = create(server, "fails", "--shell", "exit 7")
    id = run(server, job)
    until(lambda: answer(server, id)["outcome"] == "failed")
    assert answer(server, id)["answer"] == "attempt 1 failed at worker local: exit code 7"
    assert "max_retries is 0" in server.out("explain", id)
    assert f"the last to end: {id} FAILED: exit code 7" in server.out("explain", job)


def test_a_job_suspended_after_failures_says_how_to_go_on(server: Served) -> None:
    job = create(server, "falters", "--cron", "@every 1s", "--pause-after", "2", "--shell", "exit 1")
    until(lambda: answer(server, job)["outcome"] == "will_not_run")
    found = answer(server, job)
    assert stops(found) == ["pause"]
    assert "(paused: 2 failures in a row), until dts job resume falters" in found["answer"]
    server.out("job", "delete", job)


def test_wall_times_that_the_clock_skips_or_repeats(server: Served) -> None:
    job = create(server, "nightly", "--cron", "30 2 * * *", "--tz", "Europe/Vienna", "--shell", "true")
    shown = server.out("explain", job, "--at", "2027-03-28T02:30")
    assert shown.startswith(f"{job}: it will run at 2027-03-28T01:00:00Z, in ")
    assert "02:30 did not exist in Europe/Vienna: the clock went from 02:00 to 03:00" in shown
    assert "occurred twice in Europe/Vienna: at +02:00 and again at +01:00" in server.out(
        "explain", job, "--at", "2027-10-31 02:30"
    )
    found = answer(server, job, "--at", "2027-10-31T01:30:00Z")
    assert (found["outcome"], stops(found)) == ("not_due", ["schedule"])
    assert "the one before is 2027-10-31T00:30:00Z, the next is 2027-11-01T01:30:00Z" in found["answer"]
    assert answer(server, job, "--at", "2020-01-01")["answer"].startswith(f"job {job} did not exist at ")


def test_over_http_and_what_is_refused(server: Served) -> None:
    base = f"http://localhost:{server.env['EXECUTION_SERVICE_HTTP_PORT']}/v1/explain"
    create(server, "plain", "--cron", "@every 1h", "--shell", "true")
    with urlopen(f"{base}/plain", timeout=10) as got:
        found = json.loads(got.read())
    assert found["outcome"] == "will_run"
    assert found["nextRun"]
    for path, status in (
        ("nobody", 404),
        ("nobody@20260329T010000.000Z", 404),
        ("no%20id@", 400),
        ("plain?local=yesterday", 400),
        ("plain?local=2027-01-01T00:00&at=2027-01-01T00:00:00Z", 400),
        ("plain@20260329T010000.000Z?local=2027-01-01T00:00", 400),
    ):
        with pytest.raises(HTTPError) as refused:
            urlopen(f"{base}/{path}", timeout=10)
        with refused.value:
            assert refused.value.code == status, path
    assert server.dts("explain", "nobody").returncode == 4
    assert server.dts("explain", "plain", "--at", "soon").returncode == 2
