"""Pure rules: what becomes of owed instants, and when a failed attempt is tried again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

from dts import bounds
from dts.core.timetable import times_of
from dts.model import CatchUp, Definition, End, Instant, JobState, Key, Misfire, Overlap, Owed, Policies, Range
from dts.schedule import Schedule

MISSED = "missed"
PAUSED = "paused"
TOO_LATE = "start within: it was not placed in time"
TOO_OLD = "missed: older than the grace period"
PUBLISHED_LATE = "missed: the change arrived later than instants are owed for"


class Settled(NamedTuple):
    """What became of an owed piece: instants that fire, ranges that do not, what is left, and when its next instant is."""

    fires: Sequence[Instant]
    ranges: Sequence[Range]
    rest: Owed | None
    at: Instant = 0  # beyond now: the clock was set back behind the watermark


def retry_delay(policies: Policies, failures: int, key: Key) -> int:
    """Ms until the next attempt after the `failures`-th failure: exponential, capped, spread by a hash of the key."""
    assert failures >= 1
    delay = min(policies.retry_initial * policies.retry_factor ** min(failures - 1, 64), float(policies.retry_cap))
    fraction = zlib.crc32(f"{key}#{failures}".encode()) / 0xFFFFFFFF  # 0 to 1, the same on every instance
    return max(0, round(delay * (1 + policies.retry_jitter * (2 * fraction - 1))))


def spread(key: Key, jitter: int) -> int:
    """Ms from 0 to `jitter`: an execution's own delay, the same on every instance."""
    return zlib.crc32(str(key).encode()) % (jitter + 1)


def ruled(definition: Definition) -> bool:
    """Whether its due instants are looked at one by one: overlap, group, jitter and start_within are no matter of bulk."""
    policies = definition.policies
    return bool(
        definition.group or policies.overlap is not Overlap.ALLOW_ALL or policies.jitter or policies.start_within
    )


def tried_again(policies: Policies, end: End) -> bool:
    """Whether the policies let a failure of this kind be tried again."""
    if policies.retry_only and not any(_names(each, end) for each in policies.retry_only):
        return False
    return not any(_names(each, end) for each in policies.retry_never)


def _names(name: str, end: End) -> bool:
    """Whether a name of failures ('75', '500-599', 'timeout', 'ValueError') names this one."""
    first, _, last = name.partition("-")
    if first.isdecimal():
        return int(first) <= end.code <= int(last or first)
    if name == end.kind:
        return True
    error, colon, _ = end.error.partition(":")
    return bool(colon) and name in (error, error.rpartition(".")[2])


def ranges_of(owed: Owed, reason: str) -> list[Range]:
    """One verdict over all instants of a piece."""
    return _ranges(owed, times_of(owed.definition.schedules), owed.after, owed.until, reason)


def ended_ranges(owed: Owed, reason: str) -> list[Range]:
    """The verdicts of a piece whose job ended: what was paused was paused, the rest gives the reason."""
    definition, paused = owed.definition, owed.after
    if definition.state is JobState.PAUSED:
        paused = owed.until if definition.until is None else min(owed.until, max(owed.after, definition.until))
    return [
        *ranges_of(owed._replace(until=paused), owed.reason or PAUSED),
        *ranges_of(owed._replace(after=paused), reason),
    ]


def _ranges(owed: Owed, times: Schedule, after: Instant, until: Instant, reason: str) -> list[Range]:
    """The instants of (after, until] as ranges; instants in `owed.skip` have a verdict and split them."""
    job, revision = owed.definition.job, owed.definition.revision
    edges = [instant for instant in owed.skip if after < instant <= until]
    found: list[Range] = []
    start = after
    for edge in [*edges, until + 1]:
        size = times.count(start, edge - 1) if edge - 1 > start else 0
        if size:
            found.append(Range(job, revision, start, edge - 1, size, reason))
        start = edge
    return found


def _take(owed: Owed, times: Schedule, after: Instant, until: Instant, budget: int) -> list[Instant]:
    """The first `budget` instants in (after, until] that have no verdict yet."""
    if after >= until or budget <= 0:
        return []
    if not owed.skip:
        return times.between(after, until, budget)
    skip = set(owed.skip)
    found = times.between(after, until, budget + len(skip))
    return [instant for instant in found if instant not in skip][:budget]


def settle(owed: Owed, now: Instant, budget: int) -> Settled:
    """At most `budget` fires of an owed piece, none before its instant; ranges are free. `rest` is None when all have verdicts."""
    definition = owed.definition
    if definition.state >= JobState.CANCELLED or not definition.schedules or owed.after >= owed.until:
        return Settled((), (), None)
    times = times_of(definition.schedules)
    if definition.state is JobState.PAUSED:
        end = owed.until if definition.until is None else min(owed.until, definition.until)
        fires, ranges, reached = _paused(owed, times, end, budget) if end > owed.after else ([], [], end)
        if reached < end:
            return Settled(fires, ranges, owed._replace(after=reached))
        if end >= owed.until:
            return Settled(fires, ranges, None)
        rest_of = owed._replace(definition=active(definition), after=max(end, owed.after))
        live = settle(rest_of, now, budget - len(fires))
        rest = None if live.rest is None else live.rest._replace(definition=definition)
        return Settled([*fires, *live.fires], [*ranges, *live.ranges], rest, live.at)
    return _misfire(owed, times, now, budget)


def _paused(owed: Owed, times: Schedule, until: Instant, budget: int) -> tuple[list[Instant], list[Range], Instant]:
    """Verdicts of a pause that has ended: fires, ranges, and how far it came within the budget."""
    reason = owed.reason or PAUSED
    if owed.catch_up is CatchUp.SKIP:
        return [], _ranges(owed, times, owed.after, until, reason), until
    limit = 1 if owed.catch_up is CatchUp.NEWEST else owed.definition.policies.misfire_limit
    return _newest(owed, times, until, budget, (limit, reason))


def suspended_as(definition: Definition) -> Definition:
    """A definition as it is while its job is suspended."""
    return definition._replace(state=JobState.PAUSED, until=None)


def active(definition: Definition) -> Definition:
    """A paused definition as it is when its pause has ended by itself."""
    return definition._replace(state=JobState.ACTIVE, until=None)


def _misfire(owed: Owed, times: Schedule, now: Instant, budget: int) -> Settled:
    policies = owed.definition.policies
    missed_until = min(owed.until, now - max(policies.late_window, bounds.LATE_WINDOW_MIN_MS))
    ranges: list[Range] = []
    fires: list[Instant] = []
    after = owed.after
    if missed_until > after:
        fires, ranges, reached = _missed(owed, times, missed_until, now, budget)
        if reached < missed_until:
            return Settled(fires, ranges, owed._replace(after=reached))
        after = missed_until
    late = _take(owed, times, after, min(owed.until, now), budget - len(fires))
    fires += late
    reached = late[-1] if late else after
    left = _take(owed, times, reached, owed.until, 1)
    if left:
        return Settled(fires, ranges, owed._replace(after=reached), left[0])
    return Settled(fires, ranges, None)


def _missed(
    owed: Owed, times: Schedule, until: Instant, now: Instant, budget: int
) -> tuple[list[Instant], list[Range], Instant]:
    """Verdicts of the missed instants in (owed.after, until]: fires, ranges, and how far it came within the budget."""
    policies = owed.definition.policies
    if policies.misfire is Misfire.SKIP:
        return [], _ranges(owed, times, owed.after, until, MISSED), until
    if policies.misfire is Misfire.RUN_ONCE:
        latest = _latest(owed, times, until)
        if latest is None or now - latest > policies.grace:
            return [], _ranges(owed, times, owed.after, until, TOO_OLD), until
        if budget <= 0:
            return [], [], owed.after
        return [latest], _ranges(owed, times, owed.after, latest - 1, MISSED), until
    return _newest(owed, times, until, budget, (policies.misfire_limit, MISSED))


def _latest(owed: Owed, times: Schedule, until: Instant) -> Instant | None:
    """The last instant in (owed.after, until] that has no verdict yet."""
    skip = set(owed.skip)
    latest = times.previous_before(until + 1)
    while latest is not None and latest > owed.after and latest in skip:  # bounded by len(skip)
        latest = times.previous_before(latest)
    return latest if latest is not None and latest > owed.after else None


def _newest(
    owed: Owed, times: Schedule, until: Instant, budget: int, rule: tuple[int, str]
) -> tuple[list[Instant], list[Range], Instant]:
    """`rule`: so many of the newest instants fire, and why the older ones do not."""
    limit, reason = min(rule[0], bounds.MISFIRE_RUN_ALL), rule[1]
    newest: list[Instant] = []
    instant, skip = until + 1, set(owed.skip)
    while len(newest) < limit:  # bounded by limit + len(skip)
        before = times.previous_before(instant)
        if before is None or before <= owed.after:
            break
        if before not in skip:
            newest.append(before)
        instant = before
    newest.reverse()
    first = newest[0] if newest else until + 1
    ranges = _ranges(owed, times, owed.after, first - 1, reason)
    if budget >= len(newest):
        return newest, ranges, until
    fires = newest[:budget]
    return fires, ranges, fires[-1] if fires else first - 1
