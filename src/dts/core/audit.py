"""What was due, recomputed from revisions and schedules, against what became of it. Pure: facts of one job in, findings out.

Rules:
- A revision owes the instants of its schedule after its `since`, up to the next revision's, as long as it is not cancelled or deleted.
  Its term says since when it did: an owner whose clock had not reached the `since` that was published took it at its own now.
- Each of them has exactly one verdict: an execution of cause SCHEDULE, or the one range of its revision that contains it.
- A revision goes on firing until the next one is in force. What it had given a verdict by then stands: 'fired n ms after the change'.
- A paused span has no range before it ends: 'paused (open)'. What lies beyond the record is 'pending'.
- Where a revision or the rules of its time zone are gone, nothing can be said: 'undecidable', never 'missing'.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dts.core.timetable import times_of
from dts.errors import FailedPrecondition
from dts.model import Definition, Execution, Instant, JobState, Range, Term
from dts.schedule import Schedule, format_instant

MAX_INSTANTS = 1_000_000  # of one revision in one audit
MAX_FINDINGS = 1_000  # kept; all are counted
LATE_IN_FORCE_MS = 5_000
FOREVER: Instant = 1 << 62

PAUSED_OPEN, PENDING, UNDECIDABLE = "paused (open)", "pending", "undecidable"


class Window(NamedTuple):
    """Instants in (after, until] are audited; those beyond `complete` are not in the record yet. `rules`: the time zones' version."""

    after: Instant
    until: Instant
    complete: Instant
    rules: str


class Facts(NamedTuple):
    """All that is known of one job. Revisions, terms and ranges are whole, executions those with an instant in the window."""

    job: str
    revisions: Sequence[Definition]
    terms: Sequence[Term]
    executions: Sequence[Execution]  # of cause SCHEDULE, open ones too; an ended one wins
    ranges: Sequence[Range]
    suspended: Instant = 0  # since when, after failures in a row; 0: it is not


class Finding(NamedTuple):
    """One instant that does not add up."""

    kind: str  # missing | doubled | unexplained | undecidable | late_in_force
    job: str
    instant: Instant
    detail: str


@dataclass(slots=True)
class Tally:
    """What an audit found, of one job or of all. `stood`: executions that an older revision fired after the change."""

    due: int = 0
    jobs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    stood: int = 0
    stood_ms: int = 0  # the longest time after a change

    @property
    def clean(self) -> bool:
        """Nothing is missing, doubled or unexplained."""
        return not (self.kinds["missing"] or self.kinds["doubled"] or self.kinds["unexplained"])

    def find(self, finding: Finding) -> None:
        """Counts a finding, and keeps it among the first MAX_FINDINGS."""
        self.kinds[finding.kind] += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)

    def add(self, other: Tally) -> None:
        """Takes another tally in."""
        self.due += other.due
        self.jobs += other.jobs
        self.verdicts += other.verdicts
        self.kinds += other.kinds
        self.findings += other.findings[: MAX_FINDINGS - len(self.findings)]
        self.stood += other.stood
        self.stood_ms = max(self.stood_ms, other.stood_ms)


def audit_job(facts: Facts, window: Window) -> Tally:
    """Recomputes one job. Raises FailedPrecondition when a revision has more than MAX_INSTANTS in the window."""
    return _Audit(facts, window).run()


class _Audit:
    """One job's audit under way."""

    def __init__(self, facts: Facts, window: Window) -> None:
        self.facts = facts
        self.window = window
        self.tally = Tally(jobs=1)
        self.terms = {term.revision: term for term in facts.terms}
        self.executions: dict[Instant, Execution] = {}
        for each in facts.executions:
            known = self.executions.get(each.key.at)
            if known is None or not known.status.terminal:
                self.executions[each.key.at] = each
        self.since = self._sinces()
        self.reach = self._reaches()
        self.ranges: dict[int, list[Range]] = {}
        for each_range in facts.ranges:
            self.ranges.setdefault(each_range.revision, []).append(each_range)

    def _sinces(self) -> list[Instant]:
        """From where on each revision owed, as its owner applied it; one that came to no term ended the one before."""
        sinces: list[Instant] = []
        before: Term | None = None
        for revision in self.facts.revisions:
            term = self.terms.get(revision.revision)
            ended = before.until if before is not None else None
            sinces.append(term.since if term is not None else revision.since if ended is None else ended)
            before = term
        return sinces

    def _reaches(self) -> list[Instant]:
        """For each revision, up to where it may have gone on firing: where the next one in force began."""
        reach, following = [], FOREVER
        for revision in reversed(self.facts.revisions):
            reach.append(following)
            term = self.terms.get(revision.revision)
            if term is not None:
                following = min(following, term.in_force)
        return reach[::-1]

    def run(self) -> Tally:
        revisions, extra = self.facts.revisions, set(self.executions)
        for index, revision in enumerate(revisions):
            term = self.terms.get(revision.revision)
            if term is not None and term.in_force - term.since > LATE_IN_FORCE_MS and self._inside(term.since):
                late = f"revision {revision.revision} came into force {term.in_force - term.since} ms after its change"
                self._found("late_in_force", term.since, late)
            due = self._due(index)
            if due:
                self.tally.due += len(due)
                extra.difference_update(due)
                self._settle(index, due)
        self._extra(sorted(extra))
        self._sizes()
        return self.tally

    # ---- what was due ----

    def _due(self, index: int) -> list[Instant]:
        revision = self.facts.revisions[index]
        if revision.state >= JobState.CANCELLED or not revision.schedules:
            return []
        after = max(self.since[index], self.window.after)
        until = min(self._since_next(index), self.window.until)
        if after >= until:
            return []
        found = times_of(revision.schedules).between(after, until, MAX_INSTANTS + 1)
        if len(found) > MAX_INSTANTS:
            raise FailedPrecondition(
                f"job {self.facts.job!r} has more than {MAX_INSTANTS} due instants between "
                f"{format_instant(self.window.after)} and {format_instant(self.window.until)}: audit a shorter span"
            )
        return found

    def _since_next(self, index: int) -> Instant:
        following = index + 1
        return self.since[following] if following < len(self.since) else FOREVER

    # ---- what became of it ----

    def _settle(self, index: int, due: list[Instant]) -> None:
        """Takes each due instant's verdict; what is left has none."""
        number = self.facts.revisions[index].revision
        executions = self.executions
        ran = [executions[at] for at in due if at in executions]
        self.tally.verdicts += Counter(each.status.name for each in ran)
        for each in ran:
            if each.revision != number:
                self._stood(each)
        left = self._ranged(number, due)
        if left and index:
            left = self._ranged_before(index, left)
        if left:
            self._unsettled(index, left)

    def _ranged(self, number: int, due: list[Instant]) -> list[Instant]:
        """Counts what the revision's own ranges contain; the instants without any verdict."""
        ranges = self.ranges.get(number, ())
        if not ranges:
            return [at for at in due if at not in self.executions] if self.executions else due
        covered: set[Instant] = set()
        for each in ranges:
            inside = due[bisect_right(due, each.after) : bisect_right(due, each.until)]
            twice = [at for at in inside if at in self.executions or at in covered]
            for at in twice:
                other = "an execution" if at in self.executions else "another range"
                self._found("doubled", at, f"in {_span(each)} and in {other}")
            self.tally.verdicts[each.reason or "range"] += len(inside) - len(twice)
            covered.update(inside)
        return [at for at in due if at not in covered and at not in self.executions]

    def _ranged_before(self, index: int, left: list[Instant]) -> list[Instant]:
        """Instants that an older revision had given a range by the time this one came into force: they stand."""
        for older in range(index):
            revision = self.facts.revisions[older]
            for each in self.ranges.get(revision.revision, ()):
                times = times_of(revision.schedules)
                stands = {
                    at
                    for at in left[
                        bisect_right(left, each.after) : bisect_right(left, min(each.until, self.reach[older]))
                    ]
                    if times.count(at - 1, at)
                }
                self.tally.verdicts[each.reason or "range"] += len(stands)
                left = [at for at in left if at not in stands] if stands else left
        return left

    def _unsettled(self, index: int, left: list[Instant]) -> None:
        """Instants without a verdict: not in the record yet, in a pause that goes on, not decidable, or missing."""
        revision = self.facts.revisions[index]
        known = bisect_right(left, self.window.complete)
        if known < len(left):
            self.tally.verdicts[PENDING] += len(left) - known
            left = left[:known]
        if revision.state <= JobState.PAUSED and self.reach[index] == FOREVER:
            left = self._still_paused(revision, left)
        if not left:
            return
        unsure = self._unsure(revision)
        kind = UNDECIDABLE if unsure else "missing"
        self.tally.verdicts[kind] += len(left)
        for at in left:
            self._found(kind, at, unsure or f"revision {revision.revision} owes it, and there is no verdict")

    def _still_paused(self, revision: Definition, left: list[Instant]) -> list[Instant]:
        """Without what lies in a pause, or a suspension, that goes on."""
        ends = self.facts.suspended or FOREVER
        if revision.state is JobState.PAUSED:
            ends = FOREVER if revision.until is None else revision.until
            paused = left[: bisect_right(left, ends)]
        else:
            paused = left[:0]
        if self.facts.suspended:
            paused = [*paused, *(at for at in left[len(paused) :] if at > self.facts.suspended)]
        if paused:
            self.tally.verdicts[PAUSED_OPEN] += len(paused)
        return [at for at in left if at not in set(paused)] if paused else left

    def _unsure(self, revision: Definition) -> str:
        """Why nothing can be said about a revision's instants, or ''."""
        term = self.terms.get(revision.revision)
        if term is None:
            return f"revision {revision.revision} has no term: it never came into force, or its record is gone"
        if term.rules != self.window.rules and any(spec.zone != "UTC" for spec in revision.schedules):
            return f"fired under time zone rules {term.rules or 'unknown'}, recomputed under {self.window.rules}"
        return ""

    # ---- what was not due ----

    def _extra(self, instants: Iterable[Instant]) -> None:
        """Executions at instants that no revision in force owes."""
        for at in instants:
            self._stood(self.executions[at])

    def _stood(self, found: Execution) -> None:
        """An execution of an older revision than the one that owes its instant: it stands, if that revision was still in force."""
        at = found.key.at
        index = next((i for i, each in enumerate(self.facts.revisions) if each.revision == found.revision), None)
        if index is None:
            self._found(UNDECIDABLE, at, f"revision {found.revision}, which fired it, is gone")
            return
        revision, changed = self.facts.revisions[index], self._since_next(index)
        if not revision.schedules or not times_of(revision.schedules).count(at - 1, at):
            unsure = self._unsure(revision)
            why = unsure or f"fired by revision {revision.revision}, whose schedule has no such instant"
            self._found(UNDECIDABLE if unsure else "unexplained", at, why)
        elif changed < at <= self.reach[index] and revision.state < JobState.CANCELLED:
            self.tally.stood += 1
            self.tally.stood_ms = max(self.tally.stood_ms, at - changed)
        elif at <= self.since[index]:
            self._found("unexplained", at, f"fired by revision {revision.revision}, which is younger")
        else:
            self._found("unexplained", at, f"fired by revision {revision.revision} when a later one was in force")

    def _sizes(self) -> None:
        """A range's size is the number of its revision's instants in it."""
        numbers = {each.revision: each for each in self.facts.revisions}
        for number, ranges in self.ranges.items():
            revision = numbers.get(number)
            if revision is None:
                self._found(UNDECIDABLE, ranges[0].until, f"revision {number}, of a range, is gone")
                continue
            times: Schedule = times_of(revision.schedules)
            for each in ranges:
                expected = times.count(each.after, each.until)
                if expected != each.size:
                    unsure = self._unsure(revision)
                    why = unsure or f"{_span(each)} says {each.size}, the schedule has {expected}"
                    self._found(UNDECIDABLE if unsure else "unexplained", each.until, why)

    def _inside(self, at: Instant) -> bool:
        return self.window.after < at <= self.window.until

    def _found(self, kind: str, at: Instant, detail: str) -> None:
        self.tally.find(Finding(kind, self.facts.job, at, detail))


def _span(found: Range) -> str:
    return f"the range '{found.reason}' ({format_instant(found.after)}, {format_instant(found.until)}]"
