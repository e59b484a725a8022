"""The jobs' policies, watched from outside: what may start, wait, be skipped, be cancelled and be tried again, commit by commit.

It shares no code with core/turns, core/groups and core/policies. A problem's number is 9.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from dts.model import (
    Block,
    Commit,
    Definition,
    Delivery,
    End,
    Instant,
    JobState,
    Key,
    Overlap,
    Policies,
    Status,
    Streak,
)

OPEN = (Status.QUEUED, Status.PLACED, Status.RETRYING)


class Broken(AssertionError):
    """A policy is not obeyed."""


@dataclass
class Known:
    """An open execution as the last commit left it. `active`: it was placed, or may be."""

    key: Key
    policies: Policies
    block: Block
    born: int  # seq

    @property
    def active(self) -> bool:
        return not self.block.held


@dataclass
class Rules:
    """Fed with each commit, in order, and with what runs."""

    definitions: dict[tuple[str, int], Definition] = field(default_factory=dict)
    current: dict[str, Definition] = field(default_factory=dict)
    since: dict[str, Instant] = field(default_factory=dict)
    open: dict[str, dict[Key, Known]] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)  # jobs that have open executions from a time of allow_all
    serial: dict[str, bool] = field(default_factory=dict)  # whether a job was never allow_all
    most: dict[str, int] = field(default_factory=dict)  # the highest limit that a group ever had
    rows: dict[str, int] = field(default_factory=dict)  # failures in a row
    suspended: dict[str, Instant] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)

    def published(self, definition: Definition) -> None:
        """Before any commit that knows it."""
        job, overlap = definition.job, definition.policies.overlap
        self.definitions[job, definition.revision] = definition
        self.serial[job] = self.serial.get(job, True) and overlap is not Overlap.ALLOW_ALL
        if definition.group:
            limit = max(definition.policies.group_limit, 1)
            self.most[definition.group] = max(self.most.get(definition.group, 0), limit)

    def committed(self, commit: Commit) -> None:
        """Raises Broken."""
        limits = {group: self._limit(group) for group in self.most}
        before = {job: dict(opened) for job, opened in self._touched(commit)}
        for block in commit.blocks:
            for place, key in enumerate(block.keys):
                self._one(block, place, key, commit, before.get(key.job, {}))
        for job, known in before.items():
            self._turns(job, known, commit)
        self._groups(commit, limits)
        self._streaks(commit)
        terms = {(term.job, term.revision): term for term in commit.opened}
        for definition in commit.definitions:
            term = terms.get((definition.job, definition.revision))
            self._applied(definition, definition.since if term is None else term.since)

    def _policies(self, job: str, revision: int) -> Policies:
        known = self.definitions.get((job, revision))
        return known.policies if known is not None else Policies()  # a command that waited for it in vain

    def _touched(self, commit: Commit) -> Iterable[tuple[str, dict[Key, Known]]]:
        jobs = {key.job for block in commit.blocks for key in block.keys}
        return ((job, self.open.get(job, {})) for job in sorted(jobs))

    def _applied(self, definition: Definition, since: Instant) -> None:
        job = definition.job
        if definition.state is JobState.DELETED:
            self.current.pop(job, None)
            return
        self.current[job], self.since[job] = definition, since
        if definition.policies.overlap is Overlap.ALLOW_ALL and self.open.get(job):
            self.loose.add(job)

    # ---- one execution

    def _one(self, block: Block, place: int, key: Key, commit: Commit, before: dict[Key, Known]) -> None:
        policies = self._policies(key.job, block.revisions[place])
        known = before.get(key)
        if block.status is Status.PLACED and block.fencing == commit.seq and block.attempt == 1:
            self._first_placed(known.block if known is not None else block, key, policies, commit.now)
        if block.status in (Status.RETRYING, Status.FAILED) and block.ends:
            self._failed(block, key, policies, block.ends[place])
        if block.status is Status.SKIPPED and block.reason.startswith("start within"):
            self._too_late(block, key, policies, commit.now)
        if known is None:
            self._in_suspension(block, key, commit.seq)
        opened = self.open.setdefault(key.job, {})
        if block.status not in OPEN:
            opened.pop(key, None)
            if not opened:
                self.loose.discard(key.job)
            return
        opened[key] = Known(key, policies, block, known.born if known is not None else commit.seq)
        if known is None and policies.overlap is Overlap.ALLOW_ALL:
            self.loose.add(key.job)

    def _first_placed(self, block: Block, key: Key, policies: Policies, now: Instant) -> None:
        if policies.jitter and not key.nonce:
            own = zlib.crc32(str(key).encode()) % (policies.jitter + 1)
            if now < block.queued + own and not block.held and block.jitter:
                raise Broken(f"9: {key} was placed {block.queued + own - now} ms before its jitter lets it")
            self._saw("jitter")
        if block.start_by and now > block.start_by:
            raise Broken(f"9: {key} was placed {now - block.start_by} ms after it had to start")

    def _too_late(self, block: Block, key: Key, policies: Policies, now: Instant) -> None:
        if not policies.start_within or now <= block.queued + policies.start_within or block.attempt:
            raise Broken(f"9: {key} was skipped {now - block.queued} ms after it was due, as attempt {block.attempt}")
        self._saw("start within")

    def _failed(self, block: Block, key: Key, policies: Policies, end: End) -> None:
        def names(each: str) -> bool:
            low, _, high = each.partition("-")
            return int(low) <= end.code <= int(high or low) if low.isdecimal() else each == end.kind

        wanted = not policies.retry_only or any(map(names, policies.retry_only))
        wanted = wanted and not any(map(names, policies.retry_never))
        if block.status is Status.RETRYING and not wanted:
            raise Broken(f"9: {key} is tried again after {end}")
        spent = block.failures > policies.max_retries or policies.delivery is Delivery.AT_MOST_ONCE
        if block.status is Status.FAILED and wanted and not spent:
            raise Broken(f"9: {key} is not tried again after {end}, failure {block.failures}")
        if block.status is Status.FAILED and not spent:
            self._saw("not tried again")

    # ---- overlap

    def _turns(self, job: str, before: dict[Key, Known], commit: Commit) -> None:
        now = self.open.get(job, {})
        for block in commit.blocks:
            for place, key in enumerate(block.keys):
                if key.job == job and key not in before and not key.nonce:
                    policies = self._policies(job, block.revisions[place])
                    self._due(block, key, policies, before, now)
        if job in self.loose:
            return
        started = [each for each in now.values() if each.active]
        if len(started) > 1:
            raise Broken(
                f"9: {len(started)} executions of {job} may run at once: {[str(each.key) for each in started]}"
            )

    def _due(self, block: Block, key: Key, policies: Policies, before: dict[Key, Known], now: dict[Key, Known]) -> None:
        """A due instant's execution, as this commit began it."""
        others = [each for each in now.values() if each.key != key and (each.key in before or self._earlier(each, key))]
        reason = block.reason
        if block.status is Status.SKIPPED and reason.startswith("overlap"):
            self._saw(reason.partition(":")[0])
            if f"({policies.overlap})" not in reason:
                raise Broken(f"9: {key} is skipped by {reason}, its policy is {policies.overlap}")
            if not before and not now:
                raise Broken(f"9: {key} is skipped by {reason}, and nothing was there")
            return
        if block.status not in OPEN:
            return
        if policies.overlap is Overlap.SKIP and others:
            raise Broken(f"9: {key} is not skipped beside {others[0].key}")
        if block.held:
            self._saw(f"held by {policies.overlap}")
            self._waits(key, policies, others)

    def _waits(self, key: Key, policies: Policies, others: list[Known]) -> None:
        waiting = [each for each in others if each.block.held]
        most = {Overlap.BUFFER_ONE: 1, Overlap.BUFFER_ALL: policies.overlap_limit}.get(policies.overlap)
        if policies.overlap is Overlap.ALLOW_ALL:
            raise Broken(f"9: {key} waits for its turn under allow_all")
        if most is not None and len(waiting) >= most:
            raise Broken(f"9: {key} waits beside {len(waiting)} others under {policies.overlap}")

    @staticmethod
    def _earlier(each: Known, key: Key) -> bool:
        return not each.key.nonce and each.key.at < key.at

    # ---- failures in a row

    def _streaks(self, commit: Commit) -> None:
        """Counted from the verdicts, in order; a suspended job begins nothing that is due after it, until it is resumed."""
        said = {each.job: each for each in commit.streaks}
        new = {each.job for each in commit.definitions}
        self._count(commit)
        for job, row in list(self.rows.items()):
            current, known = self.current.get(job), said.get(job)
            if job in new or current is None:  # a revision begins a new row
                self.rows[job] = known.failures if known is not None else 0
            else:
                self._row(current, row, known)
        for job, streak in said.items():
            if streak.since:
                self.suspended[job] = streak.since
            elif self.suspended.pop(job, None) is not None:
                self._saw("resumed")
            if streak == Streak(job):
                self.rows[job] = 0

    def _count(self, commit: Commit) -> None:
        for block in commit.blocks:
            bad, good = block.status in (Status.FAILED, Status.LOST), block.status is Status.COMPLETED
            for key in block.keys if bad or good else ():
                current = self.current.get(key.job)
                if current is not None and current.policies.pause_after:
                    self.rows[key.job] = self.rows.get(key.job, 0) + 1 if bad else 0

    def _row(self, current: Definition, row: int, known: Streak | None) -> None:
        job, most = current.job, current.policies.pause_after
        suspended = job in self.suspended
        if known is not None and known != Streak(job) and known.failures != row:
            raise Broken(f"9: {job} failed {row} times in a row, its streak is {known}")
        if known is not None and known.since and not suspended:
            if row < most:
                raise Broken(f"9: {job} is suspended after {row} failures in a row")
            self._saw("suspended")
        if (
            known is None
            and not suspended
            and 0 < most <= row
            and current.state is JobState.ACTIVE
            and current.schedules
        ):
            raise Broken(f"9: {job} failed {row} times in a row and is not suspended")

    def _in_suspension(self, block: Block, key: Key, seq: int) -> None:
        since = self.suspended.get(key.job)
        if since is not None and not key.nonce and key.at > since and block.status in OPEN:
            raise Broken(f"9: {key} begins in commit {seq}, its job is suspended since {since}")

    # ---- groups

    def _limit(self, group: str) -> int:
        members = [each for each in self.current.values() if each.group == group]
        newest = max(members, key=lambda each: (self.since[each.job], each.job), default=None)
        return max(newest.policies.group_limit, 1) if newest is not None else self.most[group]

    def _groups(self, commit: Commit, limits: dict[str, int]) -> None:
        placed = {
            block.group
            for block in commit.blocks
            if block.group and block.status is Status.PLACED and block.fencing == commit.seq
        }
        for group in placed:
            count = sum(
                each.block.status is Status.PLACED and each.block.group == group
                for opened in self.open.values()
                for each in opened.values()
            )
            if count > limits[group]:
                raise Broken(f"9: {count} of group {group} are placed, at most {limits[group]} may be")
            if count == limits[group]:
                self._saw("group full")

    # ---- what runs

    def running(self, key: Key, others: Iterable[Key]) -> None:
        """A task begins beside others."""
        group = self._group(key.job)
        beside = 1
        for other in others:
            if other.job == key.job and other != key and self.serial[key.job]:
                raise Broken(f"9: {key} begins while {other} runs")
            beside += bool(group) and self._group(other.job) == group
        if group and beside > self.most[group]:
            raise Broken(f"9: {beside} of group {group} run at once, never more than {self.most[group]} might")

    def _group(self, job: str) -> str:
        return next((each.group for (name, _), each in self.definitions.items() if name == job), "")

    def _saw(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1
