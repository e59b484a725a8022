"""Starts a worker as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib

from dts.worker.guarding import PYTHON
from dts.worker.options import WorkerOptions


async def launch(options: WorkerOptions) -> asyncio.subprocess.Process:
    """A worker in a session of its own: it outlives whoever started it, and no terminal's signal reaches it.

    Raises OSError when the system cannot start a process.
    """
    process = await asyncio.create_subprocess_exec(
        *PYTHON, "dts.worker", stdin=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    with contextlib.suppress(
        ConnectionError, RuntimeError
    ):  # it ended already (uvloop: the handler is closed): its code tells
        process.stdin.write(options.to_json())
        await process.stdin.drain()
        process.stdin.close()
    return process
