"""Revisions applied in one step: what each changed job owes, and under which of its revisions.

Rules:
- Time is cut at each revision's `since`: the older one owes the instants up to it, the new one those after it, late ones included.
- What was committed stands: an instant behind the watermark that has a verdict, from whichever revision, gets no other one.
- Several revisions of a job may come in one step; its instants of that step are owed by name, each by the revision it belongs to.
- A cancelled or deleted job ends what it has open; what it still owed becomes ranges that say so.
- A verdict given after the `since` of a later revision must be known to the revisions that follow: it is kept as a memo, a piece
  of owed time whose definition is marked DELETED, which owes nothing. So is a deleted job's revision, for a while: a feed may tell
  an older one again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dts import bounds
from dts.core.draft import Draft
from dts.core.policies import PUBLISHED_LATE, ended_ranges, ranges_of, suspended_as
from dts.core.shard import Shard
from dts.core.timetable import seen_by, times_of, top
from dts.model import (
    CatchUp,
    Change,
    Close,
    Definition,
    Demand,
    Gap,
    Instant,
    JobState,
    Key,
    Owed,
    Policies,
    ScheduleSpec,
    Status,
    Streak,
    Term,
    intern_demand,
)

MOST_VERDICTS = 2 * bounds.CHANGE_LATE_MS // 1_000 * bounds.SCHEDULES  # of one job after the `since` of a late revision

NO_DEMAND = intern_demand(Demand())
NO_POLICIES = Policies()

Span = tuple[Instant, Instant]  # (after, until]
Schedules = tuple[ScheduleSpec, ...]


class Empty:
    """Which spans have no instant: asked once for the many jobs of one schedule that change together."""

    def __init__(self) -> None:
        self._known: dict[tuple[Schedules, Instant, Instant], bool] = {}

    def __call__(self, schedules: Schedules, after: Instant, until: Instant) -> bool:
        if after >= until or not schedules:
            return True
        name = (schedules, after, until)
        known = self._known.get(name)
        if known is None:
            following = times_of(schedules).next_after(after)
            known = self._known[name] = following is None or following > until
        return known


class Account:
    """One job while a step changes it. Behind `start` every instant has its verdict or is in `pieces`; beyond it nothing has."""

    __slots__ = ("before", "current", "given", "memos", "old", "own", "pieces", "settled", "start", "suspended")

    def __init__(self, shard: Shard, gaps: Sequence[Gap], job: str) -> None:
        self.old = self.current = shard.definitions.get(job)
        self.before = self.start = seen_by(shard.watermark, job)
        self.pieces: list[Owed] = list(shard.owed.get(job, ()))
        self.memos: Sequence[Owed] = shard.given.get(job, ())
        self.suspended = shard.streaks[job] if job in shard.guises else None
        self.given: list[Instant] | None = None
        self.own: list[Span] = []  # where all the old revision's instants have their verdicts
        missed = [(seen_by(gap.after, job), gap.until) for gap in gaps if job > gap.done and job not in gap.skip]
        if self.old is not None and job in shard.timetable:
            since = self.old.since
            self.pieces += [Owed(self.old, max(after, since), until) for after, until in missed if since < until]
            self.own = [(since, self.before)]
        elif self.old is not None and job in shard.in_force:
            self.start = shard.in_force[job]
            self.own = [(self.old.since, self.start)]
        self.pieces.sort(key=_after)
        for piece in self.pieces:
            self.own = [part for span in self.own for part in _cut_out(span, piece)]
        self.settled = min([self.start, *(after for after, _ in missed), *(piece.after for piece in self.pieces)])

    def verdicts(self, since: Instant) -> list[Instant]:
        """Instants after `since`, behind the watermark, that have verdicts. Asked first for the earliest `since`."""
        if self.given is None:
            found: set[Instant] = set()
            if self.old is not None:
                for after, until in self.own:
                    found.update(_between(self.old, max(after, since), until))
            for memo in self.memos:
                found.update(_between(memo.definition, max(memo.after, since), memo.until))
            self.given = sorted(found)
        return [instant for instant in self.given if instant > since]

    def floor(self) -> Instant:
        """No revision that follows owes anything up to here."""
        if self.current is not None:
            return self.current.since
        last = max(self.memos, key=_revision, default=None)  # of a deleted job: its deletion
        return last.after if last is not None else 0

    def owe(
        self,
        definition: Definition,
        span: Span,
        empty: Empty,
        skip: Sequence[Instant] = (),
        catch_up: CatchUp = CatchUp.SKIP,
    ) -> None:
        """Adds a piece, if there is anything to owe; one that continues the last piece becomes one with it."""
        after, until = span
        if definition.state > JobState.PAUSED or empty(definition.schedules, after, until):
            return
        paused = definition.state is JobState.PAUSED
        reason = self.suspended.reason if self.suspended is not None and paused else ""
        piece = Owed(definition, after, until, tuple(skip), reason, catch_up)
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last.until == after and last[:1] + last[4:] == piece[:1] + piece[4:]:
            self.pieces[-1] = last._replace(until=until, skip=(*last.skip, *skip))
        else:
            self.pieces.append(piece)

    def as_it_stands(self, new: Definition) -> Definition:
        """A new revision, which does not end a suspension unless it ends the job."""
        if new.state >= JobState.CANCELLED:
            self.suspended = None
        return suspended_as(new) if self.suspended is not None else new

    def remembered(self, empty: Empty, reached: Instant) -> list[Owed]:
        """Memos for the revisions that follow: verdicts of older revisions after the current one's `since`."""
        if self.current is None or self.current is self.old:
            return list(self.memos)
        since = self.current.since
        found = [memo._replace(after=max(memo.after, since)) for memo in self.memos]
        if self.old is not None:
            marked = self.old._replace(
                state=JobState.DELETED, demand=NO_DEMAND, policies=NO_POLICIES, body=b""
            )  # its times are all that is asked of it
            found += [Owed(marked, max(after, since), until) for after, until in self.own]
        kept = [memo for memo in found if not empty(memo.definition.schedules, memo.after, memo.until)]
        if self.current.state is JobState.DELETED:
            stone = self.current._replace(schedules=(), demand=NO_DEMAND, policies=NO_POLICIES, body=b"")
            kept.append(Owed(stone, since, reached))
        return kept


def _after(piece: Owed) -> Instant:
    return piece.after


def _revision(piece: Owed) -> int:
    return piece.definition.revision


def _cut_out(span: Span, piece: Owed) -> list[Span]:
    after, until = span
    parts = [(after, min(until, piece.after)), (max(after, piece.until), until)]
    return [part for part in parts if part[0] < part[1]] if piece.after < piece.until else [span]


def _between(definition: Definition, after: Instant, until: Instant) -> list[Instant]:
    if after >= until or not definition.schedules:
        return []
    return times_of(definition.schedules).between(after, until, MOST_VERDICTS)


def decide_changes(shard: Shard, draft: Draft, changes: Sequence[Change], rules: str) -> dict[str, Account]:
    """Applies revisions that the watermark has reached, and pauses that end by themselves. The accounts of the jobs so handled."""
    accounts: dict[str, Account] = {}
    fresh: dict[str, Definition] = {}
    empty = Empty()
    position, watermark = draft.applied[0], draft.watermark
    for change in changes:
        definition = change.value
        assert isinstance(definition, Definition)
        job = definition.job
        reached = seen_by(watermark, job)
        if min(definition.since, draft.now) > reached:
            break  # the step that reaches it takes it
        draft.taken_changes += 1
        position = max(position, change.position[0])
        account = accounts.get(job)
        current = (fresh.get(job) or shard.definitions.get(job)) if account is None else account.current
        if definition.revision <= (shard.deleted(job) if current is None else current.revision):
            continue
        if current is None and _plainly_new(shard, draft, definition, reached, empty):
            fresh[job] = definition
            draft.definitions.append(definition)
            draft.opened.append(Term(job, definition.revision, definition.since, reached, None, rules))
            continue
        if account is None:
            account = accounts[job] = Account(shard, shard.gaps, job)
            if job in fresh:
                account.current, account.start = fresh[job], max(account.start, fresh[job].since)
        _revise(shard, draft, account, definition, empty)
        _terms(draft, current, draft.definitions[-1], rules)
    draft.applied = (position, draft.applied[1])
    _openings(shard, draft, accounts)
    for job, account in accounts.items():
        _finish(shard, draft, job, account, empty)
    leave_gaps(draft, accounts)
    return accounts


def _plainly_new(shard: Shard, draft: Draft, new: Definition, reached: Instant, empty: Empty) -> bool:
    """Whether there is nothing to account for: the usual creation, one of many."""
    since = new.since
    return (
        new.first
        and new.state <= JobState.PAUSED
        and since <= max(draft.now, reached)
        and (not draft.gaps or since >= draft.gaps[-1].until)
        and new.job not in shard.given
        and empty(new.schedules, since, reached)
    )


def _terms(draft: Draft, old: Definition | None, new: Definition, rules: str) -> None:
    if old is not None and old.state is not JobState.DELETED:
        draft.closed.append(Close(old.job, old.revision, new.since))
    if new.state is not JobState.DELETED:
        in_force = seen_by(draft.watermark, new.job)
        draft.opened.append(Term(new.job, new.revision, new.since, in_force, None, rules))


def _revise(shard: Shard, draft: Draft, account: Account, new: Definition, empty: Empty) -> None:
    # An instant that neither our clock nor the watermark has reached comes from a clock ahead of ours.
    since = max(min(new.since, max(draft.now, seen_by(draft.watermark, new.job))), account.floor())
    if not new.first:
        since = max(since, account.before)  # what came before was published, and accounted for, once
    if since < account.start and (account.old is not None or account.memos):
        since = max(since, min(account.start, draft.now - bounds.CHANGE_LATE_MS))
    if since != new.since:
        new = new._replace(since=since)
    account.pieces = [
        piece if piece.until <= since else piece._replace(until=since)
        for piece in account.pieces
        if piece.after < since
    ]
    if since >= account.start:
        if account.current is not None:
            how = CatchUp.SKIP if account.suspended is not None else _catch_up(account.current, new, since)
            account.owe(account.current, (account.start, since), empty, (), how)
        account.start = since
    standing = account.as_it_stands(new)
    if new.state >= JobState.CANCELLED:
        _end_job(shard, draft, account, new)
    elif since < account.start and not empty(new.schedules, since, account.start):
        account.owe(standing, (since, account.start), empty, account.verdicts(since))
    account.current = standing
    draft.definitions.append(new)


def _catch_up(paused: Definition, new: Definition, since: Instant) -> CatchUp:
    """What becomes of a pause that a revision ends: as it says, or as the pause said if that was over before."""
    if paused.until is not None and paused.until <= since:
        return paused.catch_up
    return new.catch_up if new.state is JobState.ACTIVE else CatchUp.SKIP


def _end_job(shard: Shard, draft: Draft, account: Account, new: Definition) -> None:
    """A cancelled or deleted job ends what it has open, and owes nothing any more."""
    reason = "job cancelled" if new.state is JobState.CANCELLED else "job deleted"
    for piece in account.pieces:
        draft.ranges += ended_ranges(piece, reason)
    account.pieces.clear()
    for key in shard.by_job.get(new.job, ()):
        if key not in draft.touched:
            cancel(shard, draft, key, reason)


def cancel(shard: Shard, draft: Draft, key: Key, reason: str) -> None:
    """Ends an open execution: at once, or when its worker says so."""
    block, place = shard.open[key]
    one = replace(block, keys=[key], revisions=[block.revisions[place]], ends=())
    if block.status is Status.PLACED:
        draft.add(replace(one, cancel=block.cancel or reason))
    else:
        draft.add(replace(one, status=Status.CANCELLED, reason=reason, not_before=0, worker=None))


def _openings(shard: Shard, draft: Draft, accounts: dict[str, Account]) -> None:
    """Pauses that end by themselves behind the draft's watermark."""
    for until, job, revision in sorted(top(shard.openings, draft.watermark[0], len(shard.openings))):
        definition = shard.definitions.get(job)
        if definition is None or definition.revision != revision or job in accounts:
            continue
        if job not in shard.in_force or job in shard.guises:
            continue
        if seen_by(draft.watermark, job) >= until:
            accounts[job] = Account(shard, shard.gaps, job)


def _finish(shard: Shard, draft: Draft, job: str, account: Account, empty: Empty) -> None:
    reached = seen_by(draft.watermark, job)
    current = account.current
    if current is not None and account.start < reached:
        over = current.until is not None and current.until <= reached
        account.owe(current, (account.start, reached), empty, (), current.catch_up if over else CatchUp.SKIP)
    if current is not account.old and job in shard.streaks:
        streak = account.suspended
        draft.streaks[job] = Streak(job) if streak is None else streak._replace(since=reached)
    pieces = [_not_too_late(draft, account, piece) for piece in account.pieces]
    owed = (*account.remembered(empty, reached), *(piece for piece in pieces if piece.after < piece.until))
    if owed or job in shard.owed or job in shard.given:
        draft.owed[job] = owed


def _not_too_late(draft: Draft, account: Account, piece: Owed) -> Owed:
    """Behind what was settled, a late revision owes 24 h of instants one by one; what is older is given in ranges."""
    edge = min(draft.now - bounds.FIRST_PUBLICATION_OWES_MS, account.settled, piece.until)
    if piece.after >= edge:
        return piece
    draft.ranges += ranges_of(piece._replace(until=edge), PUBLISHED_LATE)
    return piece._replace(after=edge)


def leave_gaps(draft: Draft, accounts: dict[str, Account]) -> None:
    """Takes jobs out of the gaps that would reach them: what they owe there is owed by name."""
    gaps = []
    for gap in draft.gaps:
        leaving = [
            job
            for job, account in accounts.items()
            if job > gap.done and account.current is not None and account.current.since < gap.until
        ]
        gaps.append(gap._replace(skip=gap.skip.union(leaving)) if leaving else gap)
    draft.gaps = tuple(gaps)
