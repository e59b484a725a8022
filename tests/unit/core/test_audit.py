"""The audit's rules, one by one, on facts made by hand."""

from __future__ import annotations

import time

import pytest

from dts.core.audit import MAX_FINDINGS, Facts, Tally, Window, audit_job
from dts.errors import FailedPrecondition
from dts.model import (
    Definition,
    Demand,
    Execution,
    Instant,
    JobState,
    Key,
    Policies,
    Range,
    ScheduleSpec,
    Status,
    Term,
)

SECOND = ScheduleSpec("@every 1s")
TWO = ScheduleSpec("@every 2s")
START = 1_800_000_000_000
RULES = "2026a"


def at(second: int) -> Instant:
    return START + second * 1_000


def revision(
    number: int, since: int, *schedules: ScheduleSpec, state: JobState = JobState.ACTIVE, until: int = 0
) -> Definition:
    return Definition("j", number, at(since), state, at(until) if until else None, schedules, Demand(), Policies(), b"")


def term(number: int, since: int, in_force: int | None = None, rules: str = RULES) -> Term:
    return Term("j", number, at(since), at(since if in_force is None else in_force), None, rules)


def ran(number: int, *seconds: int, status: Status = Status.COMPLETED) -> list[Execution]:
    return [Execution(Key("j", at(second)), number, status) for second in seconds]


def window(after: int = 0, until: int = 10, complete: int = 10) -> Window:
    return Window(at(after), at(until), at(complete), RULES)


def audit(
    revisions: list[Definition],
    terms: list[Term] | None = None,
    executions: list[Execution] | None = None,
    ranges: list[Range] | None = None,
    span: Window | None = None,
) -> Tally:
    known = [term(each.revision, (each.since - START) // 1_000) for each in revisions] if terms is None else terms
    return audit_job(Facts("j", revisions, known, executions or [], ranges or []), span or window())


def kinds(tally: Tally) -> dict[str, int]:
    return {name: count for name, count in tally.kinds.items() if count}


def test_every_instant_with_its_execution_is_clean() -> None:
    found = audit([revision(1, 0, SECOND)], executions=ran(1, *range(1, 11)))
    assert found.clean
    assert (found.due, dict(found.verdicts), found.findings) == (10, {"COMPLETED": 10}, [])


def test_a_missing_instant_is_named() -> None:
    found = audit([revision(1, 0, SECOND)], executions=ran(1, 1, 2, 4, 5, 6, 7, 8, 9, 10))
    assert not found.clean
    assert [(each.kind, each.instant) for each in found.findings] == [("missing", at(3))]
    assert found.verdicts["missing"] == 1


def test_several_schedules_are_the_union_of_their_instants() -> None:
    found = audit([revision(1, 0, SECOND, TWO)], executions=ran(1, *range(1, 11)))
    assert (found.clean, found.due) == (True, 10)


def test_an_open_execution_is_no_missing_one_and_an_ended_one_wins() -> None:
    executions = [*ran(1, 1, 2), *ran(1, 2, 3, status=Status.PLACED)]
    found = audit([revision(1, 0, SECOND)], executions=executions, span=window(0, 3))
    assert dict(found.verdicts) == {"COMPLETED": 2, "PLACED": 1}


def test_what_is_beyond_the_record_is_pending() -> None:
    found = audit([revision(1, 0, SECOND)], executions=ran(1, *range(1, 8)), span=window(complete=6))
    assert found.clean
    assert dict(found.verdicts) == {"COMPLETED": 7, "pending": 3}


def test_a_range_is_the_verdict_of_all_its_instants() -> None:
    ranges = [Range("j", 1, at(2), at(6), 4, "missed")]
    found = audit([revision(1, 0, SECOND)], executions=ran(1, 1, 2, 7, 8, 9, 10), ranges=ranges)
    assert (found.clean, dict(found.verdicts)) == (True, {"COMPLETED": 6, "missed": 4})


def test_a_range_that_reaches_out_of_the_window_counts_inside_only() -> None:
    ranges = [Range("j", 1, at(-3), at(4), 4, "missed")]
    found = audit([revision(1, -3, SECOND)], executions=ran(1, 5), ranges=ranges, span=window(2, 5))
    assert dict(found.verdicts) == {"missed": 2, "COMPLETED": 1}
    assert kinds(found) == {"unexplained": 1}, "its size is 7, not 4"


def test_an_execution_inside_a_range_is_doubled() -> None:
    ranges = [Range("j", 1, at(2), at(6), 4, "missed")]
    found = audit([revision(1, 0, SECOND)], executions=ran(1, 1, 2, 4, 7, 8, 9, 10), ranges=ranges)
    assert kinds(found) == {"doubled": 1}
    assert found.findings[0].instant == at(4)


def test_two_ranges_over_one_instant_are_doubled() -> None:
    ranges = [Range("j", 1, at(0), at(6), 6, "missed"), Range("j", 1, at(5), at(10), 5, "paused")]
    assert kinds(audit([revision(1, 0, SECOND)], ranges=ranges)) == {"doubled": 1}


def test_an_execution_that_nobody_owes_is_unexplained() -> None:
    found = audit([revision(1, 0, TWO)], executions=ran(1, 2, 3, 4, 6, 8, 10))
    assert kinds(found) == {"unexplained": 1}
    assert "no such instant" in found.findings[0].detail


def test_an_edit_splits_what_is_due() -> None:
    revisions = [revision(1, 0, SECOND), revision(2, 5, TWO)]
    found = audit(revisions, executions=[*ran(1, 1, 2, 3, 4, 5), *ran(2, 6, 8, 10)])
    assert (found.clean, found.due) == (True, 8)


def test_what_the_old_revision_fired_before_the_new_one_was_in_force_stands() -> None:
    revisions = [revision(1, 0, SECOND), revision(2, 5, TWO)]
    terms = [term(1, 0), term(2, 5, in_force=8)]
    found = audit(revisions, terms, [*ran(1, *range(1, 9)), *ran(2, 10)])
    assert found.clean, found.findings
    assert found.due == 8  # 1 to 5, then 6, 8 and 10
    assert (found.stood, found.stood_ms) == (3, 3_000)  # 6 and 8, which are due, and 7, which is not


def test_an_old_revision_that_fires_after_the_new_one_was_in_force_is_unexplained() -> None:
    revisions = [revision(1, 0, SECOND), revision(2, 5, TWO)]
    terms = [term(1, 0), term(2, 5, in_force=6)]
    found = audit(revisions, terms, [*ran(1, *range(1, 8)), *ran(2, 8, 10)])
    assert kinds(found) == {"unexplained": 1}


def test_a_younger_revision_does_not_run_older_instants() -> None:
    revisions = [revision(1, 0, SECOND), revision(2, 5, SECOND)]
    found = audit(revisions, executions=[*ran(1, 1, 2, 3), *ran(2, *range(4, 11))])
    assert kinds(found) == {"unexplained": 2}


def test_a_range_of_the_old_revision_stands_for_instants_it_had_when_the_new_one_came() -> None:
    revisions = [revision(1, 0, SECOND), revision(2, 5, SECOND)]
    terms = [term(1, 0), term(2, 5, in_force=8)]
    found = audit(revisions, terms, ran(2, 9, 10), [Range("j", 1, at(0), at(8), 8, "missed")])
    assert found.clean, found.findings
    assert dict(found.verdicts) == {"missed": 8, "COMPLETED": 2}


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.DELETED])
def test_a_job_that_is_gone_owes_nothing(state: JobState) -> None:
    revisions = [revision(1, 0, SECOND), revision(2, 4, SECOND, state=state)]
    found = audit(revisions, executions=ran(1, 1, 2, 3, 4))
    assert (found.clean, found.due) == (True, 4)
    late = audit(revisions, executions=ran(1, 1, 2, 3, 4, 5))
    assert kinds(late) == {"unexplained": 1}


def test_a_pause_that_goes_on_has_no_range_yet() -> None:
    revisions = [revision(1, 0, SECOND), revision(2, 4, SECOND, state=JobState.PAUSED)]
    found = audit(revisions, executions=ran(1, 1, 2, 3, 4))
    assert (found.clean, dict(found.verdicts)) == (True, {"COMPLETED": 4, "paused (open)": 6})


def test_a_pause_that_ended_without_a_range_is_missing() -> None:
    revisions = [
        revision(1, 0, SECOND),
        revision(2, 4, SECOND, state=JobState.PAUSED),
        revision(3, 8, SECOND),
    ]
    executions = [*ran(1, 1, 2, 3, 4), *ran(3, 9, 10)]
    assert kinds(audit(revisions, executions=executions)) == {"missing": 4}
    done = audit(revisions, executions=executions, ranges=[Range("j", 2, at(4), at(8), 4, "paused")])
    assert (done.clean, done.verdicts["paused"]) == (True, 4)


def test_a_pause_with_an_end_owes_what_is_due_after_it() -> None:
    revisions = [revision(1, 0, SECOND, state=JobState.PAUSED, until=4)]
    found = audit(revisions, executions=ran(1, 5, 6, 7, 8, 9))
    assert kinds(found) == {"missing": 1}
    assert found.verdicts["paused (open)"] == 4
    assert found.findings[0].instant == at(10)


def test_without_a_term_nothing_is_missing_but_undecidable() -> None:
    found = audit([revision(1, 0, SECOND)], terms=[], executions=ran(1, 1))
    assert found.clean
    assert kinds(found) == {"undecidable": 9}


def test_other_time_zone_rules_make_it_undecidable() -> None:
    local = ScheduleSpec("@every 1s", "Europe/Paris")
    found = audit([revision(1, 0, local)], terms=[term(1, 0, rules="2020a")], executions=ran(1, 1))
    assert (found.clean, kinds(found)) == (True, {"undecidable": 9})


def test_a_revision_that_is_gone_makes_its_executions_undecidable() -> None:
    found = audit([revision(3, 5, SECOND)], executions=[*ran(2, 4), *ran(3, *range(6, 11))])
    assert (found.clean, kinds(found)) == (True, {"undecidable": 1})


def test_a_change_that_came_into_force_late_is_a_finding_but_clean() -> None:
    revisions = [revision(1, 0, SECOND), revision(2, 1, SECOND)]
    terms = [term(1, 0), term(2, 1, in_force=8)]
    found = audit(revisions, terms, ran(1, *range(1, 9)) + ran(2, 9, 10))
    assert (found.clean, kinds(found)) == (True, {"late_in_force": 1})


def test_findings_are_all_counted_and_the_first_kept() -> None:
    found = audit([revision(1, 0, SECOND)], span=window(until=3_000, complete=3_000))
    assert (found.kinds["missing"], len(found.findings)) == (3_000, MAX_FINDINGS)


def test_more_instants_than_can_be_held_are_refused() -> None:
    with pytest.raises(FailedPrecondition, match="audit a shorter span"):
        audit([revision(1, 0, SECOND)], span=window(until=1_000_001, complete=1_000_001))


def test_sixty_thousand_instants_take_about_a_second() -> None:
    definition = revision(1, 0, SECOND)
    facts = [
        Facts(
            f"j{job}",
            [definition._replace(job=f"j{job}")],
            [term(1, 0)._replace(job=f"j{job}")],
            [Execution(Key(f"j{job}", at(second)), 1, Status.COMPLETED) for second in range(1, 61)],
            [],
        )
        for job in range(1_000)
    ]
    total = Tally()
    started = time.perf_counter()
    for each in facts:
        total.add(audit_job(each, window(until=60, complete=60)))
    assert time.perf_counter() - started < 2
    assert (total.clean, total.due, total.jobs, total.verdicts["COMPLETED"]) == (True, 60_000, 1_000, 60_000)


def test_a_change_from_a_clock_ahead_owes_from_where_its_owner_took_it() -> None:
    """The owner's clock had not reached `since`: the term says where the old revision ended and the new one began."""
    revisions = [revision(1, 0, TWO), revision(2, 8, SECOND)]
    terms = [term(1, 0)._replace(until=at(4)), term(2, 4)]
    found = audit(revisions, terms, [*ran(1, 2, 4), *ran(2, 5, 6, 7, 8, 9, 10)])
    assert found.clean
    assert (found.due, found.stood) == (8, 0)


def test_a_delete_from_a_clock_ahead_ends_the_job_where_its_owner_took_it() -> None:
    revisions = [revision(1, 0, TWO), revision(2, 8, TWO, state=JobState.DELETED)]
    found = audit(revisions, [term(1, 0)._replace(until=at(4))], ran(1, 2, 4))
    assert found.clean
    assert found.due == 2
