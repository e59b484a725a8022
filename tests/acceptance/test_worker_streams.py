"""The worker's stream: servers that go and come back, stale leases, leaving."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from pathlib import Path

from dts.model import Demand, Status
from dts.worker import processes
from dts.worker.launch import launch
from tests.acceptance.workerside import Scheduler, alive, options, poll, python, shell, working

TASKS = "tests.acceptance.worker_tasks"


async def test_what_runs_goes_on_and_its_end_goes_to_the_next_server(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with working(tmp_path) as (first, worker):
        first.acking = False
        body = shell(f"echo before; until [ -e {gate} ]; do sleep 0.02; done; echo after")
        (running,) = first.lease(["running"], body)
        await first.until(lambda: running in first.running)
        (done,) = first.lease(["done"], shell("true"))
        await first.ended(done)
        await first.stop()
        gate.touch()
        second = Scheduler(f"unix:{tmp_path}/s", epoch=2)
        second.acking = False
        await second.start()
        try:
            got = await second.ended(running, done)
            assert [status for status, _ in got] == [Status.COMPLETED, Status.COMPLETED]
            assert second.full[0].epoch == 2
            assert second.full[0].number > first.full[-1].number
            await poll(lambda: running in second.outputs.complete)
            second.hub.ask(second.worker, 0, 2)  # not acknowledged: told again
            await second.until(lambda: second.times >= 4)
            second.acking = True
            second.hub.ask(second.worker, 0, 2)
            await second.until(lambda: second.times >= 6)
            second.hub.ask(second.worker, 0, 2)
            await second.until(lambda: len(second.full) >= 4)
            assert not second.full[-1].ended
            second.hub.leave(None, 0, "a new worker is here")
            await poll(lambda: not alive(worker))
        finally:
            await second.stop()


async def test_a_stale_lease_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with working(tmp_path) as (scheduler, _):
        old = scheduler.numbers[scheduler.worker]
        scheduler.hub.ask(scheduler.worker, 0, 1)
        await scheduler.until(lambda: scheduler.numbers[scheduler.worker] > old)
        scheduler.lease(["stale"], shell(f"touch {mark}"), report=(1, old))
        scheduler.lease(["older"], shell(f"touch {mark}"), report=(0, 99))
        (fresh,) = scheduler.lease(["fresh"], shell("true"))
        await scheduler.ended(fresh)
        scheduler.hub.ask(scheduler.worker, 0, 1)
        await scheduler.until(lambda: len(scheduler.full) == 3)
        assert not scheduler.full[-1].held
        assert list(scheduler.ends) == [fresh]
        assert not mark.exists()


async def test_leave_hands_back_what_waits_and_lets_what_runs_finish(tmp_path: Path) -> None:
    async with working(tmp_path, capacity=Demand(slots=1)) as (scheduler, worker):
        (running,) = scheduler.lease(["running"], shell("sleep 0.5"))
        await scheduler.until(lambda: running in scheduler.running)
        waiting = scheduler.lease([f"w{each}" for each in range(10)], shell("true"))
        scheduler.hub.leave(scheduler.worker, 10_000, "stop")
        assert {status for status, _ in await scheduler.ended(*waiting)} == {Status.QUEUED}
        assert [status for status, _ in await scheduler.ended(running)] == [Status.COMPLETED]
        await poll(lambda: not alive(worker))


async def test_term_hands_back_what_does_not_finish_and_a_second_one_hurries(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, worker):
        held = scheduler.lease(["shell"], shell("sleep 300"))
        held += scheduler.lease(["python"], python(f"{TASKS}:wait", str(tmp_path / "p"), 300))
        await scheduler.until(lambda: set(held) <= set(scheduler.running))
        os.kill(worker, signal.SIGTERM)
        (late,) = scheduler.lease(["late"], shell("true"))
        assert [status for status, _ in await scheduler.ended(late)] == [Status.QUEUED]
        assert not set(held) & set(scheduler.ends)
        os.kill(worker, signal.SIGTERM)
        assert {status for status, _ in await scheduler.ended(*held)} == {Status.QUEUED}
        await poll(lambda: not alive(worker))


async def test_the_lock_is_held_as_long_as_the_worker_or_its_guard_lives(tmp_path: Path) -> None:
    def locked() -> bool:
        fd = os.open(tmp_path / "lock", os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    async with working(tmp_path) as (scheduler, worker):
        scheduler.lease(["shell"], shell(f"setsid sleep 300 & echo $! > {tmp_path}/a; wait"))
        await poll(lambda: (tmp_path / "a").exists() and (tmp_path / "a").read_text())
        task = int((tmp_path / "a").read_text())
        assert (tmp_path / "lock").read_text() == f"{worker} {scheduler.worker.incarnation}\n"
        second = await launch(options(tmp_path))
        assert await asyncio.wait_for(second.wait(), 20) == 4
        (guard,) = processes.children(worker)
        os.kill(guard, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        await poll(lambda: not alive(worker))
        assert locked()
        os.kill(guard, signal.SIGCONT)
        await poll(lambda: not locked())
        assert not alive(task)


async def test_a_worker_ends_when_its_server_stays_away_and_nothing_is_left(tmp_path: Path) -> None:
    async with working(tmp_path, lease_ms=1_000) as (scheduler, worker):
        (held,) = scheduler.lease(["a"], shell("true"))
        await scheduler.ended(held)
        scheduler.hub.ask(scheduler.worker, 0, 1)
        await scheduler.until(lambda: len(scheduler.full) == 2)
        assert not scheduler.full[-1].ended  # acknowledged
        await scheduler.stop()
        await poll(lambda: not alive(worker))


async def test_a_worker_whose_database_is_gone_ends(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, worker):
        scheduler.acking = False
        (held,) = scheduler.lease(["a"], shell("true"))
        await scheduler.ended(held)
        (tmp_path / "lock").unlink()
        await scheduler.stop()
        await poll(lambda: not alive(worker))


async def test_many_leases_in_one_message_all_end_once(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        held = scheduler.lease([f"p{each}" for each in range(1_000)], python(f"{TASKS}:nothing"))
        held += scheduler.lease([f"n{each}" for each in range(1_000)], b"")
        assert {status for status, _ in await scheduler.ended(*held)} == {Status.COMPLETED}
        assert scheduler.times == 2_000
