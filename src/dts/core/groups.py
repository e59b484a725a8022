"""Concurrency groups of a shard: who waits, how many are placed, and how many may be.

Rules:
- A group's limit is that of the newest revision of its jobs: the latest `since`, then the highest job id.
- What is placed counts, also while it is told to end; what waits or is to be tried again later does not.
- All jobs of a group are in one shard, so that its owner alone hands the places out.
"""

from __future__ import annotations

from collections.abc import Mapping

from dts.model import Block, Definition, Demand, Instant, Key

Newest = tuple[Instant, str, int]  # (since, job, limit)
NOBODY: Newest = (-1, "", 0)


class Groups:
    """Written by the shard's fold alone."""

    def __init__(self, definitions: Mapping[str, Definition]) -> None:
        self._definitions = definitions
        self.waiting: dict[str, dict[Demand, dict[Key, None]]] = {}  # QUEUED, in order of age
        self.placed: dict[str, int] = {}
        self._members: dict[str, dict[str, None]] = {}  # jobs in force
        self._newest: dict[str, Newest | None] = {}  # None: to be found anew

    def limit(self, group: str) -> int:
        """How many executions of a group may be placed at once."""
        newest = self._newest.get(group)
        if newest is None:
            members = (self._definitions[job] for job in self._members.get(group, ()))
            newest = max(((each.since, each.job, each.policies.group_limit) for each in members), default=NOBODY)
            self._newest[group] = newest
        return max(newest[2], 1)

    def free(self, group: str) -> int:
        """How many more may be placed."""
        return max(self.limit(group) - self.placed.get(group, 0), 0)

    def join(self, definition: Definition) -> None:
        """A revision came into force. It is among the definitions already."""
        group, job = definition.group, definition.job
        members = self._members.setdefault(group, {})
        known = self._newest.get(group) if members else NOBODY
        members[job] = None
        own = (definition.since, job, definition.policies.group_limit)
        if known is not None and (known[1] == job or own >= known):
            self._newest[group] = own

    def quit(self, definition: Definition) -> None:
        """The job is no more."""
        group = definition.group
        members = self._members[group]
        del members[definition.job]
        if not members:
            del self._members[group]
            self._newest.pop(group, None)
            return
        newest = self._newest.get(group)
        if newest is not None and newest[1] == definition.job:
            self._newest[group] = None

    def line(self, block: Block) -> dict[Key, None]:
        """Where the block's executions wait."""
        return self.waiting.setdefault(block.group, {}).setdefault(block.demand, {})

    def count(self, group: str, more: int) -> None:
        """So many more are placed, or fewer."""
        count = self.placed.get(group, 0) + more
        if count:
            self.placed[group] = count
        else:
            self.placed.pop(group, None)

    def tidy(self, group: str) -> None:
        """Forgets the lines of a group in which nobody waits."""
        if group in self.waiting and not any(self.waiting[group].values()):
            del self.waiting[group]

    def queued(self) -> list[Key]:
        """All that wait, each line in its order."""
        return [key for demands in self.waiting.values() for keys in demands.values() for key in keys]
