"""Cgroups and scratch folders by themselves: what is ours to divide, who is swept, how folders are measured and removed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dts.worker import cgroups, guarding, holds, processes, scratch
from dts.worker.cgroups import HOME, Cgroups
from dts.worker.guard import Options
from dts.worker.guarding import Guard, GuardProcess
from dts.worker.trees import Limits
from tests.acceptance.workerside import poll

HOLDER = """
import sys, time
from pathlib import Path
from dts.worker import holds
print(holds.make(lambda: Path(sys.argv[1])), flush=True)
time.sleep(300)
"""


@pytest.fixture
def group() -> Iterator[Path | None]:
    """A new cgroup, removed with all in it. None: here is none that this user may divide, and a worker uses none."""
    own = cgroups.own()
    if own is None:
        assert Cgroups.open("auto", 1_000) is None
        yield None
        return
    path = own / f"test-{os.getpid()}-{time.monotonic_ns()}"
    path.mkdir()
    yield path
    cgroups.end(path)


def spawn(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def proc(folder: Path, own: str, mount: str) -> Path:
    """A /proc of a process in this cgroup, which sees the hierarchy mounted so."""
    (folder / "self").mkdir(parents=True)
    (folder / "self/cgroup").write_text(f"4:memory:/elsewhere\n0::{own}\n")
    (folder / "self/mountinfo").write_text(
        f"30 1 0:26 / /sys rw - sysfs sysfs rw\n31 30 0:27 {mount} rw,nosuid - cgroup2 cgroup2 rw\n"
    )
    return folder


def cgroup_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.procs").touch()
    return path


def test_the_own_cgroup_is_found_below_the_mount(tmp_path: Path) -> None:
    top = cgroup_folder(tmp_path / "top")
    service = cgroup_folder(top / "system.slice/dts.service")
    os.setxattr(service, "user.delegate", b"1")
    assert cgroups.own(proc(tmp_path / "a", "/", f"/ {top}")) == top  # a container's root
    assert cgroups.own(proc(tmp_path / "b", "/system.slice/dts.service", f"/ {top}")) == service
    cgroup_folder(service / HOME)
    assert cgroups.own(proc(tmp_path / "c", f"/system.slice/dts.service/{HOME}", f"/ {top}")) == service
    assert (
        cgroups.own(proc(tmp_path / "d", "/system.slice/dts.service", f"/system.slice {top / 'system.slice'}"))
        == service
    )
    assert cgroups.own(proc(tmp_path / "e", "/not/there", f"/ {top}")) is None
    assert cgroups.own(tmp_path / "no-proc") is None


def test_root_leaves_a_cgroup_alone_that_nobody_delegated(tmp_path: Path) -> None:
    top = cgroup_folder(tmp_path / "top")
    session = cgroup_folder(top / "session.scope")
    expected = None if os.geteuid() == 0 else session  # another user can only write to what was handed to it
    assert cgroups.own(proc(tmp_path / "a", "/session.scope", f"/ {top}")) == expected


def test_weights_are_shares_of_cores() -> None:
    assert [cgroups.weight(each) for each in (0, 5, 250, 1_000, 64_000, 10**9)] == [1, 1, 25, 100, 6_400, 10_000]


def test_the_kernels_word_on_memory_is_read(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\noom_group_kill 0\n")
    assert not cgroups.out_of_memory(tmp_path)
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n")
    (tmp_path / "memory.peak").write_text("268435456\n")
    assert cgroups.out_of_memory(tmp_path)
    assert cgroups.peak(tmp_path) == 256 << 20
    assert not cgroups.out_of_memory(tmp_path / "gone")


def test_a_limit_is_written_before_anything_runs_under_it(tmp_path: Path) -> None:
    made = Cgroups(tmp_path, frozenset({"cpu", "memory"})).make("1", 1_500, 256)
    assert made == tmp_path / "1"
    assert {each.name: each.read_text() for each in made.iterdir()} == {
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "memory.max": str(256 << 20),
        "cpu.weight": "150",
    }


def test_a_cgroup_knows_and_ends_all_that_started_in_it(group: Path | None) -> None:
    if group is None:
        return
    command = "read go; setsid env -i sh -c 'echo $$; exec sleep 300' & exec sleep 300"
    with subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as task:
        assert task.stdin is not None
        assert task.stdout is not None
        (group / "cgroup.procs").write_text(str(task.pid))
        task.stdin.write(b"\n")  # nothing of it has started before it was moved
        task.stdin.flush()
        hidden = int(task.stdout.readline())
        assert set(cgroups.pids(group)) == {task.pid, hidden}
        cgroups.end(group)
        assert not group.exists()
        assert task.wait(10) == -signal.SIGKILL
        assert processes.began(hidden) == 0


def test_processes_make_room_for_controllers(group: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if group is None:
        return
    there = (group / "cgroup.controllers").read_text().split()
    monkeypatch.setattr(cgroups, "WANTED", tuple(there))
    with spawn("/bin/sleep", "300") as task:
        (group / "cgroup.procs").write_text(str(task.pid))
        made = Cgroups.open(str(group), 4_000)
        assert made is not None
        assert made.held == frozenset(there)
        if there:
            assert cgroups.pids(group) == []
            assert cgroups.pids(group / HOME) == [task.pid]
        one = made.make("7", 0, 0)
        assert one is not None
        made.close()
        assert not made.path.exists()
        task.kill()


def test_cgroups_of_dead_guards_are_swept_and_no_others(group: Path | None) -> None:
    if group is None:
        return
    with spawn(sys.executable, "-c", HOLDER, str(group / "dts-1-x")) as other, spawn("/bin/sleep", "300") as task:
        assert other.stdout is not None
        assert other.stdout.readline()
        (group / "dts-1-x/9").mkdir()
        (group / "dts-1-x/9/cgroup.procs").write_text(str(task.pid))
        cgroups.sweep(group)
        assert task.poll() is None
        other.kill()
        other.wait()
        cgroups.sweep(group)
        assert task.wait(10) == -signal.SIGKILL
        assert not (group / "dts-1-x").exists()


def test_a_folder_is_held_as_long_as_its_maker_lives(tmp_path: Path) -> None:
    path = tmp_path / "held"
    with spawn(sys.executable, "-c", HOLDER, str(path)) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        assert not holds.abandoned(path)
        other.kill()
        other.wait()
        assert holds.abandoned(path)
    assert not holds.abandoned(tmp_path / "never")


def test_a_foreign_folder_is_not_used_for_scratch(tmp_path: Path) -> None:
    trap = tmp_path / f"dts-scratch-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    trap.symlink_to(tmp_path / "elsewhere")
    made = scratch.Scratch.open(str(tmp_path))
    assert made is not None
    assert trap not in made.home.parents
    assert not list((tmp_path / "elsewhere").iterdir())
    assert scratch.Scratch.open(str(tmp_path / "no/such/folder")) is None


def test_a_folder_is_measured_in_slices_and_removed_whole(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for number in range(5):
        (top / f"d{number}/e").mkdir(parents=True)
        for each in range(scratch.SLICE // 2):
            (top / f"d{number}/e/{each}").touch()
        (top / f"d{number}/big").write_bytes(b"x" * 1_000_000)
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (top / "link").symlink_to(outside)
    sizes = list(scratch.measure(top))
    assert len(sizes) >= 3
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 5_000_000
    for path in (top / "d0/e", top / "d0"):
        path.chmod(0)
    scratch.remove(top)
    assert not top.exists()
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    scratch.remove(link)
    assert not link.is_symlink()
    assert outside.exists()
    assert outside.stat().st_mode & 0o777 == 0o500


def test_only_an_empty_folder_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = scratch.Scratch.open(str(tmp_path))
    assert made is not None
    first, second, third = (made.make(str(each)) for each in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert made.wait_s() is None
    (first / "file").touch()
    assert not made.take_back(first)
    second.rmdir()
    second.symlink_to(first)
    assert not made.take_back(second)
    third.chmod(0o777)
    assert made.take_back(third)
    assert third.stat().st_mode & 0o777 == 0o700
    assert made.make("3") == third
    assert made.make("4") != third
    assert made.take_back(third)
    made.trim()
    assert third.exists()
    monkeypatch.setattr(scratch, "SPARE_S", 0.0)
    made.trim()
    assert not third.exists()
    assert made.take_back(third)  # gone already


def test_memory_is_seen_with_and_without_what_is_shared() -> None:
    kept = b"x" * (64 << 20)
    assert len(kept) <= processes.own_memory(os.getpid())
    assert processes.fair_memory(os.getpid()) <= processes.own_memory(os.getpid()) + (8 << 20)
    assert processes.own_memory(2**22 + 1) == 0


class Told:
    """guarding.Tasks: what the guard said."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.gone = asyncio.Event()

    def began(self, id: int, started_ns: int, enforced: str) -> None:
        self.started.set()

    def ended(self, id: int, status: int, started_ns: int, ended_ns: int, why: str, used: int) -> None: ...

    def failed(self, id: int, problem: str) -> None: ...

    def settle(self) -> None: ...

    def on_gone(self) -> None:
        self.gone.set()


async def test_a_guard_that_does_not_answer_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "PING_S", 0.05)
    told, process = Told(), GuardProcess(None, Options("off", str(tmp_path)))
    guard = Guard(asyncio.get_running_loop(), process, told, told.on_gone)
    output, writer = os.pipe()
    guard.spawn(1, 0, ["/bin/sleep", "300"], {}, "", 0, 100, Limits(), [writer])
    async with asyncio.timeout(20):
        await told.started.wait()
        await poll(lambda: guard.answered > 2 * guarding.UNANSWERED)  # one that answers lives
        assert not told.gone.is_set()
        children = processes.children(process.process.pid)
        process.process.send_signal(signal.SIGSTOP)
        await told.gone.wait()
    assert process.process.wait(10) == -signal.SIGKILL
    for pid in children:  # in life the worker ends them: it is the next subreaper
        os.kill(pid, signal.SIGKILL)
    assert [Path(each).exists() for each in process.homes if each] == [True]
    process.tidy()
    assert not [each for each in process.homes if each and Path(each).exists()]
    assert guard.close() == -signal.SIGKILL
    os.close(output)
