"""What the owner believes of timed leases: they were found by simulation (tests/simulation), one case each."""

from __future__ import annotations

import pytest

from dts import bounds
from dts.core.instance import Instance
from dts.model import (
    Block,
    Change,
    Definition,
    Demand,
    Effects,
    End,
    Held,
    JobState,
    Key,
    Outcome,
    Policies,
    Report,
    Run,
    Status,
    WorkerInfo,
    WorkerRef,
)

L = 60_000
OVER = round(L * (1 + bounds.LEASE_MARGIN))
T0 = 1_800_000_000_000
FAR = WorkerInfo(WorkerRef("far", "1"), Demand(slots=2), backlog=0, timed=True)


class Owner:
    """One that has taken over, with a job that runs when it is told to."""

    def __init__(self) -> None:
        self.core = Instance(lease_ms=L)
        self.core.adopt(0, 1, (), T0)
        self.core.attach(FAR)
        self.step(T0)
        job = Definition("j", 1, T0, JobState.ACTIVE, None, (), Demand(), Policies(), b"j")
        self.core.receive_changes(0, [Change((1, 0), job)])
        self.step(T0 + 100)

    def step(self, now: int) -> Effects | None:
        commits = self.core.step(now)
        return self.core.settle(commits[0], Outcome.COMMITTED, now) if commits else None

    def report(self, now: int, number: int, *held: Held) -> None:
        self.core.receive_report(0, Report(FAR.ref, 1, number, full=True, held=held), now)

    def beat(self, now: int, number: int, beat: int) -> None:
        self.core.receive_report(0, Report(FAR.ref, 1, number, beat=beat), now)

    def run(self, now: int, number: int) -> Key:
        """Asks for one execution; its key."""
        command = Run(number.to_bytes(2, "big") + bytes(14), "j", now, now + 600_000, 1)
        self.core.receive_changes(0, [Change((0, number), command)])
        return Key("j", now, command.id.hex()[:12])

    def block(self, key: Key) -> Block:
        return self.core.desks[0].shard.open[key][0]


def test_what_is_placed_after_a_report_is_not_lost_while_the_report_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease runs from the report, also if that report is the 513th in the inbox: or it would run twice."""
    owner = Owner()
    owner.report(T0 + 200, 1)
    owner.step(T0 + 200)
    held = owner.run(T0 + 300, 1)
    owner.step(T0 + 300)
    monkeypatch.setattr(bounds, "STEP_REPORTS", 1)
    late = T0 + 200 + OVER + 1
    owner.core.receive_report(
        0, Report(FAR.ref, 1, 1, ended=[Block([held], (), Demand(), Status.FAILED, 1, ends=[End()])]), late
    )
    owner.report(late, 2)
    key = owner.run(late, 2)
    owner.step(late)  # takes the first report only
    owner.step(late + 10)
    assert owner.block(key).status is Status.PLACED
    assert owner.block(key).attempt == 1
    assert owner.block(key).report == (1, 2)


def test_nothing_is_placed_on_a_lease_that_is_over() -> None:
    """A worker that fell silent and whose stream nobody saw break: it would be lost there again and again, five times."""
    owner = Owner()
    owner.report(T0 + 200, 1)
    owner.step(T0 + 200)
    key = owner.run(T0 + 300, 1)
    owner.step(T0 + 300)
    assert owner.block(key).status is Status.PLACED
    silent = T0 + 300 + OVER
    for wait in range(0, 1_000, 100):
        owner.step(silent + wait)
    assert (owner.block(key).status, owner.block(key).losses) == (Status.QUEUED, bounds.LOSS_RUNNING)
    owner.beat(silent + 2_000, 1, 7)
    owner.step(silent + 2_000)  # answers it
    effects = owner.step(silent + 2_001)
    assert effects is not None
    assert owner.block(key).status is Status.PLACED
    assert owner.block(key).attempt == 2


def test_a_corrected_clock_ends_no_lease_sooner() -> None:
    """Two seconds of a clock that is set are more than a lease's margin of 5 %."""
    owner = Owner()
    owner.report(T0 + 200, 1)
    owner.step(T0 + 200)
    key = owner.run(T0 + 300, 1)
    owner.step(T0 + 300)
    owner.core.clock_moved(1_900)
    owner.step(T0 + 200 + OVER + 1_000)
    assert owner.block(key).status is Status.PLACED
    owner.step(T0 + 200 + OVER + 1_900)
    assert owner.block(key).status is Status.QUEUED
