"""Ledger: commits are kept whole or not at all, only from the shard's owner, and `open` gives back what they add up to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dts.adapters.memory import Fate
from dts.errors import Bug, OwnershipLost
from dts.model import (
    START,
    Backfill,
    BackfillState,
    Block,
    Cancel,
    Close,
    Command,
    Commit,
    End,
    Gap,
    Key,
    Outcome,
    Owed,
    Range,
    Run,
    ScheduleSpec,
    Status,
    Term,
)
from dts.ports import Ledger
from tests.conformance.values import BIG, SLOT, WORKER, block, commit, definition, revision
from tests.conformance.worlds import KAFKA, WITH_KAFKA, Store, World, make_world, opened

KINDS = WITH_KAFKA

KEYS = [Key(job, at, nonce) for job in ("a", "b", "c") for at in (1_000, 2_000, 3_000) for nonce in ("", "0f")]


@dataclass
class Folded:
    """What commits add up to, in the plainest way."""

    seq: int = 0
    watermark: tuple[int, str] = START
    applied: tuple[int, int] = (0, 0)
    open: dict[Key, Block] = field(default_factory=dict)
    owed: dict[str, tuple[Owed, ...]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    waiting: tuple[Command, ...] = ()
    terms: set[tuple[str, int]] = field(default_factory=set)
    commands: set[bytes] = field(default_factory=set)
    backfills: dict[str, Backfill] = field(default_factory=dict)


def fold(commits: Iterable[Commit]) -> Folded:
    got = Folded()
    for each in commits:
        got.seq, got.watermark, got.applied = each.seq, each.watermark, each.applied
        got.gaps, got.waiting = tuple(each.gaps), tuple(each.waiting)
        got.commands.update(each.commands)
        got.terms.update((term.job, term.revision) for term in each.opened)
        got.terms.difference_update((close.job, close.revision) for close in each.closed)
        got.owed = {job: pieces for job, pieces in {**got.owed, **dict(each.owed)}.items() if pieces}
        got.backfills.update((one.nonce, one) for one in each.backfills)
        got.backfills = {name: one for name, one in got.backfills.items() if one.state is not BackfillState.FORGOTTEN}
        for all_ in each.blocks:
            for place, key in enumerate(all_.keys):
                ends = [all_.ends[place]] if all_.ends else []
                one = replace(all_, keys=[key], revisions=[all_.revisions[place]], ends=ends)
                got.open.pop(key, None)
                if not one.status.terminal:
                    got.open[key] = one
    return got


async def take(ledger: Ledger) -> tuple[int, list[Commit]]:
    epoch, commits = await ledger.open(0)
    return epoch, [each async for each in commits]


async def end(ledger: Ledger, one: Commit) -> Outcome:
    """The definite outcome."""
    outcome = await ledger.commit(one)
    return await ledger.resolve(one) if outcome is Outcome.UNKNOWN else outcome


async def test_a_new_shard_is_empty_and_each_opening_raises_the_epoch(world: World) -> None:
    async with opened(world) as store:
        first, commits = await take(store.ledger)
        assert fold(commits) == Folded()
        second, _ = await take(store.ledger)
        assert second > first


async def test_what_was_committed_is_there_after_reopening(world: World) -> None:
    keys = [Key("a", 1_000), Key("b", 1_000), Key("c", 1_000, "0f")]
    async with opened(world) as store:
        epoch, _ = await take(store.ledger)
        placed = block(keys, Status.PLACED, 1, fencing=1, report=(1, 7), placed=99, queued=98, life=True)
        assert await store.ledger.commit(commit(epoch, 1, blocks=[placed])) is Outcome.COMMITTED
        done = block(keys[:1], Status.COMPLETED, 1)
        again = block(
            keys[1:2], Status.RETRYING, 1, ends=[End(1, 2, 3, "no", "")], not_before=7, failures=1, demand=BIG
        )
        assert await store.ledger.commit(commit(epoch, 2, blocks=[done, again])) is Outcome.COMMITTED
    async with opened(world) as store:
        _, commits = await take(store.ledger)
        got = fold(commits)
        assert (got.seq, got.watermark) == (2, (2_000, "~"))
        assert got.open == {
            keys[1]: again,
            keys[2]: replace(placed, keys=[keys[2]], revisions=[1], ends=[]),
        }


async def test_a_former_owner_is_fenced(world: World) -> None:
    async with opened(world) as store:
        old, _ = await take(store.ledger)
        assert await store.ledger.commit(commit(old, 1)) is Outcome.COMMITTED
        new, _ = await take(store.ledger)
        with pytest.raises(OwnershipLost):
            await store.ledger.commit(commit(old, 2, blocks=[block(KEYS[:1], Status.QUEUED)]))
        with pytest.raises(OwnershipLost):
            await store.ledger.resolve(commit(old, 2))
        assert await store.ledger.commit(commit(new, 2)) is Outcome.COMMITTED
        _, commits = await take(store.ledger)
        assert fold(commits).open == {}


async def test_a_commit_that_does_not_follow_is_a_bug(world: World) -> None:
    async with opened(world) as store:
        epoch, _ = await take(store.ledger)
        await store.ledger.commit(commit(epoch, 1))
        for seq in (1, 3):
            with pytest.raises(Bug):
                await store.ledger.commit(commit(epoch, seq))
        assert await store.ledger.commit(commit(epoch, 2)) is Outcome.COMMITTED


@pytest.mark.parametrize("fate", list(Fate))
async def test_outcomes(world: World, fate: Fate) -> None:
    kept = fate in (Fate.COMMITTED, Fate.UNKNOWN_COMMITTED)
    one, two = Key("a", 1_000), Key("b", 1_000)
    async with opened(world) as store:
        epoch, _ = await take(store.ledger)
        first = commit(epoch, 1, blocks=[block([one], Status.QUEUED)])
        world.next_fate(fate)
        outcome = await store.ledger.commit(first)
        assert outcome.name == fate.name.partition("_")[0]
        if outcome is Outcome.UNKNOWN:
            outcome = await store.ledger.resolve(first)
        assert outcome is (Outcome.COMMITTED if kept else Outcome.REFUSED)
        second = commit(epoch, 2 if kept else 1, blocks=[block([two], Status.QUEUED)])
        assert await store.ledger.commit(second) is Outcome.COMMITTED
        third = commit(epoch, second.seq + 1, blocks=[block([one] if kept else [two], Status.COMPLETED, 1)])
        assert await store.ledger.commit(third) is Outcome.COMMITTED
        _, commits = await take(store.ledger)
        assert set(fold(commits).open) == ({two} if kept else set())


async def test_definitions_in_force_and_kept_come_back(world: World) -> None:
    async with opened(world) as store:
        await store.jobs.create([revision("a"), revision("b")])
        await store.jobs.change([revision("a", 2, 2_000)])
        epoch, _ = await take(store.ledger)
        terms = [Term(job, 1, 1_000, 1_000, None, "r") for job in ("a", "b")]
        begun = [definition("a"), definition("b")]
        await store.ledger.commit(
            commit(epoch, 1, opened=terms, definitions=begun, blocks=[block([Key("a", 1_500)], Status.QUEUED)])
        )
        changed = Term("a", 2, 1_900, 2_000, None, "r")  # in force from an instant that its revision did not name
        await store.ledger.commit(
            commit(epoch, 2, opened=[changed], closed=[Close("a", 1, 1_900)], definitions=[definition("a", 2, 1_900)])
        )
    async with opened(world) as store:
        _, commits = await take(store.ledger)
        assert fold(commits).terms == {("a", 2), ("b", 1)}
        known = {(each.job, each.revision): each for one in commits for each in (*one.definitions, *one.kept)}
        assert known == {("a", 1): definition("a"), ("b", 1): definition("b"), ("a", 2): definition("a", 2, 1_900)}


async def test_backfills_come_back_as_they_were_last(world: World) -> None:
    schedules = (ScheduleSpec("*/5 * * * *", "Europe/Berlin", start=5, gap="skip"),)
    one = Backfill(bytes(range(16)), "a", 5_000, 0, 90_000, schedules, 7, 18, 30_000, started=6, tally=(1, 2, 0, 0, 0))
    two = one._replace(id=b"2" * 16, began=4_000, state=BackfillState.CANCELLED, ended=6_000, reason="enough")
    gone = one._replace(id=b"3" * 16)
    later = one._replace(cursor=60_000, started=12, tally=(3, 2, 1, 1, 1))
    async with opened(world) as store:
        epoch, _ = await take(store.ledger)
        first = commit(epoch, 1, backfills=[one, two, gone])
        second = commit(epoch, 2, backfills=[later, gone._replace(state=BackfillState.FORGOTTEN)])
        assert [await end(store.ledger, each) for each in (first, second)] == [Outcome.COMMITTED] * 2
    async with opened(world) as store:
        _, commits = await take(store.ledger)
        assert fold(commits).backfills == {later.nonce: later, two.nonce: two}


async def test_a_snapshot_takes_the_place_of_what_was_before(world: World) -> None:
    """It is put between two commits; of a ledger that stores state, nothing changes."""
    async with opened(world) as store:
        epoch, _ = await take(store.ledger)
        assert not store.ledger.wants_snapshot(0)
        for seq in (1, 2, 3):
            one = commit(epoch, seq, blocks=[block([KEYS[seq]], Status.QUEUED)], owed=[("a", ())])
            assert await store.ledger.commit(one) is Outcome.COMMITTED
        whole = [
            commit(epoch, 2, blocks=[block(KEYS[1:3], Status.QUEUED)]),
            commit(epoch, 3, blocks=[block(KEYS[3:4], Status.QUEUED)]),
        ]
        snapshot = asyncio.ensure_future(store.ledger.snapshot(whole))
        await asyncio.sleep(0)
        done = commit(epoch, 4, blocks=[block(KEYS[1:2], Status.COMPLETED, 1)])
        assert await store.ledger.commit(done) is Outcome.COMMITTED
        await snapshot
    async with opened(world) as store:
        next_epoch, commits = await take(store.ledger)
        assert next_epoch > epoch
        assert len(commits) <= 3
        assert (fold(commits).seq, set(fold(commits).open)) == (4, {KEYS[2], KEYS[3]})
        assert await store.ledger.commit(commit(next_epoch, 5)) is Outcome.COMMITTED


async def test_ownership_names_the_shard_and_ends_with_the_store(world: World) -> None:
    store = await world.open()
    shards = store.ledger.ownership()
    assert await anext(shards) == {0}
    coming = asyncio.ensure_future(anext(shards))
    await store.close()
    assert await coming == frozenset()


MOVES = [Status.QUEUED, Status.PLACED, Status.RETRYING, Status.COMPLETED, Status.FAILED, Status.LOST]


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[list[tuple[list[int], Status]], Fate, str]]:
    """For each commit: which keys move where, its fate, and what happens after it."""
    moves = st.lists(
        st.tuples(st.lists(st.integers(0, 17), unique=True, min_size=1), st.sampled_from(MOVES)), max_size=3
    )
    after = st.sampled_from(["", "forget", "take over", "reopen"])
    fate = st.sampled_from([Fate.COMMITTED] * 4 + list(Fate))
    return draw(st.lists(st.tuples(moves, fate, after), min_size=4, max_size=12))


def make(epoch: int, seq: int, moves: Sequence[tuple[list[int], Status]], ended: set[Key]) -> Commit:
    """A commit of these moves, without those of executions that have their verdict."""
    blocks, now_ended = [], set(ended)
    for places, status in moves:
        keys = [KEYS[place] for place in places if KEYS[place] not in now_ended]
        if status.terminal:
            now_ended.update(keys)
        if keys:
            ends = [End(1, 2, place, "e", "") for place in range(len(keys))] if status is not Status.PLACED else ()
            blocks.append(block(keys, status, 1 + seq, demand=(SLOT, BIG)[seq % 2], ends=ends, fencing=seq))
    job = ("a", "b", "c")[seq % 3]
    owed = ((Owed(definition(job), seq, 2 * seq, (seq + 1,)),), ())[seq % 2]
    waiting = [Run(b"r%d" % seq, job, 1, 2, 3), Cancel(b"c%d" % seq, KEYS[0], 1, 2, "why")][: seq % 3]
    return commit(
        epoch,
        seq,
        blocks=blocks,
        owed=[(job, owed)],
        gaps=[Gap((seq, "a"), seq + 5, "b", frozenset({"c"}))] * (seq % 2),
        waiting=waiting,
        opened=[Term("a", seq, seq, seq, None, "r")],
        closed=[Close("a", seq - 1, seq)] if seq > 1 and seq % 2 else [],
        ranges=[Range("a", seq, 0, seq, 1, "paused")],
    )


async def play(world: World, script: Sequence[tuple[list[tuple[list[int], Status]], Fate, str]]) -> None:
    store: Store = await world.open()
    epoch, _ = await take(store.ledger)
    done: list[Commit] = []
    ended: set[Key] = set()
    for moves, fate, after in script:
        one = make(epoch, len(done) + 1, moves, ended)
        world.next_fate(fate)
        if await end(store.ledger, one) is Outcome.COMMITTED:
            done.append(one)
            ended.update(key for each in one.blocks if each.status.terminal for key in each.keys)
        if after == "forget":
            while await store.history.forget(10_000, 3):
                pass
        if after == "reopen":
            await store.close()
            store = await world.open()
        if after in ("reopen", "take over"):
            epoch, commits = await take(store.ledger)
            assert relevant(fold(commits)) == relevant(fold(done))
    _, commits = await take(store.ledger)
    assert relevant(fold(commits)) == relevant(fold(done))
    await store.close()


def relevant(state: Folded) -> Folded:
    """Revisions that no job store knows have no definition to come back with: their terms stay out of it here."""
    plain = {key: replace(each, keys=list(each.keys), ends=list(each.ends)) for key, each in state.open.items()}
    return replace(state, terms=set(), open=plain)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps())
def test_opening_gives_what_the_commits_add_up_to(
    kind: str, script: list[tuple[list[tuple[list[int], Status]], Fate, str]]
) -> None:
    play_on(kind, script)


@pytest.mark.soak  # each example opens the shard again and again: minutes on a busy machine
@settings(max_examples=2, deadline=None)
@given(script=steps())
@pytest.mark.usefixtures("servers")
def test_opening_gives_what_the_commits_add_up_to_on_kafka(
    script: list[tuple[list[tuple[list[int], Status]], Fate, str]],
) -> None:
    play_on(KAFKA, script)


def play_on(kind: str, script: list[tuple[list[tuple[list[int], Status]], Fate, str]]) -> None:
    world = make_world(kind)
    try:
        asyncio.run(play(world, script))
    finally:
        world.remove()


async def test_a_block_of_which_little_is_left_is_kept_small(world: World) -> None:
    """1 000 placed, one of them for long, then many rounds more: what is open is one execution."""
    keys = [Key(f"j{n:04d}", 1_000) for n in range(1_000)]
    async with opened(world) as store:
        epoch, _ = await take(store.ledger)
        assert await store.ledger.commit(commit(epoch, 1, blocks=[block(keys, Status.PLACED, 1)])) is Outcome.COMMITTED
        for n, part in enumerate((keys[:500], keys[500:999]), 2):
            await store.ledger.commit(commit(epoch, n, blocks=[block(part, Status.COMPLETED, 1)]))
        while await store.history.forget(50_000, 10_000):
            pass
    async with opened(world) as store:
        _, commits = await take(store.ledger)
        assert list(fold(commits).open) == keys[999:]
        assert fold(commits).open[keys[999]].worker == WORKER


async def test_what_history_forgot_is_not_open_again(world: World) -> None:
    keys = [Key(f"j{n}", 1_000) for n in range(10)]
    async with opened(world) as store:
        epoch, _ = await take(store.ledger)
        await store.ledger.commit(commit(epoch, 1, blocks=[block(keys, Status.PLACED, 1)]))
        await store.ledger.commit(commit(epoch, 2, blocks=[block(keys[:5], Status.COMPLETED, 1)]))
        assert await store.history.forget(50_000, 10_000) > 0
    async with opened(world) as store:
        _, commits = await take(store.ledger)
        assert list(fold(commits).open) == keys[5:]
