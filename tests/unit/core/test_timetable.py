"""The timetable against brute force: whatever the cuts, each due instant of each job comes once, in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dts.core.timetable import Timetable, seen_by, times_of, top
from dts.model import LAST_JOB, START, Definition, Demand, JobState, Policies, ScheduleSpec
from dts.schedule import compile as compile_schedule

T0 = 1_774_742_400_000  # 2026-03-29T00:00Z: Europe changes its clocks an hour later
SPECS = [
    ScheduleSpec("@every 7s"),
    ScheduleSpec("@every 21s"),
    ScheduleSpec("*/10 * * * * *"),
    ScheduleSpec("* * * * *"),
    ScheduleSpec("30 2 * * *", "Europe/Berlin"),
    ScheduleSpec("@every 30s", end=T0 + 95_000),
    ScheduleSpec("@at 2026-03-29T00:01:10Z"),
]
schedules = st.lists(st.sampled_from(SPECS), max_size=3, unique=True).map(tuple)
some_schedules = st.lists(st.sampled_from(SPECS), min_size=1, max_size=3, unique=True).map(tuple)
jobs = st.sampled_from(["a", "b", "c.1", "c", "zz"])


def definition(job: str, specs: tuple[ScheduleSpec, ...], revision: int = 1) -> Definition:
    return Definition(job, revision, 0, JobState.ACTIVE, None, specs, Demand(), Policies(), b"")


def brute(specs: tuple[ScheduleSpec, ...], after: int, until: int) -> list[int]:
    return sorted({at for spec in specs for at in compile_schedule(spec).between(after, until, 1_000_000)})


@given(data=st.data())
def test_every_due_instant_comes_once_whatever_the_cuts(data: st.DataObject) -> None:
    timetable = Timetable((T0, LAST_JOB))
    present: dict[str, tuple[tuple[ScheduleSpec, ...], int]] = {}  # job -> its schedules, since when
    expected: set[tuple[int, str]] = set()
    found: list[tuple[int, str]] = []
    now = T0
    for _ in range(data.draw(st.integers(1, 25))):
        kind = data.draw(st.sampled_from(["put", "drop", "go", "go", "go", "look"]))
        job = data.draw(jobs)
        if kind in ("put", "drop"):
            if job in present:
                specs, since = present.pop(job)
                expected |= {(at, job) for at in brute(specs, since, seen_by(timetable.watermark, job))}
                timetable.drop(job)
            if kind == "put":
                specs = data.draw(schedules)
                timetable.put(definition(job, specs))
                present[job] = (specs, seen_by(timetable.watermark, job))
                assert (job in timetable) == bool(specs)
            continue
        now += data.draw(st.sampled_from([0, 1, 999, 7_000, 70_000, 7_200_000] if kind == "go" else [70_000]))
        limit = data.draw(st.sampled_from([1, 2, 3, 50, 2_500]))
        due, reached = timetable.due(now, limit)
        assert timetable.due(now, limit) == (due, reached), "looking moves nothing"
        assert sum(len(definitions) for _, definitions in due) <= limit
        assert timetable.watermark <= reached
        if kind == "go":
            found += [(at, each.job) for at, definitions in due for each in definitions]
            timetable.advance(reached)
            following = timetable.next_due()
            rest = [brute(specs, seen_by(reached, job), now + 86_400_000)[:1] for job, (specs, _) in present.items()]
            first = min((at for some in rest for at in some), default=None)
            if first is not None:
                assert following is not None
                assert following <= first, "it would wake too late"
    for job, (specs, since) in present.items():
        expected |= {(at, job) for at in brute(specs, since, seen_by(timetable.watermark, job))}
    assert found == sorted(expected)


def test_an_instant_is_cut_between_two_jobs() -> None:
    timetable = Timetable((T0, LAST_JOB))
    for job in ("d", "a", "c", "b"):
        timetable.put(definition(job, (SPECS[3] if job in "ad" else SPECS[2],)))
    due, reached = timetable.due(T0 + 60_000, 13)
    assert [[each.job for each in some] for _, some in due] == [["b", "c"]] * 5 + [["a", "b", "c"]]
    assert reached == (T0 + 60_000, "c")
    timetable.advance(reached)
    timetable.drop("c")
    timetable.put(definition("aa", (SPECS[3],)))
    due, reached = timetable.due(T0 + 60_000, 13)
    assert [each.job for _, some in due for each in some] == ["d"], "what comes new behind the cut is not due at it"
    assert reached == (T0 + 60_000, LAST_JOB)


def test_a_limit_reached_at_the_end_of_an_instant_stops_before_the_next() -> None:
    timetable = Timetable((T0, LAST_JOB))
    timetable.put(definition("a", (SPECS[2],)))
    due, reached = timetable.due(T0 + 60_000, 2)
    assert [at for at, _ in due] == [T0 + 10_000, T0 + 20_000]
    assert reached == (T0 + 30_000 - 1, LAST_JOB)


def test_the_watermark_never_moves_back() -> None:
    timetable = Timetable((T0, "b"))
    assert timetable.due(T0 - 1, 10) == ([], (T0, "b"))
    assert timetable.due(T0, 10) == ([], (T0, LAST_JOB))


def test_a_schedule_that_all_its_jobs_left_wakes_nobody() -> None:
    timetable = Timetable(START)
    timetable.put(definition("a", (SPECS[0],)))
    timetable.drop("a")
    timetable.drop("a")
    assert timetable.next_due() is None
    timetable.put(definition("a", (SPECS[0],), 2))
    assert timetable.next_due() == 7_000


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=40), st.integers(0, 30), st.integers(1, 50))
def test_top_of_a_heap(items: list[tuple[int, int]], until: int, limit: int) -> None:
    import heapq

    heapq.heapify(items)
    found = top(items, until, limit)
    small = [item for item in items if item[0] <= until]
    assert len(found) == min(limit, len(small))
    assert not found or min(found)[0] == min(small)[0]
    if limit >= len(small):
        assert sorted(found) == sorted(small)


@given(some_schedules, st.integers(0, 7_200_000), st.integers(0, 7_200_000), st.integers(1, 100))
def test_several_schedules_are_their_union(specs: tuple[ScheduleSpec, ...], after: int, span: int, limit: int) -> None:
    after += T0
    expected = brute(specs, after, after + span)
    times = times_of(specs)
    assert times.between(after, after + span, limit) == expected[:limit]
    assert times.count(after, after + span) == len(expected)
    following, previous = times.next_after(after), times.previous_before(after + span + 1)
    if expected:
        assert (following, previous) == (expected[0], expected[-1])
    else:
        assert following is None or following > after + span
        assert previous is None or previous <= after
