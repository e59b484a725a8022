"""Executions that ended a moment ago: where history is a projection, who asks for one must not be told that it never was."""

from __future__ import annotations

from collections import deque

from dts.model import Block, Commit, Execution, Instant, Key
from dts.services.events import executions

KEPT_MS = 60_000
KEPT_KEYS = 200_000


class Recent:
    """The ended blocks of the last minute, newest last. Remembering costs nothing per execution; finding looks through all."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[Instant, Block]] = deque()
        self._keys = 0

    def committed(self, commit: Commit) -> None:
        """Remembers what a commit ended."""
        for block in commit.blocks:
            if block.status.terminal:
                self._blocks.append((commit.now, block))
                self._keys += len(block.keys)
        while self._blocks and (self._keys > KEPT_KEYS or self._blocks[0][0] < commit.now - KEPT_MS):
            _, block = self._blocks.popleft()
            self._keys -= len(block.keys)

    def find(self, key: Key, now: Instant) -> Execution | None:
        """How an execution ended, if it did so lately."""
        for at, block in reversed(self._blocks):
            if at < now - KEPT_MS:
                return None
            if key in block.keys:
                return next(each for each in executions(block) if each.key == key)
        return None
