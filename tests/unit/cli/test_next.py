"""`dts next`, as a user types it: answers, refusals, and that it starts fast."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dts.cli.next import next_


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dts", "next", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_json_across_a_gap() -> None:
    done = run("30 2 * * *", "--tz", "Europe/Paris", "--after", "2026-03-28T12:00:00Z", "-n", "2", "-o", "json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["next"] == ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    assert values["occurrences"][0]["local"] == "2026-03-29T03:00:00+02:00"
    assert values["occurrences"][0]["note"] == "02:30 does not exist on this day"
    assert values["transitions"][0]["instant"] == "2026-03-29T01:00:00Z"
    assert values["sentence"].startswith("At 02:30 every day")
    assert any("does not exist" in hint for hint in values["hints"])
    assert (values["timeZone"], values["after"]) == ("Europe/Paris", "2026-03-28T12:00:00Z")


def test_table() -> None:
    done = run("0 9 * * MON-FRI", "--tz", "Europe/Paris", "--after", "2026-03-27T12:00:00Z", "-n", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "At 09:00 on Monday to Friday, Europe/Paris time"
    assert lines[2].split("  ")[0] == "LOCAL TIME"
    assert lines[3].startswith("2026-03-30T09:00:00+02:00  2026-03-30T07:00:00Z")
    assert any(line.startswith("Clock: 2026-03-29T02:00:00 -> 2026-03-29T03:00:00") for line in lines)


def test_changes_of_the_clock_behind_the_last_row_are_not_shown() -> None:
    done = run("0 9 * * *", "--tz", "Europe/Paris", "--after", "2026-03-01", "-n", "3")
    assert "Clock:" not in done.stdout
    done = run("0 9 * * *", "--tz", "Europe/Paris", "--after", "2026-03-01", "-n", "40")
    assert done.stdout.count("Clock:") == 1, "the one in autumn comes later"


def test_yaml() -> None:
    done = CliRunner().invoke(next_, ["@every 1h", "--after", "2026-01-01", "-n", "1", "-o", "yaml"])
    assert done.output.startswith("next:\n- '2026-01-01T01:00:00Z'\n")


@pytest.mark.parametrize(
    ("expression", "place"),
    [("30 25 * * *", "  30 25 * * *\n     ^"), ("0 0 * * MOO", "  0 0 * * MOO\n          ^")],
)
def test_a_refusal_points_at_the_place(expression: str, place: str) -> None:
    done = run(expression)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.rstrip("\n").endswith(place)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("30 4 30 2 *",),
        ("* * * * *", "--tz", "Europe/Pari"),
        ("* * * * *", "--after", "yesterdayish"),
        ("* * * * *", "-n", "0"),
        ("@every -5s",),
        ("@at 2026-01-01", "--end", "2025-01-01"),
        ("",),
        (),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_words_need_no_quotes() -> None:
    done = run("0", "9", "1", "1", "1", "--after", "2026-01-01", "-n", "1", "-o", "json")
    assert json.loads(done.stdout)["expression"] == "0 9 1 1 1"


LOADED = """
import sys
from dts.cli.main import main
try:
    main()
except SystemExit:
    print(*sorted({"grpc", "google.protobuf", "aiohttp", "yaml"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["next", "*/5 * * * *"], ["config"], ["version"]])
def test_it_loads_no_library_of_the_server(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_it_starts_fast() -> None:
    """In processor time, which a busy machine hardly changes; seen: 0.11 s, of which Python itself takes 0.02 s."""
    assert min(processor_time() for _ in range(5)) < 0.25


def processor_time() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("*/5 * * * *")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
