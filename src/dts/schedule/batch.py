"""Many schedules at once: a union that is itself a schedule, and one answer for each of millions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import merge

from dts.model import ScheduleSpec
from dts.schedule.base import Schedule
from dts.schedule.compiling import compile  # noqa: A004


class UnionSchedule(Schedule):
    """Several schedules as one: fires at each instant at which any of them does, once."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Schedule]) -> None:
        super().__init__(ScheduleSpec(" | ".join(part.spec.text for part in parts), parts[0].spec.zone))
        self.parts = tuple(parts)

    def next_after(self, instant: int) -> int | None:
        return min((at for part in self.parts if (at := part.next_after(instant)) is not None), default=None)

    def previous_before(self, instant: int) -> int | None:
        return max((at for part in self.parts if (at := part.previous_before(instant)) is not None), default=None)

    def between(self, after: int, until: int, limit: int) -> list[int]:
        found = merge(*(part.between(after, until, limit) for part in self.parts))
        return list(dict.fromkeys(found))[: max(limit, 0)]

    def count(self, after: int, until: int) -> int:
        """The densest part is counted in closed form; of the others each instant that no denser part has is one more."""
        counted = sorted(((part.count(after, until), k) for k, part in enumerate(self.parts)), reverse=True)
        total, denser = counted[0][0], [self.parts[counted[0][1]]]
        for number, k in counted[1:]:
            part = self.parts[k]
            for instant in part.between(after, until, number):
                total += not any(other.count(instant - 1, instant) for other in denser)
            denser.append(part)
        return total

    def describe(self) -> str:
        return "; and ".join(part.describe() for part in self.parts)


def compile_all(specs: Iterable[ScheduleSpec]) -> Schedule:
    """One schedule for several specs: the union of their instants. Raises InvalidSchedule as compile does; ValueError for no spec."""
    parts = list(dict.fromkeys(compile(spec) for spec in specs))
    if not parts:
        raise ValueError("a union needs a schedule")
    return parts[0] if len(parts) == 1 else UnionSchedule(parts)


def next_after_many(schedules: Iterable[Schedule], after: int) -> list[int | None]:
    """next_after of each, in order; a schedule that occurs a million times is asked once."""
    asked: dict[Schedule, int | None] = {}
    answers = []
    for schedule in schedules:
        if schedule in asked:
            answers.append(asked[schedule])
        else:
            asked[schedule] = answer = schedule.next_after(after)
            answers.append(answer)
    return answers
