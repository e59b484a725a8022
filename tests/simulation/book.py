"""The account from outside: what was due by the revisions as published, against the verdicts of the commits as made.

It shares no code with core/timetable, core/decide or core/policies: instants come from `dts.schedule` alone, everything else is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dts import bounds
from dts.core.shard import Shard
from dts.model import (
    LAST_JOB,
    Block,
    CatchUp,
    Cause,
    Commit,
    Definition,
    Instant,
    JobState,
    Key,
    Range,
    ScheduleSpec,
    Status,
    Watermark,
)
from dts.schedule import compile as compile_schedule

MOST = 1_000_000


class Violation(AssertionError):
    """A law is broken. The text begins with its number."""


def instants(schedules: Iterable[ScheduleSpec], after: Instant, until: Instant) -> set[Instant]:
    """All instants of some schedules in (after, until]."""
    found: set[Instant] = set()
    if after < until:
        for spec in schedules:
            found.update(compile_schedule(spec).between(after, until, MOST))
    return found


def behind(watermark: Watermark, job: str) -> Instant:
    """Up to where a watermark has come for a job."""
    at, last = watermark
    return at if last == LAST_JOB or job <= last else at - 1


@dataclass
class Revision:
    """A revision as it was published, and from where on it owed once an owner had applied it."""

    definition: Definition
    since: Instant = -1  # -1: not applied
    until: Instant | None = None  # the next one's `since`

    @property
    def applied(self) -> bool:
        return self.since >= 0

    def owes(self, until: Instant) -> set[Instant]:
        """Its due instants up to `until`."""
        if not self.applied or self.definition.state > JobState.PAUSED:
            return set()
        return instants(self.definition.schedules, self.since, until if self.until is None else min(until, self.until))


@dataclass
class Account:
    """One job: its revisions by number, its verdicts by instant."""

    revisions: dict[int, Revision] = field(default_factory=dict)
    last: Revision | None = None
    verdicts: dict[Instant, str] = field(default_factory=dict)
    due: set[Instant] = field(default_factory=set)
    checked: Instant = 0
    stale: bool = True

    def due_until(self, until: Instant) -> set[Instant]:
        """What its applied revisions owe up to `until`."""
        if self.stale or until != self.checked:
            self.due = set().union(*(each.owes(until) for each in self.revisions.values()))
            self.checked, self.stale = until, False
        return self.due


class Book:
    """Fed with what is published and what is committed, in that order; raises Violation."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.status: dict[Key, Status] = {}
        self.attempts: dict[Key, int] = {}
        self.resumed: set[str] = set()  # by a command that lets run what was missed

    def published(self, definition: Definition) -> None:
        account = self.accounts.setdefault(definition.job, Account())
        account.revisions[definition.revision] = Revision(definition)

    def committed(self, commit: Commit) -> None:
        """Takes one commit of the shard's one history of commits."""
        for definition in commit.definitions:
            self._applied(definition, commit.now, behind(commit.watermark, definition.job))
        for block in commit.blocks:
            self._block(block, commit)
        for found in commit.ranges:
            self._range(found)

    def _applied(self, definition: Definition, now: Instant, reached: Instant) -> None:
        account = self.accounts[definition.job]
        revision, last = account.revisions[definition.revision], account.last
        if revision.applied:
            raise Violation(f"1: revision {definition.revision} of {definition.job} was applied twice")
        if last is not None and last.definition.revision > definition.revision:
            raise Violation(f"1: revision {definition.revision} of {definition.job} came after a later one")
        revision.since = max(min(revision.definition.since, max(now, reached)), 0 if last is None else last.since)
        if definition.since == now - bounds.CHANGE_LATE_MS > revision.since and last is not None:
            revision.since = definition.since  # so late that what was committed is not gone through any more
        if last is not None:
            last.until = revision.since
        account.last, account.stale = revision, True

    def _block(self, block: Block, commit: Commit) -> None:
        for key, number in zip(block.keys, block.revisions, strict=True):
            known = self.status.get(key)
            if known is not None and known >= Status.COMPLETED:
                raise Violation(f"1: {key} was {known.name} and became {block.status.name}")
            self._attempt(key, known, block, commit)
            self.status[key] = block.status
            if known is None and block.cause is Cause.SCHEDULE:
                self._verdict(key.job, number, key.at, f"execution of revision {number}")
                if key.at > commit.now:
                    raise Violation(f"1: {key} began before its instant")
                definition = self.accounts[key.job].revisions[number].definition
                paused = definition.state is JobState.PAUSED
                if paused and (definition.until is None or key.at <= definition.until) and not self._caught_up(key.job):
                    raise Violation(f"1: {key} began in a pause")

    def _caught_up(self, job: str) -> bool:
        """Whether a revision, of which there may be others later, lets run what was missed in a pause."""
        revisions = self.accounts[job].revisions.values()
        return job in self.resumed or any(each.definition.catch_up is not CatchUp.SKIP for each in revisions)

    def _attempt(self, key: Key, known: Status | None, block: Block, commit: Commit) -> None:
        last = self.attempts.get(key, 0)
        if block.status is Status.PLACED and block.fencing == commit.seq:
            if block.attempt != last + 1 or known is Status.PLACED:
                raise Violation(f"5: {key} was placed as attempt {block.attempt} after {last}")
            self.attempts[key] = block.attempt
        elif block.attempt != last:
            raise Violation(f"5: {key} is {block.status.name} at attempt {block.attempt}, not {last}")

    def _verdict(self, job: str, number: int, at: Instant, what: str) -> None:
        account = self.accounts[job]
        revision = account.revisions[number]
        if at in account.verdicts:
            raise Violation(f"1: {job} at {at}: {what}, and {account.verdicts[at]}")
        if not revision.applied or at <= revision.since:
            raise Violation(f"1: {job} at {at}: {what} that did not owe it yet")
        if revision.until is not None and at > revision.until:
            raise Violation(f"1: {job} at {at}: {what} that did not owe it any more")
        if not instants(revision.definition.schedules, at - 1, at):
            raise Violation(f"1: {job} at {at}: {what} whose schedule has no such instant")
        account.verdicts[at] = what

    def _range(self, found: Range) -> None:
        definition = self.accounts[found.job].revisions[found.revision].definition
        inside = instants(definition.schedules, found.after, found.until)
        if len(inside) != found.size or not inside:
            raise Violation(f"1: {found} has {len(inside)} instants")
        for at in inside:
            self._verdict(found.job, found.revision, at, str(found))

    # ---- against the state ----

    def check(self, shard: Shard) -> None:
        """Each due instant behind the watermark has its verdict or is owed, never both; none is owed twice."""
        for job, account in self.accounts.items():
            due = account.due_until(behind(shard.watermark, job))
            debt = debts(shard, job)
            missing = due - account.verdicts.keys() - debt
            if missing:
                raise Violation(f"1: {job} at {min(missing)}: no verdict, and nobody owes it")
            doubled = debt & account.verdicts.keys()
            if doubled:
                raise Violation(f"1: {job} at {min(doubled)}: owed, and it has {account.verdicts[min(doubled)]}")

    def finished(self, shard: Shard) -> None:
        """Nothing is owed but by open pauses, and every execution has ended."""
        self.check(shard)
        left = {
            job for job, pieces in shard.owed.items() if any(p.definition.state is not JobState.DELETED for p in pieces)
        }
        if left or shard.gaps:
            raise Violation(f"1: still owed at the end: {sorted(left)}, {len(shard.gaps)} gaps")
        open_ = [key for key, status in self.status.items() if status < Status.COMPLETED]
        if open_:
            raise Violation(f"1: {len(open_)} executions never ended, {open_[0]} is {self.status[open_[0]].name}")


def debts(shard: Shard, job: str) -> set[Instant]:
    """What the state says is owed. Raises Violation for an instant owed twice."""
    found: set[Instant] = set()
    for some in _debts(shard, job):
        if found & some:
            raise Violation(f"1: {job} at {min(found & some)} is owed twice")
        found |= some
    return found


def _debts(shard: Shard, job: str) -> Iterable[set[Instant]]:
    for piece in shard.owed.get(job, ()):
        if piece.definition.state <= JobState.PAUSED:
            yield instants(piece.definition.schedules, piece.after, piece.until) - set(piece.skip)
    definition = shard.definitions.get(job)
    if definition is None:
        return
    if job in shard.in_force:
        yield instants(definition.schedules, shard.in_force[job], behind(shard.watermark, job))
    elif job in shard.timetable:
        for gap in shard.gaps:
            if job > gap.done and job not in gap.skip:
                yield instants(definition.schedules, max(behind(gap.after, job), definition.since), gap.until)
