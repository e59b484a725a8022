"""What workers say, on an Instance with one shard: who frees an attempt, what a stale end does, when an execution is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dts import bounds
from dts.core.instance import Instance
from dts.core.policies import retry_delay
from dts.model import (
    Block,
    Cancel,
    Change,
    Command,
    Commit,
    Definition,
    Delivery,
    Demand,
    Effects,
    End,
    Held,
    JobState,
    Key,
    Lease,
    Outcome,
    Policies,
    Report,
    Run,
    Status,
    WorkerInfo,
    WorkerRef,
)

T0 = 1_774_742_400_000
W = WorkerRef("w", "1")
DEFAULT = Policies()
OVER = round(bounds.LEASE_MS * (1 + bounds.LEASE_MARGIN))


class World:
    """One shard, one worker; every step is committed."""

    def __init__(self, policies: Policies = DEFAULT, *, timed: bool = True, slots: int = 4) -> None:
        self.now = T0
        self.core = Instance()
        self.core.adopt(0, 1, [], self.now)
        self.timed, self.number, self.ids = timed, 0, 0
        self.core.attach(WorkerInfo(W, Demand(slots=slots), 0, timed=timed))
        self.leases: list[Lease] = []
        self.cancels: list[tuple[Held, str]] = []
        self.acks: list[Held] = []
        self.beats: list[int] = []
        self.log: list[Commit] = []
        definition = Definition("j", 1, T0 - 1, JobState.ACTIVE, None, (), Demand(), policies, b"body")
        self.core.receive_changes(0, [Change((1, 0), definition)])
        self.step()
        self.full()

    def step(self, by: int = 1_000) -> None:
        """Time passes, then steps until nothing more comes."""
        self.now += by
        for _ in range(20):
            commits = self.core.step(self.now)
            for commit in commits:
                self.log.append(commit)
                effects = self.core.settle(commit, Outcome.COMMITTED, self.now)
                assert effects is not None
                self.take(effects)
            if not commits:
                return

    def take(self, effects: Effects) -> None:
        self.leases += effects.leases.get(W, [])
        self.cancels += effects.cancels.get(W, [])
        self.acks += effects.acks.get(W, [])
        self.beats += [effects.beats[W]] if W in effects.beats else []

    def command(self, command: Command) -> None:
        self.core.receive_changes(0, [Change((1, self.ids), command)])

    def run(self) -> Key:
        """A manual run, placed."""
        self.ids += 1
        id_ = self.ids.to_bytes(16, "little")
        self.command(Run(id_, "j", self.now, self.now + 10**9, 1))
        self.step()
        return Key("j", self.log[-1].now - 1_000, id_.hex()[:12])

    def full(
        self, *held: Held, ended: tuple[Block, ...] = (), worker: WorkerRef = W, number: int | None = None
    ) -> None:
        self.number += 1
        report = Report(worker, 1, number or self.number, self.timed, True, held, ended)
        self.core.receive_report(0, report, self.now)
        self.step()

    def say(self, key: Key, status: Status, attempt: int = 1, *, started: bool = True, worker: WorkerRef = W) -> None:
        self.core.receive_report(
            0, Report(worker, 1, self.number, self.timed, ended=[end(key, status, attempt, started)]), self.now
        )
        self.step()

    def beat(self, beat: int) -> None:
        self.core.receive_report(0, Report(W, 1, self.number, self.timed, beat=beat), self.now)
        self.step()

    def state(self, key: Key) -> Block:
        """The last block about a key."""
        return next(block for commit in reversed(self.log) for block in reversed(commit.blocks) if key in block.keys)


def end(key: Key, status: Status, attempt: int, started: bool = True) -> Block:
    return Block([key], (), Demand(), status, attempt, ends=[End(5 if started else 0, 6)])


def test_a_completed_attempt_is_its_executions_end_and_acknowledged() -> None:
    world = World()
    key = world.run()
    (lease,) = world.leases
    assert (lease.block.report, lease.bodies) == ((1, 1), [b"body"])
    world.say(key, Status.COMPLETED)
    assert world.state(key).status is Status.COMPLETED
    assert world.acks == [Held(key, 1)]
    assert world.core.fleet.taken("w").slots == 0


def test_an_end_of_another_attempt_worker_or_execution_decides_nothing_but_is_acknowledged() -> None:
    world = World()
    key = world.run()
    for attempt, worker in ((2, W), (0, W), (1, WorkerRef("w", "2")), (1, WorkerRef("x", "1"))):
        world.say(key, Status.COMPLETED, attempt, worker=worker)
        assert world.state(key).status is Status.PLACED
    world.say(Key("j", 1, "never"), Status.FAILED)
    assert world.acks == [Held(key, 2), Held(key, 0), Held(Key("j", 1, "never"), 1)]
    world.say(key, Status.COMPLETED)
    world.say(key, Status.FAILED)
    assert world.state(key).status is Status.COMPLETED


def test_only_a_report_numbered_above_the_leases_own_frees_an_attempt() -> None:
    world = World()
    key = world.run()
    world.full(number=1)  # sent before the lease could arrive
    assert world.state(key).attempt == 1
    world.full(Held(key, 1))
    assert world.state(key).attempt == 1
    world.full()
    assert (world.state(key).status, world.state(key).attempt, world.state(key).losses) == (
        Status.PLACED,
        2,
        bounds.LOSS_WAITING,
    )
    assert world.leases[-1].block.report == (1, world.number)


def test_a_report_of_another_epoch_frees_nothing() -> None:
    world = World()
    key = world.run()
    world.core.receive_report(0, Report(W, 0, 99, True, True), world.now)
    world.step()
    assert world.state(key).attempt == 1


def test_what_a_worker_holds_and_is_not_its_own_is_ended_there() -> None:
    world = World()
    key = world.run()
    strange = [Held(Key("j", 7), 1), Held(key, 3)]
    world.full(Held(key, 1), *strange)
    assert sorted(world.cancels) == sorted((held, "no longer yours") for held in strange)


def test_too_many_losses_end_in_lost() -> None:
    world = World()
    key = world.run()
    most = -(-bounds.MAX_LOSSES // bounds.LOSS_WAITING)
    for _ in range(most):
        assert world.state(key).status is Status.PLACED
        world.full()
    assert world.state(key).status is Status.LOST
    assert world.state(key).failures == 0


def test_at_most_once_is_lost_at_once_unless_it_surely_did_not_start() -> None:
    world = World(Policies(delivery=Delivery.AT_MOST_ONCE, max_retries=5))
    handed_back, ran, vanished, failed = world.run(), world.run(), world.run(), world.run()
    world.say(handed_back, Status.QUEUED, started=False)
    world.say(ran, Status.QUEUED, started=True)
    world.say(failed, Status.FAILED)
    world.full(Held(handed_back, 2))
    assert (world.state(handed_back).status, world.state(handed_back).attempt) == (Status.PLACED, 2)
    assert world.state(ran).status is Status.LOST
    assert world.state(vanished).status is Status.LOST
    assert world.state(failed).status is Status.FAILED


def test_failures_are_retried_after_their_delay_then_final() -> None:
    world = World(Policies(max_retries=2, retry_initial=10_000, retry_jitter=0.0))
    key = world.run()
    for failures, delay in ((1, 10_000), (2, 20_000)):
        world.say(key, Status.FAILED, failures)
        assert (world.state(key).status, world.state(key).failures) == (Status.RETRYING, failures)
        assert world.core.wake_at() == world.state(key).not_before == world.now + delay
        world.step(delay - 1_001)
        world.beat(failures)  # who is not heard for a while gets nothing
        assert world.state(key).status is Status.RETRYING
        world.step(1)
        assert (world.state(key).status, world.state(key).attempt) == (Status.PLACED, failures + 1)
    world.say(key, Status.FAILED, 3)
    assert (world.state(key).status, world.state(key).failures) == (Status.FAILED, 3)


def test_nothing_new_goes_to_a_worker_elsewhere_whose_beats_are_missing() -> None:
    world = World(Policies(max_retries=1, retry_initial=60_000, retry_jitter=0.0))
    key = world.run()
    world.say(key, Status.FAILED)
    world.step(16_000)  # three beats
    waiting = world.run()
    assert world.state(waiting).status is Status.QUEUED
    world.beat(1)
    assert world.state(waiting).status is Status.PLACED


def test_a_worker_that_handed_something_back_rests_a_second() -> None:
    world = World()
    key = world.run()
    at = world.now
    world.core.receive_report(0, Report(W, 1, world.number, True, ended=[end(key, Status.QUEUED, 1, False)]), at)
    world.step(0)
    assert world.state(key).status is Status.QUEUED
    assert world.core.wake_at() == at + bounds.HAND_BACK_REST_MS
    world.step(bounds.HAND_BACK_REST_MS - 1)
    assert world.state(key).status is Status.QUEUED
    world.step(1)
    assert (world.state(key).status, world.state(key).attempt) == (Status.PLACED, 2)


def test_a_placed_execution_is_cancelled_when_its_worker_says_so() -> None:
    world = World()
    key = world.run()
    world.command(Cancel(b"c" * 16, key, world.now, world.now + 10**9, "enough"))
    world.step()
    assert world.cancels == [(Held(key, 1), "enough")]
    assert (world.state(key).status, world.state(key).cancel) == (Status.PLACED, "enough")
    assert world.core.fleet.taken("w").slots == 1, "it runs until it has ended"
    world.full(Held(key, 1))
    assert world.cancels[1:] == [(Held(key, 1), "no longer yours")], "told again, should the first have got lost"
    world.say(key, Status.FAILED)
    assert (world.state(key).status, world.state(key).reason) == (Status.CANCELLED, "enough")
    assert world.core.fleet.taken("w").slots == 0


def test_one_that_was_cancelled_and_never_arrived_is_cancelled() -> None:
    world = World(Policies(max_retries=3))
    key = world.run()
    world.command(Cancel(b"c" * 16, key, world.now, world.now + 10**9, "enough"))
    world.step()
    world.full()
    assert world.state(key).status is Status.CANCELLED


def test_what_completed_before_its_cancel_came_is_completed() -> None:
    world = World()
    key = world.run()
    world.command(Cancel(b"c" * 16, key, world.now, world.now + 10**9, "enough"))
    world.step()
    world.say(key, Status.COMPLETED)
    assert world.state(key).status is Status.COMPLETED


def test_a_timed_lease_is_over_after_its_last_answer_and_a_margin() -> None:
    world = World()
    key = world.run()
    world.step(20_000)
    world.beat(5)
    answered = world.log[-1].now
    assert world.beats == [5]
    assert world.core.wake_at() == answered + OVER
    world.core.detach(W)
    world.step(answered + OVER - 1 - world.now)
    assert world.state(key).status is Status.PLACED
    world.step(1)
    assert (world.state(key).status, world.state(key).losses) == (Status.QUEUED, bounds.LOSS_RUNNING)


def test_a_lease_that_is_the_workers_life_does_not_run_out() -> None:
    world = World(timed=False)
    key = world.run()
    assert world.core.wake_at() is None
    world.step(100 * OVER)
    assert world.state(key).status is Status.PLACED
    world.core.receive_report(0, Report(W, 1, 0, False, held=[Held(key, 1)], gone=True), world.now)
    world.step()
    assert (world.state(key).status, world.state(key).losses) == (Status.QUEUED, bounds.LOSS_RUNNING)


def test_a_commit_under_way_while_the_clock_moves_does_not_shorten_a_lease() -> None:
    world = World()
    world.run()
    world.now += bounds.LEASE_MS // bounds.KEEP_ALIVES_PER_LEASE
    world.core.receive_report(0, Report(W, 1, world.number, True, beat=9), world.now)
    (commit,) = world.core.step(world.now)
    world.core.clock_moved(3_600_000)
    effects = world.core.settle(commit, Outcome.COMMITTED, world.now + 3_600_000)
    assert effects is not None
    assert world.core.wake_at() == world.now + 3_600_000 + OVER


def test_a_refused_commit_keeps_what_workers_said() -> None:
    world = World()
    key = world.run()
    world.core.receive_report(0, Report(W, 1, world.number, True, ended=[end(key, Status.COMPLETED, 1)]), world.now)
    (commit,) = world.core.step(world.now)
    assert world.core.settle(commit, Outcome.REFUSED, world.now) is None
    assert world.core.step(world.now) == [], "it waits a little"
    world.step(bounds.REFUSED_BACKOFF_MS[0])
    assert world.state(key).status is Status.COMPLETED


@given(
    failures=st.integers(1, 2_000),
    factor=st.floats(1.0, 10.0),
    initial=st.integers(0, 10**6),
    cap=st.integers(0, 10**9),
    jitter=st.floats(0.0, 1.0),
    job=st.text("abc", min_size=1, max_size=3),
)
def test_retry_delays_are_bounded_and_the_same_everywhere(
    failures: int, factor: float, initial: int, cap: int, jitter: float, job: str
) -> None:
    policies = Policies(retry_initial=initial, retry_cap=cap, retry_factor=factor, retry_jitter=jitter)
    delay = retry_delay(policies, failures, Key(job, T0))
    assert delay == retry_delay(policies, failures, Key(job, T0))
    nominal = min(initial * factor ** min(failures - 1, 64), cap)
    assert nominal * (1 - jitter) - 1 <= delay <= nominal * (1 + jitter) + 1


@pytest.mark.parametrize(
    ("failures", "expected"), [(1, 1_000), (2, 2_000), (9, 256_000), (10, 300_000), (1_000, 300_000)]
)
def test_retry_delays_double_up_to_their_cap(failures: int, expected: int) -> None:
    assert retry_delay(Policies(retry_jitter=0.0), failures, Key("j", T0)) == expected


def test_retry_delays_are_spread() -> None:
    delays = {retry_delay(Policies(), 1, Key(f"j{number}", T0)) for number in range(100)}
    assert len(delays) > 80
    assert 800 <= min(delays) < 850
    assert 1_150 < max(delays) <= 1_200
