"""Placement over random fleets: never over capacity, everything that fits is placed, each place is given back exactly once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dts.core import selector
from dts.core.allocator import Allocator
from dts.core.draft import Draft, Placement
from dts.core.fleet import Fleet
from dts.core.round import spread
from dts.model import START, Block, Demand, Key, Status, WorkerInfo, WorkerRef, intern_demand

DEMANDS = [
    Demand(),
    Demand(slots=3),
    Demand(priority=5),
    Demand(cpu=500, memory=100),
    Demand(cpu=1_500, priority=1),
    Demand(memory=1_000, slots=2),
    Demand(storage=10, custom=(("gpu", 1),)),
    Demand(selector="zone=a"),
    Demand(cpu=100, selector="!spot"),
]
WORKERS = [
    (Demand(cpu=2_000, memory=2_000, storage=100, slots=4, custom=(("gpu", 2),)), 5, (("zone", "a"),)),
    (Demand(cpu=1_000, memory=500, slots=2), 0, (("zone", "b"), ("spot", "yes"))),
    (Demand(slots=8), 20, ()),
    (Demand(slots=1, custom=(("gpu", 1),), storage=10), 0, (("zone", "a"),)),
]


def info(number: int, kind: int, incarnation: str = "1") -> WorkerInfo:
    total, backlog, labels = WORKERS[kind]
    return WorkerInfo(WorkerRef(f"w{number}", incarnation), total, backlog, labels)


def draft(shard: int, *blocks: Block) -> Draft:
    made = Draft(shard, 1, 1, 0, START, (0, 0), (), ())
    made.ready.extend(blocks)
    return made


def ready(demand: Demand, count: int, queued: int = 0) -> Block:
    keys = [Key(f"j{number}", queued) for number in range(count)]
    return Block(keys, [1] * count, intern_demand(demand), Status.QUEUED, queued=queued)


def check_capacity(fleet: Fleet, held: Counter[tuple[str, Demand]]) -> None:
    for id, member in fleet.members.items():
        own = {demand: count for (worker, demand), count in held.items() if worker == id}
        taken = fleet.taken(id)
        total = member.info.total
        for name in ("cpu", "memory", "storage", "slots"):
            used = sum(getattr(demand, name) * count for demand, count in own.items())
            assert getattr(taken, name) == used
            most = getattr(total, name) + (member.info.backlog if name == "slots" else 0)
            assert used <= most
        gpus = sum(dict(demand.custom).get("gpu", 0) * count for demand, count in own.items())
        assert dict(taken.custom).get("gpu", 0) == gpus <= dict(total.custom).get("gpu", 0)
        assert all(demand.slots <= total.slots for demand in own)


@given(data=st.data())
def test_never_over_capacity_and_released_exactly_once(data: st.DataObject) -> None:
    fleet = Fleet()
    kinds = data.draw(st.lists(st.sampled_from(range(len(WORKERS))), min_size=1, max_size=5))
    for number, kind in enumerate(kinds):
        fleet.attach(info(number, kind))
    held: Counter[tuple[str, Demand]] = Counter()
    for _ in range(data.draw(st.integers(1, 6))):
        drafts = []
        for shard in range(data.draw(st.integers(1, 2))):
            sizes = st.tuples(st.sampled_from(DEMANDS), st.integers(1, 30), st.integers(0, 3))
            drafts.append(draft(shard, *(ready(*size) for size in data.draw(st.lists(sizes, max_size=4)))))
        unreported = data.draw(st.sampled_from([None, *range(len(kinds))]))

        def eligible(shard: int, worker: WorkerRef, unreported: int | None = unreported) -> int | None:
            return None if worker.id == f"w{unreported}" else 7

        found = Allocator(fleet).place(drafts, eligible)
        for each in drafts:
            placed = _check_placements(each, found[each.shard])
            for place in found[each.shard]:
                held[place.worker.id, each.ready[place.ready].demand] += place.size
                assert place.report == 7
            for index, block in enumerate(each.ready):
                if placed[index] < len(block.keys):
                    _check_nothing_fits(fleet, block.demand, f"w{unreported}")
        check_capacity(fleet, held)
        for (worker, demand), count in list(held.items()):
            back = data.draw(st.integers(0, count))
            fleet.release(WorkerRef(worker, "1"), demand, back)
            held[worker, demand] -= back
        held = +held
        check_capacity(fleet, held)


def _check_placements(draft: Draft, found: list[Placement]) -> Counter[int]:
    placed: Counter[int] = Counter()
    for place in found:
        assert place.size > 0
        placed[place.ready] += place.size
    for index, count in placed.items():
        assert count <= len(draft.ready[index].keys)
    return placed


def _check_nothing_fits(fleet: Fleet, demand: Demand, but: str) -> None:
    for id, member in fleet.members.items():
        if id != but and selector.matches(demand.selector, member.labels):
            assert member.fits(demand) == 0, f"{demand} was left although {id} has room"


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 150))
def test_spread_is_one_at_a_time_to_the_most_room(rooms: list[int], count: int) -> None:
    rooms.sort(reverse=True)
    left = list(rooms)
    for _ in range(min(count, sum(rooms))):
        left[left.index(max(left))] -= 1
    sizes = spread(rooms, count)
    assert sum(sizes) == min(count, sum(rooms))
    assert sorted(room - size for room, size in zip(rooms, sizes, strict=True)) == sorted(left)
    assert all(0 <= size <= room for room, size in zip(rooms, sizes, strict=True))


def test_all_room_is_used_when_workers_differ() -> None:
    fleet = Fleet()
    fleet.attach(WorkerInfo(WorkerRef("big", "1"), Demand(slots=10), 0))
    fleet.attach(WorkerInfo(WorkerRef("small", "1"), Demand(slots=1), 0))
    found = Allocator(fleet).place([draft(0, ready(Demand(), 10))], lambda shard, worker: 1)
    assert sum(place.size for place in found[0]) == 10


def test_one_alone_goes_to_the_emptiest() -> None:
    fleet = Fleet()
    for id, slots in (("small", 2), ("big", 10)):
        fleet.attach(WorkerInfo(WorkerRef(id, "1"), Demand(slots=slots), 0))
    found = Allocator(fleet).place([draft(0, ready(Demand(), 1))], lambda shard, worker: 1)
    assert [place.worker.id for place in found[0]] == ["big"]


def test_what_no_worker_could_ever_run_is_not_put_into_a_backlog() -> None:
    fleet = Fleet()
    fleet.attach(WorkerInfo(WorkerRef("w", "1"), Demand(slots=4), 2_000))
    assert Allocator(fleet).place([draft(0, ready(Demand(slots=5), 1))], lambda shard, worker: 1) == {0: []}
    assert Allocator(fleet).why_not(Demand(slots=5)) == "1 worker: 1 is too small: slots (need 5, have 4)"


def test_higher_priority_first_then_the_older() -> None:
    fleet = Fleet()
    fleet.attach(WorkerInfo(WorkerRef("w", "1"), Demand(slots=3), 0))
    blocks = [ready(Demand(), 2, 20), ready(Demand(), 1, 10), ready(Demand(priority=1), 1, 30)]
    found = Allocator(fleet).place([draft(0, *blocks)], lambda shard, worker: 1)
    assert [(place.ready, place.size) for place in found[0]] == [(2, 1), (1, 1), (0, 1)]


def test_a_new_incarnation_does_not_free_what_the_old_one_holds() -> None:
    fleet = Fleet()
    fleet.attach(info(0, 1))
    Allocator(fleet).place([draft(0, ready(Demand(), 2))], lambda shard, worker: 1)
    fleet.attach(info(0, 1, "2"))
    assert Allocator(fleet).place([draft(0, ready(Demand(), 1))], lambda shard, worker: 1) == {0: []}
    fleet.detach(WorkerRef("w0", "1"))
    fleet.release(WorkerRef("w0", "1"), Demand(), 1)
    found = Allocator(fleet).place([draft(0, ready(Demand(), 1))], lambda shard, worker: 1)
    assert [place.worker for place in found[0]] == [WorkerRef("w0", "2")]


def test_taken_back_more_than_taken_is_a_bug() -> None:
    fleet = Fleet()
    fleet.attach(info(0, 1))
    with pytest.raises(AssertionError, match="more was released than taken"):
        fleet.release(WorkerRef("w0", "1"), Demand(), 1)


def test_custom_demands_without_slots_keep_a_detached_worker_known() -> None:
    fleet = Fleet()
    demand = Demand(slots=0, custom=(("licence", 1),))
    fleet.take(WorkerRef("w", "1"), demand, 1)
    fleet.detach(WorkerRef("w", "1"))
    fleet.release(WorkerRef("w", "1"), demand, 1)
    assert fleet.members == {}


def test_why_not_names_what_each_worker_lacks() -> None:
    fleet = Fleet()
    assert Allocator(fleet).why_not(Demand()) == "no worker is attached"
    for number in range(2):
        fleet.attach(info(number, 1))
    fleet.attach(info(2, 2))
    fleet.leave(WorkerRef("w2", "1"))
    assert (
        Allocator(fleet).why_not(Demand(memory=4_096))
        == "3 workers: 2 are too small: memory (need 4096, have 500), 1 is draining"
    )
    assert Allocator(fleet).why_not(Demand(selector="gpu")) == "3 workers: 2 lack the labels (gpu), 1 is draining"
