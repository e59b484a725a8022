"""Due instants become executions: in bulk, or one by one where the job's policies want to look at each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dts.core.draft import Draft
from dts.core.policies import ruled
from dts.core.shard import Shard
from dts.core.turns import NEXT_DUE, STARTS, WAITS, Turns
from dts.model import Block, Definition, Demand, Instant, Key, Overlap, Status


@dataclass(slots=True)
class Column:
    """Executions of one kind, to become one block. `reason`: they are skipped."""

    like: Definition
    held: bool = False
    reason: str = ""
    keys: list[Key] = field(default_factory=list)
    revisions: list[int] = field(default_factory=list)


class Fires:
    """Collects keys into fresh blocks, one for each (demand, kind)."""

    def __init__(self, shard: Shard, draft: Draft, turns: Turns) -> None:
        self.draft = draft
        self.count = 0
        self._ruled = shard.ruled
        self._turns = turns
        self._columns: dict[int, tuple[Demand, list[Key], list[int]]] = {}
        self._special: dict[tuple[int, str, int, int, bool, str], Column] = {}

    def due(self, instant: Instant, definitions: Sequence[Definition]) -> None:
        """An instant of some jobs."""
        if len(definitions) == 1:
            if ruled(definitions[0]):
                self._one(instant, definitions[0])
                return
            self._turns.began(Key(definitions[0].job, instant))
        elif self._ruled:
            for definition in definitions:
                if definition.job in self._ruled:
                    self._one(instant, definition)
            definitions = [each for each in definitions if each.job not in self._ruled]
        self._bulk(instant, definitions)

    def _bulk(self, instant: Instant, definitions: Iterable[Definition]) -> None:
        columns, new = self._columns, tuple.__new__
        last: Demand | None = None
        keys: list[Key] = []
        revisions: list[int] = []
        for definition in definitions:
            if definition.demand is not last:
                last = definition.demand
                _, keys, revisions = columns.setdefault(id(last), (last, [], []))
            keys.append(new(Key, (definition.job, instant, "")))
            revisions.append(definition.revision)
            self.count += 1

    def _one(self, instant: Instant, definition: Definition) -> None:
        policies, key = definition.policies, Key(definition.job, instant)
        fate = STARTS
        if policies.overlap is Overlap.ALLOW_ALL:
            self._turns.began(key)
        else:
            fate = self._turns.due(definition, key)
        self._put(definition, key, held=fate == WAITS, reason="" if fate in (STARTS, WAITS) else fate)
        self.count += 1

    def _put(self, definition: Definition, key: Key, *, held: bool, reason: str) -> None:
        policies = definition.policies
        kind = (id(definition.demand), definition.group, policies.jitter, policies.start_within, held, reason)
        column = self._special.get(kind)
        if column is None:
            column = self._special[kind] = Column(definition, held, reason)
        column.keys.append(key)
        column.revisions.append(definition.revision)

    def blocks(self, now: Instant) -> list[Block]:
        """What was collected; what is skipped, or was cancelled by a later instant of this step, goes to the draft."""
        found = [
            Block(keys, revisions, demand, Status.QUEUED, queued=now)
            for demand, keys, revisions in self._columns.values()
            if keys
        ]
        for column in self._special.values():
            if self._turns.dropped and not column.reason:
                self._drop(column, now)
            if column.reason:
                self.draft.add(_block(column, Status.SKIPPED, now, column.reason))
            elif column.keys:
                found.append(_block(column, Status.QUEUED, now, ""))
        return found

    def _drop(self, column: Column, now: Instant) -> None:
        dropped = self._turns.dropped
        gone = Column(column.like)
        left = Column(column.like, column.held)
        for key, revision in zip(column.keys, column.revisions, strict=True):
            into = gone if key in dropped else left
            into.keys.append(key)
            into.revisions.append(revision)
        if gone.keys:
            self.draft.add(_block(gone, Status.CANCELLED, now, NEXT_DUE))
            column.keys, column.revisions = left.keys, left.revisions


def _block(column: Column, status: Status, now: Instant, reason: str) -> Block:
    like = column.like
    policies = like.policies
    within = policies.start_within
    queued = status is Status.QUEUED
    return Block(
        column.keys,
        column.revisions,
        like.demand,
        status,
        queued=now,
        reason=reason,
        group=like.group,
        held=column.held and queued,
        jitter=policies.jitter if queued else 0,
        start_by=now + policies.jitter + within if within and queued else 0,
    )
