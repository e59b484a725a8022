"""The allocator's laws over random fleets and queues (fleets.py)."""

from __future__ import annotations

import pytest

from dts.core.draft import Placement
from tests.unit.core.fleets import World

SHORT, LONG = 300, 10_000


def _live(seed: int) -> World:
    world = World(seed)
    for _ in range(world.draw.randint(3, 15)):
        if world.draw.random() < 0.7:
            world.arrive(world.draw.choice([1, 3, 40]))
        if world.draw.random() < 0.3:
            world.disturb()
        world.pass_time(world.draw.choice([0, 1_000, 30_000, 600_000]))
        world.round()
    world.heal()
    world.empty()
    return world


@pytest.mark.parametrize("first", range(0, SHORT, 100))
def test_laws(first: int) -> None:
    for seed in range(first, first + 100):
        try:
            _live(seed)
        except AssertionError as broken:
            raise AssertionError(f"seed {seed}: {broken}") from broken


@pytest.mark.soak
def test_laws_long() -> None:
    for seed in range(SHORT, LONG):
        try:
            _live(seed)
        except AssertionError as broken:
            raise AssertionError(f"seed {seed}: {broken}") from broken


@pytest.mark.parametrize("seed", [1967, 2930, 2932])
def test_room_kept_at_a_worker_that_a_shard_has_not_heard_of(seed: int) -> None:
    """Seeds that the long form found: the same demand of another shard, which could have had that room, waited too."""
    _live(seed)


def test_the_worlds_are_wild() -> None:
    """Room is kept free in some of them, executions wait long in some, and some hold what no worker could run."""
    worlds = [World(seed) for seed in range(60)]
    kept = late = impossible = 0
    for world in worlds:
        for _ in range(12):
            world.arrive(40)
            world.pass_time(30_000)
            world.round()
            kept += bool(world.allocator.kept)
        late += world.longest > 120_000
        impossible += any(not any(each.could(one.demand) for each in world.machines.values()) for one in world.queue)
    assert kept > 20
    assert late > 5
    assert impossible > 5


def test_the_same_world_gives_the_same_places() -> None:
    def places(seed: int) -> list[dict[int, list[Placement]]]:
        world = World(seed)
        found = []
        for _ in range(10):
            world.arrive(10)
            world.pass_time(20_000)
            found.append(world.round())
        return found

    assert [places(seed) for seed in range(20)] == [places(seed) for seed in range(20)]
