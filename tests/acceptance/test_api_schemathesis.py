"""schemathesis reads /openapi.json of a running server and tries what it says: no 5xx, no answer that the document does not describe."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.unit.api.world import world

# What it cannot know: which cron texts, time zones and commands are valid. So a request that fits the schema may be refused with a 4xx.
EXCLUDED = "positive_data_acceptance"
# The revisions of a deleted job are its history: they stay.
CONFIG = """
[[operations]]
include-operation-id = "JobService_ListRevisions"
checks.use_after_free.enabled = false
"""
STREAMS = ("ExecutionService_WatchEvents", "ExecutionService_FollowOutput")


async def run(database: Path, examples: int, seconds: float) -> tuple[int, str]:
    """schemathesis's exit code and what it printed."""
    async with world(database) as api:
        await api.call("POST", "/v1/jobs", {"id": "known", "cronExpression": "0 0 1 1 *"})
        config = database.parent / "schemathesis.toml"
        config.write_text(CONFIG)
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "schemathesis"),
            *("--config-file", str(config), "run"),
            str(api.client.make_url("/openapi.json")),
            *("--max-examples", str(examples), "--seed", "1", "--workers", "1", "--no-color"),
            *("--exclude-checks", EXCLUDED, "--generation-database", "none"),
            *(part for name in STREAMS for part in ("--exclude-operation-id", name)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=database.parent,
        )
        assert process.stdout is not None
        async with asyncio.timeout(seconds):
            printed = await process.stdout.read()
            code = await process.wait()
        assert (await api.call("GET", "/v1/jobs/known"))[0] in (200, 404)
        return code, printed.decode()


@pytest.mark.timeout(110)
async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    code, printed = await run(tmp_path / "dts.db", 6, 100)
    assert code == 0, printed[-6_000:]


@pytest.mark.soak
@pytest.mark.timeout(1_300)
async def test_schemathesis_finds_nothing_in_many_examples(tmp_path: Path) -> None:
    code, printed = await run(tmp_path / "dts.db", 100, 1_200)
    assert code == 0, printed[-6_000:]
