"""The pages about the command line say what it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dts.cli import exits

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_list_of_commands_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "cli_page.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_exit_codes_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    named = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert named == {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80
