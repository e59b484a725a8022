"""Scripts of what the accounting machine once found: late changes, outages, pauses, clocks set back, commands that come twice."""

from __future__ import annotations

from dts import bounds
from dts.core.instance import Instance
from dts.core.policies import PUBLISHED_LATE
from dts.core.shard import Shard
from dts.core.snapshot import snapshot
from dts.model import (
    LAST_JOB,
    Block,
    Change,
    Command,
    Commit,
    Definition,
    Demand,
    End,
    JobState,
    Key,
    Misfire,
    Outcome,
    Policies,
    Range,
    Report,
    Run,
    ScheduleSpec,
    Status,
    Term,
    WorkerInfo,
    WorkerRef,
)
from tests.simulation.book import Book
from tests.simulation.states import canon, folded

T0 = 1_774_742_400_000  # midnight UTC
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
MINUTELY = (ScheduleSpec("@every 1m"),)
FIVE = (ScheduleSpec("@every 5m"),)
W = WorkerRef("w", "1")
STEPS = 1_000
ALL = Policies(misfire=Misfire.RUN_ALL)


class Script:
    """One shard without workers, whose every commit is checked by the book."""

    def __init__(self, *, limit: int = 2_500, slots: int = 0) -> None:
        self.now = T0
        self.book = Book()
        self.core = Instance(limit=limit)
        self.core.adopt(0, 1, [], T0)
        self.log: list[Commit] = []
        self.position = 0
        self.revisions: dict[str, Definition] = {}
        if slots:
            self.core.attach(WorkerInfo(W, Demand(slots=slots), 0, timed=False))
        self.steps()
        if slots:
            self.core.receive_report(0, Report(W, 1, 1, timed=False, full=True), T0)
            self.steps()

    @property
    def shard(self) -> Shard:
        return self.core.desks[0].shard

    def change(
        self,
        job: str,
        at: int,
        schedules: tuple[ScheduleSpec, ...] = (),
        state: JobState = JobState.ACTIVE,
        until: int | None = None,
        policies: Policies | None = None,
    ) -> None:
        """A revision with `since` T0 + at; what is not given stays as it was. It arrives now."""
        last = self.revisions.get(job) or Definition(job, 0, 0, state, None, (), Demand(), ALL, b"")
        definition = last._replace(
            revision=last.revision + 1,
            since=T0 + at,
            state=state,
            until=None if until is None else T0 + until,
            schedules=schedules or last.schedules,
            policies=policies or last.policies,
        )
        self.revisions[job] = definition
        self.book.published(definition)
        self.receive(definition)

    def receive(self, value: Definition | Command) -> None:
        self.position += 1
        position = (self.position, 0) if isinstance(value, Definition) else (0, self.position)
        self.core.receive_changes(0, [Change(position, value)])

    def end(self, key: Key, status: Status, attempt: int = 1) -> None:
        block = Block([key], [], Demand(), status, attempt, ends=[End(1, 2)])
        self.core.receive_report(0, Report(W, 1, 1, timed=False, ended=[block]), self.now)

    def steps(self, to: int | None = None, *, hold: bool = False) -> int:
        """Goes to T0 + to, and steps while there is something to decide. How many commits it took."""
        self.now = self.now if to is None else T0 + to
        for number in range(STEPS):
            at = self.core.wake_at(hold=hold)
            commits = self.core.step(self.now, hold=hold)
            for commit in commits:
                self.book.committed(commit)
                self.log.append(commit)
                self.core.settle(commit, Outcome.COMMITTED, self.now)
            self.book.check(self.shard)
            if not commits:
                if self.core.desks[0].changes and not hold:
                    self.now += bounds.CHANGES_LINGER_MS  # they wait for company
                    continue
                after = self.core.wake_at(hold=hold)
                assert after is None or after > self.now or at is None or at > self.now, "it wakes for nothing"
                return number
        raise AssertionError("it never comes to rest")

    def fired(self, job: str) -> list[int]:
        """Offsets from T0 of the job's scheduled executions."""
        return sorted(key.at - T0 for key in self.book.status if key.job == job and not key.nonce)

    def ranges(self, job: str) -> list[tuple[int, int, str]]:
        """Its ranges: offset of the end, size, reason."""
        found: list[Range] = [each for commit in self.log for each in commit.ranges if each.job == job]
        return [(each.until - T0, each.size, each.reason) for each in found]


def test_an_edit_during_an_outage_owes_each_missed_instant_once() -> None:
    script = Script()
    script.change("a", 0, MINUTELY)
    script.steps(MINUTE)
    script.change("a", HOUR, FIVE)
    script.steps(2 * HOUR)
    assert script.fired("a") == [*range(MINUTE, HOUR + 1, MINUTE), *range(HOUR + 5 * MINUTE, 2 * HOUR + 1, 5 * MINUTE)]


def test_several_edits_during_an_outage_each_owe_their_own_span() -> None:
    script = Script(limit=7)
    script.change("a", 0, MINUTELY)
    script.steps(MINUTE)
    script.change("a", 10 * MINUTE, state=JobState.PAUSED)
    script.change("a", 20 * MINUTE)
    script.change("a", 30 * MINUTE, FIVE)
    script.steps(HOUR)
    assert script.fired("a") == [
        *range(MINUTE, 10 * MINUTE + 1, MINUTE),
        *range(21 * MINUTE, 30 * MINUTE + 1, MINUTE),
        *range(35 * MINUTE, HOUR + 1, 5 * MINUTE),
    ]
    assert script.ranges("a") == [(20 * MINUTE, 10, "paused")]


def test_a_late_change_does_not_take_back_what_was_committed() -> None:
    script = Script()
    script.change("a", 0, MINUTELY)
    script.steps(10 * MINUTE)
    script.change("a", 4 * MINUTE + 1, FIVE)
    script.steps()
    script.steps(20 * MINUTE)
    assert script.fired("a") == [*range(MINUTE, 10 * MINUTE + 1, MINUTE), 15 * MINUTE, 20 * MINUTE]


def test_a_second_late_change_knows_what_the_first_revision_had_fired() -> None:
    script = Script()
    script.change("a", 0, MINUTELY)
    script.steps(10 * MINUTE)
    script.change("a", 3 * MINUTE + 1, FIVE)
    script.steps()
    script.change("a", 3 * MINUTE + 2, MINUTELY)
    script.steps()
    assert script.fired("a") == list(range(MINUTE, 10 * MINUTE + 1, MINUTE))


def test_a_job_made_anew_knows_what_the_deleted_one_had_fired() -> None:
    script = Script()
    script.change("a", 0, MINUTELY)
    script.steps(10 * MINUTE)
    script.change("a", 3 * MINUTE + 1, state=JobState.DELETED)
    script.steps()
    script.core.adopt(1, 0, [], 0)
    restored = folded(snapshot(script.shard, 10))
    assert canon(restored) == canon(script.shard)
    script.core.drop(1)
    script.change("a", 3 * MINUTE + 2, MINUTELY)
    script.steps()
    script.steps(12 * MINUTE)
    assert script.fired("a") == list(range(MINUTE, 12 * MINUTE + 1, MINUTE))


def test_memos_are_dropped_when_no_change_can_need_them() -> None:
    script = Script()
    script.change("a", 0, MINUTELY)
    script.steps(10 * MINUTE)
    script.change("a", 3 * MINUTE + 1, state=JobState.DELETED)
    script.steps()
    assert script.shard.given
    script.change("b", DAY, (ScheduleSpec("@every 1h"),))
    script.steps(10 * MINUTE + bounds.CHANGE_LATE_MS + HOUR)
    assert not script.shard.given


def test_a_change_days_late_owes_a_day_and_one_range() -> None:
    script = Script()
    script.change("b", 0, (ScheduleSpec("@every 1h"),))
    script.steps(3 * DAY)
    script.change("a", DAY, (ScheduleSpec("@every 1h"),))
    script.steps()
    assert script.fired("a") == list(range(2 * DAY + HOUR, 3 * DAY + 1, HOUR))
    assert script.ranges("a") == [(2 * DAY + 10, 24, PUBLISHED_LATE)]


def test_an_outage_of_days_is_not_a_late_change() -> None:
    script = Script()
    script.change("a", 0, (ScheduleSpec("@every 12h"),))
    script.steps(MINUTE)
    script.change("a", HOUR)
    script.steps(4 * DAY)
    assert script.fired("a") == list(range(DAY // 2, 4 * DAY + 1, DAY // 2))


def test_a_deleted_job_does_not_fire_what_it_owed() -> None:
    script = Script()
    script.change("a", 0, MINUTELY)
    script.steps(MINUTE)
    script.change("a", 30 * MINUTE, state=JobState.DELETED)
    script.steps(HOUR)
    assert script.fired("a") == [MINUTE]
    assert script.ranges("a") == [(30 * MINUTE, 29, "job deleted")]


def test_a_cancelled_job_ends_what_waits() -> None:
    script = Script()
    script.change("a", 0, MINUTELY)
    script.steps(2 * MINUTE)
    script.change("a", 2 * MINUTE + 1, state=JobState.CANCELLED)
    script.steps(5 * MINUTE)
    assert set(script.book.status.values()) == {Status.CANCELLED}
    assert script.fired("a") == [MINUTE, 2 * MINUTE]


def test_a_clock_set_back_fires_nothing_before_its_instant() -> None:
    script = Script()
    script.change("a", 0, FIVE)
    script.steps(HOUR)
    script.now -= 30 * MINUTE
    script.core.clock_moved(-30 * MINUTE)
    script.change("b", 30 * MINUTE, FIVE)
    script.steps()
    assert script.fired("b") == []
    assert script.core.wake_at() == T0 + 35 * MINUTE
    script.steps(45 * MINUTE)
    assert script.fired("b") == [35 * MINUTE, 40 * MINUTE, 45 * MINUTE]
    script.steps(65 * MINUTE)
    assert script.fired("b") == list(range(35 * MINUTE, 65 * MINUTE + 1, 5 * MINUTE))
    assert script.fired("a") == list(range(5 * MINUTE, 65 * MINUTE + 1, 5 * MINUTE))


def test_a_pause_that_ends_by_itself_is_one_commit_even_with_nothing_owed() -> None:
    script = Script()
    script.change("a", 0, (ScheduleSpec("@every 1h"),), JobState.PAUSED, until=10 * MINUTE)
    script.steps(1)
    assert script.core.wake_at() == T0 + 10 * MINUTE
    assert script.steps(10 * MINUTE) == 1
    assert "a" in script.shard.timetable
    script.steps(HOUR)
    assert script.fired("a") == [HOUR]


def test_a_pause_that_a_later_revision_ended_wakes_nobody() -> None:
    script = Script()
    script.change("a", 0, (ScheduleSpec("@every 1h"),), JobState.PAUSED, until=10 * MINUTE)
    script.steps(1)
    script.change("a", 2, state=JobState.PAUSED)
    script.steps(50)
    assert script.core.wake_at() is None
    script.steps(10 * MINUTE)
    script.change("a", 2 * HOUR)
    script.steps(3 * HOUR)
    assert script.ranges("a") == [(2 * HOUR, 2, "paused")]
    assert script.fired("a") == [3 * HOUR]


def test_a_pause_that_ended_in_an_outage_runs_what_came_after_it() -> None:
    script = Script()
    script.change("a", 0, FIVE, JobState.PAUSED, until=30 * MINUTE)
    script.steps(1)
    script.steps(HOUR)
    assert script.ranges("a") == [(30 * MINUTE, 6, "paused")]
    assert script.fired("a") == list(range(35 * MINUTE, HOUR + 1, 5 * MINUTE))


def test_the_rest_of_a_cut_instant_that_nobody_has_any_more_wakes_nobody() -> None:
    script = Script(limit=1)
    for job in "ab":
        script.change(job, 0, MINUTELY)
    script.steps(MINUTE)
    script.now = T0 + 2 * MINUTE
    (commit,) = script.core.step(script.now)
    script.book.committed(commit)
    script.core.settle(commit, Outcome.COMMITTED, script.now)
    assert script.shard.watermark == (T0 + 2 * MINUTE, "a")
    script.change("b", 2 * MINUTE - 100, (ScheduleSpec("@every 1h"),))
    script.core.clock_moved(-50)  # set back a little: the watermark stands
    script.steps(2 * MINUTE - 50)
    assert script.shard.watermark == (T0 + 2 * MINUTE, "a")
    assert script.steps(2 * MINUTE) == 1
    assert script.shard.watermark == (T0 + 2 * MINUTE, LAST_JOB)


def test_a_clock_in_doubt_moves_nothing_and_forgets_nothing() -> None:
    script = Script(limit=5)
    script.change("a", 0, FIVE)
    script.steps(5 * MINUTE)
    script.now = T0 + HOUR + 2 * MINUTE
    (commit,) = script.core.step(script.now)
    script.book.committed(commit)
    script.core.settle(commit, Outcome.COMMITTED, script.now)
    assert script.shard.gaps
    before = script.shard.watermark
    script.core.nudge()  # something else is looked at meanwhile
    assert script.steps(HOUR + 2 * MINUTE + 1, hold=True) == 0
    assert script.shard.watermark == before
    assert script.core.wake_at(hold=True) is None
    at = script.core.wake_at()
    assert at is not None
    assert at <= script.now
    script.steps()
    assert script.fired("a") == list(range(5 * MINUTE, HOUR + 1, 5 * MINUTE))


def test_a_command_that_comes_twice_runs_once_also_while_it_waits_for_its_revision() -> None:
    script = Script()
    script.change("a", 0, (ScheduleSpec("@every 1h"),))
    script.steps(1)
    run = Run(b"1" * 16, "a", T0, T0 + HOUR, 2)
    for _ in range(2):
        script.receive(run)
        script.steps()
        script.receive(run)
    script.steps()
    assert len(script.shard.held_commands) == 1
    script.change("a", 2)
    script.steps(3)
    script.receive(run)
    script.steps()
    assert [key.nonce for key in script.book.status] == [run.id.hex()[:12]]


def test_a_snapshot_remembers_commands() -> None:
    script = Script()
    script.change("a", 0, (ScheduleSpec("@every 1h"),))
    script.receive(Run(b"1" * 16, "a", T0, T0 + HOUR, 1))
    script.steps(1)
    assert set(folded(snapshot(script.shard, 10)).commands) == {b"1" * 16}


def test_a_command_that_expired_is_skipped_even_if_it_could_run() -> None:
    script = Script()
    script.change("a", 0, (ScheduleSpec("@every 12h"),))
    script.steps(1)
    script.receive(Run(b"1" * 16, "a", T0, T0 + HOUR, 1))
    script.receive(Run(b"2" * 16, "a", T0, T0 + HOUR, 9))
    script.steps(2 * HOUR)
    assert list(script.book.status.values()) == [Status.SKIPPED] * 2
    assert not script.shard.held_commands


def test_a_run_of_a_job_that_is_cancelled_in_the_same_step_is_refused() -> None:
    script = Script()
    script.change("a", 0, (ScheduleSpec("@every 12h"),))
    script.steps(1)
    script.change("a", 2, state=JobState.CANCELLED)
    script.receive(Run(b"1" * 16, "a", T0, T0 + HOUR, 1))
    script.steps(50)
    assert script.book.status == {}
    answers = [answer for commit in script.log for answer in commit.answers]
    assert [text.split()[0] for _, text in answers] == ["!FAILED_PRECONDITION"]


def test_a_revision_is_kept_when_its_last_execution_ends_as_it_fires_again() -> None:
    script = Script(limit=1, slots=1)
    script.change("a", 0, FIVE)
    script.steps(5 * MINUTE)
    key = Key("a", T0 + 5 * MINUTE)
    assert script.book.status[key] is Status.PLACED
    script.change("a", 30 * MINUTE, MINUTELY)
    script.now = T0 + 31 * MINUTE
    for _ in range(40):  # the old revision's debt is worked off one by one, and each ends as the next begins
        for commit in script.core.step(script.now):
            script.book.committed(commit)
            effects = script.core.settle(commit, Outcome.COMMITTED, script.now)
            assert effects is not None
            for lease in effects.leases.get(W, ()):
                for placed in lease.block.keys:
                    script.end(placed, Status.COMPLETED, lease.block.attempt)
        if script.book.status[key] is Status.PLACED:
            script.end(key, Status.COMPLETED)
    assert set(script.book.status.values()) == {Status.COMPLETED}
    assert script.fired("a") == [*range(5 * MINUTE, 30 * MINUTE + 1, 5 * MINUTE), 31 * MINUTE]
    assert not script.shard.kept


def test_a_feed_that_tells_an_older_revision_again_does_not_bring_a_deleted_job_back() -> None:
    script = Script()
    script.change("a", 0, MINUTELY)
    script.steps(1)
    first = script.revisions["a"]
    script.change("a", 2, state=JobState.DELETED)
    script.steps(3)
    script.receive(first)
    script.steps(MINUTE)
    assert "a" not in script.shard.definitions
    assert script.fired("a") == []
    assert canon(folded(snapshot(script.shard, 1))) == canon(script.shard)
    script.change("b", MINUTE, (ScheduleSpec("@every 1h"),))
    script.steps(bounds.DELETED_KNOWN_MS + HOUR)
    assert not script.shard.given
    script.change("a", bounds.DELETED_KNOWN_MS + HOUR)
    script.steps(bounds.DELETED_KNOWN_MS + HOUR + 20)
    assert script.shard.definitions["a"].revision == 3


def test_a_stored_definition_owes_from_where_its_owner_took_it() -> None:
    """A job store keeps the `since` that the Job Service wrote, the term the owner's."""
    definition = Definition("a", 1, T0 + 500, JobState.ACTIVE, None, MINUTELY, Demand(), ALL, b"")
    term = Term("a", 1, T0, T0, None, "")
    restored = Shard(0)
    restored.restore([Commit(0, 1, 7, T0, (T0, LAST_JOB), (1, 0), definitions=[definition], opened=[term])])
    assert restored.definitions["a"].since == T0


def test_an_outage_makes_no_repeat_new() -> None:
    """The repeat of a command is read days after the command itself: its execution has its verdict already."""
    first = Shard(0)
    command, day = b"2" * 16, bounds.COMMAND_EXPIRY_MS
    first.apply(Commit(0, 1, 1, 1_000, (0, LAST_JOB), (0, 1), commands=[command], issued=[1_000]))
    first.apply(Commit(0, 1, 2, 1_000 + 3 * day, (0, LAST_JOB), (0, 1)))
    assert command in first.commands
    assert command in folded(snapshot(first, 10)).commands
    later = 1_000 + 3 * day
    first.apply(Commit(0, 1, 3, later, (0, LAST_JOB), (0, 3), commands=[b"3" * 16], issued=[later]))
    assert set(first.commands) == {b"3" * 16}, "what came a day after it is read: no repeat can follow"
