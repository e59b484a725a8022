"""What a step of one shard has decided so far: a commit without its placements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dts.core.shard import Shard
from dts.model import (
    Backfill,
    Block,
    Close,
    Command,
    Commit,
    Definition,
    Gap,
    Held,
    Instant,
    Key,
    Owed,
    Position,
    Range,
    ShardId,
    Status,
    Streak,
    Term,
    Watermark,
    WorkerRef,
)


class Placement(NamedTuple):
    """`size` executions of a ready block, from its front on, go to a worker whose last report has this number."""

    ready: int  # index into Draft.ready
    worker: WorkerRef
    size: int
    report: int
    life: bool


@dataclass(slots=True)
class Draft:
    """`ready`: executions that may be placed; those from index `fresh` on are not yet recorded as QUEUED."""

    shard: ShardId
    epoch: int
    seq: int
    now: Instant
    watermark: Watermark
    applied: Position
    gaps: tuple[Gap, ...]
    held_commands: tuple[Command, ...]
    decided: list[Block] = field(default_factory=list)
    ready: list[Block] = field(default_factory=list)
    fresh: int = 0
    ranges: list[Range] = field(default_factory=list)
    opened: list[Term] = field(default_factory=list)
    closed: list[Close] = field(default_factory=list)
    definitions: list[Definition] = field(default_factory=list)
    kept: list[Definition] = field(default_factory=list)
    owed: dict[str, tuple[Owed, ...]] = field(default_factory=dict)
    commands: list[bytes] = field(default_factory=list)
    issued: dict[bytes, Instant] = field(default_factory=dict)  # when each of them was
    answers: list[tuple[bytes, str]] = field(default_factory=list)
    backfills: dict[str, Backfill] = field(default_factory=dict)  # by nonce: begun or brought forward
    streaks: dict[str, Streak] = field(default_factory=dict)
    acks: dict[WorkerRef, list[Held]] = field(default_factory=dict)
    stray: dict[WorkerRef, list[Held]] = field(default_factory=dict)  # held by a worker, but not (any more) its own
    beats: dict[WorkerRef, int] = field(default_factory=dict)
    taken_changes: int = 0  # of the inbox: consumed when the commit is committed
    taken_commands: int = 0
    taken_reports: int = 0
    touched: set[Key] = field(default_factory=set)  # decided in this step
    more: bool = False  # something was left for the next step
    cut: bool = False  # more than what is ready waits and could be placed
    owed_at: Instant | None = None  # what is owed waits for this instant: the clock was set back
    keep_alive: bool = False  # it is to be committed although it may say nothing

    def add(self, block: Block) -> None:
        """Records a transition that needs no placement. What has ended, or is told to, is not run again: no arguments."""
        if block.arguments and (block.status.terminal or block.cancel):
            block = replace(block, arguments=b"")
        self.decided.append(block)
        self.touched.update(block.keys)

    def seal(self, placements: Sequence[Placement]) -> Commit:
        """The commit: what was ready, is new and found no place enters as QUEUED."""
        blocks = list(self.decided)
        done = [0] * len(self.ready)
        for each in placements:
            block, start = self.ready[each.ready], done[each.ready]
            done[each.ready] = start + each.size
            blocks.append(self._placed(block, start, each))
        for index in range(self.fresh, len(self.ready)):
            block, start = self.ready[index], done[index]
            if start < len(block.keys):
                blocks.append(
                    replace(block, keys=block.keys[start:], revisions=block.revisions[start:]) if start else block
                )
        return Commit(
            self.shard,
            self.epoch,
            self.seq,
            self.now,
            self.watermark,
            self.applied,
            blocks,
            self.ranges,
            self.opened,
            self.closed,
            self.definitions,
            self.kept,
            list(self.owed.items()),
            self.gaps,
            self.commands,
            self.held_commands,
            self.answers,
            backfills=list(self.backfills.values()),
            issued=[self.issued.get(command, 0) for command in self.commands],
            streaks=list(self.streaks.values()),
        )

    def _placed(self, block: Block, start: int, to: Placement) -> Block:
        whole = start == 0 and to.size == len(block.keys)
        return replace(
            block,
            keys=block.keys if whole else block.keys[start : start + to.size],
            revisions=block.revisions if whole else block.revisions[start : start + to.size],
            status=Status.PLACED,
            attempt=block.attempt + 1,
            worker=to.worker,
            report=(self.epoch, to.report),
            fencing=self.seq,
            life=to.life,
            placed=self.now,
            not_before=0,
            reason="",
            ends=(),
        )

    def empty(self, shard: Shard) -> bool:
        """Whether a commit of it would say nothing at all."""
        return not (
            self.decided
            or len(self.ready) > self.fresh
            or self.ranges
            or self.definitions
            or self.owed
            or self.commands
            or self.answers
            or self.backfills
            or self.streaks
            or self.acks
            or self.stray
            or self.keep_alive
            or self.taken_reports
            or self.taken_changes
            or self.taken_commands
            or self.gaps != shard.gaps
            or self.held_commands != shard.held_commands
        )
