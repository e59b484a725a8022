"""Which fires are due: one heap item per distinct schedule, however many jobs share it.

Rules:
- Progress is one watermark (instant, job id). Jobs of one instant fire in id order, so an instant may be cut between two.
- `due` only looks; `advance` alone moves, and only Shard.apply calls it.
- A group's `next` is its first instant that is not wholly behind the watermark.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import TypeVar

from dts.model import LAST_JOB, START, Definition, Instant, ScheduleSpec, Watermark
from dts.schedule import Schedule, compile_all

MAX_DISTINCT = 100_000
job_of = itemgetter(0)


@lru_cache(maxsize=MAX_DISTINCT)
def times_of(specs: tuple[ScheduleSpec, ...]) -> Schedule:
    """The one function of time of a definition's schedules, of which there is at least one."""
    return compile_all(specs)


T = TypeVar("T", bound=tuple[object, ...])


def top(heap: Sequence[T], until: Instant, limit: int) -> list[T]:
    """Up to `limit` items of a heap of (instant, ...) with an instant <= until: a subtree at its top, nothing moved."""
    found: list[T] = []
    stack = [0]
    while stack and len(found) < limit:
        at = stack.pop()
        if at < len(heap) and heap[at][0] <= until:  # type: ignore[operator]
            found.append(heap[at])
            stack += (2 * at + 1, 2 * at + 2)
    return found


def seen_by(watermark: Watermark, job: str) -> Instant:
    """How far a watermark has come for one job: its instants up to here are behind it."""
    return watermark[0] if job <= watermark[1] else watermark[0] - 1


class Group:
    """The jobs of one schedule, in id order."""

    __slots__ = ("definitions", "ids", "next", "serial", "specs", "times")

    def __init__(self, specs: tuple[ScheduleSpec, ...], serial: int) -> None:
        self.specs = specs
        self.serial = serial
        self.times = times_of(specs)
        self.ids: list[str] = []
        self.definitions: list[Definition] = []
        self.next: Instant | None = None

    def put(self, definition: Definition) -> None:
        at = len(self.ids)
        if self.ids and definition.job <= self.ids[-1]:
            at = bisect_left(self.ids, definition.job)
        self.ids.insert(at, definition.job)
        self.definitions.insert(at, definition)

    def drop(self, job: str) -> None:
        at = bisect_left(self.ids, job)
        assert self.ids[at] == job, "a group lost a member"
        del self.ids[at], self.definitions[at]


class Timetable:
    """Jobs by schedule, and the watermark up to which they have been looked at."""

    def __init__(self, watermark: Watermark = START) -> None:
        self.watermark = watermark
        self._groups: dict[tuple[ScheduleSpec, ...], Group] = {}
        self._of: dict[str, Group] = {}
        self._heap: list[tuple[Instant, int, Group]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, job: str) -> bool:
        return job in self._of

    def put(self, definition: Definition) -> None:
        """From now on the job's instants beyond the watermark are due. It must not be in the timetable."""
        assert definition.job not in self._of, "a job is in the timetable once"
        if not definition.schedules:
            return
        group = self._groups.get(definition.schedules)
        if group is None:
            self._serial += 1
            group = self._groups[definition.schedules] = Group(definition.schedules, self._serial)
            self._schedule(group)
        group.put(definition)
        self._of[definition.job] = group

    def drop(self, job: str) -> None:
        """The job has no instants any more. Harmless if it had none."""
        group = self._of.pop(job, None)
        if group is None:
            return
        group.drop(job)
        if not group.ids:
            del self._groups[group.specs]  # its heap item is dropped when it comes up

    def _behind(self) -> Instant:
        """Instants up to here are wholly behind the watermark."""
        instant, job = self.watermark
        return instant if job == LAST_JOB else instant - 1

    def _schedule(self, group: Group) -> None:
        group.next = group.times.next_after(self._behind())
        if group.next is not None:
            heapq.heappush(self._heap, (group.next, group.serial, group))

    def _live(self, group: Group) -> bool:
        return self._groups.get(group.specs) is group

    def next_due(self) -> Instant | None:
        """The first instant that is not wholly behind the watermark: when to wake."""
        while self._heap and not self._live(self._heap[0][2]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, until: Instant, limit: int) -> tuple[list[tuple[Instant, Sequence[Definition]]], Watermark]:
        """Due instants in (watermark, until] with their jobs in id order, at most `limit` fires, and the watermark they reach."""
        assert limit > 0
        if until < self.watermark[0]:
            return [], self.watermark
        work = [item for item in top(self._heap, until, len(self._heap)) if self._live(item[2])]
        heapq.heapify(work)
        found: list[tuple[Instant, Sequence[Definition]]] = []
        room = limit
        while work:
            instant = work[0][0]
            jobs = self._at(instant, work, until)
            if len(jobs) > room:
                if room:
                    found.append((instant, jobs[:room]))
                    return found, (instant, jobs[room - 1].job)
                return found, (instant - 1, LAST_JOB) if found else self.watermark
            if jobs:
                found.append((instant, jobs))
                room -= len(jobs)
        return found, max((until, LAST_JOB), self.watermark)

    def _at(self, instant: Instant, work: list[tuple[Instant, int, Group]], until: Instant) -> Sequence[Definition]:
        """Takes the groups of one instant out of `work`, puts their next instants in, and gives the jobs in id order."""
        after_job = self.watermark[1] if instant == self.watermark[0] else ""
        slices: list[list[Definition]] = []
        while work and work[0][0] == instant:
            group = work[0][2]
            start = bisect_right(group.ids, after_job) if after_job else 0
            slices.append(group.definitions[start:] if start else group.definitions)
            following = group.times.next_after(instant)
            if following is not None and following <= until:
                heapq.heapreplace(work, (following, group.serial, group))
            else:
                heapq.heappop(work)
        if len(slices) == 1:
            return slices[0]
        merged = [definition for part in slices for definition in part]
        merged.sort(key=job_of)
        return merged

    def advance(self, watermark: Watermark) -> None:
        """Moves the watermark: it never moves back."""
        assert watermark >= self.watermark, f"the watermark moved back: {watermark} < {self.watermark}"
        self.watermark = watermark
        behind = self._behind()
        while self._heap and self._heap[0][0] <= behind:
            group = heapq.heappop(self._heap)[2]
            if self._live(group):
                self._schedule(group)
