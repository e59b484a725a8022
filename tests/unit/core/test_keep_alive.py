"""A shard with nothing to say: quiet in the embedded server, a commit each few seconds in the cluster; and beats that wait for one."""

from __future__ import annotations

import pytest

from dts import bounds
from dts.core.instance import Instance
from dts.model import Demand, Effects, Held, Key, Outcome, Report, WorkerInfo, WorkerRef

L = 60_000
THIRD = L // bounds.KEEP_ALIVES_PER_LEASE
T0 = 1_800_000_000_000
FAR = WorkerInfo(WorkerRef("far", "1"), Demand(slots=2), backlog=0, timed=True)


def owner(keep_alive_ms: int = 0) -> Instance:
    """One that has taken over; a timed worker has reported."""
    core = Instance(lease_ms=L, keep_alive_ms=keep_alive_ms)
    core.adopt(0, 1, (), T0)
    core.attach(FAR)
    step(core, T0)
    core.receive_report(0, Report(FAR.ref, 1, 1, full=True), T0)
    step(core, T0)
    assert not core.desks[0].reports
    return core


def step(core: Instance, now: int, *, hold: bool = False) -> Effects | None:
    commits = core.step(now, hold=hold)
    return core.settle(commits[0], Outcome.COMMITTED, now) if commits else None


def test_without_it_an_idle_shard_makes_no_commit() -> None:
    core = owner()
    assert core.wake_at() is None
    assert core.step(T0 + 10 * L) == []


def test_with_it_the_watermark_is_told_each_few_seconds() -> None:
    core = owner(bounds.IDLE_COMMIT_MS)
    for number in range(1, 4):
        at = T0 + number * bounds.IDLE_COMMIT_MS
        assert core.wake_at() == at
        assert core.step(at - 1) == []
        (commit,) = core.step(at)
        assert commit.watermark[0] == at
        core.settle(commit, Outcome.COMMITTED, at + 7)


def test_it_is_never_slower_than_a_third_of_a_lease() -> None:
    assert Instance(lease_ms=6_000, keep_alive_ms=bounds.IDLE_COMMIT_MS).keep_alive_ms == 2_000


def test_while_the_clock_is_in_doubt_it_goes_on_faster_and_the_watermark_stays() -> None:
    core = owner(bounds.IDLE_COMMIT_MS)
    stands = core.desks[0].shard.watermark
    at = T0 + bounds.HOLD_COMMIT_MS
    assert core.wake_at(hold=True) == at
    (commit,) = core.step(at, hold=True)
    assert commit.watermark == stands


def test_a_beat_waits_for_a_commit_but_not_longer_than_a_third_of_a_lease() -> None:
    core = owner()
    core.receive_report(0, Report(FAR.ref, 1, 1, beat=3), T0 + 5_000)
    core.receive_report(0, Report(FAR.ref, 1, 1, beat=4), T0 + 10_000)
    assert core.wake_at() == T0 + THIRD
    assert step(core, T0 + THIRD - 1) is None
    effects = step(core, T0 + THIRD)
    assert effects is not None
    assert effects.beats == {FAR.ref: 4}
    assert core.wake_at() is None


def test_a_beat_goes_with_what_is_committed_anyway() -> None:
    core = owner()
    core.receive_report(0, Report(FAR.ref, 1, 1, beat=3), T0 + 5_000)
    core.receive_report(0, Report(FAR.ref, 1, 2, full=True, held=[Held(Key("a", 1), 1)]), T0 + 6_000)
    effects = step(core, T0 + 6_000)
    assert effects is not None
    assert effects.beats == {FAR.ref: 3}


def test_more_beats_than_a_step_takes_wait_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "STEP_REPORTS", 2)
    core = owner()
    for beat in range(1, 6):
        core.receive_report(0, Report(FAR.ref, 1, 1, beat=beat), T0 + 5_000)
    answered = [step(core, T0 + THIRD) for _ in range(3)]
    assert [each.beats[FAR.ref] for each in answered if each is not None] == [2, 4, 5]


def test_a_beat_whose_lease_is_over_is_answered_at_once() -> None:
    """Nothing is placed at such a worker before: what waits would wait for it."""
    core = owner()
    late = T0 + 2 * L
    core.detach(WorkerRef("other", "1"))
    core.desks[0].committed = late - 1
    core.receive_report(0, Report(FAR.ref, 1, 1, beat=3), late)
    effects = step(core, late)
    assert effects is not None
    assert effects.beats == {FAR.ref: 3}


def test_a_refused_keep_alive_is_tried_again_after_the_pause() -> None:
    core = owner(bounds.IDLE_COMMIT_MS)
    at = T0 + bounds.IDLE_COMMIT_MS
    (commit,) = core.step(at)
    core.settle(commit, Outcome.REFUSED, at)
    assert core.step(at) == []
    assert core.step(at + bounds.REFUSED_BACKOFF_MS[0])
