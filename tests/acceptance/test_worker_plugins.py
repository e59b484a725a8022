"""Task types of packages: the one that docs/reference/tasks.md shows, installed as a package would be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dts.gen.job.v1 import job_pb2
from dts.gen.worker.v1 import worker_pb2
from dts.model import Key, Status
from tests.acceptance.workerside import AT, poll, working

DOCUMENT = Path(__file__).parents[2] / "docs/reference/tasks.md"


def install(folder: Path) -> None:
    """The page's example, and a type that does not load."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (entry,) = re.findall(r'dts\.tasks"\]\n(.*?)```', DOCUMENT.read_text(), re.DOTALL)
    (folder / "greeting.py").write_text(code)
    about = folder / "greeting-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[dts.tasks]\n{entry.replace(chr(34), '')}broken = greeting:Nothing\n")


def custom(type: str, **config: object) -> bytes:
    task = job_pb2.Task(custom=job_pb2.CustomTask(type=type))
    task.custom.config.update(config)
    return worker_pb2.Body(task=task).SerializeToString()


async def test_a_type_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    async with working(tmp_path) as (scheduler, _):
        bodies = [custom("greet", name="Ada"), custom("greet"), custom("broken"), custom("greet", name=5)]
        got = await scheduler.ended(*scheduler.lease(["ada", "nobody", "broken", "wrong"], bodies))
        assert [(status, end.error, end.result) for status, end in got[:3]] == [
            (Status.COMPLETED, "", "Ada"),
            (Status.FAILED, "there is nobody to greet", "nobody"),
            (
                Status.FAILED,
                "task type 'broken' cannot be loaded: AttributeError: module 'greeting' has no attribute 'Nothing'",
                "",
            ),
        ]
        assert (got[3][0], got[3][1].result) == (Status.COMPLETED, "5")
        await poll(lambda: scheduler.outputs.text("ada"))
        assert scheduler.outputs.text("ada").decode() == f"greeting Ada for {Key('ada', AT)}\n"
