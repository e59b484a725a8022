"""README, quickstart, how-to pages and examples, run as a reader would: copied from the page, against a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.acceptance.served import COMMAND_S, ROOT, Served, served

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"\b(ID|JOB|EXECUTION)\b")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("docs")) as running:
        yield running


def blocks(page: str, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall((ROOT / page).read_text()) if kind == language]


def shell(server: Served, script: str) -> subprocess.CompletedProcess[str]:
    """Run lines of a page in the repository's folder, stopping at the first that fails."""
    lines = [line for line in server.local(script).splitlines() if not line.startswith((". .venv", "make "))]
    return subprocess.run(
        ["/bin/sh", "-eu", "-c", "\n".join(lines)],
        env=server.env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/quickstart.md",
        "docs/how-to/say-when.md",
        "docs/how-to/say-what.md",
        "docs/how-to/handle-many-jobs.md",
        "docs/how-to/script-the-command-line.md",
        "docs/how-to/come-from-dts-go.md",
    ],
)
def test_what_a_page_says_to_type_works(server: Served, page: str) -> None:
    job = server.out("job", "create", "--name", "of a page", "--cron", "@every 1h", "--shell", "echo hi").split()[-1]
    for block in blocks(page, "sh"):
        done = shell(server, PLACEHOLDER.sub(job, block))
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        if "dts audit" in block:
            assert re.search(r"^Due: +[1-9]", done.stdout, re.MULTILINE), done.stdout


def test_finding_what_failed(server: Served) -> None:
    """A page of commands to choose from: each works, on an execution for which it makes sense or is refused in words."""
    server.out("job", "create", "--id", "failing", "--name", "failing", "--shell", "exit 3")
    execution = server.dts("job", "run", "failing", "--wait").stdout.splitlines()[0].split()[-1]
    meant = {"JOB": "failing", "EXECUTION": execution}
    pages = ("docs/how-to/find-what-failed.md", "docs/how-to/why-did-it-not-run.md")
    for block in (block for page in pages for block in blocks(page, "sh")):
        for line in block.splitlines():
            done = shell(server, PLACEHOLDER.sub(lambda found: meant[found[1]], line))
            assert done.returncode in (0, 1, 5), f"{line}\n{done.stdout}\n{done.stderr}"
            assert done.returncode == 0 or re.search("-f|--wait|cancel", line), line


def test_doing_things_by_hand(server: Served) -> None:
    server.out("job", "create", "--id", "report", "--name", "report", "--cron", "0 9 * * *", "--shell", "echo $DAY")
    backfill = (
        server.out("backfill", "report", "--from", "2026-02-01", "--to", "2026-02-03").splitlines()[0].split()[-1]
    )
    for block in blocks("docs/how-to/run-by-hand.md", "sh"):
        for line in block.splitlines():
            done = shell(server, line.replace("BACKFILL", backfill))
            over = "backfill cancel" in line and "is DONE" in done.stderr
            assert done.returncode == 0 or over, f"{line}\n{done.stdout}\n{done.stderr}"


def test_holding_tasks_to_their_requests(server: Served) -> None:
    needs = ("--cpu", "500", "--memory", "64", "--storage", "10")
    server.out("job", "create", "--id", "held", "--name", "held", *needs, "--shell", "true")
    execution = server.dts("job", "run", "held", "--wait").stdout.splitlines()[0].split()[-1]
    create, get = blocks("docs/how-to/hold-tasks-to-their-requests.md", "sh")
    assert shell(server, create).returncode == 0
    shown = shell(server, get.replace("EXECUTION", execution)).stdout
    assert re.search(r"^Held: +cpu: \w+, memory: \w+, storage: \w+$", shown, re.MULTILINE), shown


def test_the_quickstart_shows_what_is_printed(server: Served) -> None:
    expected = [block for block in blocks("docs/quickstart.md", "text") if block.startswith("Error: ")]
    done = server.dts("next", "30 25 * * *")
    assert expected == [done.stderr]


def test_the_readmes_request_over_http(server: Served) -> None:
    """As curl sends it: a POST with a form's content type."""
    (block,) = blocks("README.md", "console")
    url, body = re.findall(r"(localhost\S+)|'(.*)'", block)
    with urlopen(f"http://{server.local(url[0])}", body[1].encode(), timeout=COMMAND_S) as answer:
        assert set(json.load(answer)) == {"jobId"}


@pytest.mark.parametrize("block", blocks("docs/how-to/use-the-python-sdk.md", "python"))
def test_python_of_the_pages(server: Served, block: str) -> None:
    done = run([sys.executable, "-c", block], server)
    assert done.returncode == 0, done.stderr
    assert "hello\n" in done.stdout
    assert "COMPLETED\n" in done.stdout
    assert "NOT_FOUND" in done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples(server: Served, example: Path) -> None:
    done = run([sys.executable, str(example)], server)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    expected = {
        "first_job.py": r"I am \S+, attempt 1\nCOMPLETED by \S+\n",
        "watch.py": "{'COMPLETED': 5, 'FAILED': 5}",
        "many_jobs.py": "created 1000 listed 1000\ndeleted 1000\n",
        "over_http.py": "deleted True\n",
    }
    assert re.search(expected[example.name], done.stdout), done.stdout


def run(command: list[str], server: Served) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=server.env, cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
