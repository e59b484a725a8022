"""`dts export` and `dts import` between embedded files, as a person moves: nothing is lost, nothing fires twice."""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dts.adapters.archive import ArchiveReader, ArchiveWriter, Header, Record
from dts.model import (
    Definition,
    Demand,
    End,
    Execution,
    JobState,
    Key,
    MovedExecution,
    MovedJob,
    Policies,
    Range,
    Revision,
    ScheduleSpec,
    Status,
)
from tests.acceptance.served import BIN, COMMAND_S, Served, environment, served, stop, wait_until_ready

WAIT_S = 30.0
POLL_S = 0.1
MEMORY_MIB = 130  # of an import, whatever the size of the file


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(POLL_S)


def start(env: dict[str, str], folder: Path) -> Served:
    log = folder / "again.log"
    with log.open("ab") as out:
        process = subprocess.Popen([BIN / "dts", "up"], env=env, stdout=out, stderr=out, cwd=folder)
    running = Served(env, log, process)
    wait_until_ready(running)
    return running


def dts(env: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "dts"), *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def executions(server: Served, job: str) -> dict[str, str]:
    found = json.loads(server.out("execution", "list", "--job", job, "--page-size", "250", "-o", "json"))["executions"]
    return {each["id"]: each["status"] for each in found}


def records(path: Path) -> list[Record]:
    return list(ArchiveReader(path).records())


def comparable(found: list[Record]) -> list[Record]:
    """Without the revisions that imports made, and where the cut was; in an order of its own: what was open at the cut comes
    last in the file that it is cut in, and by its time in the next."""
    told = [
        MovedJob([each for each in of.revisions if each.change != "import"], 0) if isinstance(of, MovedJob) else of
        for of in found
    ]
    return sorted(told, key=lambda of: (type(of).__name__, repr(of)))


def test_a_laptops_file_goes_on_in_another_place(tmp_path: Path) -> None:
    file, other = tmp_path / "jobs.gz", tmp_path / "other"
    other.mkdir()
    with served(tmp_path) as server:
        server.out(
            "job",
            "create",
            "--id",
            "each",
            "--name",
            "Each",
            "--cron",
            "@every 1s",
            "--shell",
            "echo $DTS_EXECUTION_ID",
        )
        server.out("job", "create", "--id", "still", "--name", "Still", "--cron", "0 0 1 1 *", "--tag", "x")
        server.out("job", "update", "--id", "still", "--name", "Stiller")
        server.out("job", "pause", "still")
        server.out("job", "create", "--id", "gone", "--name", "Gone", "--shell", "exit 3")
        server.out("job", "run", "gone")
        until(lambda: "FAILED" in executions(server, "gone").values())
        server.out("job", "delete", "gone")
        until(lambda: len(executions(server, "each")) >= 3)
        beside = server.out("export", str(tmp_path / "beside.gz"))
        assert beside.startswith("Exported: 3 jobs, ")
        assert dts(server.env, "import", tmp_path / "beside.gz").returncode == 5
    done = dts(server.env, "export", file)
    assert done.returncode == 0, done.stderr  # one that was handed back at the stop may be open
    there = {**environment(other), "PATH": server.env["PATH"]}
    would = dts(there, "import", "--check", file)
    assert would.stdout.startswith("Would import: 3 jobs, "), would.stderr
    assert dts(there, "import", file).stdout.startswith("Imported: 3 jobs, ")
    assert "there already: 3" in dts(there, "import", file).stdout
    assert dts(there, "export", tmp_path / "unstarted.gz").returncode == 0
    assert comparable(records(tmp_path / "unstarted.gz")) == comparable(records(file))
    before = {str(of.execution.key) for of in records(file) if isinstance(of, MovedExecution)}
    running = start(there, other)
    try:
        until(lambda: len(executions(running, "each")) >= 6)
        after = executions(running, "each")
        assert {name for name in before if name.startswith("each@")} <= set(after)
        first = min(set(after) - before)
        assert running.out("logs", first) == f"{first}\n"
        some = next(name for name in before if name.startswith("each@"))
        assert running.out("logs", some) == f"{some}\n"
        audit = running.dts("audit", "--from", "-10m")
        assert "missing" not in audit.stdout.lower() or re.search(r"missing\W+0", audit.stdout.lower()), audit.stdout
        assert audit.returncode == 0, audit.stdout
        still = json.loads(running.out("job", "get", "still", "-o", "json"))
        assert (still["name"], still["status"], still["tags"]) == ("Stiller", "PAUSED", ["x"])
        assert running.dts("job", "get", "gone").returncode == 4
        running.out("job", "resume", "still")
    finally:
        stop(running)


def test_a_repeated_request_is_known_in_the_new_place(tmp_path: Path) -> None:
    import urllib.request

    other = tmp_path / "other"
    other.mkdir()

    def create(server: Served) -> str:
        body = json.dumps({"name": "once", "requestId": "the-request"}).encode()
        url = f"http://localhost:{server.env['JOB_SERVICE_HTTP_PORT']}/v1/jobs"
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
            return str(json.load(answer)["jobId"])

    with served(tmp_path) as server:
        made = create(server)
    assert dts(server.env, "export", tmp_path / "x.gz").returncode == 0
    there = {**environment(other), "PATH": server.env["PATH"]}
    assert dts(there, "import", tmp_path / "x.gz").returncode == 0
    running = start(there, other)
    try:
        assert create(running) == made
        assert json.loads(running.out("job", "list", "-o", "json"))["total"] == 1
    finally:
        stop(running)


def test_what_runs_while_the_server_is_killed_is_told_as_lost(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        server.out("job", "create", "--id", "long", "--name", "Long", "--shell", "sleep 60")
        server.out("job", "run", "long")
        until(lambda: "RUNNING" in executions(server, "long").values())
        done = server.dts("export", str(tmp_path / "x.gz"))
        assert done.returncode == 0
        assert "1 executions were open" in done.stderr
        server.out("execution", "cancel", *executions(server, "long"))
        until(lambda: "CANCELLED" in executions(server, "long").values())
    [moved] = [of for of in records(tmp_path / "x.gz") if isinstance(of, MovedExecution)]
    assert (moved.execution.status, moved.execution.reason) == (Status.LOST, "moved")


def many(path: Path, count: int, jobs: int = 3) -> None:
    """An export with so many executions."""
    writer = ArchiveWriter(path, Header(1, "embedded", "0" * 32, "0.1.0"))
    now = time.time_ns() // 1_000_000
    writer.write(Range("j0", 1, 1, 2, 1, "outage"))
    for number in range(count):
        at = now - 1_000 * number
        end = End(at, at + 5, 0, "", f"result {number}")
        writer.write(MovedExecution(Execution(Key(f"j{number % jobs}", at), 1, Status.COMPLETED, 1, end=end)))
    for number in range(jobs):
        schedules = (ScheduleSpec("0 0 1 1 *"),)
        of = Definition(f"j{number}", 1, 1, JobState.ACTIVE, None, schedules, Demand(), Policies(), b"")
        writer.write(MovedJob([Revision(of, "create", 1, of.job, (), b"")], now))
    writer.finish()


def test_a_file_that_is_not_whole_leaves_nothing_behind(tmp_path: Path) -> None:
    env, good, bad = environment(tmp_path), tmp_path / "good.gz", tmp_path / "bad.gz"
    many(good, 50)
    data = good.read_bytes()
    later = gzip.decompress(data).replace(b'"dts_export":1', b'"dts_export":2', 1)
    for content, code, word in (
        (data[:-100], 8, "damaged"),
        (data[:200] + bytes([data[200] ^ 1]) + data[201:], 8, "damaged"),
        (gzip.compress(gzip.decompress(data).replace(b"result 7", b"result 8")), 8, "checksum"),
        (gzip.compress(later), 2, "later version"),
        (b"SQLite format 3\x00", 8, "damaged"),
    ):
        bad.write_bytes(content)
        done = dts(env, "import", bad)
        assert (done.returncode, word in done.stderr) == (code, True), done.stderr
        assert dts(env, "export", tmp_path / "empty.gz").stdout.startswith("Exported: 0 jobs")
        (tmp_path / "empty.gz").unlink()
    assert dts(env, "import", tmp_path / "nowhere.gz").returncode == 3
    assert dts(env, "import", good).returncode == 0
    assert dts(env, "export", good).returncode == 3  # is there already


def test_an_import_that_was_killed_is_repeated(tmp_path: Path) -> None:
    env, file = environment(tmp_path), tmp_path / "many.gz"
    many(file, 25_000)
    database = Path(env["DTS_DATABASE"])
    killed = 0
    for _ in range(3):
        process = subprocess.Popen([BIN / "dts", "import", str(file)], env=env, stdout=subprocess.DEVNULL)
        grown = _size(database) + 300_000
        while process.poll() is None and _size(database) < grown:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    assert dts(env, "import", file).returncode == 0
    assert dts(env, "export", tmp_path / "again.gz").returncode == 0
    assert comparable(records(tmp_path / "again.gz")) == comparable(records(file))


def _size(database: Path) -> int:
    return sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*") if path.is_file())


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    env, file = environment(tmp_path), tmp_path / "many.gz"
    many(file, 60_000)
    for arguments in (["import", str(file)], ["export", "--no-output", str(tmp_path / "out.gz")]):
        assert _peak_mib(env, arguments) < MEMORY_MIB


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _peak_mib(env: dict[str, str], arguments: list[str]) -> float:
    """By a process between: a child's peak begins with what its parent had when it was forked."""
    command = [sys.executable, "-c", PEAK, str(BIN / "dts"), *arguments]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout) / 1024


@pytest.mark.parametrize("arguments", [["export"], ["import"], ["import", "a", "b"]])
def test_a_file_must_be_named(tmp_path: Path, arguments: list[str]) -> None:
    assert dts(environment(tmp_path), *arguments).returncode == 2
