"""Backfills in the core: how many run at once, what each one counts, how it ends, and that its state is folded."""

from __future__ import annotations

import pytest

from dts import bounds
from dts.core.instance import Instance
from dts.core.shard import Shard
from dts.core.snapshot import snapshot as snapshot_of
from dts.model import (
    ENDS,
    Backfill,
    BackfillState,
    Block,
    Cancel,
    Cause,
    Change,
    Command,
    Commit,
    Definition,
    Demand,
    End,
    Held,
    JobState,
    Key,
    Outcome,
    Policies,
    Report,
    Run,
    ScheduleSpec,
    StartBackfill,
    Status,
    StopBackfill,
    WorkerInfo,
    WorkerRef,
    new_key,
)
from tests.simulation.states import canon, folded

T0 = 1_774_742_400_000  # midnight UTC
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
HOURLY = (ScheduleSpec("@every 1h"),)
W = WorkerRef("w", "1")
STEPS = 10_000


class Driver:
    """One shard with one worker that is told to hold or to complete what it gets."""

    def __init__(self, *, limit: int = 2_500, slots: int = 1_000) -> None:
        self.now = T0
        self.core = Instance(limit=limit)
        self.slots = slots
        self.log: list[Commit] = []
        self.held: set[Held] = set()
        self.answers: dict[bytes, str] = {}
        self.most = 0
        self.position = 0
        self.ids = 0
        self.epoch = 0
        self.adopt([])

    def adopt(self, commits: list[Commit]) -> None:
        self.epoch += 1
        self.core = Instance(limit=self.core.limit)
        self.core.adopt(0, self.epoch, commits, self.now)
        self.core.attach(WorkerInfo(W, Demand(slots=self.slots), 0, timed=False))
        self.steps()
        self.core.receive_report(0, Report(W, self.epoch, 1, timed=False, full=True, held=sorted(self.held)), self.now)
        self.steps()

    @property
    def shard(self) -> Shard:
        return self.core.desks[0].shard

    def put(self, job: str, state: JobState = JobState.ACTIVE, policies: Policies | None = None) -> None:
        old = self.shard.definitions.get(job)
        revision = old.revision + 1 if old else 1
        schedules = () if job == "idle" else HOURLY
        self.receive(Definition(job, revision, self.now, state, None, schedules, Demand(), policies or Policies(), b""))
        self.now += bounds.CHANGES_LINGER_MS
        self.steps()

    def receive(self, value: Definition | Command) -> None:
        self.position += 1
        position = (self.position, 0) if isinstance(value, Definition) else (0, self.position)
        self.core.receive_changes(0, [Change(position, value)])

    def start(self, after: int, until: int, parallel: int = 10, job: str = "a", revision: int = 0) -> str:
        """A backfill of (T0 + after, T0 + until]; its nonce."""
        self.ids += 1
        id = self.ids.to_bytes(4, "big") + bytes(12)
        command = StartBackfill(id, job, self.now, self.now + DAY, revision, T0 + after, T0 + until, parallel)
        self.receive(command)
        self.steps()
        return id.hex()[:12]

    def stop(self, nonce: str, job: str = "a") -> str:
        self.ids += 1
        id = self.ids.to_bytes(4, "big") + bytes(12)
        self.receive(StopBackfill(id, job, self.now, self.now + DAY, nonce, "not needed"))
        self.steps()
        return self.answers[id]

    def steps(self) -> None:
        for _ in range(STEPS):
            commits = self.core.step(self.now)
            for commit in commits:
                self.log.append(commit)
                self.answers.update(commit.answers)
                effects = self.core.settle(commit, Outcome.COMMITTED, self.now)
                assert effects is not None
                for lease in effects.leases.get(W, ()):
                    self.held.update(Held(key, lease.block.attempt) for key in lease.block.keys)
                for held, _ in effects.cancels.get(W, ()):
                    if held in self.held:
                        self.end([held], Status.CANCELLED)
            self.most = max(self.most, len(self.shard.open))
            if not commits:
                return
        raise AssertionError("it never comes to rest")

    def end(self, what: list[Held], status: Status = Status.COMPLETED) -> None:
        for held in what:
            self.held.discard(held)
            block = Block([held.key], [], Demand(), status, held.attempt, ends=[End(self.now, self.now)])
            self.core.receive_report(0, Report(W, self.epoch, 1, timed=False, ended=[block]), self.now)

    def work(self, status: Status = Status.COMPLETED) -> None:
        """The worker ends all it gets, until there is no more."""
        while self.held:
            self.end(sorted(self.held), status)
            self.steps()

    def made(self, nonce: str) -> list[Key]:
        keys = {key for commit in self.log for block in commit.blocks for key in block.keys if key.nonce == nonce}
        return sorted(keys)

    def tally(self, nonce: str) -> dict[Status, int]:
        return {status: n for status, n in zip(ENDS, self.shard.backfills[nonce].tally, strict=True) if n}


def test_each_instant_of_the_range_runs_once_and_no_more_than_so_many_at_a_time() -> None:
    driver = Driver()
    driver.put("a")
    nonce = driver.start(-10 * DAY, -DAY, parallel=7)
    assert (len(driver.shard.open), driver.shard.backfills[nonce].size) == (7, 9 * 24)
    driver.work()
    assert [key.at for key in driver.made(nonce)] == list(range(T0 - 10 * DAY + HOUR, T0 - DAY + 1, HOUR))
    assert driver.most == 7
    found = driver.shard.backfills[nonce]
    assert (found.state, found.started, found.open, found.ended) == (BackfillState.DONE, 9 * 24, 0, driver.now)
    assert driver.tally(nonce) == {Status.COMPLETED: 9 * 24}
    assert driver.answers[found.id] == str(found) == f"a~{nonce}"
    causes = {block.cause for commit in driver.log for block in commit.blocks}
    assert causes == {Cause.BACKFILL}, "the instants have their own verdicts"


def test_the_step_s_limit_cuts_a_wide_backfill() -> None:
    driver = Driver(limit=10)
    driver.put("a")
    nonce = driver.start(-10 * DAY, -DAY, parallel=100)
    assert len(driver.shard.open) == 100
    assert max(len(block.keys) for commit in driver.log for block in commit.blocks) <= 10
    driver.work()
    assert len(driver.made(nonce)) == 9 * 24


@pytest.mark.parametrize("snapshot", [False, True])
def test_it_goes_on_where_it_was_after_a_take_over(snapshot: bool) -> None:
    driver = Driver()
    driver.put("a")
    nonce = driver.start(-10 * DAY, -DAY, parallel=5)
    for _ in range(10):
        driver.end(sorted(driver.held)[:3])
        driver.steps()
    commits = snapshot_of(driver.shard, 3) if snapshot else driver.log
    assert canon(folded(commits)) == canon(driver.shard)
    before = driver.shard.backfills[nonce]
    assert (before.started, before.open) == (35, 5)
    driver.adopt(list(commits))
    driver.work()
    assert len(driver.made(nonce)) == 9 * 24
    assert driver.tally(nonce) == {Status.COMPLETED: 9 * 24}


def test_one_that_is_cancelled_starts_nothing_more_and_ends_what_is_open() -> None:
    driver = Driver(slots=2)
    driver.put("a")
    nonce = driver.start(-10 * DAY, -DAY, parallel=5)
    driver.end(sorted(driver.held))
    driver.steps()
    assert driver.stop(nonce) == f"a~{nonce}"
    found = driver.shard.backfills[nonce]
    assert (found.state, found.reason, found.started, found.open) == (BackfillState.CANCELLED, "not needed", 7, 0)
    assert driver.tally(nonce) == {Status.COMPLETED: 2, Status.CANCELLED: 5}
    assert not driver.shard.open
    assert not driver.held
    assert "is over" in driver.stop(nonce)
    assert "is not known" in driver.stop("0123456789ab")
    assert "is not known" in driver.stop(nonce, job="b")


def test_what_ends_otherwise_is_counted_so() -> None:
    driver = Driver()
    driver.put("a", policies=Policies(max_retries=1, retry_initial=1_000, retry_jitter=0))
    nonce = driver.start(-DAY, -DAY + 4 * HOUR, parallel=2)
    driver.end(sorted(driver.held), Status.FAILED)
    driver.steps()
    assert driver.shard.backfills[nonce].started == 2, "what is tried again is open"
    driver.now += 1_000
    driver.steps()
    driver.end(sorted(driver.held), Status.FAILED)
    driver.steps()
    key = min(driver.held).key
    driver.receive(Cancel(b"c" * 16, key, driver.now, driver.now + DAY))
    driver.steps()
    driver.work()
    assert driver.tally(nonce) == {Status.COMPLETED: 1, Status.FAILED: 2, Status.CANCELLED: 1}
    assert driver.shard.backfills[nonce].state is BackfillState.DONE


@pytest.mark.parametrize(("state", "why"), [(JobState.CANCELLED, "job cancelled"), (JobState.DELETED, "job deleted")])
def test_the_end_of_its_job_ends_it(state: JobState, why: str) -> None:
    driver = Driver()
    driver.put("a")
    nonce = driver.start(-DAY, -HOUR, parallel=3)
    driver.put("a", state)
    found = driver.shard.backfills[nonce]
    assert (found.state, found.reason, found.started, found.open) == (BackfillState.CANCELLED, why, 3, 0)
    assert not driver.shard.open


def test_a_paused_job_is_backfilled_and_a_change_meanwhile_counts_for_what_comes_after() -> None:
    driver = Driver()
    driver.put("a", JobState.PAUSED)
    nonce = driver.start(-DAY, -DAY + 4 * HOUR, parallel=2)
    driver.put("a", JobState.PAUSED)
    driver.work()
    revisions = {
        key: revision
        for commit in driver.log
        for block in commit.blocks
        for key, revision in zip(block.keys, block.revisions, strict=True)
    }
    assert [revisions[key] for key in driver.made(nonce)] == [1, 1, 2, 2]
    assert driver.shard.kept == {}


def test_what_cannot_be_backfilled_is_refused_with_the_reason() -> None:
    driver = Driver()
    driver.put("a")
    driver.put("idle")
    driver.put("off", JobState.CANCELLED)

    def refused(after: int, until: int, job: str = "a") -> str:
        nonce = driver.start(after, until, job=job)
        assert nonce not in driver.shard.backfills
        return next(answer for id, answer in driver.answers.items() if id.hex()[:12] == nonce)

    assert "has no schedule" in refused(-DAY, 0, "idle")
    assert "is cancelled" in refused(-DAY, 0, "off")
    assert "no instant in that range" in refused(1, MINUTE)
    assert f"at most {bounds.BACKFILL_INSTANTS}" in refused(-T0, 100 * 365 * DAY)
    for _ in range(bounds.BACKFILLS_RUNNING):
        driver.start(-DAY, 0, parallel=1)
    assert f"{bounds.BACKFILLS_RUNNING} backfills are running" in refused(-DAY, 0)


def test_one_that_comes_twice_is_one_and_one_that_comes_too_late_says_so() -> None:
    driver = Driver()
    driver.put("a")
    start = StartBackfill(b"s" * 16, "a", T0, T0 + DAY, 1, T0 - DAY, T0 - DAY + HOUR, 1)
    for _ in range(2):
        driver.receive(start)
        driver.steps()
    driver.work()
    assert len(driver.made("73" * 6)) == 1
    late = StartBackfill(b"t" * 16, "unknown", T0, T0 + HOUR, 1, T0 - DAY, T0, 1)
    driver.receive(late)
    driver.steps()
    assert driver.shard.held_commands == (late,)
    driver.now = T0 + HOUR
    driver.steps()
    found = driver.shard.backfills["74" * 6]
    assert (found.state, found.reason, driver.answers[late.id][:10]) == (
        BackfillState.CANCELLED,
        "expired",
        "!NOT_FOUND",
    )


def test_the_oldest_that_is_over_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "BACKFILLS_KNOWN", 3)
    driver = Driver()
    driver.put("a")
    running = driver.start(-DAY, -HOUR, parallel=1)
    over: list[str] = []
    for _ in range(4):
        driver.now += 1
        over.append(driver.start(-DAY, -DAY + HOUR))
        mine = [held for held in driver.held if held.key.nonce == over[-1]]
        driver.end(mine)
        driver.steps()
    assert list(driver.shard.backfills) == [running, *over[-2:]]
    assert canon(folded(driver.log)) == canon(driver.shard)


def test_a_backfill_knows_its_names() -> None:
    one = Backfill(bytes(range(16)), "a", T0, 0, 10, HOURLY, 1, 5, 3, started=4, tally=(1, 0, 0, 2, 0))
    assert (one.nonce, one.open, str(one)) == ("000102030405", 1, "a~000102030405")


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_repeat_of_a_command_that_was_issued_later_is_answered_with_what_the_first_one_made(snapshot: bool) -> None:
    driver = Driver()
    driver.put("idle")
    first = Run(b"r" * 16, "idle", driver.now, driver.now + DAY, 1)
    driver.receive(first)
    driver.steps()
    made = str(new_key(first))
    driver.work()
    driver.adopt(snapshot_of(driver.shard, 3) if snapshot else driver.log)
    driver.answers.clear()
    driver.now += MINUTE
    driver.receive(first._replace(issued=driver.now))
    driver.steps()
    assert driver.answers == {first.id: made}
