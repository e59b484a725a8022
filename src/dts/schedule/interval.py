"""Intervals (`@every 90s`) and single instants (`@at ...`): closed forms."""

from __future__ import annotations

from dts.model import ScheduleSpec
from dts.schedule.base import Schedule
from dts.schedule.durations import format_duration
from dts.schedule.instants import format_local
from dts.schedule.zones import Zone


class EverySchedule(Schedule):
    """Every `period` ms of elapsed time, counted from the spec's start, or from 1970-01-01T00:00Z: a restart does not move it."""

    __slots__ = ("anchor", "period", "zone")

    def __init__(self, spec: ScheduleSpec, period: int, zone: Zone) -> None:
        super().__init__(spec)
        self.period = period
        self.zone = zone  # its instants do not depend on it; people read them in it
        self.anchor = 0 if spec.start is None else spec.start

    def next_after(self, instant: int) -> int | None:
        instant = max(instant, self.low - 1)
        answer = instant + self.period - (instant - self.anchor) % self.period
        return answer if answer <= self.high else None

    def previous_before(self, instant: int) -> int | None:
        instant = min(instant, self.high + 1) - 1
        answer = instant - (instant - self.anchor) % self.period
        return answer if answer >= self.low else None

    def between(self, after: int, until: int, limit: int) -> list[int]:
        first = self.next_after(after)
        if first is None or limit <= 0:
            return []
        return list(range(first, min(until, self.high, first + self.period * (limit - 1)) + 1, self.period))

    def count(self, after: int, until: int) -> int:
        after, until = max(after, self.low - 1) - self.anchor, min(until, self.high) - self.anchor
        return max(until // self.period - after // self.period, 0)

    def describe(self) -> str:
        anchor = "1970-01-01T00:00Z" if self.spec.start is None else "its start"
        return f"Every {format_duration(self.period)} of elapsed time, counted from {anchor}"


class AtSchedule(Schedule):
    """One instant."""

    __slots__ = ("instant", "zone")

    def __init__(self, spec: ScheduleSpec, instant: int, zone: Zone) -> None:
        super().__init__(spec)
        self.instant = instant
        self.zone = zone

    def next_after(self, instant: int) -> int | None:
        return self.instant if instant < self.instant and self.low <= self.instant <= self.high else None

    def previous_before(self, instant: int) -> int | None:
        return self.instant if instant > self.instant and self.low <= self.instant <= self.high else None

    def count(self, after: int, until: int) -> int:
        return int(self.low <= self.instant <= self.high and after < self.instant <= until)

    def describe(self) -> str:
        return f"Once, at {format_local(self.instant, self.zone)} ({self.zone.name})"
