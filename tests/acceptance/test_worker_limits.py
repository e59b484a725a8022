"""What a task requests is held, and said so; scratch folders; nothing that it started outlives it: real processes."""

from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from dts.gen.job.v1 import job_pb2
from dts.gen.worker.v1 import worker_pb2
from dts.model import Demand, End, Status
from dts.worker import cgroups, processes
from tests.acceptance.workerside import alive, poll, python, shell, working

TASKS = "tests.acceptance.worker_tasks"
ROOM = Demand(cpu=8_000, memory=8_192, storage=8_192, slots=16)
PYTHON = sys.executable
HIDDEN = "(setsid env -i sh -c 'sleep 300 & sleep 300 & echo $! $$ >> {0}; wait' &); "  # no parent, group or mark of its task
WAYS = pytest.mark.parametrize("cgroup", ["off", "auto"])


def has_cgroup(controller: str) -> bool:
    """Whether a worker that is told `auto` holds by this controller here."""
    own = cgroups.own()
    return own is not None and controller in (own / "cgroup.controllers").read_text().split()


def way(cgroup: str) -> str:
    """How memory is held."""
    return "cgroup" if cgroup == "auto" and has_cgroup("memory") else "sampled"


def take(mib: int, seconds: float = 60) -> str:
    """A command that takes so much memory, then waits."""
    return f"{PYTHON} -c 'import time; kept = b\"x\" * ({mib} << 20); time.sleep({seconds})'"


def used(end: End, requested: int) -> int:
    """MiB that an out-of-memory error names."""
    head, _, tail = end.error.partition(" MiB, ")
    assert tail == f"requested {requested} MiB"
    assert head.startswith("out of memory: used ")
    return int(head.rpartition(" ")[2])


@WAYS
async def test_a_task_that_takes_more_memory_than_it_requested_is_stopped(tmp_path: Path, cgroup: str) -> None:
    async with working(tmp_path, capacity=ROOM, cgroup=cgroup) as (scheduler, _):
        demand = Demand(memory=256)
        held = scheduler.lease(["shell"], shell(take(1_024)), demand=demand)
        held += scheduler.lease(["python"], python(f"{TASKS}:take", 1_024), demand=demand)
        held += scheduler.lease(["spread"], shell(" & ".join([take(150)] * 3) + "; wait"), demand=demand)
        fine = scheduler.lease(["fine"], shell(take(100, 0.5)), demand=demand)
        for status, end in await scheduler.ended(*held):
            assert (status, end.kind, end.enforced) == (Status.FAILED, "out_of_memory", f"memory={way(cgroup)}")
            assert used(end, 256) >= 256
            assert end.ended - end.started < 30_000
        ((status, end),) = await scheduler.ended(*fine)
        assert (status, end.kind, end.enforced) == (Status.COMPLETED, "", f"memory={way(cgroup)}")


@WAYS
async def test_memory_that_processes_share_counts_once(tmp_path: Path, cgroup: str) -> None:
    async with working(tmp_path, capacity=ROOM, cgroup=cgroup) as (scheduler, _):
        held = scheduler.lease(["shared"], python(f"{TASKS}:share", 150, 4), demand=Demand(memory=300))
        ((status, end),) = await scheduler.ended(*held)
        assert (status, end.error, end.result) == (Status.COMPLETED, "", "4")


@WAYS
async def test_python_with_requests_is_as_python_in_the_pool(tmp_path: Path, cgroup: str) -> None:
    async with working(tmp_path, capacity=ROOM, cgroup=cgroup) as (scheduler, _):
        calls = {
            "add": python(f"{TASKS}:add", 1, 2, more=4),
            "later": python(f"{TASKS}:later", "async"),
            "fail": python(f"{TASKS}:fail", "no such luck"),
            "leave": python(f"{TASKS}:leave", 4),
            "die": python(f"{TASKS}:die", 7),
            "missing": python(f"{TASKS}:not_there"),
            "say": python(f"{TASKS}:say", "hello"),
            "slow": python(f"{TASKS}:tidy", str(tmp_path / "tidy"), timeout_ms=1_000),
            "env": python(f"{TASKS}:environment"),
        }
        held = scheduler.lease(list(calls), list(calls.values()), demand=Demand(cpu=500, memory=256))
        ends = dict(zip(calls, await scheduler.ended(*held), strict=True))
        got = {job: (status.name, end.code, end.error or end.result) for job, (status, end) in ends.items()}
        variables = got.pop("env")[2]
        assert got == {
            "add": ("COMPLETED", 0, "7"),
            "later": ("COMPLETED", 0, "'async later'"),
            "fail": ("FAILED", 1, "ValueError: no such luck"),
            "leave": ("FAILED", 1, "exit code 4"),
            "die": ("FAILED", 7, "its process ended: exit code 7"),
            "missing": ("FAILED", 1, f"AttributeError: module '{TASKS}' has no attribute 'not_there'"),
            "say": ("COMPLETED", 0, ""),
            "slow": ("FAILED", ends["slow"][1].code, "timed out after 1 s"),
        }
        assert "DTS_EXECUTION_ID=env@" in variables
        assert "DTS_SCRATCH=" in variables
        assert not (tmp_path / "tidy").exists()
        assert ends["slow"][1].kind == "timeout"
        cpu = "cgroup" if cgroup == "auto" and has_cgroup("cpu") else "none"
        assert {end.enforced for _, end in ends.values()} == {f"cpu={cpu},memory={way(cgroup)}"}
        await poll(lambda: set(held[2:3] + held[6:7]) <= scheduler.outputs.complete)
        assert scheduler.outputs.text("say") == b"hello\nhello from below\nhello again\n"
        assert scheduler.outputs.text("fail").startswith(b"Traceback")


async def test_python_with_requests_is_cancelled(tmp_path: Path) -> None:
    async with working(tmp_path, capacity=ROOM) as (scheduler, _):
        held = scheduler.lease(["c"], python(f"{TASKS}:tidy", str(tmp_path / "c")), demand=Demand(memory=256))
        await poll((tmp_path / "c").exists)
        scheduler.cancel(*held)
        ((status, _),) = await scheduler.ended(*held)
        assert status is Status.CANCELLED
        assert not (tmp_path / "c").exists()


@WAYS
@pytest.mark.parametrize("demand", [Demand(), Demand(memory=512)], ids=["slots", "memory"])
async def test_what_hides_from_its_task_is_ended_with_it(tmp_path: Path, cgroup: str, demand: Demand) -> None:
    async with working(tmp_path, capacity=ROOM, cgroup=cgroup) as (scheduler, _):
        pids = tmp_path / "pids"
        wait = f"until [ -s {pids} ]; do sleep 0.01; done"
        (held,) = scheduler.lease(["hide"], shell(HIDDEN.format(pids) + wait, grace_ms=300), demand=demand)
        ((status, _),) = await scheduler.ended(held)
        assert status is Status.COMPLETED
        assert len(pids.read_text().split()) == 2
        assert not [pid for pid in map(int, pids.read_text().split()) if alive(pid)]


async def test_who_may_belong_to_several_tasks_ends_with_the_last_of_them(tmp_path: Path) -> None:
    async with working(tmp_path, capacity=ROOM, cgroup="off") as (scheduler, _):
        gate, pids = tmp_path / "gate", tmp_path / "pids"
        (older,) = scheduler.lease(["older"], shell(f"until [ -e {gate} ]; do sleep 0.01; done"))
        await scheduler.until(lambda: older in scheduler.running)
        wait = f"until [ -s {pids} ]; do sleep 0.01; done"
        (hiding,) = scheduler.lease(["hide"], shell(HIDDEN.format(pids) + wait, grace_ms=300))
        await scheduler.ended(hiding)
        gate.touch()
        await scheduler.ended(older)
        assert not [pid for pid in map(int, pids.read_text().split()) if alive(pid)]


async def test_what_a_call_of_the_pool_left_running_is_ended_with_the_call(tmp_path: Path) -> None:
    async with working(tmp_path, children=1) as (scheduler, _):
        held = scheduler.lease(["fork"], python(f"{TASKS}:fork_and_return", str(tmp_path / "pids")))
        ((status, end),) = await scheduler.ended(*held)
        assert status is Status.COMPLETED
        left = [int(each) for each in (tmp_path / "pids").read_text().split()]
        assert len(left) == 3
        assert not [pid for pid in left if alive(pid)]
        again = scheduler.lease(["pid"], python(f"{TASKS}:process_id"))
        assert (await scheduler.ended(*again))[0][1].result == end.result  # its process of the pool lives on


async def test_helpers_of_multiprocessing_are_started_anew_by_each_call(tmp_path: Path) -> None:
    async with working(tmp_path, children=1) as (scheduler, worker):
        ends = []
        for each in range(3):
            (held,) = scheduler.lease([f"j{each}"], python(f"{TASKS}:lock_and_return", grace_ms=60_000))
            ends += await scheduler.ended(held)  # long before the grace time: nothing is to be gained by waiting
            (own,) = (pid for pid in processes.descendants(worker) if pid == int(ends[-1][1].result))
            assert processes.children(own) == []
        assert {(status, end.error) for status, end in ends} == {(Status.COMPLETED, "")}
        assert len({end.result for _, end in ends}) == 1


async def test_what_runs_in_the_worker_itself_is_not_held_and_says_so(tmp_path: Path) -> None:
    async with working(tmp_path, capacity=ROOM) as (scheduler, _):
        demand = Demand(cpu=1, memory=1, storage=1)
        http = job_pb2.Task(http=job_pb2.HttpTask(url="http://127.0.0.1:1/"))
        held = scheduler.lease(["http"], worker_pb2.Body(task=http).SerializeToString(), demand=demand)
        held += scheduler.lease(["none"], b"", demand=demand)
        held += scheduler.lease(["slots"], shell("true"))
        assert [end.enforced for _, end in await scheduler.ended(*held)] == [
            "cpu=none,memory=none,storage=none",
            "cpu=none,memory=none,storage=none",
            "",
        ]


async def test_a_scratch_folder_lasts_as_long_as_its_attempt(tmp_path: Path) -> None:
    async with working(tmp_path, capacity=ROOM, scratch=str(tmp_path)) as (scheduler, _):
        say = "stat -c %a $DTS_SCRATCH; echo $DTS_SCRATCH; test $TMPDIR = $DTS_SCRATCH; mkdir -m 0 $DTS_SCRATCH/no; touch $DTS_SCRATCH/f"
        held = scheduler.lease(["shell"], shell(say))
        held += scheduler.lease(["python"], python(f"{TASKS}:scratch"), demand=Demand(cpu=10))
        held += scheduler.lease(["failed"], shell("no-such-command"), demand=Demand(storage=10))
        ends = await scheduler.ended(*held)
        assert [status.name for status, _ in ends] == ["COMPLETED", "COMPLETED", "FAILED"]
        await poll(lambda: held[0] in scheduler.outputs.complete)
        mode, folder = scheduler.outputs.text("shell").decode().split()
        assert mode == "700"
        homes = list((tmp_path / f"dts-scratch-{os.getuid()}").iterdir())
        assert len(homes) == 1
        assert Path(folder).parent == homes[0]
        await poll(lambda: not list(homes[0].iterdir()))
        assert stat.S_IMODE(homes[0].stat().st_mode) == 0o700
    await poll(lambda: not homes[0].exists())


async def test_a_scratch_folder_may_not_outgrow_the_storage_request(tmp_path: Path) -> None:
    async with working(tmp_path, capacity=ROOM, scratch=str(tmp_path)) as (scheduler, _):
        write = "for n in 1 2 3 4 5 6 7 8; do head -c 4000000 /dev/zero > $DTS_SCRATCH/$n; done; {0}"
        held = scheduler.lease(["big"], shell(write.format("sleep 60")), demand=Demand(storage=16))
        held += scheduler.lease(["fine"], shell(write.format("sleep 1.5")), demand=Demand(storage=64))
        (bad, end), (good, other) = await scheduler.ended(*held)
        assert (bad, end.kind, end.enforced) == (Status.FAILED, "scratch_full", "storage=sampled")
        assert end.error.startswith("scratch folder over 16 MiB: it held ")
        assert (good, other.kind, other.enforced) == (Status.COMPLETED, "", "storage=sampled")


@WAYS
@pytest.mark.parametrize("killed", ["worker", "guard", "both"])
async def test_nothing_is_left_when_worker_or_guard_or_both_are_killed(
    tmp_path: Path, killed: str, cgroup: str
) -> None:
    top = tmp_path / f"dts-scratch-{os.getuid()}"
    files = [tmp_path / "pids", tmp_path / "plain"]
    async with working(tmp_path, capacity=ROOM, scratch=str(tmp_path), cgroup=cgroup) as (scheduler, worker):
        command = "touch $DTS_SCRATCH/f; {0} setsid sleep 300 & sleep 300"
        # When nobody who knew them lives, only a cgroup still knows those that hide.
        hide = HIDDEN if killed != "both" or (cgroup == "auto" and cgroups.own()) else "echo >> {0};"
        scheduler.lease(["a"], shell(command.format(hide.format(files[0]))), demand=Demand(cpu=100, memory=256))
        scheduler.lease(["b"], shell(f"sleep 300 & echo $! > {files[1]}; wait"))
        scheduler.lease(["c"], python(f"{TASKS}:with_a_child", str(tmp_path / "c")))
        await poll(lambda: all(each.exists() and each.read_text() for each in (*files, tmp_path / "c")))
        below = processes.descendants(worker)
        (guard,) = processes.children(worker)
        group = cgroup_of(guard)
        (home,) = top.iterdir()
        if killed == "both":
            os.kill(guard, signal.SIGSTOP)  # it must not act between the two signals
        if killed != "guard":
            os.kill(worker, signal.SIGKILL)
        if killed != "worker":
            os.kill(guard, signal.SIGKILL)
        if killed != "both":
            await poll(lambda: not home.exists() and not [each for each in group if each.exists()])
            await poll(lambda: not [pid for pid in below if alive(pid)])
    if killed == "both":  # the next worker sweeps
        again = tmp_path / "again"
        again.mkdir()
        async with working(again, capacity=ROOM, scratch=str(tmp_path), cgroup=cgroup):
            await poll(lambda: not home.exists() and not [each for each in group if each.exists()])
            await poll(lambda: not [pid for pid in below if alive(pid)])


def cgroup_of(guard: int) -> list[Path]:
    """A guard's cgroup, if it has one."""
    own = cgroups.own()
    return list(own.glob(f"dts-{guard}-*")) if own is not None else []
