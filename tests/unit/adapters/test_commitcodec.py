"""A commit and its encoding: nothing is lost on the way, and the events of a commit tell what it decided, in bounded parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dts.adapters.commitcodec import EVENT_BYTES, EVENT_EXECUTIONS, Encoded, commit_in, commit_out, event_in, slices
from dts.adapters.ended import ended_as
from dts.gen.log.v1 import log_pb2 as log
from dts.model import (
    START,
    Backfill,
    BackfillState,
    Block,
    Cancel,
    Cause,
    Close,
    Commit,
    Definition,
    Delivery,
    End,
    Gap,
    JobState,
    Key,
    Misfire,
    Owed,
    Policies,
    Range,
    Retry,
    Run,
    ScheduleSpec,
    StartBackfill,
    Status,
    StopBackfill,
    Streak,
    Term,
    WorkerRef,
)
from tests.conformance.values import BIG, SLOT, block, commit

instants = st.integers(0, 2**42)
names = st.text("ab-_.9", min_size=1, max_size=6)
texts = st.text(max_size=8)
small = st.integers(0, 9)
ids = st.binary(min_size=16, max_size=16)
revisions = st.integers(1, 2**40)
keys = st.builds(Key, names, instants, st.sampled_from(["", "0123456789ab"]))
demands = st.sampled_from([SLOT, BIG])
policies = st.builds(
    Policies,
    st.sampled_from(Misfire),
    small,
    instants,
    instants,
    small,
    small,
    small,
    st.floats(0, 9),
    st.floats(0, 1),
    overlap_limit=small,
    group_limit=small,
    jitter=instants,
    start_within=instants,
    pause_after=small,
).map(lambda each: each._replace(delivery=Delivery.AT_MOST_ONCE))
specs = st.builds(ScheduleSpec, texts, texts, st.none() | instants, st.none() | instants, st.sampled_from(["", "skip"]))
definitions = st.builds(
    Definition,
    names,
    revisions,
    instants,
    st.sampled_from(JobState),
    st.none() | instants,
    st.lists(specs, max_size=2).map(tuple),
    demands,
    st.just(Policies()) | policies,
    st.binary(max_size=9),
    st.booleans(),
)
ends = st.builds(End, instants, instants, st.integers(-9, 9), texts, texts)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    of = draw(st.lists(keys, min_size=1, max_size=5))
    made = Block(
        of,
        draw(st.lists(revisions, min_size=len(of), max_size=len(of))),
        draw(demands),
        draw(st.sampled_from(Status)),
        draw(small),
        draw(st.sampled_from(Cause)),
        draw(instants),
        draw(instants),
        draw(small),
        draw(small),
        draw(st.none() | st.builds(WorkerRef, names, names)),
        (draw(small), draw(small)),
    )
    return replace(
        made,
        fencing=draw(revisions),
        life=draw(st.booleans()),
        placed=draw(instants),
        cancel=draw(texts),
        reason=draw(texts),
        retry_of=draw(texts),
        arguments=draw(st.binary(max_size=5)),
        ends=draw(st.just([]) | st.lists(ends, min_size=len(of), max_size=len(of))),
    )


commits = st.builds(
    Commit,
    small,
    revisions,
    st.integers(-99, 2**50),
    instants,
    st.tuples(instants, names),
    st.tuples(instants, instants),
    st.lists(blocks(), max_size=3),
    st.lists(st.builds(Range, names, revisions, instants, instants, small, texts), max_size=2),
    st.lists(st.builds(Term, names, revisions, instants, instants, st.none() | instants, texts), max_size=2),
    st.lists(st.builds(Close, names, revisions, instants), max_size=2),
    st.lists(definitions, max_size=2),
    st.lists(definitions, max_size=2),
    st.lists(
        st.tuples(
            names,
            st.lists(
                st.builds(Owed, definitions, instants, instants, st.lists(instants, max_size=2).map(tuple)), max_size=2
            ).map(tuple),
        ),
        max_size=2,
    ),
    st.lists(
        st.builds(Gap, st.tuples(instants, names), instants, texts, st.frozensets(names, max_size=3)), max_size=2
    ).map(tuple),
    st.lists(ids, max_size=2),
    st.lists(
        st.builds(Run, ids, names, instants, instants, revisions, st.binary(max_size=3))
        | st.builds(Cancel, ids, keys, instants, instants, texts)
        | st.builds(Retry, ids, keys, instants, instants, revisions, st.binary(max_size=3))
        | st.builds(StartBackfill, ids, names, instants, instants, revisions, instants, instants, small)
        | st.builds(StopBackfill, ids, names, instants, instants, texts, texts),
        max_size=3,
    ),
    st.lists(st.tuples(ids, texts), max_size=2),
    st.lists(
        st.builds(
            Backfill,
            ids,
            names,
            instants,
            instants,
            instants,
            definitions.map(lambda definition: definition.schedules),
            small,
            instants,
            instants,
            instants,
            st.tuples(small, small, small, small, small),
            st.sampled_from(BackfillState),
            instants,
            texts,
        ),
        max_size=2,
    ),
    st.lists(instants, max_size=2),
    st.lists(st.builds(Streak, names, small, instants, instants, texts), max_size=2),
)


@given(commits)
def test_nothing_is_lost(one: Commit) -> None:
    assert commit_in(commit_out(one)) == one


@given(commits)
def test_events_tell_what_was_decided(one: Commit) -> None:
    told = [commit_in(each) for each in Encoded(one).events()]
    assert [block for each in told for block in each.blocks] == list(one.blocks)
    for name in ("ranges", "opened", "closed", "answers"):
        assert [value for each in told for value in getattr(each, name)] == list(getattr(one, name))
    assert all(
        (each.shard, each.epoch, each.seq, each.watermark) == (one.shard, one.epoch, one.seq, one.watermark)
        for each in told
    )
    assert not any(each.definitions or each.kept or each.owed or each.gaps or each.waiting for each in told)


@given(commits)
def test_history_reads_what_ended(one: Commit) -> None:
    told = [event_in(each) for each in Encoded(one).events()]
    assert [block for each in told for block in each.blocks] == [each for each in one.blocks if ended_as(each)]
    for name in ("ranges", "opened", "closed"):
        assert [value for each in told for value in getattr(each, name)] == list(getattr(one, name))
    assert [each.watermark for each in told] == [START] * (len(told) - 1) + [one.watermark]


def test_every_field_of_a_commit_is_encoded() -> None:
    """A field that is added to the model and forgotten here would be lost at a take-over."""
    fields = {"shard", "epoch", "seq", "now", "watermark", "applied", "blocks", "ranges", "opened", "closed"}
    fields |= {"definitions", "kept", "owed", "gaps", "commands", "waiting", "answers", "backfills", "issued"}
    fields |= {"streaks"}
    assert set(Commit.__slots__) == fields


def test_events_are_bounded() -> None:
    many = block([Key(f"j{n}", 1) for n in range(1_701)], Status.QUEUED)
    long = block([Key(f"k{n}", 1) for n in range(300)], Status.COMPLETED, 1)
    long = replace(long, ends=[End(1, 2, 0, "e" * 8_000, "r" * 8_000)] * 300)
    events = Encoded(commit(1, 1, blocks=[many, long])).events()
    told = [log.Commit.FromString(each) for each in events]
    assert [(each.part, each.parts) for each in told] == [(n, len(told)) for n in range(len(told))]
    assert max(sum(len(each.jobs) for each in one.blocks) for one in told) <= EVENT_EXECUTIONS
    assert max(len(each) for each in events) <= EVENT_BYTES + 1_024
    assert sum(len(each.jobs) for one in told for each in one.blocks) == 2_001


def test_a_small_commit_is_one_event_and_one_slice() -> None:
    encoded = Encoded(commit(1, 1))
    assert len(encoded.events()) == 1
    assert list(slices(encoded.whole(), 1_000)) == [encoded.whole()]
    assert list(slices(b"abcde", 2)) == [b"ab", b"cd", b"e"]
    assert list(slices(b"", 2)) == [b""]


def test_the_fold_reads_what_an_older_version_wrote() -> None:
    """Bytes written by the first version with this encoding: change them never, add beside them."""
    recorded = (Path(__file__).parent / "commit_v1.hex").read_text()
    one = commit(3, 7, blocks=[block([Key("a", 5), Key("b", 5)], Status.PLACED, 1, fencing=7, report=(3, 2))])
    assert commit_in(bytes.fromhex(recorded)) == commit_in(commit_out(one))
