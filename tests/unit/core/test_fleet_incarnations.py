"""Two incarnations of one worker id at once: that of the server before finishes its work, that of this server gets the new."""

from __future__ import annotations

from dts.core.allocator import Allocator
from dts.core.fleet import Fleet
from dts.model import Demand, WorkerInfo, WorkerRef

TOTAL = Demand(slots=4)
ONE = Demand()
FORMER = WorkerInfo(WorkerRef("local", "former"), TOTAL, 0, timed=False)
OWN = WorkerInfo(WorkerRef("local", "own"), TOTAL, 0, timed=False)


def test_a_former_incarnation_that_comes_late_takes_nothing_away() -> None:
    fleet = Fleet()
    fleet.leave(FORMER.ref)
    fleet.attach(OWN)
    fleet.attach(FORMER)
    assert fleet.members["local"].info is OWN
    assert Allocator(fleet).room(ONE) == 4
    fleet.bury(FORMER.ref)
    assert Allocator(fleet).room(ONE) == 4


def test_one_that_is_told_to_leave_after_it_came() -> None:
    fleet = Fleet()
    fleet.attach(OWN)
    fleet.attach(FORMER)
    fleet.leave(FORMER.ref)
    assert fleet.members["local"].info is OWN
    assert Allocator(fleet).room(ONE) == 4
    fleet.detach(FORMER.ref)
    assert Allocator(fleet).room(ONE) == 4
    fleet.attach(FORMER)  # its stream broke
    assert fleet.members["local"].info is OWN


def test_one_that_leaves_alone_gets_nothing_and_its_capacity_counts_for_all() -> None:
    fleet = Fleet()
    fleet.attach(FORMER)
    fleet.take(FORMER.ref, ONE, 3)
    fleet.leave(FORMER.ref)
    assert Allocator(fleet).room(ONE) == 0
    assert Allocator(fleet).why_not(ONE) == "1 worker: 1 is draining"
    fleet.attach(OWN)
    assert Allocator(fleet).room(ONE) == 1
    fleet.bury(FORMER.ref)
    fleet.release(FORMER.ref, ONE, 3)
    assert Allocator(fleet).room(ONE) == 4


def test_a_worker_that_is_gone_and_held_nothing_is_forgotten() -> None:
    fleet = Fleet()
    fleet.attach(FORMER)
    fleet.attach(OWN)
    fleet.bury(FORMER.ref)
    fleet.bury(OWN.ref)
    assert fleet.members == {}
