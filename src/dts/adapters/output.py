"""How an attempt's output is kept (the head, then the latest bytes; what lies between is counted, not kept) and followed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dts import bounds
from dts.model import Key, Output


def empty(attempt: int) -> Output:
    """Nothing was written yet."""
    return Output(attempt, b"", b"", 0, 0, False)


def extend(output: Output, offset: int, data: bytes, last: bool) -> Output:
    """With `data`, which begins at byte `offset` of all that was written; what is there already is ignored, what is
    missing before it counts as cut. A complete output changes no more."""
    if output.complete:
        return output
    new = data[max(0, output.size - offset) :]
    size = max(output.size, offset + len(data))
    head, tail = output.head, output.tail
    if new:
        whole = len(head) == output.size and offset <= output.size  # nothing was cut yet and nothing is missing
        room = bounds.OUTPUT_HEAD_BYTES - len(head) if whole else 0
        head += new[:room]
        tail = (tail + new[room:])[-bounds.OUTPUT_TAIL_BYTES :]
    return Output(output.attempt, head, tail, size - len(head) - len(tail), size, last)


class Followers:
    """Those who wait for more of an output."""

    def __init__(self) -> None:
        self._waiting: dict[Key, set[asyncio.Event]] = {}

    def tell(self, key: Key) -> None:
        """Something of this execution's was written."""
        for news in self._waiting.get(key, ()):
            news.set()

    async def wait(
        self, key: Key, get: Callable[[], Awaitable[Output | None]], size: int, timeout_s: float
    ) -> Output | None:
        """What `get` gives as soon as more than `size` bytes are there or it is complete, else after the time-out."""
        news, output = asyncio.Event(), None
        self._waiting.setdefault(key, set()).add(news)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    output = await get()
                    if output is not None and (output.size > size or output.complete):
                        return output
                    await news.wait()
                    news.clear()
        except TimeoutError:
            return output
        finally:
            waiting = self._waiting[key]
            waiting.discard(news)
            if not waiting:
                del self._waiting[key]
