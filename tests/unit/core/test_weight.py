"""No step makes a commit of more bytes than the bound, whatever comes at once; and the estimate is from above."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dts import bounds
from dts.adapters.commitcodec import commit_out
from dts.adapters.kafka import settings
from dts.core import snapshot
from dts.core.draft import Draft
from dts.core.instance import Instance
from dts.core.shard import folded
from dts.core.snapshot import snapshot as snapshot_of
from dts.core.weight import weight
from dts.model import (
    Block,
    Change,
    Commit,
    Definition,
    Demand,
    End,
    JobState,
    Key,
    Outcome,
    Owed,
    Policies,
    Range,
    Report,
    Run,
    ScheduleSpec,
    Status,
    WorkerInfo,
    WorkerRef,
)

MIB = 1024 * 1024
T0 = 1_800_000_000_000
BODY = b"b" * (60 * 1024)
W = WorkerRef("w", "1")
EVERY = (ScheduleSpec("@every 1m"),)


class World:
    """One owner; every commit is encoded and measured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounds, "STEP_BYTES", MIB)
        self.core = Instance()
        self.core.adopt(0, 1, (), T0)
        self.now = T0
        self.sizes: list[int] = []
        self.feed = 0
        self.commands = 0
        self.settle()

    @property
    def shard(self):  # type: ignore[no-untyped-def]
        return self.core.desks[0].shard

    def settle(self, by: int = 1_000) -> None:
        """Steps until there is nothing more to decide."""
        self.now += by
        while True:
            for commit in self.core.step(self.now):
                self.sizes.append(len(commit_out(commit)))
                self.core.settle(commit, Outcome.COMMITTED, self.now)
            at = self.core.wake_at()
            if at is None or at > self.now + bounds.CHANGES_LINGER_MS:
                return
            self.now = max(self.now, at)

    def change(self, *definitions: Definition) -> None:
        changes = []
        for each in definitions:
            self.feed += 1
            changes.append(Change((self.feed, 0), each))
        assert self.core.receive_changes(0, changes)

    def run(self, job: str, revision: int = 1, arguments: bytes = BODY) -> Key:
        self.commands += 1
        id = self.commands.to_bytes(6, "big") + bytes(10)
        command = Run(id, job, self.now, self.now + bounds.COMMAND_EXPIRY_MS, revision, arguments)
        assert self.core.receive_changes(0, [Change((0, self.commands), command)])
        return Key(job, self.now, id.hex()[:12])

    def attach(self, slots: int) -> None:
        self.core.attach(WorkerInfo(W, Demand(slots=slots), 0, timed=False))
        self.core.receive_report(0, Report(W, 1, 1, timed=False, full=True), self.now)
        self.settle()

    def check(self) -> None:
        assert max(self.sizes) <= MIB
        self.sizes.clear()


def job(name: str, revision: int = 1, since: int = T0, **changes: object) -> Definition:
    made = Definition(name, revision, since, JobState.ACTIVE, None, EVERY, Demand(), Policies(), BODY)
    return made._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_many_large_changes(world: World) -> None:
    world.change(*(job(f"j{n}") for n in range(300)))
    world.settle()
    assert len(world.shard.definitions) == 300
    world.check()


def test_many_large_late_changes_are_owed_in_parts(world: World) -> None:
    world.change(*(job(f"j{n}") for n in range(100)))
    world.settle(3_600_000)
    world.change(*(job(f"j{n}", 2, T0 + 60_001) for n in range(100)))
    world.settle()
    assert all(each.revision == 2 for each in world.shard.definitions.values())
    assert not world.shard.owed
    world.check()


def test_many_large_jobs_after_an_outage(world: World) -> None:
    world.change(*(job(f"j{n}", policies=Policies(misfire="run_all", misfire_limit=7)) for n in range(100)))  # type: ignore[arg-type]
    world.settle()
    world.sizes.clear()
    world.settle(3_600_000)
    assert len(world.shard.open) >= 700
    world.check()


def test_many_runs_with_large_arguments_begin_are_placed_end_and_are_told(world: World) -> None:
    world.change(job("a"))
    world.settle()
    world.attach(200)
    keys = [world.run("a") for _ in range(200)]
    world.settle(10)
    assert world.shard.counts[Status.PLACED] == 200
    end = End(1, 2, 1, "e" * bounds.ERROR_BYTES, "r" * bounds.RESULT_BYTES)
    for start in range(0, 200, 10):
        some = keys[start : start + 10]
        ended = Block(some, (), Demand(), Status.FAILED, attempt=1, ends=[end] * 10)
        assert world.core.receive_report(0, Report(W, 1, 1, timed=False, ended=[ended]), world.now)
    world.settle(10)
    assert not world.shard.open
    world.check()


@pytest.mark.parametrize("timed", [True, False])
def test_a_worker_is_lost_with_much(world: World, timed: bool) -> None:
    world.change(job("a"))
    world.settle()
    world.core.attach(WorkerInfo(W, Demand(slots=100), 0, timed=timed))
    world.core.receive_report(0, Report(W, 1, 1, timed=timed, full=True), world.now)
    world.settle()
    for _ in range(100):
        world.run("a")
    world.settle(10)
    assert world.shard.counts[Status.PLACED] == 100
    world.core.detach(W)
    if timed:
        world.settle(bounds.LEASE_MS * 2)
    else:
        world.core.receive_report(0, Report(W, 1, 0, timed=False, gone=True), world.now)
        world.settle(10)
    assert world.shard.counts[Status.PLACED] == 0
    assert sum(1 for key in world.shard.open if key.nonce) == 100
    assert not world.core.desks[0].reports
    world.check()


def test_a_job_ends_with_many_large_runs_open(world: World) -> None:
    world.change(job("a", schedules=()))
    world.settle()
    for _ in range(300):
        world.run("a")
    world.settle()
    world.sizes.clear()
    world.change(job("a", 2, world.now, state=JobState.DELETED))
    world.settle()
    assert not world.shard.open
    world.check()


def test_commands_that_wait_in_vain_are_so_many_at_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "HELD_COMMANDS", 3)
    world.change(job("a"))
    world.settle()
    keys = [world.run("a", revision=9) for _ in range(5)]
    world.settle()
    assert [each.issued for each in world.shard.held_commands] == [keys[0].at] * 3
    assert all(key not in world.shard.open for key in keys)
    world.change(job("a", 9, world.now))
    world.settle()
    assert {key for key in world.shard.open if key.nonce} == set(keys[:3])


def test_a_snapshot_is_cut_by_bytes_and_folds_to_the_same_state(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PART_BYTES", MIB // 4)
    world.change(*(job(f"j{n:03d}") for n in range(60)))
    world.settle()
    for n in range(60):
        world.run(f"j{n:03d}")
    world.settle()
    world.change(*(job(f"j{n:03d}", 2, world.now) for n in range(30)))  # the old revisions are kept
    world.settle()
    assert len(world.shard.kept) == 30
    commits = snapshot_of(world.shard, 5_000)
    assert len(commits) > 10
    assert max(len(commit_out(each)) for each in commits) <= MIB
    again = folded(0, commits)
    assert again.definitions == world.shard.definitions
    assert again.kept == world.shard.kept
    assert list(again.open) == list(world.shard.open)
    assert (again.seq, again.watermark, again.commands) == (
        world.shard.seq,
        world.shard.watermark,
        world.shard.commands,
    )


def test_the_bounds_hold_together() -> None:
    assert 2 * bounds.STEP_BYTES <= settings.COMMIT_BYTES


texts = st.text(max_size=40)
names = st.text("abcdefghij.-_", min_size=1, max_size=64)
definitions = st.builds(
    lambda name, body, specs, selector: job(
        name,
        body=body,
        schedules=tuple(ScheduleSpec(text, "Europe/Berlin", 1, 2, "shift", "both") for text in specs),
        demand=Demand(cpu=1, custom=tuple((f"c{n}", 2**31 - 1) for n in range(len(selector))), selector=selector),
    ),
    names,
    st.binary(max_size=300),
    st.lists(texts, max_size=4),
    texts,
)
keys = st.builds(Key, names, st.integers(0, 2**42), st.sampled_from(["", "0123456789ab"]))


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    draft = Draft(0, 2**40, 2**40, 2**41, (2**41, "j" * 64), (2**50, 2**50), (), ())
    for _ in range(draw(st.integers(0, 3))):
        some = draw(st.lists(keys, min_size=1, max_size=5))
        ends = draw(st.lists(st.builds(End, st.just(2**41), st.just(2**41), st.just(-1), texts, texts), max_size=0))
        if draw(st.booleans()):
            ends = [End(2**41, 2**41, -1, draw(texts), draw(texts)) for _ in some]
        draft.decided.append(
            Block(
                some,
                [2**31 - 1] * len(some),
                Demand(cpu=5, selector=draw(texts)),
                Status.RETRYING,
                2**31 - 1,
                queued=2**41,
                not_before=2**41,
                failures=99,
                losses=99,
                worker=WorkerRef("w" * 64, "i" * 36),
                report=(2**40, 2**40),
                fencing=2**40,
                placed=2**41,
                reason=draw(texts),
                ends=ends,
                arguments=draw(st.binary(max_size=99)),
                retry_of="x" * 100,
            )
        )
    draft.definitions = draw(st.lists(definitions, max_size=3))
    draft.kept = draw(st.lists(definitions, max_size=2))
    for definition in draw(st.lists(definitions, max_size=3)):
        draft.owed[definition.job] = (Owed(definition, 2**41, 2**41, (2**41,) * 9),)
    draft.ranges = [
        Range(each, 2**31 - 1, 2**41, 2**41, 2**31 - 1, "r" * 60) for each in draw(st.lists(names, max_size=3))
    ]
    draft.answers = [(b"i" * 16, each) for each in draw(st.lists(names, max_size=3))]
    draft.held_commands = tuple(
        Run(b"i" * 16, each, 2**41, 2**41, 2**31 - 1, b"a" * 99) for each in draw(st.lists(names, max_size=3))
    )
    draft.commands = [b"i" * 16] * draw(st.integers(0, 5))
    return draft


@given(drafts())
def test_the_estimate_is_from_above(draft: Draft) -> None:
    commit: Commit = draft.seal([])
    assert len(commit_out(commit)) <= weight(draft) + 512
