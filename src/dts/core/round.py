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

SLOTS = 3  # where they are among the fixed dimensions

Columns = list[tuple[list[int], int]]  # of each worker what is free, and what one execution needs of it
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

    __slots__ = ("columns", "heap", "order", "start", "takes")

    def __init__(self, order: list[int], columns: Columns, takes: Columns) -> None:
        self.order = order  # best fit first
        self.columns = columns  # what it is held against
        self.takes = takes  # what it takes of
        self.start = 0  # those before it in the order are full
        self.heap: list[tuple[int, int]] = []  # (-room, worker), of slots alone; a room may have shrunk since

    def take(self, worker: int, size: int) -> None:
        """So many executions more at a worker."""
        for column, need in self.takes:
            column[worker] -= need * size


class Round:
    """Columns over the members that get new work; worker i is `members[i]`."""

    def __init__(self, members: Iterable[Member]) -> None:
        self.members = sorted((each for each in members if each.open), key=lambda each: each.info.ref.id)
        self.size = len(self.members)
        totals = [amounts(member.info.total) for member in self.members]
        self._total = [[total[dimension] for total in totals] for dimension in range(4)]
        self._resources = [frozenset(name for name, have in each.info.total.custom if have) for each in self.members]
        self._fixed: list[list[int]] = [
            [member.ours[dimension] - member.taken[dimension] for member in self.members] for dimension in range(4)
        ]
        self._queue = [slots + member.backlog for slots, member in zip(self._fixed[3], self.members, strict=True)]
        self._custom: dict[str, list[int]] = {}
        kinds: dict[tuple[tuple[str, str], ...], int] = {}
        self._kinds = [kinds.setdefault(member.info.labels, len(kinds)) for member in self.members]
        self._labels = list(kinds)
        self._able: dict[str, Sequence[int]] = {}
        self._rooms: dict[Demand, int] = {}
        self._courses: dict[tuple[Demand | tuple[int, str], str | None], Course] = {}

    # --- what is free

    def _columns(self, demand: Demand) -> Columns:
        """What a demand is held against: columns, and how much one execution needs of each."""
        alone = demand.slots_only
        found = [(self._queue if alone else self._fixed[3], demand.slots or 1)]
        if not alone:
            found += [(self._fixed[at], need) for at, need in enumerate(amounts(demand)[:3]) if need]
            found += [(self._custom_column(name), need) for name, need in demand.custom if need]
        return found

    def _takes(self, demand: Demand) -> Columns:
        """What one execution takes away, of all columns."""
        found = [(self._fixed[at], need) for at, need in enumerate(amounts(demand)) if need]
        found += [(self._queue, demand.slots)] if demand.slots else []
        return found + [(self._custom_column(name), need) for name, need in demand.custom if need]

    def _custom_column(self, name: str) -> list[int]:
        column = self._custom.get(name)
        if column is None:
            column = [each.ours_custom.get(name, 0) - each.custom.get(name, 0) for each in self.members]
            self._custom[name] = column
        return column

    def suitable(self, demand: Demand) -> Sequence[int]:
        """The workers whose labels are right and that are large enough; whether they have room now is another question."""
        workers = self._labelled(demand.selector)
        for at, need in enumerate(amounts(demand)):
            if need > (at == SLOTS):
                total = self._total[at]
                workers = [worker for worker in workers if total[worker] >= need]
        if any(need for _, need in demand.custom):
            whole = [dict(member.info.total.custom) for member in self.members]
            for name, need in demand.custom:
                workers = [worker for worker in workers if whole[worker].get(name, 0) >= need]
        return workers

    def _labelled(self, wanted: str) -> Sequence[int]:
        if not wanted:
            return range(self.size)
        known = self._able.get(wanted)
        if known is None:
            right = [_satisfy(labels, wanted) for labels in self._labels]
            known = self._able[wanted] = [worker for worker, kind in enumerate(self._kinds) if right[kind]]
        return known

    def room(self, demand: Demand) -> int:
        """At most so many executions of a demand could be placed when the round began, whatever else is."""
        known = self._rooms.get(demand)
        if known is None:
            rooms = _rooms(self._columns(demand))
            known = sum(rooms[worker] for worker in self.suitable(demand) if rooms[worker] > 0)
            self._rooms[demand] = known
        return known

    # --- placing

    def place(self, demand: Demand, count: int, numbers: Numbers) -> dict[int, int]:
        """Takes places for up to `count` executions at workers that have a number: how many at which worker."""
        sizes: dict[int, int] = {}
        if demand.spread:
            self._evenly(demand, count, numbers, sizes)
        else:
            self._run(demand, None, count, numbers, sizes)
        for worker, size in sizes.items():
            self.members[worker].add(demand, size)
        return sizes

    def _run(self, demand: Demand, value: str | None, count: int, numbers: Numbers, sizes: dict[int, int]) -> int:
        """Along the course of a demand (of the workers with one value of the label it spreads over): how many found a place."""
        kind = (demand.slots, demand.selector) if demand.slots_only else demand  # slots alone: one course for many
        course = self._courses.get((kind, value))
        if course is None:
            course = self._courses[kind, value] = self._course(demand, value)
        if not demand.slots_only:
            return _pack(course, count, numbers, sizes)
        if count >= BULK * len(course.heap):
            return _bulk(course, count, numbers, sizes)
        return _spread(course, count, numbers, sizes)

    def _course(self, demand: Demand, value: str | None) -> Course:
        columns = self._columns(demand)
        rooms = _rooms(columns)
        workers = [worker for worker in self.suitable(demand) if rooms[worker] > 0]
        if value is not None:
            workers = [worker for worker in workers if self._value(worker, demand) == value]
        if not demand.slots_only:
            workers.sort(key=self._waste(demand).__getitem__)
        course = Course(workers, columns, self._takes(demand))
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
                both = zip(self._fixed[at], self._total[at], strict=True)
                waste = list(map(add, waste, [THOUSAND * free // (total or 1) for free, total in both]))
        return waste

    # --- keeping free

    def keep(self, worker: int, demand: Demand) -> None:
        """From now on nobody else gets what one execution of this demand takes of a worker."""
        for column, need in self._takes(demand):
            column[worker] -= need
        self._queue[worker] = min(self._queue[worker], self._fixed[SLOTS][worker])

    def lacking(self, demand: Demand) -> list[int]:
        """How much of one execution has no room at each worker, in thousandths of what is scarcest there."""
        lacks = [
            [THOUSAND - THOUSAND * free // need if 0 <= free < need else THOUSAND * (free < 0) for free in column]
            for column, need in self._columns(demand)
        ]
        return lacks[0] if len(lacks) == 1 else list(map(max, *lacks))

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


def _rooms(columns: Columns) -> list[int]:
    """How many executions find room at each worker; may be below 0."""
    (column, need), *others = columns
    rooms = [free // need for free in column] if need > 1 else column
    for other, each in others:
        rooms = list(map(min, rooms, [free // each for free in other]))
    return rooms


def _pack(course: Course, count: int, numbers: Numbers, sizes: dict[int, int]) -> int:
    """The first are filled first."""
    left, at, order, columns = count, course.start, course.order, course.columns
    while left and at < len(order):
        worker = order[at]
        if numbers[worker] is not None:
            room = min([column[worker] // need for column, need in columns])
            if room > 0:
                size = min(room, left)
                course.take(worker, size)
                sizes[worker] = sizes.get(worker, 0) + size
                left -= size
            if room <= 0 and at == course.start:
                course.start += 1
        at += 1
    return count - left


def _spread(course: Course, count: int, numbers: Numbers, sizes: dict[int, int]) -> int:
    """One by one to where the most room is left."""
    heap, left = course.heap, count
    ((queue, need),) = course.columns
    aside: list[tuple[int, int]] = []
    while left and heap:
        known, worker = heap[0]
        room = queue[worker] // need
        if room <= 0:
            heappop(heap)
        elif room < -known:
            heapreplace(heap, (-room, worker))
        elif numbers[worker] is None:
            aside.append(heappop(heap))
        else:
            course.take(worker, 1)
            sizes[worker] = sizes.get(worker, 0) + 1
            left -= 1
            heapreplace(heap, (1 - room, worker))
    for each in aside:
        heappush(heap, each)
    return count - left


def _bulk(course: Course, count: int, numbers: Numbers, sizes: dict[int, int]) -> int:
    """The same, all at once."""
    rooms = _rooms(course.columns)
    workers = [worker for worker in course.order if rooms[worker] > 0 and numbers[worker] is not None]
    workers.sort(key=lambda worker: (-rooms[worker], worker))
    placed = spread([rooms[worker] for worker in workers], count)
    for worker, size in zip(workers, placed, strict=True):
        if size:
            course.take(worker, size)
            sizes[worker] = sizes.get(worker, 0) + size
    return sum(placed)
