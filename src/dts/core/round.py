"""One placement round: what is free at the workers that get new work, in columns, so that a demand is held against all at once.

Rules:
- A round sees the fleet as it was when it began, less what it placed and what it keeps free; it never sees room come back.
- Slots alone spread over workers (most room first); anything else goes where it fits best: to a worker with the fewest custom
  resources that it does not ask for, of those to the one with the least left of what it asks for.
- A demand with a label to spread over goes to the label's value that has the fewest of its executions, first; workers without the
  label are one value together. Evenness is a wish: no execution waits for it.
- What is kept free for a demand is that much of one worker, no more: what is left beside it goes on being used, its backlog not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush, heapreplace
from operator import add

from dts.core import selector
from dts.core.fleet import Member, amounts
from dts.model import Demand

LABELS = 100_000  # answers remembered: whether these labels satisfy that selector
THOUSAND = 1_000  # parts of a worker's whole
SPARE = 10 * THOUSAND  # a custom resource that is not asked for outweighs all that is left of the others
BULK = 4  # from so many executions a worker on they are spread at once, not one by one

Numbers = Sequence[int | None]  # of each worker's last report to a shard; None: not yet


@lru_cache(maxsize=LABELS)
def _satisfy(labels: tuple[tuple[str, str], ...], wanted: str) -> bool:
    return selector.matches(wanted, dict(labels))


def spread(rooms: Sequence[int], count: int) -> list[int]:
    """How many of `count` go to each of several rooms, largest first, when each goes to where the most room is left."""
    level, extra, used, total = 0, 0, len(rooms), 0
    for number, room in enumerate(rooms, 1):
        total += room
        following = rooms[number] if number < len(rooms) else 0
        if total - number * following >= count:  # the first `number` take them all, down to a common level of room
            level, extra = divmod(total - count, number)
            used = number
            break
    return [room - level - (place >= used - extra) if place < used else 0 for place, room in enumerate(rooms)]


class Course:
    """The workers that a demand may still go to in this round, in the order in which it goes there."""

    __slots__ = ("heap", "order", "start")

    def __init__(self, order: list[int]) -> None:
        self.order = order  # best fit first
        self.start = 0  # those before it are full
        self.heap: list[tuple[int, int]] = []  # (-room, worker), of slots alone; a room may have shrunk since


class Round:
    """Columns over the members that get new work; worker i is `members[i]`."""

    def __init__(self, members: Iterable[Member]) -> None:
        self.members = sorted((each for each in members if each.open), key=lambda each: each.info.ref.id)
        self.size = len(self.members)
        totals = [amounts(member.info.total) for member in self.members]
        self._total = [[max(total[dimension], 1) for total in totals] for dimension in range(4)]
        self._resources = [frozenset(name for name, have in each.info.total.custom if have) for each in self.members]
        self._fixed: list[list[int]] = [
            [member.ours[dimension] - member.taken[dimension] for member in self.members] for dimension in range(4)
        ]
        self._queue = [slots + member.backlog for slots, member in zip(self._fixed[3], self.members, strict=True)]
        self._custom: dict[str, list[int]] = {}
        kinds: dict[tuple[tuple[str, str], ...], int] = {}
        self._kinds = [kinds.setdefault(member.info.labels, len(kinds)) for member in self.members]
        self._labels = list(kinds)
        self._rooms: dict[Demand, int] = {}
        self._courses: dict[tuple[Demand, str | None], Course] = {}

    # --- what is free

    def _columns(self, demand: Demand) -> list[tuple[list[int], int]]:
        """What a demand is held against: columns, and how much one execution takes of each."""
        alone = demand.slots_only
        found = [(self._queue if alone else self._fixed[3], demand.slots or 1)]
        if not alone:
            found += [(self._fixed[at], need) for at, need in enumerate(amounts(demand)[:3]) if need]
            found += [(self._custom_column(name), need) for name, need in demand.custom if need]
        return found

    def _custom_column(self, name: str) -> list[int]:
        column = self._custom.get(name)
        if column is None:
            column = [each.ours_custom.get(name, 0) - each.custom.get(name, 0) for each in self.members]
            self._custom[name] = column
        return column

    def _rooms_of(self, demand: Demand) -> list[int]:
        """How many executions find room at each worker; may be below 0. Selector and slots are looked at elsewhere."""
        (column, need), *others = self._columns(demand)
        rooms = [free // need for free in column] if need > 1 else column
        for other, each in others:
            rooms = list(map(min, rooms, [free // each for free in other]))
        return rooms

    def _room_at(self, worker: int, demand: Demand) -> int:
        return min(column[worker] // need for column, need in self._columns(demand))

    def suitable(self, demand: Demand) -> Sequence[int]:
        """The workers whose labels and slots are right; whether they have room is another question."""
        workers: Sequence[int] = range(len(self.members))
        if demand.selector:
            right = [_satisfy(labels, demand.selector) for labels in self._labels]
            workers = [worker for worker in workers if right[self._kinds[worker]]]
        if demand.slots > 1:  # it would wait in a smaller one's backlog for ever
            workers = [worker for worker in workers if self._total[3][worker] >= demand.slots]
        return workers

    def room(self, demand: Demand) -> int:
        """At most so many executions of a demand could be placed when the round began, whatever else is."""
        known = self._rooms.get(demand)
        if known is None:
            rooms = self._rooms_of(demand)
            known = self._rooms[demand] = sum(rooms[at] for at in self.suitable(demand) if rooms[at] > 0)
        return known

    # --- placing

    def place(self, demand: Demand, count: int, numbers: Numbers) -> dict[int, int]:
        """Takes places for up to `count` executions at workers that have a number: how many at which worker."""
        sizes: dict[int, int] = {}
        if demand.spread:
            self._evenly(demand, count, numbers, sizes)
        else:
            self._run(demand, None, count, numbers, sizes)
        return sizes

    def _run(self, demand: Demand, value: str | None, count: int, numbers: Numbers, sizes: dict[int, int]) -> int:
        """Along the course of a demand (of the workers with one value of the label it spreads over): how many found a place."""
        course = self._courses.get((demand, value))
        if course is None:
            course = self._courses[demand, value] = self._course(demand, value)
        place = self._spread if demand.slots_only else self._pack
        return place(course, demand, count, numbers, sizes)

    def _course(self, demand: Demand, value: str | None) -> Course:
        rooms = self._rooms_of(demand)
        workers = [worker for worker in self.suitable(demand) if rooms[worker] > 0]
        if value is not None:
            workers = [worker for worker in workers if self._value(worker, demand) == value]
        if not demand.slots_only:
            workers.sort(key=self._waste(demand).__getitem__)
        course = Course(workers)
        if demand.slots_only:
            course.heap = [(-rooms[worker], worker) for worker in workers]
            heapify(course.heap)
        return course

    def _waste(self, demand: Demand) -> list[int]:
        """What would be wasted at each worker: less is better."""
        asked = {name for name, need in demand.custom if need}
        waste = [len(names - asked) * SPARE for names in self._resources] if any(self._resources) else [0] * self.size
        for at, need in enumerate(amounts(demand)[:3]):
            if need:
                parts = [THOUSAND * free // total for free, total in zip(self._fixed[at], self._total[at], strict=True)]
                waste = list(map(add, waste, parts))
        return waste

    def _pack(self, course: Course, demand: Demand, count: int, numbers: Numbers, sizes: dict[int, int]) -> int:
        left, at, order = count, course.start, course.order
        while left and at < len(order):
            worker = order[at]
            if numbers[worker] is not None:
                room = max(self._room_at(worker, demand), 0)
                if size := min(room, left):
                    self._take(worker, demand, size, sizes)
                    left -= size
                if size == room and at == course.start:
                    course.start += 1
            at += 1
        return count - left

    def _spread(self, course: Course, demand: Demand, count: int, numbers: Numbers, sizes: dict[int, int]) -> int:
        heap, left = course.heap, count
        if count >= BULK * len(heap):
            left -= self._bulk(course, demand, count, numbers, sizes)
            return count - left
        aside: list[tuple[int, int]] = []
        while left and heap:
            known, worker = heap[0]
            room = self._room_at(worker, demand)
            if room <= 0:
                heappop(heap)
            elif room < -known:
                heapreplace(heap, (-room, worker))
            elif numbers[worker] is None:
                aside.append(heappop(heap))
            else:
                self._take(worker, demand, 1, sizes)
                left -= 1
                heapreplace(heap, (1 - room, worker))
        for each in aside:
            heappush(heap, each)
        return count - left

    def _bulk(self, course: Course, demand: Demand, count: int, numbers: Numbers, sizes: dict[int, int]) -> int:
        """The same, all at once."""
        rooms = self._rooms_of(demand)
        workers = [worker for worker in course.order if rooms[worker] > 0 and numbers[worker] is not None]
        workers.sort(key=lambda worker: (-rooms[worker], worker))
        placed = 0
        for worker, size in zip(workers, spread([rooms[worker] for worker in workers], count), strict=True):
            if size:
                self._take(worker, demand, size, sizes)
                placed += size
        return placed

    def _take(self, worker: int, demand: Demand, size: int, sizes: dict[int, int]) -> None:
        sizes[worker] = sizes.get(worker, 0) + size
        self.members[worker].add(demand, size)
        for column, need in zip(self._fixed, amounts(demand), strict=True):
            column[worker] -= need * size
        self._queue[worker] -= demand.slots * size
        for name, need in demand.custom:
            if name in self._custom:
                self._custom[name][worker] -= need * size

    # --- keeping free

    def keep(self, worker: int, demand: Demand) -> None:
        """From now on nobody else gets what one execution of this demand takes of a worker."""
        for column, need in zip(self._fixed, amounts(demand), strict=True):
            column[worker] -= need
        self._queue[worker] = min(self._queue[worker], self._fixed[3][worker])
        for name, need in demand.custom:
            self._custom_column(name)[worker] -= need

    def lacking(self, worker: int, demand: Demand) -> int | None:
        """How much of one execution has no room at a worker, in thousandths of the scarcest; None: it could never run there."""
        total = self.members[worker].info.total
        custom = dict(total.custom)
        wholes = [(have, need) for have, need in zip(amounts(total), amounts(demand), strict=True) if need]
        wholes += [(custom.get(name, 0), need) for name, need in demand.custom if need]
        if any(need > have for have, need in wholes):
            return None
        return max(THOUSAND - THOUSAND * max(column[worker], 0) // need for column, need in self._columns(demand))

    # --- spreading over a label

    def _value(self, worker: int, demand: Demand) -> str:
        return self.members[worker].labels.get(demand.spread, "")

    def _evenly(self, demand: Demand, count: int, numbers: Numbers, sizes: dict[int, int]) -> None:
        """One by one to the value that has the fewest, while it has room."""
        held: dict[str, int] = {}
        for worker in self.suitable(demand):
            value = self._value(worker, demand)
            held[value] = held.get(value, 0) + self.members[worker].held.get(demand, 0)
        values = [(number, value) for value, number in held.items()]
        heapify(values)
        while count and values:
            number, value = values[0]
            if self._run(demand, value, 1, numbers, sizes):
                count -= 1
                heapreplace(values, (number + 1, value))
            else:
                heappop(values)
