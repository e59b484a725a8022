"""A laptop's file becomes a cluster's keyspace, and goes back: over the real servers, with all services at work."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dts.adapters.archive import Record
from dts.model import MovedExecution, MovedJob
from tests.acceptance.clustered import Cluster, cluster
from tests.acceptance.served import environment, served, stop
from tests.acceptance.test_moving import comparable, dts, executions, records, start, until
from tests.servers import Servers

SETTLE_S = 60.0


def stop_schedulers(made: Cluster) -> None:
    """As the page says: first the schedulers; the others until history has caught up."""
    for member in made.of("scheduler"):
        assert member.stop() == 0


@pytest.mark.timeout(400)
def test_from_embedded_to_the_cluster_and_back(tmp_path: Path, servers: Servers) -> None:
    out, there, back = tmp_path / "out.gz", tmp_path / "there.gz", tmp_path / "back"
    back.mkdir()
    env = fill(tmp_path)
    assert dts(env, "export", out).returncode == 0
    with cluster(tmp_path, servers) as made:
        for said in ("Imported: 3 jobs, ", "there already: 3"):
            done = dts(made.client_env(), "import", "--cluster", out)
            assert said in done.stdout, done.stdout + done.stderr
        now = goes_on(made)
        stop_schedulers(made)
        export_all_of(made, there, now)
    came_along(records(out), records(there))
    env = {**environment(back), "PATH": env["PATH"]}
    assert dts(env, "import", there).returncode == 0
    assert dts(env, "export", tmp_path / "again.gz").returncode == 0
    again, whole = comparable(records(tmp_path / "again.gz")), comparable(records(there))
    assert sorted(map(repr, again)) == sorted(map(repr, whole))
    running = start(env, back)
    try:
        until(lambda: len(executions(running, "each")) > len([name for name in now if name.startswith("each@")]))
        audit = running.dts("audit", "--from", "-20m")
        assert audit.returncode == 0, audit.stdout
    finally:
        stop(running)


def fill(folder: Path) -> dict[str, str]:
    """An embedded server that ran jobs for a while; what finds it."""
    with served(folder) as server:
        shell = 'test "$DTS_ATTEMPT" = 2 && echo $DTS_EXECUTION_ID'
        each = ["--id", "each", "--name", "Each", "--cron", "@every 1s", "--retries", "1", "--retry-initial", "100ms"]
        server.out("job", "create", *each, "--shell", shell)
        server.out("job", "create", "--id", "still", "--name", "Still", "--cron", "0 0 1 1 *")
        server.out("job", "update", "--id", "still", "--name", "Stiller")
        server.out("job", "pause", "still")
        server.out("job", "create", "--id", "gone", "--name", "Gone", "--cron", "@every 1s")
        until(lambda: len(executions(server, "gone")) >= 2)
        server.out("job", "delete", "gone")
        until(lambda: list(executions(server, "each").values()).count("COMPLETED") >= 3)
    return server.env


def goes_on(made: Cluster) -> set[str]:
    """The cluster runs what was imported; all that has ended there."""
    old = executions(made.served, "each")
    until(lambda: list(executions(made.served, "each").values()).count("COMPLETED") > len(old) + 2)
    some = min(name for name, status in old.items() if status == "COMPLETED")
    assert made.dts("logs", some).endswith(f"{some}\n")
    still = json.loads(made.dts("job", "get", "still", "-o", "json"))
    assert (still["name"], still["status"]) == ("Stiller", "PAUSED")
    made.dts("audit", "--from", "-10m")
    found = {**executions(made.served, "each"), **executions(made.served, "gone")}
    return {name for name, status in found.items() if status in ("COMPLETED", "FAILED")}


def export_all_of(made: Cluster, path: Path, wanted: set[str]) -> None:
    """Exports until history has caught up with what was seen."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        done = dts(made.client_env(), "export", "--cluster", path)
        assert done.returncode == 0, done.stderr
        found = {str(each.execution.key) for each in records(path) if isinstance(each, MovedExecution)}
        if wanted <= found:
            return
        assert time.monotonic() < deadline, wanted - found
        path.unlink()


def came_along(before: list[Record], after: list[Record]) -> None:
    """All history, and each job with all its revisions; one more of those that live."""
    assert [each for each in before if not isinstance(each, MovedJob) and each not in after] == []
    jobs = {each.revisions[0].definition.job: each.revisions for each in after if isinstance(each, MovedJob)}
    for each in before:
        if isinstance(each, MovedJob):
            there, past = jobs[each.revisions[0].definition.job], list(each.revisions)
            assert list(there[: len(past)]) == past
            changes = [revision.change for revision in there[len(past) :]]
            assert changes == ([] if past[-1].change == "delete" else ["import"])
