"""A worker that serves several Scheduler instances: finds them, keeps a stream to each, and obeys who asked last."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dts.model import Demand, Status
from dts.worker.launch import launch
from tests.acceptance.proxy import proxy
from tests.acceptance.served import free_ports
from tests.acceptance.workerside import Scheduler, alive, options, poll, shell

CAPACITY = Demand(cpu=2_000, memory=1_000, slots=10, custom=(("gpu", 3),))
WHOLE = (2_000, 1_000, 0, 10, 20, 3)


class Site:
    """Instances by name, in one folder, that know each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.there: dict[str, Scheduler] = {}

    def address(self, name: str) -> str:
        return f"unix:{self.folder}/{name}"

    async def start(self, name: str, owned: dict[int, int], lease_ms: int = 60_000) -> Scheduler:
        one = Scheduler(
            self.address(name), lease_ms=lease_ms, address=self.address(name), peers=self.peers, outputs_at=self.outputs
        )
        one.owned = owned
        await one.start()
        self.there[name] = one
        return one

    def peers(self) -> list[str]:
        return [self.address(name) for name in self.there if name != "outputs"]

    def outputs(self) -> list[str]:
        return [self.address("outputs")] if "outputs" in self.there else []

    async def stop(self, name: str) -> None:
        await self.there.pop(name).stop()


@asynccontextmanager
async def site(folder: Path, *, lease_ms: int = 60_000) -> AsyncIterator[tuple[Site, Scheduler, Scheduler, int]]:
    """Two instances, `a` with shard 0 and `b` with shard 1, and a worker that was told of `a` alone."""
    made = Site(folder)
    a = await made.start("a", {0: 1}, lease_ms)
    b = await made.start("b", {1: 1}, lease_ms)
    given = options(folder, target=made.address("a"), timed=True, life_lock="", capacity=CAPACITY, backlog=20)
    process = await launch(given)
    try:
        await a.until(lambda: 0 in a.reports)
        await b.until(lambda: 1 in b.reports)
        yield made, a, b, process.pid
    finally:
        for name in list(made.there):
            await made.stop(name)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_worker_given_one_address_finds_the_rest_and_serves_all(tmp_path: Path) -> None:
    async with site(tmp_path) as (made, a, b, _):
        (one,) = a.lease(["one"], shell("true"), shard=0)
        (two,) = b.lease(["two"], shell("true"), shard=1)
        assert [status for status, _ in await a.ended(one)] == [Status.COMPLETED]
        assert [status for status, _ in await b.ended(two)] == [Status.COMPLETED]
        assert not set(a.ends) & set(b.ends)
        c = await made.start("c", {2: 1})  # a later one is found as well
        await c.until(lambda: 2 in c.reports)
        (three,) = c.lease(["three"], shell("true"), shard=2)
        assert [status for status, _ in await c.ended(three)] == [Status.COMPLETED]


async def test_a_stream_is_had_again_and_the_one_to_an_instance_that_is_gone_ends(tmp_path: Path) -> None:
    async with site(tmp_path) as (made, a, b, worker):
        gate = tmp_path / "gate"
        (running,) = b.lease(["running"], shell(f"until [ -e {gate} ]; do sleep 0.02; done"), shard=1)
        await b.until(lambda: running in b.running)
        await made.stop("b")
        again = await made.start("b", {1: 2})
        await again.until(lambda: 1 in again.reports)
        assert again.reports[1].held == [running], "the task runs on"
        gate.touch()
        assert [status for status, _ in await again.ended(running)] == [Status.COMPLETED]
        del made.there["b"]  # gone from the list; its stream is still open
        await again.until(lambda: again.gone)
        made.there["b"] = again
        await again.until(lambda: again.workers)
        assert alive(worker)
        assert a.workers


async def test_a_shard_moves_with_what_runs_and_what_is_not_acknowledged(tmp_path: Path) -> None:
    """Attached to the old owner and the new: the new one asks, a dispatch left in the old stream is refused."""
    async with site(tmp_path) as (_, a, b, _):
        gate, mark = tmp_path / "gate", tmp_path / "mark"
        a.acking = False
        (running,) = a.lease(["running"], shell(f"until [ -e {gate} ]; do sleep 0.02; done"))
        (done,) = a.lease(["done"], shell("true"))
        await a.ended(done)
        await a.until(lambda: running in a.running)
        b.owned[0] = 2
        b.fencing = a.fencing
        b.hub.ask(b.worker, 0, 2)
        await b.until(lambda: 0 in b.reports)
        assert b.reports[0].held == [running]
        assert [key.job for block in b.reports[0].ended for key in block.keys] == ["done"]
        a.lease(["stale"], shell(f"touch {mark}"))  # by who owned it before
        a.cancel(running)
        a.hub.ask(a.worker, 0, 1)  # a promise is not taken back
        (fresh,) = b.lease(["fresh"], shell("true"), shard=0)
        assert [status for status, _ in await b.ended(fresh)] == [Status.COMPLETED]
        gate.touch()
        assert [status for status, _ in await b.ended(running)] == [Status.COMPLETED]
        b.hub.ask(b.worker, 0, 3)
        await b.until(lambda: b.reports[0].epoch == 3)
        assert not b.reports[0].held
        assert not b.reports[0].ended, "acknowledged by the new owner"
        assert not mark.exists()
        assert running not in a.ends


async def test_an_end_waits_for_an_owner_that_acknowledges_it(tmp_path: Path) -> None:
    """Attached to the old owner only, then to nobody, then to the new one only."""
    async with site(tmp_path) as (made, a, b, _):
        await made.stop("b")
        a.acking = False
        (done,) = a.lease(["done"], shell("true"))
        await a.ended(done)
        await made.stop("a")
        c = await made.start("a", {}, 60_000)  # the same address, but the shard is not there
        await c.until(lambda: c.workers)
        assert not c.ends
        again = await made.start("b", {0: 2})
        assert [status for status, _ in await again.ended(done)] == [Status.COMPLETED]
        del b


async def test_output_goes_to_the_execution_services(tmp_path: Path) -> None:
    async with site(tmp_path) as (made, a, b, _):
        (here,) = a.lease(["here"], shell("echo here"))
        await poll(lambda: here in a.outputs.complete or here in b.outputs.complete)
        keeper = Scheduler(made.address("outputs"))
        await keeper.start()
        made.there["outputs"] = keeper
        (there,) = a.lease(["there"], shell("sleep 1; echo there"))
        await a.ended(there)
        await poll(lambda: keeper.outputs.text("there") == b"there\n")
        assert there not in a.outputs.complete


async def test_the_worker_is_shared_out_and_one_instance_alone_has_all(tmp_path: Path) -> None:
    async with site(tmp_path) as (made, a, b, _):
        assert a.credits[0][1] == WHOLE, "it was alone at first"
        await a.until(lambda: len(a.credits) > 1)
        assert not b.credits, "there is nothing to give yet"
        number, share, returns = a.credits[-1]
        assert share == (1_000, 500, 0, 5, 10, 2)
        a.hub.give_back(a.worker, number, share, ())
        await b.until(lambda: b.credits and b.credits[-1][1] == (1_000, 500, 0, 5, 10, 1))
        assert returns == 0
        await made.stop("a")
        await b.until(lambda: b.credits[-1][1] == WHOLE)


async def test_a_cordon_told_by_one_is_repeated_to_all_and_in_each_hello(tmp_path: Path) -> None:
    async with site(tmp_path) as (made, a, b, _):
        ref = a.worker
        gate = tmp_path / "gate"
        (running,) = b.lease(["running"], shell(f"until [ -e {gate} ]; do sleep 0.02; done"), shard=1)
        await b.until(lambda: running in b.running)
        a.hub.cordon(ref, True, True, 0)
        await b.until(lambda: b.cordoned.get(ref))
        await a.until(lambda: a.cordoned.get(ref))
        (late,) = b.lease(["late"], shell("true"), shard=1)
        assert [status for status, _ in await b.ended(late)] == [Status.QUEUED]
        c = await made.start("c", {})
        await c.until(lambda: ref in c.workers)
        assert c.workers[ref].cordoned
        gate.touch()
        assert [status for status, _ in await b.ended(running)] == [Status.COMPLETED]
        b.hub.cordon(ref, False, False, 0)
        await a.until(lambda: not a.cordoned[ref])
        (again,) = b.lease(["again"], shell("true"), shard=1)
        assert [status for status, _ in await b.ended(again)] == [Status.COMPLETED]


async def test_an_instance_that_does_not_answer_a_lowered_credit_loses_its_stream(tmp_path: Path) -> None:
    async with site(tmp_path, lease_ms=2_000) as (_, a, b, _):
        await a.until(lambda: len(a.credits) > 1)  # lowered when the other came, and nobody here gives anything back
        await a.until(lambda: a.gone)
        await b.until(lambda: b.credits)


async def test_a_connection_that_drops_again_and_again_loses_no_task(tmp_path: Path) -> None:
    port, other = free_ports(2)
    scheduler = Scheduler(f"127.0.0.1:{port}")
    await scheduler.start()
    gate = tmp_path / "gate"
    with proxy("127.0.0.1", other, "127.0.0.1", port) as between:
        process = await launch(options(tmp_path, target=f"127.0.0.1:{other}", timed=True, life_lock=""))
        try:
            await scheduler.until(lambda: scheduler.full)
            body = shell(f"echo $$ >> {tmp_path}/started; until [ -e {gate} ]; do sleep 0.02; done")
            held = scheduler.lease(["one", "two"], body)
            await scheduler.until(lambda: set(held) <= set(scheduler.running))
            for _ in range(5):
                reports = len(scheduler.full)
                await poll(lambda: between.cut() > 0)
                await scheduler.until(lambda reports=reports: len(scheduler.full) > reports)
                assert set(scheduler.full[-1].held) == set(held)
            between.refuse(True)
            await poll(lambda: between.cut() > 0)
            await scheduler.until(lambda: not scheduler.workers)
            gate.touch()  # they end while nobody is there to be told
            await poll(lambda: not any(alive(int(pid)) for pid in (tmp_path / "started").read_text().split()))
            between.refuse(False)
            assert {status for status, _ in await scheduler.ended(*held)} == {Status.COMPLETED}
            assert len((tmp_path / "started").read_text().split()) == 2
        finally:
            await scheduler.stop()
            process.kill()
            await process.wait()
