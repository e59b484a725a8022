"""True time, its events, and the one source of chance; processes that can be stopped and killed; clocks that drift.

Single-threaded and without a wait: a run is a function of its seed. Instants of the world are true ms since its beginning.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Act = Callable[[], None]

T0 = 1_774_700_000_000  # wall clock at the beginning: the day before clocks change in Europe
NEVER = 1 << 62


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waited")


def all_of(pages: AsyncIterator[Sequence[T]]) -> list[T]:
    """All rows of pages that are there already."""

    async def gather() -> list[T]:
        return [row async for page in pages for row in page]

    return run_now(gather())


class World:
    """`t` moves only in `run_until`. Everything is drawn from `rng`, in the order of events."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.t = 0
        self.healed = False
        self.slow = 1  # how much longer than usual messages and writes may take
        self.events = 0
        self.trace: list[str] | None = [] if trace else None
        self.digest = 0
        self._heap: list[tuple[int, int, Act]] = []
        self._serial = 0

    def note(self, *what: object) -> None:
        """One line of the trace."""
        if self.trace is not None:
            line = f"{self.t:>9} " + " ".join(str(each) for each in what)
            self.trace.append(line)
            self.digest = zlib.crc32(line.encode(), self.digest)

    def at(self, when: int, act: Act) -> None:
        """Does it then, after what was put there before."""
        self._serial += 1
        heapq.heappush(self._heap, (max(when, self.t), self._serial, act))

    def after(self, delay: int, act: Act) -> None:
        self.at(self.t + delay, act)

    def run_until(self, until: int) -> None:
        """All events up to an instant."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.t, _, act = heapq.heappop(heap)
            self.events += 1
            act()
        self.t = until

    def run_next(self) -> bool:
        """The next event. False: there is none."""
        if not self._heap:
            return False
        self.run_until(self._heap[0][0])
        return True

    # ---- chance

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def delay(self) -> int:
        """Ms that a message, a write or a turn of a loop takes: mostly short, sometimes not."""
        draw = self.rng.random()
        if self.healed or draw < 0.7:
            return int(draw * 14)
        if draw < 0.97:
            return int((draw - 0.7) * 400) * self.slow
        return int((draw - 0.97) * 50_000) * self.slow


class Process:
    """Something that runs, can be stopped (its events wait) and killed (they are no more)."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.paused = False
        self._waiting: deque[Act] = deque()

    def __str__(self) -> str:
        return self.name

    def later(self, delay: int, act: Act) -> None:
        self.world.after(delay, lambda: self.run(act))

    def run(self, act: Act) -> None:
        """Now, or when it goes on."""
        if self.paused:
            self._waiting.append(act)
        elif self.alive:
            act()

    def pause(self) -> None:
        self.paused = True

    def wake(self) -> None:
        """Goes on: what came meanwhile is done in order."""
        self.paused = False
        while self._waiting and self.alive and not self.paused:
            self._waiting.popleft()()

    def kill(self) -> None:
        self.alive = self.paused = False
        self._waiting.clear()


class Steady:
    """A clock that only grows, `drift` (0.01: 1 % fast) off true time."""

    def __init__(self, world: World, drift: float, start: int = 1_000) -> None:
        self._world = world
        self._rate = 1.0 + drift
        self._start = start

    def ms(self) -> int:
        return self._start + int(self._world.t * self._rate)

    def ns(self) -> int:
        return self.ms() * 1_000_000

    def when(self, ms: int) -> int:
        """The first true instant at which it shows this."""
        true = max(int((ms - self._start) / self._rate), 0)
        while self._start + int(true * self._rate) < ms:
            true += 1
        return true
