"""The command line by hand: run now with changed arguments, cancel and retry by filter, batches by filter, dry runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.served import Served, served

WAIT_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("by-hand")) as running:
        yield running


def values(server: Served, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.out(*arguments, "-o", "json"))
    return found


def output_of(server: Served, *arguments: str) -> str:
    """What a run with these arguments wrote."""
    run = values(server, "job", "run", *arguments, "--wait")
    return server.out("execution", "output", run["id"])


def until_total(server: Served, total: int, *arguments: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while (found := values(server, "execution", "list", *arguments)["total"]) != total:
        assert time.monotonic() < deadline, f"{found} executions, not {total}"
        time.sleep(0.05)


# ---- run now with changed arguments ----


def test_a_run_changes_what_is_named_and_keeps_the_rest(server: Served) -> None:
    server.out(
        "job", "create", "--id", "env", "--name", "env", "--shell", 'echo "$DAY $ZONE"',
        "--env", "DAY=monday", "--env", "ZONE=a",
    )  # fmt: skip
    assert output_of(server, "env") == "monday a\n"
    assert output_of(server, "env", "--env", "DAY=friday") == "friday a\n"
    assert output_of(server, "env", "--shell", "echo other") == "other\n"
    followed = server.dts("job", "run", "env", "--follow", "--", "/bin/echo", "one", "two")
    assert (followed.returncode, followed.stdout) == (0, "one two\n")
    assert output_of(server, "env") == "monday a\n", "just this once"
    wrong = server.dts("job", "run", "env", "--kwargs", "{}")
    assert (wrong.returncode, "--kwargs belongs to --python" in wrong.stderr) == (2, True)


def test_a_run_changes_the_arguments_of_a_function(server: Served) -> None:
    server.out(
        "job", "create", "--id", "call", "--name", "call", "--python", "builtins:print",
        "--args", '["a", "b"]', "--kwargs", '{"sep": "-", "end": "!"}',
    )  # fmt: skip
    assert output_of(server, "call") == "a-b!"
    assert output_of(server, "call", "--kwargs", '{"sep": "+"}') == "a+b!"
    assert output_of(server, "call", "--args", '["c"]') == "c!"


def test_a_dry_run_shows_the_task_as_changed(server: Served) -> None:
    server.out("job", "create", "--id", "dry", "--name", "dry", "--http", "http://localhost:1/x", "--header", "A: 1")
    done = server.dts("job", "run", "dry", "--body", "text", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "POST http://localhost:1/x\n")
    assert done.stderr == "Would run: this, once, by job dry at revision 1\n"
    task = values(server, "job", "run", "dry", "--header", "B: 2", "--success", "204", "--dry-run")["task"]["http"]
    assert (task["headers"], task["successStatuses"]) == ({"A": "1", "B": "2"}, [204])
    assert values(server, "execution", "list", "--job", "dry")["total"] == 0
    server.out("job", "create", "--id", "bare", "--name", "bare")
    assert server.dts("job", "run", "bare", "--dry-run").stdout == "nothing: completes at once\n"


# ---- many executions ----


def test_retry_by_filter(server: Served) -> None:
    server.out("job", "create", "--id", "fails", "--name", "fails", "--shell", "exit ${CODE:-1}")
    ids = [values(server, "job", "run", "fails")["executionId"] for _ in range(3)]
    until_total(server, 3, "--job", "fails", "--status", "failed")
    dry = server.dts("execution", "retry", "--job", "fails", "--from", "-1h", "--dry-run")
    assert (sorted(dry.stdout.split()), dry.stderr) == (sorted(ids), "Would retry: 3 executions\n")
    again = ("execution", "retry", "--job", "fails", "--status", "failed", "--request-id", "r", "--", "/bin/true")
    done = server.dts(*again)
    assert (len(done.stdout.split()), done.stderr) == (3, "Executions retried: 3\n")
    until_total(server, 3, "--job", "fails", "--status", "completed")
    assert server.dts(*again).stdout == done.stdout
    assert values(server, "execution", "list", "--job", "fails")["total"] == 6
    assert server.dts("execution", "retry", ids[0], "--dry-run").stderr == f"Would retry: {ids[0]}\n"
    one = server.out("execution", "retry", ids[0], "--env", "CODE=0", "--wait")
    assert "COMPLETED" in one, "the job's own task, changed"


def test_cancel_by_filter(server: Served) -> None:
    server.out("job", "create", "--id", "slow", "--name", "slow", "--shell", "sleep 60")
    ids = [values(server, "job", "run", "slow")["executionId"] for _ in range(3)]
    until_total(server, 3, "--job", "slow", "--status", "running")
    dry = server.dts("execution", "cancel", "--job", "slow", "--dry-run")
    assert (sorted(dry.stdout.split()), dry.stderr) == (sorted(ids), "Would cancel: 3 executions\n")
    assert server.dts("execution", "cancel", ids[0], "--dry-run").stderr == "Would cancel: 1 execution\n"
    done = server.dts("execution", "cancel", "--job", "slow", "--status", "running", "--reason", "not today")
    assert (sorted(done.stdout.split()), done.stderr) == (sorted(ids), "Executions cancelled: 3\n")
    until_total(server, 3, "--job", "slow", "--status", "cancelled")
    assert values(server, "execution", "get", ids[0])["reason"] == "not today"
    both = server.dts("execution", "cancel", ids[0], "--job", "slow")
    assert (both.returncode, "beside a filter" in both.stderr) == (2, True)
    wrong = server.dts("execution", "cancel", "--job", "slow", "--status", "failed")
    assert (wrong.returncode, "has ended" in wrong.stderr) == (2, True)


# ---- many jobs ----


def test_jobs_by_filter(server: Served) -> None:
    for id in ("n1", "n2"):
        server.out("job", "create", "--id", id, "--name", f"report {id}", "--tag", "night", "--cron", "@yearly")
    where = ("--where", "tag=night")
    dry = server.dts("job", "pause", *where, "--dry-run")
    assert (dry.stdout, dry.stderr) == ("n1\nn2\n", "Would pause: 2 jobs\n")
    assert server.out("job", "pause", *where, "--where", "name=REPORT", "--note", "upgrade") == "Jobs paused: 2\n"
    assert values(server, "job", "get", "n2")["pause"]["note"] == "upgrade"
    assert server.out("job", "resume", "--where", "status=paused") == "Jobs resumed: 2\n"
    assert server.out("job", "update", *where, "--priority", "5") == "Jobs updated: 2\n"
    assert values(server, "job", "get", "n1")["priority"] == 5
    one = server.dts("job", "update", "n1", "--priority", "6", "--dry-run")
    assert (one.stdout, one.stderr) == ("n1\n", "Would update: 1 job\n")
    assert server.dts("job", "delete", "n1", "n2", "--dry-run").stderr == "Would delete: 2 jobs\n"
    assert server.out("job", "delete", *where) == "Jobs deleted: 2\n"
    assert server.dts("job", "get", "n1").returncode == 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("delete", "x", "--where", "tag=a"), "give one of the two"),
        (("pause", "--where", "owner=me"), "none of tag, name, status, last_status"),
        (("pause", "--where", "tag=a", "--where", "tag=b"), "given twice"),
        (("resume", "--where", "tag="), "is empty"),
        (("update", "--where", "tag=a", "--cpu", "5"), "job by job"),
        (("delete",), "Give one or more IDs"),
        (("resume", "x", "--all"), "give one of the two"),
    ],
)
def test_filters_that_are_wrong(server: Served, arguments: tuple[str, ...], text: str) -> None:
    done = server.dts("job", *arguments)
    assert (done.returncode, text in done.stderr) == (2, True), done.stderr
