"""What instances tell of now comes back as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dts import livecodec
from dts.model import (
    Cause,
    Demand,
    End,
    Execution,
    ExecutionQuery,
    JobView,
    Key,
    Obstacle,
    Outlook,
    Range,
    ShardView,
    Status,
    WorkerInfo,
    WorkerRef,
    WorkerView,
)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
moments = st.integers(0, 2**52)
small = st.integers(0, 2**31 - 1)
keys = st.builds(Key, texts, moments, texts)
demands = st.builds(Demand, small, small, small, small, st.just(()), texts, st.integers(-100, 100), texts)
executions = st.builds(
    Execution,
    keys,
    small,
    st.sampled_from(Status),
    small,
    st.sampled_from(Cause),
    moments,
    moments,
    moments,
    texts,
    small,
    texts,
    texts,
    st.builds(End, moments, moments, st.integers(-255, 255), texts, texts),
)
infos = st.builds(
    WorkerInfo,
    st.builds(WorkerRef, texts, texts),
    demands,
    small,
    st.dictionaries(texts, texts, max_size=3).map(lambda each: tuple(sorted(each.items()))),
    st.booleans(),
    texts,
    small,
    texts,
    st.just(False),  # what it says itself of credits and cordons is told by the view
    st.just(False),
)


@given(executions)
def test_execution(found: Execution) -> None:
    assert livecodec.execution_in(livecodec.execution_out(found)) == found


@given(st.builds(Range, texts, small, moments, moments, small, texts))
def test_range(found: Range) -> None:
    assert livecodec.range_in(livecodec.range_out(found)) == found


@given(st.builds(ExecutionQuery, texts, st.frozensets(st.sampled_from(Status)), moments, moments))
def test_query(query: ExecutionQuery) -> None:
    assert livecodec.query_in(livecodec.query_out(query)) == query


@given(st.builds(JobView, st.none() | moments, small, small, small, small, moments, texts, small))
def test_view(view: JobView) -> None:
    assert livecodec.view_in(livecodec.view_out("job", view)) == view


@given(
    st.builds(
        WorkerView, infos, demands, small, st.booleans(), moments, st.booleans(), st.booleans(), st.none() | demands
    )
)
def test_worker(view: WorkerView) -> None:
    assert livecodec.worker_in(livecodec.worker_out(view)) == view


@given(st.builds(ShardView, small, small, small, moments, small, small, small, small, moments))
def test_shard(view: ShardView) -> None:
    assert livecodec.shard_in(livecodec.shard_out(view)) == view


obstacles = st.lists(st.builds(Obstacle, texts, small, texts, small, small, texts), max_size=3).map(tuple)


@given(st.none() | st.builds(Outlook, small, small, obstacles, small, texts, texts))
def test_outlook(found: Outlook | None) -> None:
    assert livecodec.outlook_in(livecodec.outlook_out(found)) == found
