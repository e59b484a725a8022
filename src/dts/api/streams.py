"""Streams of answers that say they are alive while nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from google.protobuf.message import Message

HEARTBEAT_S = 15.0  # a quiet stream says that it is alive
FIRST_WAIT_S = 0.2  # a refusal comes at once; after this the headers go out, so that the client knows it is connected


async def with_heartbeats(answers: AsyncIterator[Message]) -> AsyncGenerator[Message | None, None]:
    """The answers, and None whenever nothing came for HEARTBEAT_S (the first time FIRST_WAIT_S)."""
    waiting: asyncio.Task[Message] | None = None
    quiet_s = FIRST_WAIT_S
    try:
        while True:
            waiting = waiting or asyncio.create_task(_following(answers))
            done, _ = await asyncio.wait({waiting}, timeout=quiet_s)
            quiet_s = HEARTBEAT_S
            if not done:
                yield None
                continue
            finished, waiting = waiting, None
            try:
                answer = finished.result()
            except StopAsyncIteration:
                return
            yield answer
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def _following(answers: AsyncIterator[Message]) -> Message:
    return await anext(answers)
