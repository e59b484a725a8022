"""Transitions as they are committed, to whoever watches; a slow watcher is told how many it missed, and slows nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

from dts import bounds
from dts.model import NO_END, Block, Commit, End, Execution, Range

Event = Execution | Range | int


def executions(block: Block) -> Iterator[Execution]:
    """A block's executions as people see them."""
    ends: Sequence[End] = block.ends or [NO_END] * len(block.keys)
    for key, revision, end in zip(block.keys, block.revisions, ends, strict=True):
        yield Execution(
            key,
            revision,
            block.status,
            block.attempt,
            block.cause,
            block.queued,
            block.placed,
            block.not_before,
            block.worker.id if block.worker else "",
            block.fencing,
            block.cancel or block.reason,
            block.retry_of,
            end,
        )


class _Watcher:
    def __init__(self, job: str) -> None:
        self.job = job
        self.queue: asyncio.Queue[Event] = asyncio.Queue(bounds.WATCH_QUEUE)
        self.missed = 0

    def put(self, event: Execution | Range) -> None:
        job = event.job if isinstance(event, Range) else event.key.job
        if self.job and job != self.job:
            return
        if self.queue.full():
            self.missed += 1
        else:
            self.queue.put_nowait(event)


class Events:
    """Fans committed commits out to watchers; without any it costs nothing."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()

    def committed(self, commit: Commit) -> None:
        """Tells the watchers what a commit says."""
        if not self._watchers:
            return
        events: list[Execution | Range] = [each for block in commit.blocks for each in executions(block)]
        for event in (*events, *commit.ranges):
            for watcher in self._watchers:
                watcher.put(event)

    async def watch(self, job: str) -> AsyncIterator[Event]:
        """What is committed from now on, of one job or of all ('')."""
        watcher = _Watcher(job)
        self._watchers.add(watcher)
        try:
            while True:
                event = await watcher.queue.get()
                yield event
                if watcher.missed and watcher.queue.empty():
                    missed, watcher.missed = watcher.missed, 0
                    yield missed
        finally:
            self._watchers.discard(watcher)
