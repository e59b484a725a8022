"""Accounting in time: one shard under edits, pauses, late changes, outages, clock steps, small steps and refused commits.

After each commit: every due instant behind the watermark is in exactly one of executions, ranges and debt; the state is the fold of
the commits, and of its own snapshot. At the end: no debt is left, and each execution has ended once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dts import bounds
from dts.core.instance import Instance
from dts.core.snapshot import snapshot as snapshot_of
from dts.model import (
    Block,
    Cancel,
    Change,
    Command,
    Commit,
    Definition,
    Delivery,
    Demand,
    End,
    Held,
    JobState,
    Misfire,
    Outcome,
    Policies,
    Report,
    Retry,
    Run,
    ScheduleSpec,
    StartBackfill,
    Status,
    StopBackfill,
    WorkerInfo,
    WorkerRef,
)
from tests.simulation import backfills
from tests.simulation.book import Book
from tests.simulation.states import canon, difference, folded

HOUR = 3_600_000
DAY = 24 * HOUR
T0 = 1_774_700_000_000  # the day before clocks change in Europe
JOBS = ("a", "b", "c")
SCHEDULES = [
    (ScheduleSpec("@every 20s"),),
    (ScheduleSpec("@every 90s"),),
    (ScheduleSpec("*/5 * * * *"),),
    (ScheduleSpec("*/5 * * * *"), ScheduleSpec("@every 120s")),
    (ScheduleSpec("30 2 * * *", "Europe/Paris"),),
    (ScheduleSpec("@every 1h", start=T0 + 5_000, end=T0 + DAY),),
    (),
]
POLICIES = [
    Policies(),
    Policies(misfire=Misfire.SKIP),
    Policies(misfire=Misfire.RUN_ALL, misfire_limit=7, max_retries=1),
    Policies(misfire=Misfire.RUN_ALL, misfire_limit=0, delivery=Delivery.AT_MOST_ONCE),
    Policies(misfire=Misfire.RUN_ALL, misfire_limit=300, late_window=600_000),
    Policies(grace=600_000, max_retries=3, retry_initial=5_000),
]
DEMANDS = [Demand(), Demand(priority=1)]
WORKER = WorkerInfo(WorkerRef("w", "1"), Demand(slots=3), backlog=2, timed=False)
SMALL = {
    "BACKFILLS_RUNNING": 2,
    "BACKFILLS_KNOWN": 3,
    "STEP_CHANGES": 3,
    "STEP_JOBS_OF_GAP": 2,
    "MAX_GAPS": 3,
    "STEP_REPORTS": 4,
}
MOVES = st.one_of(
    st.integers(1, 3_000),
    st.integers(1_000, 150_000),
    st.sampled_from([60_000, 60_001, HOUR, 3 * HOUR, DAY, 2 * DAY + 7]),
)
FATES = st.sampled_from(["committed"] * 6 + ["refused", "unknown committed", "unknown refused"])


class Accounting(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.book = Book()
        self.feed: list[Change] = []
        self.delivered = 0
        self.log: list[Commit] = []
        self.epoch = 0
        self.jobs: dict[str, Definition] = {}
        self.held: set[Held] = set()
        self.number = 0
        self.ids = 0

    @initialize(limit=st.sampled_from([1, 2, 5, 40, 2_500]))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self._adopt(snapshot=False)

    # ---- what people do ----

    @rule(
        job=st.sampled_from(JOBS),
        schedules=st.sampled_from(SCHEDULES),
        policies=st.sampled_from(POLICIES),
        demand=st.sampled_from(DEMANDS),
        state=st.sampled_from([JobState.ACTIVE] * 5 + [JobState.PAUSED, JobState.PAUSED, JobState.CANCELLED]),
        pause=st.one_of(st.none(), MOVES),
        first=st.just(True),
    )
    def put(
        self,
        job: str,
        schedules: tuple[ScheduleSpec, ...],
        policies: Policies,
        demand: Demand,
        state: JobState,
        pause: int | None,
        first: bool,
    ) -> None:
        """Creates or edits."""
        until = self.now + pause if pause is not None and state is JobState.PAUSED else None
        self._publish(Definition(job, 0, 0, state, until, schedules, demand, policies, job.encode(), first))

    @precondition(lambda self: self.jobs)
    @rule(
        data=st.data(),
        state=st.sampled_from([JobState.PAUSED, JobState.ACTIVE, JobState.CANCELLED, JobState.DELETED]),
        pause=st.one_of(st.none(), MOVES),
    )
    def turn(self, data: st.DataObject, state: JobState, pause: int | None) -> None:
        """Pauses, resumes, cancels or deletes."""
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        until = self.now + pause if pause is not None and state is JobState.PAUSED else None
        self._publish(self.jobs[job]._replace(state=state, until=until))

    def _publish(self, definition: Definition) -> None:
        last = self.jobs.get(definition.job)
        if last is None and definition.state is JobState.DELETED:
            return
        revision, since = (last.revision + 1, max(self.now, last.since)) if last else (1, self.now)
        definition = definition._replace(revision=revision, since=since)
        self.jobs[definition.job] = definition
        self.book.published(definition)
        self.feed.append(Change((len(self.feed) + 1, 0), definition))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), kind=st.sampled_from(["run", "cancel", "retry"]), ahead=st.sampled_from([0, 0, 0, 1]))
    def command(self, data: st.DataObject, kind: str, ahead: int) -> None:
        self.ids += 1
        id_, expires = self.ids.to_bytes(4, "big") + bytes(12), self.now + 600_000
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        revision = self.jobs[job].revision + ahead
        keys = sorted(self.book.status)
        command: Command = Run(id_, job, self.now, expires, revision)
        if kind != "run" and keys:
            key = data.draw(st.sampled_from(keys))
            revision = self.jobs[key.job].revision + ahead
            if kind == "cancel":
                command = Cancel(id_, key, self.now, expires)
            else:
                command = Retry(id_, key, self.now, expires, revision)
        change = Change((0, len(self.feed) + 1), command)
        self.feed += [change, change] if ahead else [change]

    @precondition(lambda self: self.jobs)
    @rule(
        data=st.data(),
        back=MOVES,
        size=MOVES,
        parallel=st.sampled_from([1, 2, 50]),
        ahead=st.sampled_from([0, 0, 0, 1]),
    )
    def backfill(self, data: st.DataObject, back: int, size: int, parallel: int, ahead: int) -> None:
        self.ids += 1
        id_, job = self.ids.to_bytes(4, "big") + bytes(12), data.draw(st.sampled_from(sorted(self.jobs)))
        span = (self.now - back, min(self.now, self.now - back + size, self.now - back + 3 * HOUR))
        revision = self.jobs[job].revision + ahead
        start = StartBackfill(id_, job, self.now, self.now + 600_000, revision, *span, parallel)
        self.feed.append(Change((0, len(self.feed) + 1), start))

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def stop_backfill(self, data: st.DataObject) -> None:
        known = sorted(self.shard.backfills.items())
        if known:
            self.ids += 1
            nonce, found = data.draw(st.sampled_from(known))
            id_ = self.ids.to_bytes(4, "big") + bytes(12)
            stop = StopBackfill(id_, found.job, self.now, self.now + 600_000, nonce)
            self.feed.append(Change((0, len(self.feed) + 1), stop))

    # ---- what happens ----

    @rule(by=MOVES)
    def pass_time(self, by: int) -> None:
        self.now += by

    @rule(by=st.integers(1, 2 * HOUR))
    def set_back(self, by: int) -> None:
        """The clock is set back, and believed."""
        self.now -= by
        self.core.clock_moved(-by)

    @precondition(lambda self: self.delivered < len(self.feed))
    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        self._deliver(count)

    @rule(fate=FATES)
    def step(self, fate: str) -> None:
        self._step(fate)

    @rule(by=MOVES, count=st.integers(0, 4), fate=FATES, steps=st.integers(1, 3))
    def go_on(self, by: int, count: int, fate: str, steps: int) -> None:
        """The usual: time passes, changes arrive, a step."""
        self.now += by
        self._deliver(count)
        for _ in range(steps):
            self._step(fate)

    @rule(by=st.sampled_from([1, 50, 5_000]), fate=FATES)
    def hold(self, by: int, fate: str) -> None:
        """The clock is in doubt."""
        self.now += by
        before = self.shard.watermark
        self._step(fate, hold=True)
        assert self.shard.watermark == before

    @rule(snapshot=st.booleans(), down=st.one_of(st.just(0), MOVES))
    def restart(self, snapshot: bool, down: int) -> None:
        self.now += down
        self._adopt(snapshot)

    @precondition(lambda self: self.held)
    @rule(
        count=st.integers(1, 5),
        said=st.sampled_from(
            [Status.COMPLETED, Status.COMPLETED, Status.FAILED, Status.QUEUED, Status.LOST, Status.CANCELLED]
        ),
        started=st.booleans(),
    )
    def work(self, count: int, said: Status, started: bool) -> None:
        """The worker ends some of what it holds."""
        for held in sorted(self.held)[:count]:
            self.held.discard(held)
            self._ended(held, said, started)

    @rule()
    def report(self) -> None:
        """The worker reports all it holds."""
        self._report()

    # ---- the machinery ----

    @property
    def shard(self):  # type: ignore[no-untyped-def]
        return self.core.desks[0].shard

    def _adopt(self, snapshot: bool) -> None:
        commits = snapshot_of(self.shard, 2) if snapshot and self.log else self.log
        state = folded(commits)
        if self.log:
            lost = difference(canon(self.shard) | {"epoch": 0}, canon(state) | {"epoch": 0})
            assert not lost, lost
        self.epoch += 1
        self.core = Instance(limit=self.limit)
        self.core.adopt(0, self.epoch, commits, self.now)
        self.core.attach(WORKER)
        applied = self.shard.applied
        left = [c for c in self.feed if c.position[0] > applied[0] or c.position[1] > applied[1]]
        self.feed, self.delivered = [*self.feed[: len(self.feed) - len(left)], *left], len(self.feed) - len(left)
        self.asked = False

    def _deliver(self, count: int) -> None:
        some = self.feed[self.delivered : self.delivered + count]
        self.delivered += len(some)
        assert self.core.receive_changes(0, some)

    def _report(self) -> None:
        self.number += 1
        report = Report(WORKER.ref, self.epoch, self.number, timed=False, full=True, held=sorted(self.held))
        assert self.core.receive_report(0, report, self.now)

    def _ended(self, held: Held, said: Status, started: bool) -> None:
        ends = [End(self.now if started else 0, self.now)]
        block = Block([held.key], [], Demand(), said, held.attempt, ends=ends)
        report = Report(WORKER.ref, self.epoch, self.number, timed=False, ended=[block])
        assert self.core.receive_report(0, report, self.now)

    def _step(self, fate: str, *, hold: bool = False) -> bool:
        before = canon(self.shard)
        commits = self.core.step(self.now, hold=hold)
        assert canon(self.shard) == before, "deciding writes nothing"
        for commit in commits:
            if fate.startswith("unknown"):
                assert self.core.settle(commit, Outcome.UNKNOWN, self.now) is None
                assert self.core.step(self.now + HOUR) == [], "a shard in doubt decides nothing"
            if fate.endswith("refused"):
                assert self.core.settle(commit, Outcome.REFUSED, self.now) is None
                assert canon(self.shard) == before, "of a refused commit nothing is kept"
                continue
            self.book.committed(commit)
            self.log.append(commit)
            effects = self.core.settle(commit, Outcome.COMMITTED, self.now)
            assert effects is not None
            for lease in effects.leases.get(WORKER.ref, ()):
                assert all(body == key.job.encode() for key, body in zip(lease.block.keys, lease.bodies, strict=True))
                if lease.block.report == (self.epoch, self.number):
                    self.held.update(Held(key, lease.block.attempt) for key in lease.block.keys)
            for held, _ in effects.cancels.get(WORKER.ref, ()):
                if held in self.held:
                    self.held.discard(held)
                    self._ended(held, Status.CANCELLED, True)
            if effects.taken_over:
                self._report()
        self._check()
        return bool(commits)

    def _check(self) -> None:
        self.book.check(self.shard)
        fleet = self.core.fleet.taken("w").slots
        held = sum(place.size for place in self.core.desks[0].places)
        assert fleet == self.shard.counts[Status.PLACED] + held, "6: a place was released twice, or never"
        assert fleet <= 5
        backfills.check(self.shard, self.book)
        # `epoch` is raised by the next commit.
        lost = difference(canon(self.shard), canon(folded(snapshot_of(self.shard, 2))))
        assert not lost, lost

    def teardown(self) -> None:
        """Heals: all changes arrive, the worker completes what it gets; then nothing may be left."""
        self.core.limit = max(self.limit, 50)
        self._deliver(len(self.feed))
        for _ in range(5_000):
            for held in sorted(self.held):
                self.held.discard(held)
                self._ended(held, Status.COMPLETED, True)
            went_on = self._step("committed")
            at = self.core.wake_at()
            if at is not None and at > self.now and self._busy():
                self.now = at
            elif not went_on and not self.held:
                break
        else:
            raise AssertionError("it never comes to rest")
        at = self.core.wake_at()
        assert at is None or at > self.now, "it would wake for nothing, again and again"
        self.book.finished(self.shard)
        backfills.finished(self.shard)
        assert canon(folded(self.log)) == canon(self.shard)

    def _busy(self) -> bool:
        """Something that will happen by itself and is not just the next instant."""
        desk, shard = self.core.desks[0], self.shard
        return bool(desk.refused or desk.changes or shard.open or shard.held_commands or shard.owed or shard.gaps)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in SMALL.items():
        monkeypatch.setattr(bounds, name, value)
    return


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink one takes minutes
    )


TestAccounting = Accounting.TestCase
TestAccounting.settings = _settings(int(os.environ.get("DTS_EXAMPLES", "60")))


@pytest.mark.soak
class TestAccountingLong(Accounting.TestCase):  # type: ignore[misc]
    """The same, longer."""

    settings = _settings(int(os.environ.get("DTS_EXAMPLES", "5000")))
