"""One shard's state: the fold of its commits.

Rules:
- `apply` alone writes, live and at take-over alike; core/decide.py only reads. So a refused commit has nothing to undo.
- A block carries its executions' whole state: the last block about a key is enough.
- Every commit has seq = previous + 1 and an epoch that never falls; the watermark never moves back; a terminal status is for ever.
- What is not in a commit (who was heard when, what runs) is volatile and lives in core/instance.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dts import bounds
from dts.core.groups import Groups
from dts.core.policies import active, ruled, spread, suspended_as
from dts.core.timetable import Timetable, seen_by, top
from dts.errors import Bug
from dts.model import (
    START,
    Backfill,
    BackfillState,
    Block,
    Command,
    Commit,
    Definition,
    Demand,
    Gap,
    Instant,
    JobState,
    Key,
    Overlap,
    Owed,
    Position,
    ShardId,
    Status,
    Streak,
    Term,
    WorkerRef,
)

HOUR_MS = 3_600_000

Entry = tuple[Block, int]  # an open execution: its block and its place in it


def _hour(instant: Instant) -> Instant:
    """The next full hour: applied command ids expire in few groups, so that a snapshot has few parts."""
    return -(-instant // HOUR_MS) * HOUR_MS


def not_before_of(block: Block, key: Key) -> Instant:
    """When an execution may be placed (again); 0: at any time."""
    if block.status is Status.RETRYING:
        return block.not_before
    return block.queued + spread(key, block.jitter) if block.jitter and block.status is Status.QUEUED else 0


def _never_placed(block: Block) -> bool:
    return block.status is Status.QUEUED and not block.attempt


def is_memo(piece: Owed) -> bool:
    """Whether a piece of owed time is no debt but a record of verdicts given: its definition is marked DELETED."""
    return piece.definition.state is JobState.DELETED


class Applied(NamedTuple):
    """What a commit changed that others hold: placements made, placements ended, cancels to be sent."""

    placed: Sequence[Block]
    released: Sequence[tuple[WorkerRef, Demand, int]]
    cancelled: Sequence[Block]


def folded(shard: ShardId, commits: Iterable[Commit]) -> Shard:
    """The state that a ledger's commits give. It touches nothing else: it may be made in a thread."""
    state = Shard(shard)
    state.restore(commits)
    state.sorted_jobs()
    return state


class Shard:
    """The state of one shard. Read it freely; write it only through `apply`."""

    def __init__(self, shard: ShardId) -> None:
        self.shard = shard
        self.epoch = 0
        self.seq = 0
        self.now: Instant = 0  # of the last commit
        self.applied: Position = (0, 0)
        self.timetable = Timetable(START)
        self.definitions: dict[str, Definition] = {}  # in force, deleted ones left out
        self.in_force: dict[str, Instant] = {}  # of paused jobs: where their span begins
        self.openings: list[tuple[Instant, str, int]] = []  # pauses that end by themselves: (until, job, revision)
        self.kept: dict[tuple[str, int], Definition] = {}  # superseded, but open executions refer to them
        self.open: dict[Key, Entry] = {}
        self.by_job: dict[str, dict[Key, None]] = {}
        self.waiting: dict[Demand, dict[Key, None]] = {}  # QUEUED, in order of age
        self.placed: dict[WorkerRef, dict[Key, None]] = {}
        self.retries: list[tuple[Instant, Key]] = []  # RETRYING, a heap; stale items are passed over
        self.owed: dict[str, tuple[Owed, ...]] = {}  # debt behind the watermark, in order of time
        self.given: dict[
            str, tuple[Owed, ...]
        ] = {}  # memos of verdicts that a late revision must know (core/changes.py)
        self.gaps: tuple[Gap, ...] = ()
        self.commands: dict[bytes, Instant] = {}  # applied ids -> when they may be forgotten
        self.issued: dict[bytes, Instant] = {}  # ... -> when they were issued, as far as a feed does not know it itself
        self.expiries: dict[Instant, list[bytes]] = {}
        self.heard: Instant = 0  # the hour of the newest command heard of: ids are forgotten by it
        self.held_commands: tuple[Command, ...] = ()  # wait for a revision
        self.backfills: dict[str, Backfill] = {}  # by nonce, in the order in which they began
        self.lines: dict[str, dict[Key, None]] = {}  # QUEUED and held: they wait for their turn (core/turns.py)
        self.turns: dict[str, None] = {}  # jobs of which someone's turn has come, or someone must give way
        self.groups = Groups(self.definitions)
        self.deadlines: list[tuple[Instant, Key]] = []  # of those that must be placed by then; a heap with stale items
        self.watched: set[str] = set()  # jobs whose failures in a row are counted
        self.streaks: dict[str, Streak] = {}
        self.guises: dict[str, Definition] = {}  # suspended jobs as they truly are: in `definitions` they are paused
        self.ruled: set[str] = set()  # jobs whose due instants are looked at one by one
        self.counts = {Status.QUEUED: 0, Status.PLACED: 0, Status.RETRYING: 0}
        self._sorted: list[str] | None = None

    @property
    def watermark(self) -> tuple[Instant, str]:
        """Every due instant up to it is fired, accounted for, or owed by name."""
        return self.timetable.watermark

    def definition(self, job: str, revision: int) -> Definition | None:
        """A revision in force, or a superseded one that open executions refer to."""
        current = self.definitions.get(job)
        return current if current is not None and current.revision == revision else self.kept.get((job, revision))

    def deleted(self, job: str) -> int:
        """The last revision of a job that was deleted not long ago, else 0."""
        memos = self.given.get(job)
        return max(memo.definition.revision for memo in memos) if memos and job not in self.definitions else 0

    def sorted_jobs(self) -> list[str]:
        """Ids of the jobs in force, in order. Kept until a definition changes: do not write to it."""
        if self._sorted is None:
            self._sorted = sorted(self.definitions)
        return self._sorted

    def apply(self, commit: Commit) -> Applied:
        """Folds one commit. Raises Bug when it does not follow the last one."""
        self._check(commit)
        self.epoch, self.seq, self.now, self.applied = commit.epoch, commit.seq, commit.now, commit.applied
        self._advance(commit)
        for definition in commit.kept:
            self.kept[definition.job, definition.revision] = definition
        changed = self._blocks(commit.blocks, commit.seq)
        self._definitions(commit)
        for streak in commit.streaks:
            self._streak(streak, commit.watermark)
        for job, pieces in commit.owed:
            self._owe(job, pieces)
        self.gaps = tuple(commit.gaps)
        self.held_commands = tuple(commit.waiting)
        for each in commit.backfills:
            if each.state is BackfillState.FORGOTTEN:
                self.backfills.pop(each.nonce, None)
            else:
                self.backfills[each.nonce] = each
        if commit.commands:
            expires = _hour(commit.now) + bounds.COMMAND_EXPIRY_MS
            self.commands.update(dict.fromkeys(commit.commands, expires))
            self.expiries.setdefault(expires, []).extend(commit.commands)
            if commit.issued:
                self.issued.update(zip(commit.commands, commit.issued, strict=True))
            self._forget_commands(max(commit.issued, default=0) or commit.now, commit.now)
        self._turns(commit)
        while self.retries and not self._retrying(*self.retries[0]):
            heapq.heappop(self.retries)
        while self.deadlines and not self._must_start(*self.deadlines[0]):
            heapq.heappop(self.deadlines)
        while self.openings and not self._opens(*self.openings[0]):
            heapq.heappop(self.openings)
        return changed

    def _owe(self, job: str, pieces: Sequence[Owed]) -> None:
        debt = tuple(piece for piece in pieces if not is_memo(piece))
        memos = tuple(piece for piece in pieces if is_memo(piece))
        self.owed.pop(job, None)
        self.given.pop(job, None)
        if debt:
            self.owed[job] = debt
        if memos:
            self.given[job] = memos

    def _opens(self, until: Instant, job: str, revision: int) -> bool:
        definition = self.definitions.get(job)
        known = definition is not None and definition.revision == revision
        return known and job in self.in_force and job not in self.guises

    def _retrying(self, not_before: Instant, key: Key) -> bool:
        entry = self.open.get(key)
        return entry is not None and not_before_of(entry[0], key) == not_before

    def _must_start(self, start_by: Instant, key: Key) -> bool:
        entry = self.open.get(key)
        return entry is not None and _never_placed(entry[0]) and entry[0].start_by == start_by

    def retries_due(self, now: Instant, limit: int) -> list[tuple[Block, list[Key]]]:
        """Up to `limit` executions that may be placed (again) as of now, by block. Moves nothing."""
        return self._by_block(key for at, key in top(self.retries, now, limit) if self._retrying(at, key))

    def overdue(self, now: Instant, limit: int) -> list[tuple[Block, list[Key]]]:
        """Up to `limit` executions that were not placed in the time that they had, by block. Moves nothing."""
        due = top(self.deadlines, now - 1, limit)
        return self._by_block(key for at, key in due if self._must_start(at, key))

    def _by_block(self, keys: Iterable[Key]) -> list[tuple[Block, list[Key]]]:
        found: dict[int, tuple[Block, list[Key]]] = {}
        for key in dict.fromkeys(keys):
            block = self.open[key][0]
            found.setdefault(id(block), (block, []))[1].append(key)
        return list(found.values())

    # ---- turns and groups

    def one_at_a_time(self, job: str) -> bool:
        """Whether a job's executions wait for their turn."""
        definition = self.definitions.get(job)
        return definition is not None and definition.policies.overlap is not Overlap.ALLOW_ALL

    def cancels(self, job: str) -> bool:
        """Whether a job's executions give way to one that is due."""
        definition = self.definitions.get(job)
        return definition is not None and definition.policies.overlap is Overlap.CANCEL_OTHER

    def _turns(self, commit: Commit) -> None:
        """Notes of which jobs someone's turn has come."""
        if not self.lines and not self.turns:
            return
        changed = {key.job: None for block in commit.blocks for key in block.keys}
        for job in (*changed, *(definition.job for definition in commit.definitions)):
            if job in self.lines and self._turn(job):
                self.turns[job] = None
            else:
                self.turns.pop(job, None)

    def _turn(self, job: str) -> bool:
        line = self.lines[job]
        if len(line) == len(self.by_job[job]) or not self.one_at_a_time(job):
            return True
        if not self.cancels(job) or all(key.nonce for key in line):
            return False
        return any(not self.open[key][0].cancel for key in self.by_job[job] if key not in line)

    def _check(self, commit: Commit) -> None:
        if commit.shard != self.shard or commit.seq != self.seq + 1 or commit.epoch < self.epoch:
            raise Bug(
                f"commit {commit.shard}/{commit.epoch}/{commit.seq} does not follow {self.shard}/{self.epoch}/{self.seq}"
            )
        if commit.watermark < self.watermark:
            raise Bug(f"the watermark of shard {self.shard} would fall from {self.watermark} to {commit.watermark}")

    def restore(self, snapshot: Iterable[Commit]) -> None:
        """Folds a stored form: commits whose first one may have any seq."""
        for number, commit in enumerate(snapshot):
            if number == 0:
                self.seq = commit.seq - 1
            self.apply(commit)

    def holdings(self) -> list[tuple[WorkerRef, Demand, int]]:
        """What the placed executions hold: how many of each demand at each worker."""
        found: dict[tuple[WorkerRef, int], tuple[WorkerRef, Demand, int]] = {}
        for worker, keys in self.placed.items():
            for key in keys:
                demand = self.open[key][0].demand
                _, _, count = found.get((worker, id(demand)), (worker, demand, 0))
                found[worker, id(demand)] = (worker, demand, count + 1)
        return list(found.values())

    def _advance(self, commit: Commit) -> None:
        self.timetable.advance(commit.watermark)
        while self.openings and self.openings[0][0] <= commit.watermark[0]:
            until, job, revision = heapq.heappop(self.openings)
            if not self._opens(until, job, revision):
                continue
            definition = self.definitions[job]
            if seen_by(commit.watermark, job) < until:
                heapq.heappush(self.openings, (until, job, revision))
                break  # the watermark stands inside this very instant
            self.in_force.pop(job, None)
            self.timetable.put(active(definition))

    def _definitions(self, commit: Commit) -> None:
        if commit.definitions:
            self._sorted = None
        terms = {(term.job, term.revision): term for term in commit.opened}
        for definition in commit.definitions:
            job = definition.job
            old = self.definitions.pop(job, None)
            old = self.guises.pop(job, old)
            if old is not None:
                self.timetable.drop(job)
                self.in_force.pop(job, None)
                if job in self.by_job and any(self._revision(key) == old.revision for key in self.by_job[job]):
                    self.kept[job, old.revision] = old
            self.ruled.discard(job)
            self.watched.discard(job)
            if definition.state is JobState.DELETED:
                if old is not None and old.group:
                    self.groups.quit(old)
                continue
            self._put(definition, terms.get((job, definition.revision)), commit.watermark)

    def _put(self, definition: Definition, term: Term | None, watermark: tuple[Instant, str]) -> None:
        job = definition.job
        self.kept.pop((job, definition.revision), None)
        if term is not None and term.since != definition.since:  # from a job store: the owner knows better
            definition = definition._replace(since=term.since)
        self.definitions[job] = definition
        if ruled(definition):
            self.ruled.add(job)
        if definition.policies.pause_after:
            self.watched.add(job)
        if definition.group:
            self.groups.join(definition)
        self._start(definition, watermark)
        if term is not None and job in self.in_force:
            self.in_force[job] = term.in_force
        if job in self.streaks:
            self._suspend(self.streaks[job])

    def _streak(self, streak: Streak, watermark: tuple[Instant, str]) -> None:
        job = streak.job
        if streak == Streak(job):
            self.streaks.pop(job, None)
        else:
            self.streaks[job] = streak
        truly = self.guises.get(job)
        if streak.since:
            self._suspend(streak)
        elif truly is not None:
            del self.guises[job], self.in_force[job]
            self.definitions[job] = truly
            self._start(truly, watermark)

    def _suspend(self, streak: Streak) -> None:
        """From its `since` on the job is as if paused."""
        job = streak.job
        truly = self.guises.get(job) or self.definitions.get(job)
        if not streak.since or truly is None:
            return
        self.guises[job] = truly
        self.definitions[job] = suspended_as(truly)
        self.timetable.drop(job)
        self.in_force[job] = streak.since

    def _start(self, definition: Definition, watermark: tuple[Instant, str]) -> None:
        job, seen = definition.job, seen_by(watermark, definition.job)
        if definition.state is JobState.ACTIVE:
            self.timetable.put(definition)
        elif definition.state is JobState.PAUSED:
            if definition.until is not None and definition.until <= seen:
                self.timetable.put(active(definition))
                return
            self.in_force[job] = seen
            if definition.until is not None:
                heapq.heappush(self.openings, (definition.until, job, definition.revision))

    def _revision(self, key: Key) -> int:
        block, place = self.open[key]
        return block.revisions[place]

    def _blocks(self, blocks: Sequence[Block], seq: int) -> Applied:
        placed: list[Block] = []
        cancelled: list[Block] = []
        released: dict[tuple[WorkerRef, int], tuple[WorkerRef, Demand, int]] = {}
        for block in blocks:
            stays = block.status is Status.PLACED and block.fencing != seq  # told to end: its place is still taken
            self._leave(block.keys, {} if stays else released)
            if block.status.terminal:
                self._close(block)
                continue
            self._enter(block)
            if block.status is Status.PLACED:
                (placed if block.fencing == seq else cancelled).append(block)
        if self.kept:
            for block in blocks:
                if block.status.terminal:
                    self._drop_kept(block)
        for worker, _, _ in released.values():
            if not self.placed.get(worker, True):
                del self.placed[worker]
        return Applied(placed, list(released.values()), cancelled)

    def _leave(self, keys: Sequence[Key], released: dict[tuple[WorkerRef, int], tuple[WorkerRef, Demand, int]]) -> None:
        """Takes keys out of the index of the status they had."""
        opened = self.open
        last: Block | None = None
        index: dict[Key, None] = {}
        for key in keys:
            entry = opened.get(key)
            if entry is None:
                continue
            block = entry[0]
            if block is not last:
                last = block
                index = self._index(block)
            index.pop(key, None)
            if block.held:
                self._leave_line(key)
            elif block.group and block.status is Status.PLACED:
                self.groups.count(block.group, -1)
            self.counts[block.status] -= 1
            if block.status is Status.PLACED and block.worker is not None:
                name = (block.worker, id(block.demand))
                _, _, count = released.get(name, (block.worker, block.demand, 0))
                released[name] = (block.worker, block.demand, count + 1)

    def _leave_line(self, key: Key) -> None:
        line = self.lines[key.job]
        del line[key]
        if not line:
            del self.lines[key.job]

    def _index(self, block: Block) -> dict[Key, None]:
        if block.status is Status.QUEUED:
            if block.held or block.jitter:
                return {}
            if block.group:
                return self.groups.line(block)
            return self.waiting.setdefault(block.demand, {})
        if block.status is Status.PLACED:
            assert block.worker is not None
            return self.placed.setdefault(block.worker, {})
        return {}

    def _enter(self, block: Block) -> None:
        keys = block.keys
        self.open.update(zip(keys, ((block, place) for place in range(len(keys))), strict=True))
        self.counts[block.status] += len(keys)
        by_job = self.by_job
        for key in keys:
            of_job = by_job.get(key.job)
            if of_job is None:
                by_job[key.job] = {key: None}
            else:
                of_job[key] = None
        if block.held:
            for key in keys:
                self.lines.setdefault(key.job, {})[key] = None
        elif block.status is Status.RETRYING or (block.jitter and block.status is Status.QUEUED):
            for key in keys:
                heapq.heappush(self.retries, (not_before_of(block, key), key))
        else:
            self._index(block).update(dict.fromkeys(keys))
            if block.group and block.status is Status.PLACED:
                self.groups.count(block.group, len(keys))
        if block.start_by and _never_placed(block):
            for key in keys:
                heapq.heappush(self.deadlines, (block.start_by, key))

    def _close(self, block: Block) -> None:
        by_job = self.by_job
        for key in block.keys:
            if self.open.pop(key, None) is None:
                continue  # it ended in the commit that began it (SKIPPED)
            of_job = by_job[key.job]
            del of_job[key]
            if not of_job:
                del by_job[key.job]
        if block.demand in self.waiting and not self.waiting[block.demand]:
            del self.waiting[block.demand]
        if block.group:
            self.groups.tidy(block.group)

    def _drop_kept(self, block: Block) -> None:
        for key, revision in zip(block.keys, block.revisions, strict=True):
            if (key.job, revision) in self.kept and all(
                self._revision(other) != revision for other in self.by_job.get(key.job, ())
            ):
                del self.kept[key.job, revision]

    def _forget_commands(self, issued: Instant, now: Instant) -> None:
        """A repeat follows what it repeats in the feed, however long nobody reads it: so ids are kept for so long after
        what was issued last, and an outage alone makes none forgotten."""
        self.heard = max(self.heard, min(_hour(issued), _hour(now)))
        for expires in [each for each in self.expiries if each <= self.heard]:
            for command in self.expiries.pop(expires):
                self.commands.pop(command, None)
                self.issued.pop(command, None)
