"""The command line against a real server: the original guide's commands, then everything that is ours."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.served import BIN, Served, environment, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("cli")) as running:
        yield running


@pytest.fixture
def job(server: Served, request: pytest.FixtureRequest) -> str:
    """A job on demand that prints a line and succeeds."""
    id = re.sub(r"[^A-Za-z0-9._-]", "-", request.node.name)[:64]
    server.out("job", "create", "--id", id, "--name", "Prints a line", "--shell", "echo out; echo err >&2")
    return id


def values(server: Served, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.out(*arguments, "-o", "json"))
    return found


# ---- the original's guide -------------------------------------------------------------------------------------------


def test_the_originals_guide(server: Served) -> None:
    created = server.out(
        "job", "create", "--name", "My Job", "--description", "Description", "--cron", "*/5 * * * *",
        "--metadata", '{"key": "value"}',
    )  # fmt: skip
    found = re.fullmatch(r"Job created with ID: (\S+)\n", created)
    assert found is not None
    id = found[1]

    shown = json.loads(server.out("job", "get", "--id", id))
    assert (shown["id"], shown["name"], shown["description"]) == (id, "My Job", "Description")
    assert (shown["cronExpression"], shown["metadata"], shown["status"]) == (
        "*/5 * * * *",
        {"key": "value"},
        "SCHEDULED",
    )
    assert shown["lastRun"] is None

    listed = server.out("job", "list", "--page-size", "10", "--status", "active")
    lines = listed.splitlines()
    assert re.fullmatch(r"Total jobs: \d+", lines[0])
    assert re.fullmatch(r"Next page token: \S*\s?", lines[-1])
    parts = "\n".join(lines[1:-1]).split("\n---")
    assert id in [json.loads(part)["id"] for part in parts if part.strip()]

    updated = json.loads(server.out("job", "update", "--id", id, "--name", "Updated Job", "--status", "paused"))
    assert (updated["name"], updated["status"], updated["description"]) == ("Updated Job", "PAUSED", "Description")

    assert server.out("job", "delete", "--id", id) == "Job deleted: true\n"
    assert server.dts("job", "get", "--id", id).returncode == 4


def test_the_guides_broken_cron_is_refused_and_nothing_is_stored(server: Served) -> None:
    before = values(server, "job", "list")["total"]
    done = server.dts("job", "create", "--name", "x", "--cron", "/5 ")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) <= 4
    assert values(server, "job", "list")["total"] == before


# ---- jobs -----------------------------------------------------------------------------------------------------------


def test_a_job_runs_and_tells(server: Served, job: str) -> None:
    ran = server.dts("job", "run", job, "--wait")
    assert ran.returncode == 0, ran.stderr
    execution = ran.stdout.splitlines()[0].removeprefix("Execution started with ID: ")
    assert ran.stdout.splitlines()[1] == "COMPLETED"
    assert sorted(server.out("logs", execution).split()) == ["err", "out"]
    assert sorted(server.out("logs", job).split()) == ["err", "out"]
    shown = server.out("execution", "get", execution)
    assert re.search(r"^Status: +COMPLETED$", shown, re.MULTILINE)
    assert "  out\n" in shown
    assert execution in server.out("execution", "list", "--job", job)
    assert execution in server.out("job", "get", job, "-o", "table")
    again = server.out("execution", "retry", execution, "--wait").splitlines()[0].split()[-1]
    assert values(server, "execution", "get", again)["retryOf"] == execution


def test_follow_shows_the_output_as_it_is_written(server: Served) -> None:
    server.out("job", "create", "--id", "slow", "--name", "slow", "--shell", "echo first; read line < go; echo second")
    done = server.dts("job", "run", "slow", "-f")  # `go` is not there: the shell fails after its first line
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("first\n")
    assert done.stderr.splitlines()[-1] == "COMPLETED"


def test_a_failure_is_told_by_exit_code_and_words(server: Served) -> None:
    server.out("job", "create", "--id", "fails", "--name", "fails", "--retries", "1", "--retry-initial", "50ms",
               "--shell", "echo about to fail; exit 3")  # fmt: skip
    ran = server.dts("job", "run", "fails", "--wait")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[1].startswith("FAILED")
    execution = ran.stdout.splitlines()[0].split()[-1]
    shown = server.out("execution", "get", execution)
    assert re.search(r"^Exit code: +3$", shown, re.MULTILINE)
    assert re.search(r"^Attempt: +2$", shown, re.MULTILINE)
    assert "Earlier attempts:" in shown
    assert "about to fail" in shown
    assert "fails" in server.out("job", "list", "--last-status", "failed", "-o", "table")
    assert execution in server.out("execution", "list", "--status", "failures", "--from", "-1h")


def test_pause_resume_update_and_revisions(server: Served, job: str) -> None:
    server.out("job", "update", job, "--cron", "0 3 * * *", "--tz", "Europe/Paris", "--misfire", "skip", "--cpu", "100")
    server.out("job", "update", job, "--grace", "1h", "--memory", "10")
    kept = values(server, "job", "get", job)
    assert (kept["policies"]["misfire"], kept["policies"]["gracePeriod"]) == ("skip", "3600s")
    assert (kept["requirements"]["cpu"], kept["requirements"]["memory"]) == (100, 10)
    server.out("job", "pause", job, "--note", "too loud", "--by", "ann", "--until", "in 2h")
    paused = server.out("job", "get", job, "-o", "table")
    assert "by ann" in paused
    assert "too loud" in paused
    server.out("job", "resume", job)
    server.out("job", "update", job, "--clear", "schedules", "--clear", "description")
    cleared = values(server, "job", "get", job)
    assert (cleared["schedules"], cleared["cronExpression"]) == ([], "")
    changes = [line.split()[1] for line in server.out("job", "revisions", job).splitlines()[1:]]
    assert changes == ["update", "resume", "pause", "update", "update", "create"]
    assert server.dts("job", "update", job, "--revision", "1", "--name", "late").returncode == 5


def test_a_repeated_create_is_the_same_create(server: Served) -> None:
    first = server.out("job", "create", "--request-id", "deploy-42", "--name", "once", "--cron", "@every 1h")
    assert server.out("job", "create", "--request-id", "deploy-42", "--name", "once", "--cron", "@every 1h") == first
    server.out("job", "create", "--id", "chosen", "--name", "a")
    server.out("job", "create", "--id", "chosen", "--name", "a")
    assert server.dts("job", "create", "--id", "chosen", "--name", "b").returncode == 5


def test_many_at_once(server: Served) -> None:
    lines = "".join(
        json.dumps({"id": f"many-{n}", "name": f"m{n}", "cronExpression": "@every 24h", "tags": ["many"]}) + "\n"
        for n in range(600)
    )
    assert server.out("job", "create-many", stdin=lines).splitlines() == [f"many-{n}" for n in range(600)]
    page = values(server, "job", "list", "--tag", "many", "--page-size", "250")
    assert len(page["jobs"]) == 250
    rest = values(server, "job", "list", "--tag", "many", "--last-id", page["nextPage"], "--all")
    seen = [each["id"] for each in page["jobs"] + rest["jobs"]]
    assert sorted(seen) == sorted({f"many-{n}" for n in range(600)})
    changed = server.out(
        "job", "update-many", stdin='{"id": "many-1", "priority": 7}\n\n{"id": "many-2", "priority": 8}\n'
    )
    assert changed == "Jobs updated: 2\n"
    assert values(server, "job", "get", "many-2")["priority"] == 8
    assert server.out("job", "pause", "many-1", "many-2") == "Jobs paused: 2\n"
    assert server.out("job", "resume", "many-1", "many-2") == "Jobs resumed: 2\n"
    assert server.out("job", "delete", *seen) == "Jobs deleted: 600\n"
    broken = server.dts("job", "create-many", stdin='{"name": "fine"}\n{"nme": "x"}\n')
    assert broken.returncode == 2
    assert "line 2" in broken.stderr


@pytest.mark.parametrize(
    ("command", "good", "bad"),
    [
        ("create-many", {"name": "fine"}, {"name": "bad", "cronExpression": "61 * * * *"}),
        ("update-many", {"id": "fine", "priority": 1}, {"id": "no id"}),
    ],
)
@pytest.mark.parametrize("before", [0, 3])
def test_what_the_server_refuses_is_named_by_its_line(
    server: Served, tmp_path: Path, command: str, good: dict[str, object], bad: dict[str, object], before: int
) -> None:
    file = tmp_path / "jobs.jsonl"
    lines = [json.dumps({**good, "id": f"fine-{n}"}) for n in range(before)]
    file.write_text("\n".join([*lines, "", json.dumps(bad)]) + "\n")
    done = server.dts("job", command, str(file))
    assert done.returncode == 2
    assert f"{file}, line {before + 2}: " in done.stderr, done.stderr
    assert "jobs[" not in done.stderr


def test_the_scheduler_service(server: Served) -> None:
    scheduled = server.out(
        "scheduler", "schedule", "--id", "by-scheduler", "--name", "s", "--shell", "true", "--cpu", "1"
    )
    assert scheduled.startswith("Job scheduled with ID: by-scheduler\nExecution started with ID: by-scheduler@")
    server.out("job", "update", "by-scheduler", "--cron", "@every 1h")
    assert "by-scheduler" in server.out("scheduler", "list")
    assert values(server, "scheduler", "get", "by-scheduler")["nextExecutionTime"].endswith("Z")
    assert server.out("scheduler", "cancel", "by-scheduler") == "Job cancelled: true\n"
    assert server.out("job", "cancel", "by-scheduler").startswith("Job cancelled: true")
    assert values(server, "job", "get", "by-scheduler")["status"] == "CANCELLED"


def test_a_running_execution_can_be_cancelled(server: Served) -> None:
    server.out("job", "create", "--id", "endless", "--name", "endless", "--shell", "sleep 600")
    execution = server.out("job", "run", "endless").split()[-1]
    server.out("execution", "cancel", execution, "--reason", "enough")
    done = server.dts("logs", "-f", execution)
    assert done.returncode == 1
    assert "enough" in server.out("execution", "get", execution)


# ---- the system -----------------------------------------------------------------------------------------------------


def test_status_workers_events_verdicts_audit(server: Served, job: str) -> None:
    assert server.out("status").startswith("Clock: ok\n")
    assert values(server, "status")["shards"][0]["shard"] == 0
    assert "attached" in server.out("worker", "list")
    watching = subprocess.Popen(
        [BIN / "dts", "events", job, "-n", "1", "-o", "json"], env=server.env, stdout=subprocess.PIPE, text=True
    )
    try:
        while watching.poll() is None:
            server.out("job", "run", job, "--wait")
    finally:
        watching.kill()
        seen = watching.communicate()[0]
    assert json.loads(seen)["execution"]["jobId"] == job
    server.out("job", "create", "--id", "ticks", "--name", "ticks", "--cron", "@every 1s")
    server.out("job", "run", "ticks", "--wait")
    assert server.dts("audit", "--from", "-1h").returncode == 0
    audit = values(server, "audit", "--from", "1h ago", "--to", "now")
    assert (audit["clean"], audit["missing"], audit["doubled"], audit["findings"]) == (True, "0", "0", [])
    assert server.out("verdicts", "ticks", "--from", "-1h").splitlines()[-1].startswith("Next page token:")
    server.out("job", "delete", "ticks")


def test_a_second_worker_joins_and_takes_what_selects_it(server: Served, tmp_path: Path) -> None:
    token = Path(server.env["DTS_DATABASE"] + ".token").read_text().strip()
    env = {**environment(tmp_path), "DTS_WORKER_TOKEN": token}
    command = [BIN / "dts", "worker", "--scheduler", f"localhost:{server.env['SCHEDULER_SERVICE_GRPC_PORT']}"]
    worker = subprocess.Popen([*command, "--id", "far", "--label", "zone=far", "--slots", "2"], env=env, cwd=tmp_path)
    try:
        server.out("job", "create", "--id", "distant", "--name", "distant", "--selector", "zone=far", "--shell", "true")
        ran = values(server, "job", "run", "distant", "--wait")  # waits in the queue until the worker is there
        assert (ran["status"], ran["workerId"]) == ("COMPLETED", "far")
        assert re.search(r"^far .*attached .*0/2 .*zone=far$", server.out("worker", "list"), re.MULTILINE)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0


def test_next_asks_the_server_too(server: Served) -> None:
    mine = json.loads(server.out("next", "30 2 * * *", "--tz", "Europe/Paris", "--after", "2026-03-28", "-o", "json"))
    asked = ("next", "30 2 * * *", "--tz", "Europe/Paris", "--after", "2026-03-28", "-o", "json", "--server")
    theirs = json.loads(server.out(*asked))
    assert (theirs["next"], theirs["sentence"], theirs["hints"]) == (mine["next"], mine["sentence"], mine["hints"])
    assert "Clock: " in server.out(*asked[:-3], "--server")


def test_text_from_strangers_does_not_command_the_terminal(server: Served) -> None:
    server.out("job", "create", "--id", "rude", "--name", "\x1b]0;owned\x07", "--description", "a\nb\x1b[2J")
    for shown in (server.out("job", "list", "-o", "table"), server.out("job", "get", "rude", "-o", "table")):
        assert "\x1b" not in shown
        assert "owned" in shown
    assert values(server, "job", "get", "rude")["name"] == "\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["job", "get", "nobody"], 4),
        (["execution", "get", "nobody@20260101T000000.000Z"], 4),
        (["execution", "get", "no execution id"], 2),
        (["job", "get"], 2),
        (["job", "get", "a", "--id", "b"], 2),
        (["job", "create", "--name", "x", "--cron", "30 4 30 2 *"], 2),
        (["job", "create", "--name", "x", "--cron", "* * * * *", "--tz", "Mars/Olympus"], 2),
        (["job", "create", "--name", "x", "--id", "../x"], 2),
        (["job", "list", "--page-size", "99999999999"], 2),
        (["job", "list", "--status", "no such status"], 2),
        (["job", "list", "--last-id", "no/id"], 2),
        (["logs", "nobody"], 4),
        (["nonsense"], 2),
        (["audit", "--from", "whenever"], 2),
    ],
)
def test_what_goes_wrong_has_its_code_and_a_sentence(server: Served, arguments: list[str], code: int) -> None:
    done = server.dts(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Error: " in done.stderr


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    env = environment(tmp_path)
    done = subprocess.run([BIN / "dts", "job", "list"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    port = env["JOB_SERVICE_GRPC_PORT"]
    assert done.stderr == (f"Error: no DTS server answers at localhost:{port}\nIs it running? Start it with: dts up\n")


def test_a_taken_port_is_told(server: Served, tmp_path: Path) -> None:
    env = {**environment(tmp_path), "EXECUTION_SERVICE_HTTP_PORT": server.env["EXECUTION_SERVICE_HTTP_PORT"]}
    done = subprocess.run([BIN / "dts", "up"], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert env["EXECUTION_SERVICE_HTTP_PORT"] in done.stderr
    assert "Traceback" not in done.stderr
    assert "Start it with" not in done.stderr


def test_wrong_settings_are_told_all_at_once(tmp_path: Path) -> None:
    env = {**environment(tmp_path), "DTS_LEASE_SECONDS": "soon", "DTS_RETENTION_DAYS": "-1"}
    for command in (["up"], ["job", "list"], ["config"]):
        done = subprocess.run([BIN / "dts", *command], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "DTS_LEASE_SECONDS is 'soon' (environment)" in done.stderr
        assert "DTS_RETENTION_DAYS is '-1' (environment)" in done.stderr
        assert "Traceback" not in done.stderr


# ---- the end of a followed output -----------------------------------------------------------------------------------


def test_followed_output_has_its_end(server: Served) -> None:
    """The verdict and the last of the output come to the server by two ways: whichever is first, the output is whole."""
    server.out("job", "create", "--id", "ends", "--shell", "echo a; sleep 1.0$(($$ % 10)); echo b")
    for _ in range(10):
        assert server.out("job", "run", "ends", "--follow").endswith("a\nb\n")


# ---- what a newcomer runs into --------------------------------------------------------------------------------------


def test_a_name_taken_for_an_id_is_pointed_at(server: Served) -> None:
    server.out("job", "create", "--id", "b-1", "--name", "backup", "--shell", "true")
    for command in (("job", "run"), ("job", "get"), ("job", "pause")):
        done = server.dts(*command, "backup")
        assert (done.returncode, done.stderr) == (
            4,
            "Error: job 'backup' not found; there is a job named 'backup': b-1\n",
        )


def test_no_job_no_history(server: Served) -> None:
    for command in (("audit", "--job"), ("verdicts",), ("execution", "list", "--job")):
        done = server.dts(*command, "nobody")
        assert (done.returncode, done.stderr) == (4, "Error: job 'nobody' not found\n")


def test_many_jobs_that_are_there_already_are_not_counted_as_created(server: Served) -> None:
    lines = "".join(f'{{"id": "m-{number}", "tags": ["m"]}}\n' for number in range(3))
    assert server.dts("job", "create-many", stdin=lines).stderr == "Jobs created: 3\n"
    more = lines + '{"id": "m-3", "tags": ["m"]}\n'
    assert server.dts("job", "create-many", stdin=more).stderr == "Jobs created: 1 (3 were there already)\n"
    first = server.out("job", "list", "--tag", "m", "--page-size", "2", "-o", "table").splitlines()
    assert (first[0], first[-1]) == ("Total jobs: at least 2", "Next page token: m-1")
    whole = server.out("job", "list", "--tag", "m", "--page-size", "2", "--all", "-o", "table").splitlines()
    assert whole[0] == "Total jobs: 4"
    assert "Next page token" not in whole[-1]


def test_a_misspelt_field_of_many(server: Served) -> None:
    done = server.dts("job", "create-many", stdin='{"cronExpresion": "@every 1h"}\n')
    assert done.returncode == 2
    assert "line 1: cronExpresion: there is no such field; did you mean cronExpression?" in done.stderr


def test_a_cancelled_job_is_not_run_and_no_code_is_shown(server: Served, job: str) -> None:
    server.out("job", "cancel", job)
    done = server.dts("job", "run", job)
    assert done.returncode == 5
    assert "FAILED_PRECONDITION" not in done.stderr


def test_an_unknown_host_is_blamed_on_its_setting(server: Served) -> None:
    elsewhere = Served({**server.env, "DTS_HOST": "nowhere.invalid"}, server.log, server.process)
    done = elsewhere.dts("status")
    assert done.returncode == 3
    assert "DTS_HOST" in done.stderr


def test_why_an_execution_is_tried_again(server: Served) -> None:
    server.out(
        "job", "create", "--id", "again", "--shell", "exit 7", "--retries", "1", "--retry-initial", "60s",
        "--retry-cap", "60s",
    )  # fmt: skip
    id = server.out("job", "run", "again").split()[-1]
    deadline = time.monotonic() + 10
    while "RETRYING" not in (shown := server.out("execution", "get", id)):
        assert time.monotonic() < deadline, shown
    assert re.search(r"Why: +attempt 1 FAILED: .*7", shown), shown
    assert "Earlier attempts:" in shown
    server.out("execution", "cancel", id)


def test_a_record_says_how_requests_were_held_and_why_a_task_was_stopped(server: Served) -> None:
    command = "python3 -c 'import time; kept = b\"x\" * (300 << 20); time.sleep(60)'"
    server.out("job", "create", "--id", "hungry", "--memory", "64", "--cpu", "100", "--shell", command)
    done = server.dts("job", "run", "hungry", "--wait")
    assert done.returncode == 1
    (execution,) = values(server, "execution", "list", "--job", "hungry")["executions"]
    shown = server.out("execution", "get", execution["id"])
    assert re.search(r"^Error: +out of memory: used \d+ MiB, requested 64 MiB$", shown, re.MULTILINE)
    assert re.search(r"^Kind: +out_of_memory$", shown, re.MULTILINE)
    assert re.search(r"^Held: +cpu: (cgroup|none), memory: (cgroup|sampled)$", shown, re.MULTILINE)
    got = values(server, "execution", "get", execution["id"])
    assert got["errorKind"] == "out_of_memory"
    assert got["enforced"]["memory"] in ("cgroup", "sampled")
