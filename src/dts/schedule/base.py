"""What every schedule can answer, and the clipping to its bounds that all kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dts.model import ScheduleSpec
from dts.schedule import civil


class Schedule(ABC):
    """A set of instants, asked in order. Instants are UTC milliseconds; all answers lie in [low, high]. Immutable: share it freely.

    `low` and `high` are the spec's start and end, both inclusive, within 1970 to 2199.
    """

    __slots__ = ("__weakref__", "high", "low", "spec")

    def __init__(self, spec: ScheduleSpec) -> None:
        self.spec = spec
        self.low = civil.FIRST_INSTANT if spec.start is None else max(spec.start, civil.FIRST_INSTANT)
        self.high = civil.LAST_INSTANT if spec.end is None else min(spec.end, civil.LAST_INSTANT)

    @abstractmethod
    def next_after(self, instant: int) -> int | None:
        """The first instant strictly after `instant`, or None when there is none any more."""

    @abstractmethod
    def previous_before(self, instant: int) -> int | None:
        """The last instant strictly before `instant`, or None when there was none yet."""

    @abstractmethod
    def count(self, after: int, until: int) -> int:
        """How many instants lie in (after, until]. Costs about the same for a second and for a century."""

    def between(self, after: int, until: int, limit: int) -> list[int]:
        """The instants in (after, until] in order, at most `limit` of them (the earliest)."""
        found: list[int] = []
        instant = after
        while len(found) < limit:
            following = self.next_after(instant)
            if following is None or following > until:
                break
            found.append(following)
            instant = following
        return found

    @abstractmethod
    def describe(self) -> str:
        """The schedule as an English sentence, zone included."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec.text!r}, {self.spec.zone!r})"
