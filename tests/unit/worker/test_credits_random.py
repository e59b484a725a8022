"""Credits under random delays, losses of streams, deaths of instances and moves of shards: never too much, and soon enough."""

from __future__ import annotations

from random import Random

import pytest

from dts.amounts import minus, need, within
from dts.model import Demand
from tests.unit.worker.creditworld import NAMES, Node, World

MOVES_WITHIN_MS = 2_000
TOTALS = [
    Demand(cpu=4_000, memory=8_192, slots=10, custom=(("gpu", 1),)),
    Demand(cpu=1_000, memory=1_000, slots=3, custom=(("gpu", 4),)),
]
DEMANDS = [
    Demand(),
    Demand(slots=2),
    Demand(cpu=300),
    Demand(cpu=700, memory=400),
    Demand(custom=(("gpu", 1),)),
]


def world(seed: int) -> tuple[World, list[Demand]]:
    rng = Random(seed)
    total = rng.choice(TOTALS)
    demands = [*DEMANDS, Demand(cpu=total.cpu, memory=total.memory)]  # that fits the whole worker alone
    return World(rng, total, rng.choice([0, 20]), rng.choice([2, 3]), 6), demands


def storm(world: World, demands: list[Demand], until: int) -> None:
    """Work and troubles until then."""
    rng = world.rng

    def work() -> None:
        for _ in range(rng.randrange(1, 6)):
            world.submit(rng.randrange(6), rng.choice(demands))
        if world.now < until:
            world.later(rng.randrange(10, 400), work)

    def trouble() -> None:
        node = rng.choice(world.nodes)
        match rng.randrange(4):
            case 0:
                world.lose(node)
            case 1:
                world.move(rng.randrange(6), node)
            case 2:
                world.die(node)
            case 3:
                world.revive(node)
        if world.now < until:
            world.later(rng.randrange(50, 1_500), trouble)

    world.later(10, work)
    world.later(500, trouble)
    world.run(until)


def heal(world: World) -> None:
    """All instances live and are attached, nothing waits, what runs ends."""
    for _ in range(240):
        world.run(world.now + 250)
        for node in world.nodes:
            node.waiting.clear()  # also what is placed anew because its dispatch was lost
            for shard in list(node.shards if not node.alive else ()):
                world.move(shard, next(each for each in world.nodes if each.alive))
            world.revive(node)
            world.connect(node)
        if not world.tasks and all(node.stream is not None for node in world.nodes):
            break
    assert not world.tasks
    assert all(node.stream is not None for node in world.nodes)


def moves(world: World, node: Node, demand: Demand) -> None:
    """A credit wanted moves: what fits into what nobody uses is placed within 2 s."""
    shard = next(iter(node.shards))
    assert within(need(demand, NAMES), minus(world.whole, world.held()))
    world.submit(shard, demand)
    world.run(world.now + MOVES_WITHIN_MS)
    assert not node.waiting, f"{demand} waits at {node.name}: {world.shares.granted()}"


@pytest.mark.parametrize("seed", range(24))
def test_never_more_than_there_is_and_what_is_wanted_moves_in_time(seed: int) -> None:
    run(seed)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(10))
def test_many_more_of_them(part: int) -> None:
    for seed in range(1_000 + 200 * part, 1_200 + 200 * part):
        run(seed)


def run(seed: int) -> None:
    made, demands = world(seed)
    storm(made, demands, 8_000)
    heal(made)
    for node in made.nodes:
        if node.shards:
            moves(made, node, demands[-1])
            made.run(made.now + 4_000)


@pytest.mark.parametrize("seed", range(10))
def test_two_with_large_demands_both_get_their_turn(seed: int) -> None:
    """Lowest name first, then the next: nobody waits for the other's queue to end."""
    rng = Random(seed)
    made = World(rng, TOTALS[0], 20, 2, 2)
    made.run(500)
    large = Demand(cpu=4_000, memory=8_192)
    for _ in range(5):
        for shard in (0, 1):
            made.submit(shard, large)
    waits = [len(node.waiting) for node in made.nodes]
    made.run(made.now + 16_000)
    assert all(len(node.waiting) <= before - 2 for node, before in zip(made.nodes, waits, strict=True))


def test_small_work_of_others_does_not_keep_a_large_one_out() -> None:
    made = World(Random(7), TOTALS[0], 20, 2, 2)
    made.run(500)

    def small() -> None:
        for _ in range(3):
            made.submit(1, Demand(cpu=700, memory=400))
        made.later(300, small)

    small()
    made.run(3_000)
    made.submit(0, Demand(cpu=4_000, memory=8_192))
    made.run(15_000)
    assert not made.nodes[0].waiting
