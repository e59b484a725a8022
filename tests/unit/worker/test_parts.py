"""The worker's small parts: frames, bodies, options, results in shared memory, the pool's naming of functions."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dts.gen.job.v1 import job_pb2
from dts.gen.worker.v1 import worker_pb2
from dts.model import Block, Demand, End, Held, Key, Report, Status, WorkerRef
from dts.worker import bodies, context, texts, wire
from dts.worker.attempts import Started, Up
from dts.worker.frames import Frames, decode_all, encode, pack
from dts.worker.options import WorkerOptions
from dts.worker.runners import how_it_ended
from dts.worker.shared import SIZE, SKIP, Shared


@given(st.lists(st.lists(st.one_of(st.integers(-5, 5), st.binary(), st.text()), min_size=1)), st.integers(1, 7))
def test_frames_come_whole_however_they_are_cut(values: list[list[object]], step: int) -> None:
    data = b"".join(map(pack, values))
    frames = Frames()
    got = [each for start in range(0, len(data), step) for each in frames.feed(data[start : start + step])]
    assert got == values


def test_options_come_back_from_json() -> None:
    options = WorkerOptions(
        "unix:/s", "t", capacity=Demand(1, 2, 3, 4, (("gpu", 2),)), labels=(("zone", "a"),), timed=True
    )
    assert WorkerOptions.from_json(options.to_json()) == options


def test_bodies_are_read_once_and_whole_numbers_are_int() -> None:
    task = job_pb2.Task(python=job_pb2.PythonTask(function="m:f"))
    task.python.args.extend([1, 2.5, "x", [3], {"a": 4}, None, True])
    body = worker_pb2.Body(task=task, timeout_ms=5).SerializeToString()
    work = bodies.read(body)
    assert bodies.read(bytes(bytearray(body))) is work
    assert (work.type, work.kind, work.timeout_ms, work.kill_grace_ms) == ("python", "python m:f", 5, 5_000)
    assert isinstance(work.task, bodies.Call)
    assert decode_all(work.task.arguments) == [[[1, 2.5, "x", [3], {"a": 4}, None, True], {}]]


def test_a_package_cannot_take_a_built_in_type() -> None:
    task = job_pb2.Task(custom=job_pb2.CustomTask(type="shell"))
    assert bodies.read(worker_pb2.Body(task=task).SerializeToString()).type == "custom shell"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [(0, 0, ""), (3 << 8, 3, "exit code 3"), (9, 137, "killed by signal 9 (SIGKILL)")],
)
def test_wait_statuses(status: int, code: int, error: str) -> None:
    assert how_it_ended(status) == (code, error)


def test_shared_memory_is_one_for_both_sides() -> None:
    fd = os.memfd_create("test")
    os.ftruncate(fd, SIZE)
    worker, other = Shared(fd), Shared(fd)
    os.close(fd)
    worker.reset()
    assert other.running() == (-1, 0)
    worker.set_control(3, SKIP)
    assert other.begin(3, 77) == SKIP
    assert worker.running() == (3, 77)
    other.finish(encode([3, "x"]))
    assert worker.running() == (-1, 0)
    assert decode_all(worker.read()) == [[3, "x"]]
    assert worker.read() == b""
    worker.close()
    other.close()


@given(st.text(max_size=200), st.integers(3, 100))
def test_cut_texts_fit(text: str, size: int) -> None:
    assert len(texts.cut(text, size).encode()) <= size


def test_execution_ids_are_those_of_the_model() -> None:
    for key in (Key("a", 1_774_746_000_001), Key("b", 0, "0123456789ab")):
        assert context.execution_id(*key) == str(key)


def test_messages_up() -> None:
    ref = WorkerRef("w", "i")
    keys = [Key("a", 1), Key("b", 1, "n")]
    block = Block(keys, (), Demand(), Status.FAILED, 2, ends=[End(1, 2, 3, "e", "r"), End()])
    (got,) = wire.up(Up(1, 7, Report(ref, 4, 5, full=True, held=[Held(keys[0], 1), Held(keys[1], 3)], ended=[block])))
    assert (got.report.shard, got.report.epoch, got.report.number) == (7, 4, 5)
    assert list(wire.held(got.report.held)) == [Held(keys[0], 1), Held(keys[1], 3)]
    assert [end.error for end in got.report.ended[0].ends] == ["e", ""]
    (beat,) = wire.up(Up(1, 7, Report(ref, 4, 5, beat=9)))
    assert (beat.beat.epoch, beat.beat.beat) == (4, 9)
    started = list(wire.up(Up(1, 7, Started([Held(keys[0], 1), Held(keys[1], 2)], [10, 20]))))
    assert [list(each.started.started) for each in started] == [[10], [20]]
