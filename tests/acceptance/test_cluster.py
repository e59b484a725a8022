"""The three services as processes over a real Kafka and a real Cassandra: the main path, and what each probe says."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.acceptance.clustered import Cluster, cluster
from tests.acceptance.othersclients import Curl, by_go, five_commands, from_a_page, over_http, refused
from tests.servers import Servers

WAIT_S = 30.0
POLL_S = 0.1


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Cluster:
    """One of each service, for tests that break nothing."""
    with cluster(tmp_path_factory.mktemp("cluster"), servers) as made:
        yield made


def executions(of: Cluster, job: str) -> list[dict[str, str]]:
    found = json.loads(of.dts("execution", "list", "--job", job, "-o", "json"))
    return list(found["executions"])


def wait_for_status(of: Cluster, job: str, status: str) -> dict[str, str]:
    """The first execution of a job with a status."""
    deadline = time.monotonic() + WAIT_S
    while True:
        for each in executions(of, job):
            if each["status"] == status:
                return each
        assert time.monotonic() < deadline, executions(of, job)
        time.sleep(POLL_S)


def test_job_fires_runs_and_leaves_its_record(running: Cluster) -> None:
    made = running.dts("job", "create", "--name", "hello", "--cron", "@every 1s", "--shell", "echo hello $DTS_ATTEMPT")
    job = made.split("ID: ")[1].split()[0]
    found = wait_for_status(running, job, "COMPLETED")
    assert running.dts("logs", found["id"]) == "hello 1\n"
    assert json.loads(running.dts("job", "get", "--id", job, "-o", "json"))["nextRun"]
    running.dts("job", "delete", "--id", job)


def test_run_now_is_answered_with_its_execution(running: Cluster) -> None:
    made = running.dts("job", "create", "--name", "by hand", "--shell", "exit 3")
    job = made.split("ID: ")[1].split()[0]
    running.dts("job", "run", job)
    found = wait_for_status(running, job, "FAILED")
    assert "~" in found["id"]
    got = json.loads(running.dts("execution", "get", found["id"], "-o", "json"))
    assert got["status"] == "FAILED"


def test_the_audit_is_clean_and_status_is_of_all_shards(running: Cluster) -> None:
    made = running.dts("job", "create", "--name", "audited", "--cron", "@every 1s")
    job = made.split("ID: ")[1].split()[0]
    wait_for_status(running, job, "COMPLETED")
    status = json.loads(running.dts("status", "-o", "json"))
    assert len(status["shards"]) == 16
    assert not [note for note in status["notes"] if "without an owner" in note]
    running.dts("audit", "--from", "-1m", "--to", "now")


def test_explain_asks_the_owner_and_the_record(running: Cluster) -> None:
    needs = ("--memory", "8000000", "--cron", "@every 1s", "--overlap", "skip", "--shell", "true")
    job = running.dts("job", "create", "--name", "too large", *needs).split("ID: ")[1].split()[0]
    waits = wait_for_status(running, job, "QUEUED")["id"]
    deadline = time.monotonic() + WAIT_S
    while "too small: memory (need 8000000, have " not in (told := running.dts("explain", waits)):
        assert time.monotonic() < deadline, told
        time.sleep(POLL_S)
    skipped = json.loads(running.dts("explain", wait_for_status(running, job, "SKIPPED")["id"], "-o", "json"))
    assert (skipped["outcome"], skipped["steps"][0]["topic"]) == ("skipped", "schedule")
    assert json.loads(running.dts("explain", job, "-o", "json"))["outcome"] == "waits"
    running.dts("job", "delete", "--id", job)


def test_probes(running: Cluster) -> None:
    for member in running.members.values():
        assert [member.probe(path) for path in ("/healthz", "/startupz", "/readyz")] == [200, 200, 200], member.name


def test_a_service_waits_for_its_servers_and_says_so(tmp_path: Path, servers: Servers) -> None:
    made = Cluster(tmp_path, servers, {}, {"KAFKA_BROKERS": "localhost:1", "CASSANDRA_PORT": "1"})
    member = made.add("job", 1)
    try:
        member.wait("/healthz")
        assert (member.probe("/startupz"), member.probe("/readyz")) == (503, 503)
        deadline = time.monotonic() + WAIT_S
        while "waiting for Kafka at localhost:1" not in member.log.read_text():
            assert time.monotonic() < deadline, member.tail()
            time.sleep(POLL_S)
        assert member.stop() == 0, member.tail()
    finally:
        member.process.kill()
        member.process.wait()


@pytest.mark.timeout(600)  # the first time Go's modules are fetched and built
def test_the_originals_clients_work_unchanged(go_client: Path, running: Cluster) -> None:
    five_commands(by_go(go_client, f"localhost:{running.members['job-1'].grpc}"))
    refused(by_go(go_client, f"localhost:{running.members['job-1'].grpc}"))
    over_http(Curl(str(running.members["job-1"].http)))
    from_a_page(Curl(str(running.members["job-1"].http)))


def test_by_hand_in_the_cluster(running: Cluster) -> None:
    made = running.dts("job", "create", "--name", "backfilled", "--cron", "@every 1h", "--paused", "--shell", "exit 1")
    job = made.split("ID: ")[1].split()[0]
    span = ("--from", "2026-03-01", "--to", "2026-03-01T06:00:00Z")
    started = running.dts("backfill", job, *span, "--parallel", "3")
    backfill = started.split("ID: ")[1].split()[0]
    deadline = time.monotonic() + WAIT_S
    while (over := json.loads(running.dts("backfill", "status", backfill, "-o", "json")))["state"] != "DONE":
        assert time.monotonic() < deadline, over
        time.sleep(POLL_S)
    assert (over["total"], over["failed"], over["open"]) == ("6", "6", "0")
    assert backfill in running.dts("backfill", "list", "--job", job)
    while len(executions(running, job)) < 6:
        assert time.monotonic() < deadline, "history does not catch up"
        time.sleep(POLL_S)
    many = ("--job", job, "--cause", "backfill", "--request-id", "r")
    retried = running.dts("execution", "retry", *many, "--", "/bin/true").split()
    assert len(retried) == 6
    assert running.dts("execution", "retry", *many, "--", "/bin/true").split() == retried
    wait_for_status(running, job, "COMPLETED")
    assert running.dts("job", "delete", "--where", "name=backfilled") == "Jobs deleted: 1\n"
