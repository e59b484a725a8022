"""The documentation's examples run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dts.model import ScheduleSpec
from dts.schedule import compile  # noqa: A004

DOCS = Path(__file__).parents[3] / "docs"


def blocks(name: str, language: str) -> list[str]:
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_library_page_runs_from_top_to_bottom() -> None:
    names: dict[str, Any] = {}
    found = blocks("schedule-library.md", "python")
    assert len(found) >= 7
    for block in found:
        exec(block, names)


@pytest.mark.parametrize("text", blocks("reference/schedules.md", "cron")[0].splitlines())
def test_what_the_reference_shows_is_read(text: str) -> None:
    assert compile(ScheduleSpec(text)).next_after(0) is not None
