"""What one process decides over all its shards: embedded server, cluster instance and simulator drive this very object.

Rules:
- A shard has one commit under way at a time; its inputs stay until that commit is committed.
- Nothing leaves before: only `settle(COMMITTED)` gives effects.
- UNKNOWN: the shard is busy and decides nothing; the others go on.
- The first commit after a take-over says nothing but that it is one; reports, placement and dispatch come after it.
- A report that is a beat alone waits for the next commit, a third of a lease at most: two thirds always remain.
- With `keep_alive_ms` a shard that has nothing to say says so: its watermark is told, and a fenced owner hears of it.
- `seen` (who reported when), what runs and who waits for an answer are volatile: a new owner asks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from dts import bounds
from dts.amounts import Vector
from dts.core.allocator import Allocator
from dts.core.credits import Want
from dts.core.decide import decide
from dts.core.draft import Draft, Placement
from dts.core.fleet import Fleet
from dts.core.shard import Applied, Shard, folded
from dts.core.weight import weight
from dts.errors import Bug
from dts.model import (
    Change,
    Commit,
    Definition,
    Demand,
    Effects,
    Held,
    Instant,
    Key,
    Lease,
    Outcome,
    Report,
    ShardId,
    Status,
    WorkerInfo,
    WorkerRef,
)

MOST_HALVED = 13  # 2**13 is more than any input of a step has parts


@dataclass(slots=True)
class Seen:
    """What this owner knows of a worker: volatile. `number` 0: it has not reported in this epoch."""

    number: int = 0
    answered: Instant = 0  # its leases run from here at the latest: a commit answered a beat of it, or it reported
    timed: bool = True
    heard: Instant = 0
    rests: Instant = 0  # nothing goes there before: it handed something back


@dataclass(slots=True)
class Desk:
    """A shard with its inputs."""

    shard: Shard
    changes: deque[Change] = field(default_factory=deque)
    commands: deque[Change] = field(default_factory=deque)
    reports: deque[Report] = field(default_factory=deque)
    urgent: int = 0  # reports that are more than a beat
    seen: dict[WorkerRef, Seen] = field(default_factory=dict)
    running: dict[Key, tuple[int, Instant]] = field(default_factory=dict)  # key -> (attempt, start)
    draft: Draft | None = None  # a commit is under way
    places: Sequence[Placement] = ()  # held in the fleet for it
    fresh: bool = True  # the take-over commit is still to come
    more: bool = False  # the last step left something
    adopted: Instant = 0
    committed: Instant = 0
    drafted: Instant = 0  # `now` of the commit under way
    owed_at: Instant | None = None  # what is owed waits for this instant
    refused: int = 0  # in a row
    not_before: Instant = 0  # backoff after a refusal
    nudged: bool = False  # something outside (a worker's room) changed
    rested_at: Instant | None = None  # when the first worker that handed something back may be looked at again


def _urgent(report: Report) -> bool:
    """Whether it is more than a beat."""
    return bool(report.ended) or report.full or report.gone


class Instance:
    """Inputs: adopt, drop, receive_*, attach, detach. `step` gives commits, `settle` what may leave."""

    def __init__(
        self,
        *,
        lease_ms: int = bounds.LEASE_MS,
        limit: int = bounds.STEP_FIRES,
        rules: str = "",
        keep_alive_ms: int = 0,  # 0: a shard without news and without timed workers makes no commit
    ) -> None:
        self.desks: dict[ShardId, Desk] = {}
        self.fleet = Fleet()
        self.allocator = Allocator(self.fleet)
        self.lease_ms = lease_ms
        self.limit = limit
        self.rules = rules
        self.keep_alive_ms = min(keep_alive_ms, self._beat_wait())

    # --- ownership

    def adopt(self, shard: ShardId, epoch: int, commits: Iterable[Commit], now: Instant) -> None:
        """Folds what the ledger gave. `epoch` is the new owner's: its first commit raises it."""
        self.install(folded(shard, commits), epoch, now)

    def install(self, state: Shard, epoch: int, now: Instant) -> None:
        """`adopt` of what was folded elsewhere."""
        shard = state.shard
        if shard in self.desks:
            raise Bug(f"shard {shard} is adopted already")
        if epoch < state.epoch:
            raise Bug(f"epoch {epoch} of shard {shard} is below the last commit's {state.epoch}")
        state.epoch = epoch
        self.desks[shard] = Desk(state, adopted=now, committed=now)
        for worker, demand, count in state.holdings():
            self.fleet.take(worker, demand, count)

    def drop(self, shard: ShardId) -> None:
        """The shard is another's: its inputs go with it, what its blocks held is released."""
        desk = self.desks.pop(shard, None)
        if desk is None:
            return
        for worker, demand, count in desk.shard.holdings():
            self.fleet.hand_over(shard, worker, demand, count)
        self._release_places(desk)

    # --- inputs

    def receive_changes(self, shard: ShardId, changes: Sequence[Change]) -> bool:
        """Feed records in order. False: the inbox is full, nothing was taken."""
        desk = self.desks.get(shard)
        if desk is None:
            return True
        if len(desk.changes) + len(desk.commands) + len(changes) > bounds.INBOX_CHANGES:
            return False
        for change in changes:
            (desk.changes if isinstance(change.value, Definition) else desk.commands).append(change)
        return True

    def receive_report(self, shard: ShardId, report: Report, now: Instant) -> bool:
        """A worker's report. False: the inbox is full. Reports of another epoch are dropped (their sender is asked again)."""
        desk = self.desks.get(shard)
        if desk is None:
            return True
        if len(desk.reports) >= bounds.INBOX_REPORTS:
            return False
        seen = desk.seen.setdefault(report.worker, Seen(answered=desk.adopted, timed=report.timed))
        quiet, seen.heard = self._quiet(seen, now), now
        if report.full and report.epoch == desk.shard.epoch:
            seen.number = max(seen.number, report.number)
            seen.timed = report.timed
            seen.answered = max(seen.answered, now)  # what is leased from now on runs from when it reported
        if report.gone:
            seen.number = 0
        if any(block.status is Status.QUEUED for block in report.ended):
            seen.rests = now + bounds.HAND_BACK_REST_MS
            desk.rested_at = seen.rests if desk.rested_at is None else min(desk.rested_at, seen.rests)
        if _urgent(report) or (report.beat and report.timed):
            desk.reports.append(report)
            desk.urgent += _urgent(report)
            if report.beat and (quiet or self._over_at(seen.answered) <= now):
                desk.nudged = True  # nothing may be placed there before it is answered
        return True

    def started(self, shard: ShardId, held: Sequence[Held], at: Sequence[Instant]) -> None:
        """These attempts run now: shown to people, decides nothing."""
        desk = self.desks.get(shard)
        if desk is not None:
            for one, start in zip(held, at, strict=True):
                entry = desk.shard.open.get(one.key)
                if entry is not None and entry[0].attempt == one.attempt:
                    desk.running[one.key] = (one.attempt, start)

    def attach(self, info: WorkerInfo) -> dict[ShardId, int]:
        """A worker's stream began: the shards that want its full report, with their epochs."""
        self.fleet.attach(info)
        for desk in self.desks.values():
            desk.seen.setdefault(info.ref, Seen(answered=desk.adopted, timed=info.timed)).number = 0
        return {shard: desk.shard.epoch for shard, desk in self.desks.items() if not desk.fresh}

    def detach(self, worker: WorkerRef) -> None:
        """Its stream ended: nothing new is placed there; what it holds stays its own."""
        self.fleet.detach(worker)
        for desk in self.desks.values():
            if worker in desk.seen:
                desk.seen[worker].number = 0

    def credit(self, worker: WorkerRef, number: int, share: Vector, returns: int) -> None:
        """What of a worker this instance may use."""
        if self.fleet.credit(worker, number, share, returns):
            self.nudge()

    def wants(self, now: Instant) -> list[Want]:
        """What workers are to be told of what waits in vain."""
        at = self.fleet.wants_at(waits=True)
        return self.fleet.wants(self._waiting(), now) if at is not None and at <= now else []

    def _waiting(self) -> dict[Demand, int]:
        """How many wait of each demand, the urgent ones first."""
        found: dict[Demand, int] = {}
        for desk in self.desks.values():
            for demand, keys in desk.shard.waiting.items():
                if keys:
                    found[demand] = found.get(demand, 0) + len(keys)
        return dict(sorted(found.items(), key=lambda each: -each[0].priority))

    def nudge(self) -> None:
        """Room may have been gained: look again at what waits."""
        for desk in self.desks.values():
            desk.nudged = True

    def clock_moved(self, by: int) -> None:
        """The clock was set by so many ms: what is measured in elapsed time moves along."""
        for desk in self.desks.values():
            desk.adopted += by
            desk.committed += by
            desk.drafted += by
            desk.not_before += by if desk.not_before else 0
            for seen in desk.seen.values():
                seen.answered += by
                seen.heard += by
                seen.rests += by if seen.rests else 0
            desk.rested_at = desk.rested_at + by if desk.rested_at is not None else None

    # --- decisions

    def step(self, now: Instant, *, hold: bool = False) -> list[Commit]:
        """Commits of idle shards that have news: drafts, one placement over all, sealed. Inputs stay until settle()."""
        drafts: list[Draft] = []
        self.allocator.begin()
        for desk in self.desks.values():
            if desk.draft is None and now >= desk.not_before and self._news(desk, now, hold):
                draft = self._draft(desk, now, hold)
                if desk.rested_at is not None and desk.rested_at <= now:
                    later = [seen.rests for seen in desk.seen.values() if seen.rests > now]
                    desk.rested_at = min(later, default=None)
                desk.more = draft.more or (hold and desk.more)
                desk.nudged = len(desk.reports) > draft.taken_reports and not desk.fresh  # beats, too, wait once only
                desk.owed_at = desk.owed_at if hold else draft.owed_at
                if draft.ready or not draft.empty(desk.shard):
                    drafts.append(draft)
        places = self.allocator.place(
            drafts, lambda shard, worker: self._eligible(shard, worker, now), now, self._oldest()
        )
        commits = []
        for draft in drafts:
            desk, found = self.desks[draft.shard], places[draft.shard]
            desk.more = desk.more or (draft.cut and bool(found))
            if found or not draft.empty(desk.shard):
                desk.draft, desk.places, desk.drafted = draft, found, now
                commits.append(draft.seal(found))
        return commits

    def _oldest(self) -> Iterable[tuple[ShardId, Demand, Instant]]:
        """Of what waits: each demand's oldest."""
        for desk in self.desks.values():
            for demand, keys in desk.shard.waiting.items():
                if (first := next(iter(keys), None)) is not None:
                    yield desk.shard.shard, demand, desk.shard.open[first][0].queued

    def _draft(self, desk: Desk, now: Instant, hold: bool) -> Draft:
        shard = desk.shard
        alive_at = self._alive_at(desk, hold)
        if desk.fresh:
            draft = Draft(
                shard.shard,
                shard.epoch,
                shard.seq + 1,
                now,
                shard.watermark,
                shard.applied,
                shard.gaps,
                shard.held_commands,
            )
            draft.keep_alive, draft.more = True, True
            return draft
        draft, halved = self._decided(desk, now, hold, 0), 0
        while weight(draft) > bounds.STEP_BYTES and halved < MOST_HALVED:
            halved += 1
            draft = self._decided(desk, now, hold, halved)
        draft.keep_alive = draft.keep_alive or (alive_at is not None and alive_at <= now)
        return draft

    def _decided(self, desk: Desk, now: Instant, hold: bool, halved: int) -> Draft:
        """One step, of at most a 2**halved-th of the inputs: how many bytes they make is known when they are decided."""

        def part(most: int) -> int:
            return max(most >> halved, 1)

        waiting = sum(1 for each in self.desks.values() if each.shard.counts[Status.QUEUED])
        expired = self._expired(desk, now)
        return decide(
            desk.shard,
            now,
            list(islice(desk.changes, part(bounds.STEP_CHANGES))),
            list(islice(desk.commands, part(bounds.STEP_CHANGES))),
            list(islice(desk.reports, part(bounds.STEP_REPORTS))),
            self.allocator.room,
            expired=expired[: part(len(expired))],
            limit=part(self.limit),
            places=part(-(-bounds.STEP_PLACES // max(waiting, 1))),
            most=part(bounds.STEP_FIRES),
            hold=hold,
            rules=self.rules,
        )

    def _news(self, desk: Desk, now: Instant, hold: bool) -> bool:
        at = self._wake(desk, hold)
        return at is not None and at <= now

    def _eligible(self, shard: ShardId, worker: WorkerRef, now: Instant) -> int | None:
        """The report that a placement there would echo. None: it has not reported, or a lease would be over already."""
        seen = self.desks[shard].seen.get(worker)
        if seen is None or seen.number == 0 or (seen.timed and self._over_at(seen.answered) <= now):
            return None
        if now < seen.rests or self._quiet(seen, now):
            return None
        return seen.number

    def _quiet(self, seen: Seen, now: Instant) -> bool:
        """Whether beats of it are missing: it may be stopped or cut off, and what is sent there would wait for it."""
        return seen.timed and now > seen.heard + bounds.QUIET_BEATS * (self.lease_ms // bounds.BEATS_PER_LEASE)

    def _over_at(self, answered: Instant) -> Instant:
        """When timed leases that were last answered then are surely over."""
        return answered + round(self.lease_ms * (1 + bounds.LEASE_MARGIN))

    def _lease_over(self, desk: Desk, worker: WorkerRef) -> Instant | None:
        """When a timed lease is surely over. None: it is the worker's life, or nothing is held."""
        keys = desk.shard.placed.get(worker)
        if not keys or desk.shard.open[next(iter(keys))][0].life:
            return None
        seen = desk.seen.get(worker)
        return self._over_at(max(desk.adopted, seen.answered if seen is not None else 0))

    def _expired(self, desk: Desk, now: Instant) -> list[WorkerRef]:
        over = ((worker, self._lease_over(desk, worker)) for worker in desk.shard.placed)
        return [worker for worker, at in over if at is not None and at <= now]

    def settle(self, commit: Commit, outcome: Outcome, now: Instant) -> Effects | None:
        """COMMITTED: applies, consumes inputs, gives effects. REFUSED: releases, keeps inputs, waits. UNKNOWN: nothing."""
        desk = self.desks.get(commit.shard)
        if desk is None or desk.draft is None or desk.draft.seq != commit.seq:
            raise Bug(f"no commit {commit.shard}/{commit.seq} is under way")
        if outcome is Outcome.UNKNOWN:
            return None
        draft = desk.draft
        if outcome is Outcome.REFUSED:
            self._release_places(desk)
            desk.draft, desk.more = None, True
            first, longest = bounds.REFUSED_BACKOFF_MS
            desk.not_before = now + min(first << min(desk.refused, 16), longest)
            desk.refused += 1
            return None
        applied = desk.shard.apply(commit)
        desk.draft, desk.places, desk.refused, desk.committed = None, (), 0, desk.drafted
        for _ in range(draft.taken_changes):
            desk.changes.popleft()
        for _ in range(draft.taken_commands):
            desk.commands.popleft()
        for _ in range(draft.taken_reports):
            desk.urgent -= _urgent(desk.reports.popleft())
        for worker, demand, count in applied.released:
            self.fleet.release(worker, demand, count)
        if applied.released:
            self.nudge()
        taken_over, desk.fresh = desk.fresh, False
        return self._effects(desk, draft, commit, applied, taken_over)

    def _effects(self, desk: Desk, draft: Draft, commit: Commit, applied: Applied, taken_over: bool) -> Effects:
        effects = Effects(answers=commit.answers, acks=draft.acks, beats=draft.beats, taken_over=taken_over)
        shard = desk.shard
        for block in applied.placed:
            assert block.worker is not None
            if block.arguments:
                bodies = [block.arguments] * len(block.keys)
            else:
                bodies = [self._body(shard, key, rev) for key, rev in zip(block.keys, block.revisions, strict=True)]
            effects.leases.setdefault(block.worker, []).append(Lease(block, bodies))
        for block in applied.cancelled:
            assert block.worker is not None
            held = ((Held(key, block.attempt), block.cancel) for key in block.keys)
            effects.cancels.setdefault(block.worker, []).extend(held)
        for worker, strays in draft.stray.items():
            effects.cancels.setdefault(worker, []).extend((held, "no longer yours") for held in strays)
        for worker in draft.beats:
            seen = desk.seen[worker]
            if self._over_at(seen.answered) <= desk.drafted:
                desk.nudged = True  # it may be placed there again
            seen.answered = max(seen.answered, desk.drafted)
        if desk.running:
            for block in commit.blocks:
                for key in block.keys:
                    desk.running.pop(key, None)
        return effects

    @staticmethod
    def _body(shard: Shard, key: Key, revision: int) -> bytes:
        definition = shard.definition(key.job, revision)
        if definition is None:
            raise Bug(f"revision {revision} of job {key.job!r} was not kept for its open executions")
        return definition.body

    def _release_places(self, desk: Desk) -> None:
        """What a commit that was not committed held in the fleet."""
        if desk.draft is not None:
            for place in desk.places:
                self.fleet.release(place.worker, desk.draft.ready[place.ready].demand, place.size)
        desk.places = ()

    # --- waking

    def _beat_wait(self) -> int:
        """Ms that a beat waits for a commit at most."""
        return self.lease_ms // bounds.KEEP_ALIVES_PER_LEASE

    def _alive_at(self, desk: Desk, hold: bool) -> Instant | None:
        """When a commit is made even if it says nothing: for beats that wait; with `keep_alive_ms` always."""
        if self.keep_alive_ms:
            # While the clock is in doubt, each commit is a sample of the broker's.
            return desk.committed + (min(self.keep_alive_ms, bounds.HOLD_COMMIT_MS) if hold else self.keep_alive_ms)
        return desk.committed + self._beat_wait() if desk.reports else None

    def wake_at(self, *, hold: bool = False) -> Instant | None:
        """When `step` is worth a call even without news. None: only news wakes. A time in the past: at once."""
        times = [
            at for desk in self.desks.values() if desk.draft is None and (at := self._wake(desk, hold)) is not None
        ]
        waits = any(desk.shard.counts[Status.QUEUED] for desk in self.desks.values())
        if (wants_at := self.fleet.wants_at(waits)) is not None:
            times.append(wants_at)
        return min(times, default=None)

    def _wake(self, desk: Desk, hold: bool) -> Instant | None:
        shard = desk.shard
        if (desk.more and not hold) or desk.fresh or desk.commands or desk.urgent or desk.nudged or shard.turns:
            return desk.not_before
        times = [at for worker in shard.placed if (at := self._lease_over(desk, worker)) is not None]
        if not hold:
            due = shard.timetable.next_due()
            times += [due] if due is not None else []
            times += [shard.openings[0][0]] if shard.openings else []
            times += [desk.owed_at] if desk.owed_at is not None else []
        if shard.retries:
            times.append(shard.retries[0][0])
        if shard.deadlines:
            times.append(shard.deadlines[0][0] + 1)
        times += [command.expires for command in shard.held_commands]
        alive = self._alive_at(desk, hold)
        times += [alive] if alive is not None else []
        times += [desk.rested_at] if desk.rested_at is not None else []
        if desk.changes and not hold:  # a held watermark reaches no revision
            full = len(desk.changes) >= bounds.STEP_CHANGES
            times.append(desk.committed + (0 if full else bounds.CHANGES_LINGER_MS))
        at = min(times, default=None)
        return None if at is None else max(at, desk.not_before)
