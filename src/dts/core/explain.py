"""Why: why an execution ran, waits, was skipped or will not run, and what becomes of a job. Pure: facts in, one answer with its steps out.

Rules:
- Steps follow the way of an instant: the job and its revision, the schedule, pauses, the record, limits, placement, the attempts.
- A step says yes (this let it go on), no (this is why it did not, or does not yet) or info. The answer is the last no, or how it ended.
- Nothing is guessed: a verdict is read from the record; what the record has not reached is 'unknown', what it lacks is 'missing'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dts.core.policies import PAUSED
from dts.core.timetable import times_of
from dts.core.words import (
    at_worker,
    duration,
    ended_words,
    failure_words,
    final_words,
    is_due,
    open_words,
    plural,
    range_words,
    reasons_of,
    retries_words,
    schedule_words,
)
from dts.model import (
    Cause,
    Definition,
    Execution,
    Instant,
    JobState,
    Key,
    Outlook,
    Overlap,
    Range,
    Status,
    Term,
)
from dts.schedule import WallTime, format_duration, format_instant
from dts.schedule import explain as explain_schedule

YES, NO, INFO = "yes", "no", "info"
IN_FORCE_LATE_MS = 5_000  # a revision that came into force later than this after its change is worth a word
PLACED_LATE_MS = 2_000  # so is an execution that waited longer for its place
SHOWN_OPEN = 5  # open executions named in the answer about a job

RAN = {
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.SKIPPED: "skipped",
    Status.CANCELLED: "cancelled",
    Status.LOST: "lost",
}


class Step(NamedTuple):
    """One thing that was looked at. Topics: clock, job, schedule, pause, record, policy, limits, placement, run."""

    topic: str
    verdict: str  # YES | NO | INFO
    text: str


class Explained(NamedTuple):
    """`outcome`: completed, failed, skipped, cancelled, lost, not_run (a range), running, placed, waits, retrying, will_run,
    will_not_run, not_due, unknown (not in the record yet) or missing. `next`: the job's next instant."""

    job: str
    execution: Key | None
    at: Instant | None
    outcome: str
    answer: str
    steps: tuple[Step, ...]
    next: Instant | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known. `execution`: the one that is asked about, or that of the instant `at`; neither: the job as it is now."""

    job: str
    now: Instant
    revisions: Sequence[Definition]  # newest first
    changes: Mapping[int, str] = field(default_factory=dict)  # revision -> what kind of change made it
    at: Instant | None = None
    wall: WallTime | None = None
    execution: Execution | None = None
    earlier: Sequence[Execution] = ()
    open: Sequence[Execution] = ()
    last: Execution | None = None
    range: Range | None = None
    term: Term | None = None
    outlook: Outlook | None = None
    complete: Instant = 0  # how far the record has come
    pause: str = ""  # who paused the job, and why
    suspended: Instant = 0  # since when, after failures in a row; 0: it is not
    suspension: str = ""  # why


def governing(revisions: Sequence[Definition], at: Instant) -> Definition | None:
    """The revision that owes an instant: the newest whose `since` is before it. `revisions`: newest first."""
    return next((each for each in revisions if each.since < at), None)


def next_of(definition: Definition | None, after: Instant) -> Instant | None:
    """The first instant after another one at which a revision will fire."""
    if definition is None or definition.state >= JobState.CANCELLED or not definition.schedules:
        return None
    if definition.state is JobState.PAUSED:
        if definition.until is None:
            return None
        after = max(after, definition.until)
    return times_of(definition.schedules).next_after(after)


def explain(facts: Facts) -> Explained:
    """The answer."""
    if facts.execution is not None:
        return _Answer(facts).execution(facts.execution)
    return _Answer(facts).instant(facts.at) if facts.at is not None else _Answer(facts).job()


class _Answer:
    """Collects steps."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.steps: list[Step] = []
        self.current = facts.revisions[0] if facts.revisions else None
        self.following = None if facts.suspended else next_of(self.current, facts.now)
        if facts.outlook is not None and facts.outlook.clock != "ok":
            self._step("clock", NO, f"nothing new is fired: {facts.outlook.clock}")

    def _step(self, topic: str, verdict: str, text: str) -> None:
        self.steps.append(Step(topic, verdict, text))

    def _wall(self, at: Instant) -> None:
        """What the clock did at the wall time that was asked for."""
        if self.facts.wall is not None and self.facts.wall.note:
            self._step("schedule", INFO, f"{self.facts.wall.note}; this is about {format_instant(at)}")

    def _done(self, outcome: str, answer: str, execution: Execution | None = None) -> Explained:
        facts = self.facts
        key = execution.key if execution is not None else None
        return Explained(facts.job, key, facts.at, outcome, answer, tuple(self.steps), self.following)

    # ---- an execution

    def execution(self, found: Execution) -> Explained:
        self._wall(found.key.at)
        definition = next((each for each in self.facts.revisions if each.revision == found.revision), None)
        self._cause(found, definition)
        for each in self.facts.earlier:
            self._step(
                "run", INFO, f"attempt {each.attempt} {each.status.name}{at_worker(each)}: {failure_words(each)}"
            )
        if found.status is Status.QUEUED:
            return self._waits(found, definition)
        self._placed(found, definition)
        if found.status is Status.PLACED:
            if found.end.started:
                text = f"it runs since {format_instant(found.end.started)} at worker {found.worker} (attempt {found.attempt})"
                self._step("run", YES, text)
                return self._done("running", text, found)
            text = (
                f"it was leased to worker {found.worker} at {format_instant(found.placed)} and waits there for its turn"
            )
            self._step("run", INFO, text)
            return self._done("placed", text, found)
        if found.status is Status.RETRYING:
            text = f"attempt {found.attempt} failed: {failure_words(found)}; it is tried again at {format_instant(found.not_before)}"
            self._step("policy", INFO, retries_words(definition, len(self.facts.earlier)))
            self._step("run", NO, text)
            return self._done("retrying", text, found)
        return self._ended(found, definition)

    def _cause(self, found: Execution, definition: Definition | None) -> None:
        at = found.key.at
        match found.cause:
            case Cause.SCHEDULE if definition is not None and definition.schedules:
                self._due(definition, at)
                self._in_force(definition)
            case Cause.SCHEDULE:
                self._step("schedule", YES, f"it was due at {format_instant(at)} by revision {found.revision}")
            case Cause.RETRY:
                self._step("schedule", YES, f"it is a retry of {found.retry_of}, asked for at {format_instant(at)}")
            case cause:
                self._step("schedule", YES, f"it was asked for by hand ({cause.value}) at {format_instant(at)}")

    def _placed(self, found: Execution, definition: Definition | None) -> None:
        """How long it waited for its place."""
        waited = found.placed - found.queued
        if found.attempt == 1 and found.queued and waited > PLACED_LATE_MS:
            jitter = definition.policies.jitter if definition is not None else 0
            spread = f" (jitter spreads starts over {format_duration(jitter)})" if jitter else ""
            self._step("placement", INFO, f"it waited {duration(waited)} for a place{spread}")

    def _waits(self, found: Execution, definition: Definition | None) -> Explained:
        facts, outlook = self.facts, self.facts.outlook
        waited = duration(facts.now - found.queued)
        self._step("run", INFO, f"it waits since {format_instant(found.queued)} ({waited})")
        limits, placement = reasons_of(found)
        if limits:
            self._step("limits", NO, limits)
        if outlook is not None:
            self._placement(outlook, waits=True)
            placement = outlook.text
        elif placement:
            self._step("placement", NO, placement)
        if definition is not None and definition.policies.start_within:
            by = found.queued + definition.policies.start_within
            self._step("policy", INFO, f"start within: it is SKIPPED if it is not placed by {format_instant(by)}")
        return self._done("waits", f"it waits: {limits or placement or 'it is about to be placed'}", found)

    def _placement(self, outlook: Outlook, *, waits: bool = False) -> None:
        if outlook.open:
            text = f"{outlook.open} of {outlook.workers} worker{plural(outlook.workers)} would take it now"
            self._step("placement", YES, text)
        else:
            self._step("placement", NO, outlook.text)
        if outlook.obstacles and outlook.open:
            self._step("placement", INFO, "the others: " + ", ".join(map(str, outlook.obstacles)))
        if outlook.ahead and waits:
            come = "execution comes" if outlook.ahead == 1 else "executions come"
            self._step("placement", INFO, f"{outlook.ahead} waiting {come} first")
        if outlook.kept:
            self._step("placement", INFO, f"it has waited long: room is kept free for it at worker {outlook.kept}")

    def _ended(self, found: Execution, definition: Definition | None) -> Explained:
        outcome = RAN[found.status]
        match found.status:
            case Status.COMPLETED:
                took = duration(found.end.ended - found.end.started) if found.end.started else "no time"
                text = f"it ran{at_worker(found)} and completed after {took} (attempt {found.attempt})"
                self._step("run", YES, text)
            case Status.FAILED:
                text = f"attempt {found.attempt} failed{at_worker(found)}: {failure_words(found)}"
                self._step("run", NO, text)
                self._step("policy", INFO, final_words(found, definition))
            case Status.SKIPPED:
                text = f"it was skipped: {found.reason or 'no reason was recorded'}"
                self._step("policy", NO, text)
            case Status.CANCELLED:
                text = f"it was cancelled: {found.reason or 'by request'}"
                self._step("run", NO, text)
            case _:
                text = f"it was lost: {found.reason or 'its worker vanished'}"
                self._step("run", NO, text)
        return self._done(outcome, text, found)

    # ---- an instant

    def instant(self, at: Instant) -> Explained:
        facts = self.facts
        self._wall(at)
        definition = governing(facts.revisions, at)
        if definition is None:
            text = f"job {facts.job} did not exist at {format_instant(at)}"
            if facts.revisions:
                text += f": its first revision is of {format_instant(facts.revisions[-1].since)}"
            self._step("job", NO, text)
            return self._done("not_due", text)
        if facts.range is not None:
            by = next((each for each in facts.revisions if each.revision == facts.range.revision), definition)
            return self._ranged(by, at, facts.range)
        self._revision(definition)
        if definition.state >= JobState.CANCELLED:
            text = f"the job was {definition.state.name.lower()} at {format_instant(definition.since)}: nothing is due after it"
            self._step("job", NO, text)
            return self._done("not_due", text)
        if not definition.schedules:
            text = "the job has no schedule: it runs on demand only"
            self._step("schedule", NO, text)
            return self._done("not_due", text)
        if not is_due(definition, at):
            return self._not_due(definition, at)
        self._due(definition, at)
        self._in_force(definition)
        if definition.state is JobState.PAUSED and (definition.until is None or at <= definition.until):
            return self._paused(definition, at)
        if self.facts.suspended and at > self.facts.suspended:
            text = f"{self._suspension()}: {format_instant(at)} does not run"
            self._step("pause", NO, text)
            return self._done("will_not_run" if at > facts.now else "not_run", text)
        return self._future(definition, at) if at > facts.now else self._silence(at)

    def _revision(self, definition: Definition) -> None:
        change = self.facts.changes.get(definition.revision, "")
        named = f"revision {definition.revision}{f' ({change})' if change else ''}"
        self._step("job", YES, f"{named} owes the instants after {format_instant(definition.since)}")

    def _in_force(self, definition: Definition) -> None:
        term = self.facts.term
        if term is not None and term.revision == definition.revision:
            late = term.in_force - term.since
            if late > IN_FORCE_LATE_MS:
                self._step("record", INFO, f"the scheduler took this revision {duration(late)} after the change")

    def _due(self, definition: Definition, at: Instant) -> None:
        for spec in definition.schedules:
            if times_of((spec,)).count(at - 1, at):
                told = explain_schedule(spec, at - 1, 1)
                note = f"; {told.next[0].note}" if told.next and told.next[0].note else ""
                local = f" ({told.next[0].local} {spec.zone})" if told.next and spec.zone != "UTC" else ""
                due = "it is due" if at > self.facts.now else "it was due"
                self._step(
                    "schedule", YES, f"{due} at {format_instant(at)}{local} by {spec.text!r}: {told.sentence}{note}"
                )
                return
        why = f"revision {definition.revision} fired it, though its schedule has no instant {format_instant(at)} under today's rules"
        self._step("schedule", INFO, why)

    def _not_due(self, definition: Definition, at: Instant) -> Explained:
        times = times_of(definition.schedules)
        around = [
            f"{word} is {format_instant(found)}"
            for word, found in (("the one before", times.previous_before(at)), ("the next", times.next_after(at)))
            if found is not None
        ]
        text = (
            f"it was not due at {format_instant(at)}"
            if at <= self.facts.now
            else f"it is not due at {format_instant(at)}"
        )
        for spec in definition.schedules:
            self._step("schedule", INFO, schedule_words(spec, at))
        whole = f"{text}: {', '.join(around)}" if around else text
        self._step("schedule", NO, whole)
        return self._done("not_due", whole)

    def _suspension(self) -> str:
        facts = self.facts
        return f"the job is suspended since {format_instant(facts.suspended)} ({facts.suspension}), until dts job resume {facts.job}"

    def _paused(self, definition: Definition, at: Instant) -> Explained:
        until = f" until {format_instant(definition.until)}" if definition.until is not None else ""
        by = f" {self.facts.pause}" if self.facts.pause else ""
        text = f"the job was paused at {format_instant(definition.since)}{until}{by}: {format_instant(at)} does not run"
        self._step("pause", NO, text)
        return self._done("will_not_run" if at > self.facts.now else "not_run", text)

    def _ranged(self, definition: Definition, at: Instant, found: Range) -> Explained:
        self._revision(definition)
        if definition.schedules and is_due(definition, at):
            self._due(definition, at)
        elif definition.schedules:
            return self._not_due(definition, at)
        span = f"{found.size} instant{plural(found.size)} in ({format_instant(found.after)}, {format_instant(found.until)}]"
        text = f"it did not run: {range_words(definition, found.reason)}"
        if found.reason == PAUSED and self.facts.pause:
            text += f" {self.facts.pause}"
        self._step("pause" if found.reason.startswith(PAUSED) else "policy", NO, f"{text}; one verdict over {span}")
        return self._done("not_run", text)

    def _future(self, definition: Definition, at: Instant) -> Explained:
        policies = definition.policies
        if definition is not self.current:
            self._step("job", INFO, "a later revision exists: it decides")
        if policies.overlap is not Overlap.ALLOW_ALL:
            self._step(
                "policy", INFO, f"if an execution of the job has not ended by then: overlap {policies.overlap.value}"
            )
        if definition.group:
            self._step("limits", INFO, f"group {definition.group!r}: {policies.group_limit} at once")
        if policies.jitter:
            self._step("policy", INFO, f"jitter: it is placed up to {format_duration(policies.jitter)} later")
        if self.facts.outlook is not None:
            self._placement(self.facts.outlook)
        text = f"it will run at {format_instant(at)}, in {duration(at - self.facts.now)}"
        if self.facts.outlook is not None and not self.facts.outlook.open:
            text += f", if by then a worker has room: now {self.facts.outlook.text}"
        return self._done("will_run", text)

    def _silence(self, at: Instant) -> Explained:
        """It was due, and there is no verdict."""
        if at > self.facts.complete:
            text = f"not known yet: the record has come as far as {format_instant(self.facts.complete)}; ask again"
            self._step("record", NO, text)
            return self._done("unknown", text)
        text = f"it was due, and there is no verdict: history was kept no longer, or it is missing; see dts audit --job {self.facts.job}"
        self._step("record", NO, text)
        return self._done("missing", text)

    # ---- a job

    def job(self) -> Explained:
        facts, current = self.facts, self.current
        assert current is not None, "a job has a revision"
        self._state(current)
        self._schedule(current)
        for each in facts.open[:SHOWN_OPEN]:
            self._step("run", NO if each.status is Status.QUEUED else YES, f"{each.key} {open_words(each)}")
        if len(facts.open) > SHOWN_OPEN:
            self._step("run", INFO, f"and more: dts execution list --job {facts.job} --status open")
        if facts.last is not None:
            self._step(
                "run", INFO, f"the last to end: {facts.last.key} {facts.last.status.name}{ended_words(facts.last)}"
            )
        if facts.outlook is not None and current.state < JobState.CANCELLED:
            self._placement(facts.outlook, waits=any(each.status is Status.QUEUED for each in facts.open))
        running = next((each for each in facts.open if each.status is not Status.QUEUED), None)
        if running is not None:
            return self._done("running" if running.end.started else "placed", f"{running.key} {open_words(running)}")
        if facts.open:
            return self._done("waits", f"{facts.open[0].key} {open_words(facts.open[0])}")
        return self._idle(current)

    def _idle(self, current: Definition) -> Explained:
        if self.following is None:
            stop = next((step.text for step in self.steps if step.verdict == NO and step.topic != "placement"), "")
            return self._done("will_not_run", f"it will not run: {stop or 'its schedule has no further instant'}")
        text = f"it runs next at {format_instant(self.following)}, in {duration(self.following - self.facts.now)}"
        outlook = self.facts.outlook
        if outlook is not None and not outlook.open:
            text += f", if by then a worker has room: now {outlook.text}"
        return self._done("will_run", text)

    def _state(self, current: Definition) -> None:
        since = format_instant(current.since)
        match current.state:
            case JobState.ACTIVE if self.facts.suspended:
                self._step("pause", NO, self._suspension())
            case JobState.ACTIVE:
                self._step("job", YES, f"the job is active: revision {current.revision} since {since}")
            case JobState.PAUSED if current.until is not None and current.until <= self.facts.now:
                self._step("pause", YES, f"its pause ended by itself at {format_instant(current.until)}")
            case JobState.PAUSED:
                until = f"until {format_instant(current.until)}" if current.until is not None else "until it is resumed"
                by = f" {self.facts.pause}" if self.facts.pause else ""
                self._step("pause", NO, f"the job is paused since {since}, {until}{by}")
            case state:
                self._step("job", NO, f"the job is {state.name.lower()} since {since}")

    def _schedule(self, current: Definition) -> None:
        if not current.schedules:
            self._step("schedule", NO, "it has no schedule: it runs on demand only")
            return
        for spec in current.schedules:
            left = times_of((spec,)).next_after(self.facts.now) is not None
            self._step("schedule", YES if left else NO, schedule_words(spec, self.facts.now))
