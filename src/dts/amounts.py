"""Amounts of a worker as vectors: what credits between a worker and the Scheduler instances are counted in.

A vector is (cpu, memory, storage, slots, backlog, then the worker's custom resources in the order of their names): both sides
know the names from Hello. All of one worker's vectors have one length.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, sub

from dts.model import Demand

Vector = tuple[int, ...]

SLOTS = 3
BACKLOG = 4
CUSTOM = 5  # where the custom resources begin


def names_of(total: Demand) -> tuple[str, ...]:
    """The custom resources of a worker, in the order of its vectors."""
    return tuple(sorted(name for name, _ in total.custom))


def offer(total: Demand, backlog: int) -> Vector:
    """All that a worker has."""
    custom = dict(total.custom)
    return (total.cpu, total.memory, total.storage, total.slots, backlog, *(custom[name] for name in names_of(total)))


def need(demand: Demand, names: Sequence[str]) -> Vector:
    """What one execution takes: in slots, whether or not it waits in the backlog. Resources the worker lacks are left out."""
    custom = dict(demand.custom)
    fixed = (demand.cpu, demand.memory, demand.storage, demand.slots, 0)
    return (*fixed, *(custom.get(name, 0) for name in names))


def demand_of(vector: Vector, names: Sequence[str]) -> Demand:
    """For people: a vector without the backlog."""
    custom = tuple(zip(names, vector[CUSTOM:], strict=True))
    return Demand(vector[0], vector[1], vector[2], vector[SLOTS], custom)


def zero(like: Vector) -> Vector:
    """Nothing, of the same length."""
    return (0,) * len(like)


def plus(one: Vector, other: Vector) -> Vector:
    """Their sum."""
    return tuple(map(add, one, other))


def minus(one: Vector, other: Vector) -> Vector:
    """The difference, 0 at least in each dimension."""
    return tuple(max(each, 0) for each in map(sub, one, other))


def most(one: Vector, other: Vector) -> Vector:
    """The larger in each dimension."""
    return tuple(map(max, one, other))


def least(one: Vector, other: Vector) -> Vector:
    """The smaller in each dimension."""
    return tuple(map(min, one, other))


def times(one: Vector, count: int) -> Vector:
    """So many of them."""
    return tuple(each * count for each in one)


def within(one: Vector, other: Vector) -> bool:
    """Whether it is no larger in any dimension."""
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def total_of(vectors: Sequence[Vector], like: Vector) -> Vector:
    """The sum of them, or nothing."""
    return tuple(map(sum, zip(*vectors, strict=True))) if vectors else zero(like)


def in_use(taken: Vector, pinned: int, credited: Vector) -> Vector:
    """What is taken, its slots split: those that the credit allows, and those of executions that cannot wait in a backlog
    (`pinned`), are slots; the rest waits in the backlog."""
    slots = max(pinned, min(taken[SLOTS], credited[SLOTS]))
    return (*taken[:SLOTS], slots, max(taken[SLOTS] - slots, 0), *taken[CUSTOM:])
