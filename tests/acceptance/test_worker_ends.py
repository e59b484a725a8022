"""How attempts are ended, and that nothing outlives its right to run: real processes, killed and stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from dts.model import Status
from dts.worker import processes
from tests.acceptance.workerside import Scheduler, alive, options, poll, python, shell, working

TASKS = "tests.acceptance.worker_tasks"
# A child in the group, one in a session of its own, and one that is nobody's child any more.
TREE = "sleep 300 & echo $! >> {0}; setsid sleep 300 & echo $! >> {0}; (setsid sleep 300 & echo $! >> {0}); {1}"


def pids(path: Path, count: int) -> list[int]:
    """The process ids in a file, once there are so many."""
    lines = path.read_text().split() if path.exists() else []
    return [int(each) for each in lines] if len(lines) >= count else []


async def tree(path: Path, count: int) -> list[int]:
    await poll(lambda: pids(path, count))
    return pids(path, count)


async def test_a_killed_worker_leaves_nothing_running(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, worker):
        scheduler.lease(["shell"], shell(TREE.format(tmp_path / "a", "wait")))
        scheduler.lease(["python"], python(f"{TASKS}:with_a_child", str(tmp_path / "b")))
        scheduler.lease(["deaf"], shell(f"trap '' TERM; echo $$ > {tmp_path}/c; while :; do sleep 1; done"))
        found = [*await tree(tmp_path / "a", 3), *await tree(tmp_path / "b", 2), *await tree(tmp_path / "c", 1)]
        below = processes.descendants(worker)
        assert set(found) <= set(below)
        os.kill(worker, signal.SIGKILL)
        await poll(lambda: not [pid for pid in {*found, *below} if alive(pid)])


async def test_a_timeout_ends_the_whole_tree(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        command = TREE.format(tmp_path / "a", "trap '' TERM; while :; do sleep 0.1; done")
        (held,) = scheduler.lease(["deaf"], shell(command, timeout_ms=700, grace_ms=300))
        found = await tree(tmp_path / "a", 3)
        ((status, end),) = await scheduler.ended(held)
        assert (status, end.error) == (Status.FAILED, "timed out after 0.7 s")
        assert end.ended - end.started >= 990
        assert not [pid for pid in found if alive(pid)]


async def test_a_timeout_of_a_python_task_ends_its_process_and_no_other(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        held = scheduler.lease(["a"], python(f"{TASKS}:with_a_child", str(tmp_path / "a"), timeout_ms=300))
        held += scheduler.lease(["b"], python(f"{TASKS}:stubborn", str(tmp_path / "b"), timeout_ms=300, grace_ms=100))
        held += scheduler.lease(["c"], python(f"{TASKS}:tidy", str(tmp_path / "c"), timeout_ms=300))
        fine = scheduler.lease([f"j{each}" for each in range(50)], python(f"{TASKS}:nothing"))
        found = [*await tree(tmp_path / "a", 2), *await tree(tmp_path / "b", 1)]
        for status, end in await scheduler.ended(*held):
            assert (status, end.error) == (Status.FAILED, "timed out after 0.3 s")
        assert {status for status, _ in await scheduler.ended(*fine)} == {Status.COMPLETED}
        assert not [pid for pid in found if alive(pid)]
        assert not (tmp_path / "c").exists()


async def test_what_a_finished_shell_task_left_behind_is_ended(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        (held,) = scheduler.lease(["left"], shell(TREE.format(tmp_path / "a", "exit 0")))
        ((status, _),) = await scheduler.ended(held)
        assert status is Status.COMPLETED
        assert not [pid for pid in pids(tmp_path / "a", 3) if alive(pid)]


async def test_a_python_task_that_crashed_is_reported_when_its_children_are_gone(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        (held,) = scheduler.lease(["crash"], python(f"{TASKS}:die_with_a_child", str(tmp_path / "a")))
        ((status, end),) = await scheduler.ended(held)
        assert (status, end.code, end.error) == (Status.FAILED, 3, "its process ended: exit code 3")
        assert not [pid for pid in pids(tmp_path / "a", 2) if alive(pid)]


async def test_cancel_ends_what_runs(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        held = scheduler.lease(["shell"], shell(TREE.format(tmp_path / "a", "wait")))
        held += scheduler.lease(["python"], python(f"{TASKS}:tidy", str(tmp_path / "b")))
        found = [*await tree(tmp_path / "a", 3), *await tree(tmp_path / "b", 1)]
        scheduler.cancel(*held, reason="no longer wanted")
        for status, end in await scheduler.ended(*held):
            assert (status, end.error) == (Status.CANCELLED, "no longer wanted")
            assert end.started
        assert not [pid for pid in found[:3] if alive(pid)]
        assert not (tmp_path / "b").exists()


async def test_a_worker_without_its_guard_reports_what_was_lost_and_ends(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, worker):
        held = scheduler.lease(["shell"], shell(TREE.format(tmp_path / "a", "wait")))
        held += scheduler.lease(["python"], python(f"{TASKS}:wait", str(tmp_path / "b"), 300))
        found = [*await tree(tmp_path / "a", 3), *await tree(tmp_path / "b", 1)]
        await scheduler.until(lambda: set(held) <= set(scheduler.running))
        (guard,) = processes.children(worker)
        os.kill(guard, signal.SIGKILL)
        assert {status for status, _ in await scheduler.ended(*held)} == {Status.LOST}
        await poll(lambda: not [pid for pid in found if alive(pid)])
        await poll(lambda: not alive(worker))


async def test_a_timed_worker_that_hears_nothing_ends_what_runs_in_time(tmp_path: Path) -> None:
    async with working(tmp_path, lease_ms=3_000, timed=True) as (scheduler, _):
        held = scheduler.lease(["shell"], shell(TREE.format(tmp_path / "a", "wait")))
        held += scheduler.lease(["python"], python(f"{TASKS}:wait", str(tmp_path / "b"), 300))
        found = [*await tree(tmp_path / "a", 3), *await tree(tmp_path / "b", 1)]
        beats = scheduler.beats
        await scheduler.until(lambda: scheduler.beats > beats + 14)  # longer than a lease: answered beats renew it
        assert not scheduler.ends
        scheduler.echoing = False
        assert {status for status, _ in await scheduler.ended(*held)} == {Status.LOST}
        assert not [pid for pid in found if alive(pid)]


async def test_a_stopped_timed_worker_cannot_outlive_its_lease(tmp_path: Path) -> None:
    async with working(tmp_path, lease_ms=1_500, timed=True) as (scheduler, worker):
        scheduler.lease(["shell"], shell(TREE.format(tmp_path / "a", "wait")))
        scheduler.lease(["python"], python(f"{TASKS}:wait", str(tmp_path / "b"), 300))
        found = [*await tree(tmp_path / "a", 3), *await tree(tmp_path / "b", 1)]
        os.kill(worker, signal.SIGSTOP)
        try:
            await poll(lambda: not [pid for pid in found if alive(pid)])
        finally:
            os.kill(worker, signal.SIGCONT)


async def test_a_wrong_token_or_database_is_refused(tmp_path: Path) -> None:
    import asyncio

    from dts.worker.launch import launch

    scheduler = Scheduler(f"unix:{tmp_path}/s")
    await scheduler.start()
    try:
        for index, wrong in enumerate(({"token": "other"}, {"database": "other"})):
            process = await launch(options(tmp_path, life_lock=f"{tmp_path}/l{index}", **wrong))
            assert await asyncio.wait_for(process.wait(), 20) == 2
        assert not scheduler.full
    finally:
        await scheduler.stop()
