"""Streams of answers that wake up while nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from google.protobuf.message import Message

LOOK_S = 1.0  # a quiet stream looks so often whether anybody still listens
FIRST_WAIT_S = 0.2  # a refusal comes at once; after this the headers go out, so that the client knows it is connected


async def with_heartbeats(answers: AsyncIterator[Message]) -> AsyncGenerator[Message | None, None]:
    """The answers, and None whenever nothing came for LOOK_S (the first time FIRST_WAIT_S)."""
    waiting: asyncio.Task[Message] | None = None
    quiet_s = FIRST_WAIT_S
    try:
        while True:
            waiting = waiting or asyncio.create_task(_following(answers))
            done, _ = await asyncio.wait({waiting}, timeout=quiet_s)
            quiet_s = LOOK_S
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
