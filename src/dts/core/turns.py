"""Turns: executions of a job whose overlap policy is not allow_all start one after another.

Rules:
- Every open execution of the job counts, whatever its cause and state. Those that wait for their turn are `held`: QUEUED, not placed.
- A due instant obeys the policy of its revision: it starts, waits, is SKIPPED, or cancels the others.
- What is started by hand is never dropped: it waits for its turn.
- The head of a line (the oldest) starts in the first step that finds no other execution of the job open and not held.
- A job that is allow_all again lets all start that wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice

from dts import bounds
from dts.core.changes import cancel
from dts.core.draft import Draft
from dts.core.shard import Shard
from dts.model import Block, Definition, Instant, Key, Overlap, Status

STARTS, WAITS = "", "waits"  # what becomes of a due instant; anything else is the reason why it is SKIPPED
NOT_ENDED = "overlap (skip): the execution before had not ended"
ONE_WAITS = "overlap (buffer_one): another one was waiting"
ALL_WAIT = "overlap (buffer_all): as many as may were waiting"
NEXT_DUE = "overlap (cancel_other): the next one was due"


@dataclass(slots=True)
class Line:
    """The open executions of one job, as this step leaves them."""

    active: set[Key] = field(default_factory=set)
    held: dict[Key, Instant] = field(default_factory=dict)  # with the age

    def head(self) -> Key:
        """The oldest that waits."""
        return min(self.held, key=lambda key: (self.held[key], key))


class Turns:
    """The lines that one step looks at."""

    def __init__(self, shard: Shard, draft: Draft) -> None:
        self._shard = shard
        self._draft = draft
        self._lines: dict[str, Line] = {}
        self._decided: dict[Key, Block] | None = None
        self._freed: dict[int, tuple[Block, list[Key], list[int]]] = {}
        self._begun: dict[str, list[Key]] = {}
        self.dropped: set[Key] = set()  # due in this step, and cancelled by one that was due later in it

    # ---- what happens

    def free(self) -> None:
        """Lets those start, or be cancelled, whose turn has come since the last commit."""
        for job in list(islice(self._shard.turns, bounds.STEP_FIRES)):
            line = self._line(job)
            if not self._shard.one_at_a_time(job):
                for key in list(line.held):
                    self._start(line, key)
            elif self._shard.cancels(job):
                self._give_way(line)
        self._draft.more = self._draft.more or len(self._shard.turns) > bounds.STEP_FIRES

    def due(self, definition: Definition, key: Key) -> str:
        """What becomes of a due instant: STARTS, WAITS or why it is skipped."""
        policies, line = definition.policies, self._line(definition.job)
        if policies.overlap is Overlap.CANCEL_OTHER:
            self._cancel([*line.active, *line.held])
        if not line.active and not line.held:
            line.active.add(key)
            return STARTS
        if policies.overlap is Overlap.SKIP:
            return NOT_ENDED
        if policies.overlap is Overlap.BUFFER_ONE and line.held:
            return ONE_WAITS
        if policies.overlap is Overlap.BUFFER_ALL and len(line.held) >= policies.overlap_limit:
            return ALL_WAIT
        line.held[key] = self._draft.now
        return WAITS

    def began(self, key: Key) -> None:
        """An instant of a revision that lets executions run beside each other: those of a later one may be due in this step, too."""
        self._begun.setdefault(key.job, []).append(key)
        if key.job in self._lines:
            self._lines[key.job].active.add(key)

    def by_hand(self, definition: Definition, key: Key) -> bool:
        """Whether an execution that is started by hand waits for its turn."""
        if definition.policies.overlap is Overlap.ALLOW_ALL:
            return False
        line = self._line(definition.job)
        if not line.active and not line.held:
            line.active.add(key)
            return False
        line.held[key] = self._draft.now
        return True

    def full(self, job: str) -> bool:
        """Whether as many wait as ever may, also by hand."""
        return len(self._line(job).held) >= bounds.OVERLAP_WAITING

    def freed(self) -> list[Block]:
        """Those whose turn has come: ready like new ones."""
        return [
            replace(block, keys=keys, revisions=revisions, held=False, jitter=0, ends=())
            for block, keys, revisions in self._freed.values()
        ]

    # ---- how it stands

    def _line(self, job: str) -> Line:
        """A job's line; the first look lets its head start if its turn has come."""
        line = self._lines.get(job)
        if line is None:
            line = self._lines[job] = self._read(job)
            if line.held and not line.active:
                self._start(line, line.head())
        return line

    def _read(self, job: str) -> Line:
        line, opened = Line(set(self._begun.get(job, ()))), self._shard.open
        for key in self._shard.by_job.get(job, ()):
            block = opened[key][0]
            now = self._outcomes().get(key, block)
            if now.status.terminal:
                continue
            if now.held:
                line.held[key] = now.queued
            else:
                line.active.add(key)
        return line

    def _outcomes(self) -> dict[Key, Block]:
        """What this step has decided by the time that the first line is looked at."""
        if self._decided is None:
            self._decided = {key: block for block in self._draft.decided for key in block.keys}
        return self._decided

    def _give_way(self, line: Line) -> None:
        """All that is older than the newest due one that waits ends."""
        due = [key for key in line.held if not key.nonce]
        if due:
            newest = max(due, key=lambda key: (line.held[key], key))
            older = [key for key in line.held if (line.held[key], key) < (line.held[newest], newest)]
            self._cancel([*line.active, *older])

    def _start(self, line: Line, key: Key) -> None:
        del line.held[key]
        line.active.add(key)
        if key in self._shard.open:
            self._draft.touched.add(key)
            block, place = self._shard.open[key]
            _, keys, revisions = self._freed.setdefault(id(block), (block, [], []))
            keys.append(key)
            revisions.append(block.revisions[place])

    def _cancel(self, keys: Iterable[Key]) -> None:
        """Ends them, now or when their workers say so. What this step has decided otherwise, the next one cancels."""
        for key in list(keys):
            entry = self._shard.open.get(key)
            line = self._lines[key.job]
            if entry is None:
                if key in self._begun.get(key.job, ()):
                    continue  # the next step cancels it
                self.dropped.add(key)
                line.active.discard(key)
                line.held.pop(key, None)
                continue
            if key in self._draft.touched or entry[0].cancel:
                continue
            cancel(self._shard, self._draft, key, NEXT_DUE)
            if entry[0].status is not Status.PLACED:
                line.active.discard(key)
                line.held.pop(key, None)


__all__ = ["STARTS", "WAITS", "Turns"]
