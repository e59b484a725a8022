"""Every outcome of explain, from facts made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dts.core.explain import NO, Explained, Facts, explain
from dts.core.policies import MISSED, PAUSED, TOO_OLD
from dts.model import (
    Cause,
    Definition,
    Demand,
    End,
    Execution,
    Instant,
    JobState,
    Key,
    Obstacle,
    Outlook,
    Overlap,
    Policies,
    Range,
    ScheduleSpec,
    Status,
    Term,
)
from dts.schedule import parse_instant, wall_time


def at(text: str) -> Instant:
    return parse_instant(text)


CREATED = at("2026-03-01T00:00:00Z")
NOW = at("2026-03-28T12:00:00Z")
DUE = at("2026-03-28T01:30:00Z")
NIGHTLY = (ScheduleSpec("30 2 * * *", "Europe/Vienna"),)
FULL = Outlook(3, 0, (Obstacle("full", 2, "memory", 4_096, 1_024), Obstacle("draining", 1)))
FREE = Outlook(3, 1, (Obstacle("cordoned", 2),))


def revision(
    number: int = 1, since: Instant = CREATED, state: JobState = JobState.ACTIVE, **more: object
) -> Definition:
    made = Definition("report", number, since, state, None, NIGHTLY, Demand(memory=4_096), Policies(), b"")
    return made._replace(**more)  # type: ignore[arg-type]


def execution(status: Status, **more: object) -> Execution:
    return Execution(Key("report", DUE), 1, status, 1, queued=DUE + 5, placed=DUE + 20, worker="w1")._replace(**more)  # type: ignore[arg-type]


def ask(execution: Execution | None = None, *revisions: Definition, **more: object) -> Explained:
    given = Facts("report", NOW, revisions or (revision(),), execution=execution, complete=NOW)
    return explain(replace(given, **more))  # type: ignore[arg-type]


def why(found: Explained) -> list[str]:
    """The topics of the steps that say no."""
    return [each.topic for each in found.steps if each.verdict == NO]


def told(found: Explained) -> str:
    return "\n".join(each.text for each in found.steps)


# ---- an execution


def test_one_that_ran_says_why_it_was_due_and_where_it_ran() -> None:
    found = ask(execution(Status.COMPLETED, end=End(DUE + 30, DUE + 90_030)))
    assert (found.outcome, why(found)) == ("completed", [])
    assert found.answer == "it ran at worker w1 and completed after 1m30s (attempt 1)"
    assert "it was due at 2026-03-28T01:30:00Z (2026-03-28T02:30:00+01:00 Europe/Vienna) by '30 2 * * *'" in told(found)
    assert found.next == at("2026-03-29T01:00:00Z"), "02:30 does not exist on the 29th: it runs right after the gap"


@pytest.mark.parametrize(
    ("policies", "end", "words"),
    [
        (Policies(), End(code=3), "no retries: max_retries is 0"),
        (Policies(max_retries=2), End(code=3), "all 2 retries are used up"),
        (Policies(max_retries=2, retry_never=("3",)), End(code=3), "leaves failures of this kind out"),
    ],
)
def test_a_failure_says_why_it_is_final(policies: Policies, end: End, words: str) -> None:
    found = ask(execution(Status.FAILED, end=end), revision(policies=policies))
    assert (found.outcome, found.answer) == ("failed", "attempt 1 failed at worker w1: exit code 3")
    assert words in told(found)


def test_one_that_waits_for_a_place_says_what_each_worker_lacks() -> None:
    waits = execution(Status.QUEUED, attempt=0, worker="", placed=0, reason="(what the owner says)")
    found = ask(waits, outlook=FULL._replace(ahead=2, kept="w9"))
    assert (found.outcome, why(found)) == ("waits", ["placement"])
    assert found.answer == "it waits: 3 workers: 2 lack memory (need 4096, free 1024), 1 is draining"
    assert "2 waiting executions come first" in told(found)
    assert "room is kept free for it at worker w9" in told(found)


def test_one_that_waits_for_its_turn_says_so_even_if_there_is_room() -> None:
    reason = "its turn has not come: an execution of the job before it has not ended (overlap policy)"
    found = ask(execution(Status.QUEUED, attempt=0, worker="", placed=0, reason=reason), outlook=FREE)
    assert (found.outcome, why(found), found.answer) == ("waits", ["limits"], f"it waits: {reason}")
    assert "1 of 3 workers would take it now" in told(found)
    assert "the others: 2 are cordoned" in told(found)


def test_start_within_says_until_when_it_may_wait() -> None:
    waits = execution(Status.QUEUED, attempt=0, worker="", placed=0)
    found = ask(waits, revision(policies=Policies(start_within=60_000)), outlook=FULL)
    assert "it is SKIPPED if it is not placed by 2026-03-28T01:31:00.005Z" in told(found)


def test_a_held_clock_comes_first() -> None:
    waits = execution(Status.QUEUED, attempt=0, worker="", placed=0)
    found = ask(waits, outlook=FULL._replace(clock="the clock is 5 s off"))
    assert found.steps[0].text == "nothing new is fired: the clock is 5 s off"


def test_placed_running_and_retrying() -> None:
    found = ask(execution(Status.PLACED))
    assert (found.outcome, found.answer.startswith("it was leased to worker w1")) == ("placed", True)
    found = ask(execution(Status.PLACED, end=End(DUE + 30)))
    assert (found.outcome, found.answer.startswith("it runs since 2026-03-28T01:30:00.030Z")) == ("running", True)
    again = execution(Status.RETRYING, not_before=NOW + 5_000, end=End(error="no such host\nand more"))
    found = ask(again, revision(policies=Policies(max_retries=3)))
    assert found.answer == "attempt 1 failed: no such host; it is tried again at 2026-03-28T12:00:05Z"
    assert (found.outcome, "retries: 1 of 3 used" in told(found)) == ("retrying", True)


@pytest.mark.parametrize(
    ("status", "reason", "outcome", "topic"),
    [
        (Status.SKIPPED, "overlap (skip): the execution before had not ended", "skipped", "policy"),
        (Status.CANCELLED, "by hand", "cancelled", "run"),
        (Status.LOST, "worker w1 was lost; at most once", "lost", "run"),
    ],
)
def test_the_other_ends_give_the_record_s_reason(status: Status, reason: str, outcome: str, topic: str) -> None:
    found = ask(execution(status, reason=reason))
    assert (found.outcome, why(found)) == (outcome, [topic])
    assert found.answer.endswith(reason)


def test_earlier_attempts_waiting_and_late_terms_are_told() -> None:
    earlier = [execution(Status.LOST, reason="worker w0 was lost", worker="w0")]
    late = execution(Status.COMPLETED, placed=DUE + 60_000, end=End(DUE + 60_001, DUE + 60_002))
    term = Term("report", 1, CREATED, CREATED + 9_000, None, "")
    found = ask(late, revision(policies=Policies(jitter=90_000)), earlier=earlier, term=term)
    assert "attempt 1 LOST at worker w0: worker w0 was lost" in told(found)
    assert "it waited 59s for a place (jitter spreads starts over 1m30s)" in told(found)
    assert "the scheduler took this revision 9s after the change" in told(found)


def test_by_hand_and_retries_say_who_asked() -> None:
    assert "it was asked for by hand (manual)" in told(ask(execution(Status.COMPLETED, cause=Cause.MANUAL)))
    retry = execution(Status.COMPLETED, cause=Cause.RETRY, retry_of="report@x")
    assert "it is a retry of report@x" in told(ask(retry))


# ---- an instant


def test_not_due_names_the_instants_around_it() -> None:
    found = ask(at=at("2026-03-27T12:00:00Z"))
    assert (found.outcome, why(found)) == ("not_due", ["schedule"])
    assert "the one before is 2026-03-27T01:30:00Z, the next is 2026-03-28T01:30:00Z" in found.answer


def test_before_the_job_after_its_end_and_without_a_schedule() -> None:
    assert "did not exist" in ask(at=CREATED - 1).answer
    ended = revision(2, DUE - 10, JobState.DELETED)
    assert "the job was deleted at" in ask(None, ended, revision(), at=DUE).answer
    assert "runs on demand only" in ask(None, revision(schedules=()), at=DUE).answer


def test_a_wall_time_that_did_not_exist_and_one_that_occurs_twice() -> None:
    gap = wall_time("2026-03-29T02:30", "Europe/Vienna")
    assert gap.instants == ()
    found = ask(at=gap.after, wall=gap, outlook=FREE)
    assert found.outcome == "will_run"
    assert "02:30 did not exist in Europe/Vienna: the clock went from 02:00 to 03:00" in found.steps[0].text
    assert "02:30 does not exist on this day" in told(found)
    skip = revision(schedules=(NIGHTLY[0]._replace(gap="skip"),))
    assert ask(None, skip, at=gap.after, wall=gap).outcome == "not_due"
    fold = wall_time("2026-10-25 02:30", "Europe/Vienna")
    assert len(fold.instants) == 2
    found = ask(at=fold.instants[1], wall=fold)
    assert (found.outcome, "occurred twice" in found.steps[0].text) == ("not_due", True)


def test_a_future_instant_will_run_or_not() -> None:
    due = at("2026-03-30T00:30:00Z")
    policies = Policies(overlap=Overlap.SKIP, jitter=60_000, group_limit=2)
    found = ask(None, revision(policies=policies, group="etl"), at=due, outlook=FULL)
    assert found.outcome == "will_run"
    assert found.answer.endswith("if by then a worker has room: now " + FULL.text)
    for words in ("overlap skip", "group 'etl': 2 at once", "jitter"):
        assert words in told(found)
    paused = revision(2, NOW - 10, JobState.PAUSED, until=None)
    found = ask(None, paused, revision(), at=due, pause="by ann: migration")
    assert (found.outcome, why(found)) == ("will_not_run", ["pause"])
    assert found.answer.endswith("by ann: migration: 2026-03-30T00:30:00Z does not run")
    ends = revision(2, NOW - 10, JobState.PAUSED, until=due - 1)
    assert ask(None, ends, revision(), at=due, outlook=FREE).outcome == "will_run"


@pytest.mark.parametrize(
    ("reason", "words", "topic"),
    [
        (MISSED, "over 1m late (it was down, or behind), and misfire run_once leaves it out", "policy"),
        (TOO_OLD, "older than the grace period of 24h", "policy"),
        (PAUSED, "the job was paused by ann", "pause"),
        ("deleted", "deleted", "policy"),
    ],
)
def test_a_range_says_which_rule_left_it_out(reason: str, words: str, topic: str) -> None:
    found = ask(at=DUE, range=Range("report", 1, DUE - 10, DUE + 86_400_000, 2, reason), pause="by ann")
    assert (found.outcome, why(found)) == ("not_run", [topic])
    assert words in found.answer
    assert "one verdict over 2 instants in" in told(found)


def test_no_verdict_is_not_known_yet_or_missing() -> None:
    assert ask(at=DUE, complete=DUE - 1).outcome == "unknown"
    found = ask(at=DUE)
    assert (found.outcome, "dts audit --job report" in found.answer) == ("missing", True)


def test_the_revision_that_governs_is_the_newest_before_the_instant() -> None:
    later = revision(2, DUE + 1, schedules=(ScheduleSpec("0 5 * * *"),))
    assert ask(None, later, revision(), at=DUE).outcome == "missing", "it was due by revision 1"
    assert ask(None, later, revision(), at=at("2026-03-29T01:00:00Z")).outcome == "not_due"
    found = ask(None, later, revision(), at=DUE, changes={1: "create"})
    assert "revision 1 (create) owes the instants after 2026-03-01T00:00:00Z" in told(found)


# ---- a job


def test_an_idle_job_runs_next_if_there_is_room() -> None:
    found = ask(outlook=FREE)
    assert (found.outcome, found.answer) == ("will_run", "it runs next at 2026-03-29T01:00:00Z, in 13h")
    assert ask(outlook=FULL).answer.endswith("now " + FULL.text)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (revision(state=JobState.PAUSED), "the job is paused since 2026-03-01T00:00:00Z, until it is resumed by ann"),
        (revision(state=JobState.CANCELLED), "the job is cancelled"),
        (revision(state=JobState.DELETED), "the job is deleted"),
        (revision(schedules=()), "it runs on demand only"),
        (revision(schedules=(ScheduleSpec("@at 2026-03-02T00:00:00Z"),)), "no instant is left"),
    ],
)
def test_a_job_that_will_not_run_says_why(job: Definition, words: str) -> None:
    found = ask(None, job, pause="by ann" if job.state is JobState.PAUSED else "", outlook=FREE)
    assert found.outcome == "will_not_run"
    assert words in found.answer
    assert found.next is None


def test_a_pause_that_has_an_end() -> None:
    found = ask(None, revision(state=JobState.PAUSED, until=NOW + 86_400_000))
    assert (found.outcome, found.next) == ("will_run", at("2026-03-30T00:30:00Z"))
    assert "paused since 2026-03-01T00:00:00Z, until 2026-03-29T12:00:00Z" in told(found)
    assert "its pause ended by itself" in told(ask(None, revision(state=JobState.PAUSED, until=NOW)))


def test_what_a_job_has_open_and_how_the_last_one_ended() -> None:
    waits = execution(Status.QUEUED, attempt=0, worker="", placed=0, reason="no worker is attached")
    last = execution(Status.FAILED, end=End(code=2))
    found = ask(open=[waits], last=last, outlook=Outlook(0, 0))
    assert (found.outcome, found.answer) == ("waits", "report@20260328T013000.000Z waits: no worker is attached")
    assert "the last to end: report@20260328T013000.000Z FAILED: exit code 2" in told(found)
    runs = execution(Status.PLACED, end=End(DUE + 30))
    assert ask(open=[waits, runs]).outcome == "running"
    assert "and more" in told(ask(open=[waits] * 9))


def test_a_job_suspended_after_failures() -> None:
    held = {"suspended": NOW - 60_000, "suspension": "paused: 3 failures in a row"}
    found = ask(outlook=FREE, **held)
    assert (found.outcome, why(found), found.next) == ("will_not_run", ["pause"], None)
    assert (
        "suspended since 2026-03-28T11:59:00Z (paused: 3 failures in a row), until dts job resume report"
        in found.answer
    )
    found = ask(at=at("2026-03-30T00:30:00Z"), outlook=FREE, **held)
    assert (found.outcome, why(found)) == ("will_not_run", ["pause"])
    assert ask(at=DUE, **held).outcome == "missing", "it was due before"
    found = ask(at=DUE, range=Range("report", 1, DUE - 10, DUE + 10, 1, "paused: 3 failures in a row"))
    assert (found.outcome, why(found)) == ("not_run", ["pause"])
    assert found.answer == "it did not run: paused: 3 failures in a row"
