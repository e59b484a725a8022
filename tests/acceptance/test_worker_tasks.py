"""Task types in the real worker process, over its real stream."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from aiohttp import web

from dts.bounds import OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES
from dts.gen.job.v1 import job_pb2
from dts.gen.worker.v1 import worker_pb2
from dts.model import Demand, Held, Key, Status
from tests.acceptance.workerside import AT, poll, python, shell, working

TASKS = "tests.acceptance.worker_tasks"


async def test_shell_results_environment_and_output(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        variables = "$DTS_JOB_ID $DTS_EXECUTION_ID $DTS_ATTEMPT $DTS_SCHEDULED_TIME $DTS_FENCING_NUMBER $OWN"
        held = scheduler.lease(
            ["env"], shell(f"echo {variables}; pwd; echo err >&2", directory="/", OWN="x"), attempt=3
        )
        held += scheduler.lease(["three"], shell("exit 3"))
        held += scheduler.lease(["signal"], shell("kill -9 $$"))
        held += scheduler.lease(["nowhere"], shell("true", directory="/no/such/folder"))
        argv = job_pb2.Task(shell=job_pb2.ShellTask(argv=["no-such-command", "x"]))
        held += scheduler.lease(["no-command"], worker_pb2.Body(task=argv).SerializeToString())
        got = await scheduler.ended(*held)
        assert [(status, end.code, end.error) for status, end in got] == [
            (Status.COMPLETED, 0, ""),
            (Status.FAILED, 3, "exit code 3"),
            (Status.FAILED, 137, "killed by signal 9 (SIGKILL)"),
            (Status.FAILED, 127, "cannot start: [Errno 2] No such file or directory: '/no/such/folder'"),
            (Status.FAILED, 127, "cannot start: [Errno 2] No such file or directory: 'no-such-command'"),
        ]
        assert all(0 < end.started <= end.ended for _, end in got)
        await poll(lambda: held[0] in scheduler.outputs.complete)
        expected = f"env {Key('env', AT)} 3 2026-03-29T01:00:00.000Z 1 x\n/\nerr\n"
        assert scheduler.outputs.text("env", 3).decode() == expected
        assert Held(Key("three", AT), 1) not in scheduler.outputs.pieces


async def test_python_results(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        calls = {
            "nothing": python(f"{TASKS}:nothing"),
            "add": python(f"{TASKS}:add", 1, 2, more=4),
            "later": python(f"{TASKS}:later", "async"),
            "who": python(f"{TASKS}:who"),
            "fail": python(f"{TASKS}:fail", "no such luck"),
            "leave": python(f"{TASKS}:leave", 4),
            "leave0": python(f"{TASKS}:leave", 0),
            "missing": python(f"{TASKS}:not_there"),
            "no-module": python("no_such_module:f"),
            "no-colon": python("builtins"),
        }
        held = scheduler.lease(list(calls), list(calls.values()))
        got = {each.key.job: end for each, end in zip(held, await scheduler.ended(*held), strict=True)}
        results = {job: (status.name, end.error or end.result) for job, (status, end) in got.items()}
        assert results == {
            "nothing": ("COMPLETED", ""),
            "add": ("COMPLETED", "7"),
            "later": ("COMPLETED", "'async later'"),
            "who": ("COMPLETED", f"'who {Key('who', AT)} 1 {AT} 1'"),
            "fail": ("FAILED", "ValueError: no such luck"),
            "leave": ("FAILED", "exit code 4"),
            "leave0": ("COMPLETED", ""),
            "missing": ("FAILED", f"AttributeError: module '{TASKS}' has no attribute 'not_there'"),
            "no-module": ("FAILED", "ModuleNotFoundError: No module named 'no_such_module'"),
            "no-colon": ("FAILED", "ValueError: 'builtins' is not of the form module:function"),
        }
        await poll(lambda: Held(Key("fail", AT), 1) in scheduler.outputs.complete)
        trace = scheduler.outputs.text("fail").decode()
        assert trace.startswith("Traceback")
        assert "raise ValueError(text)\nValueError: no such luck" in trace
        assert "worker/child.py" not in trace


async def test_python_sees_its_variables_and_its_output_is_its_own(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        held = scheduler.lease(["vars"], python(f"{TASKS}:environment"), attempt=2)
        said = scheduler.lease([f"say{each}" for each in range(8)], [python(f"{TASKS}:say", f"t{n}") for n in range(8)])
        ((_, end),) = await scheduler.ended(*held)
        assert end.result == repr(
            f"DTS_ATTEMPT=2 DTS_EXECUTION_ID={held[0].key} DTS_FENCING_NUMBER=1 DTS_JOB_ID=vars"
            " DTS_SCHEDULED_TIME=2026-03-29T01:00:00.000Z"
        )
        await scheduler.ended(*said)
        await poll(lambda: scheduler.outputs.complete >= set(said))
        for each in range(8):
            lines = sorted(scheduler.outputs.text(f"say{each}").decode().splitlines())
            assert lines == [f"t{each}", f"t{each} again", f"t{each} from below"]


async def test_blocking_python_tasks_spread_over_children_up_to_the_slots(tmp_path: Path) -> None:
    together = tmp_path / "together"
    together.mkdir()
    async with working(tmp_path, capacity=Demand(slots=12)) as (scheduler, _):
        body = python(f"{TASKS}:wait_together", str(together), 12)
        held = scheduler.lease([f"j{each}" for each in range(12)], body)
        assert {status for status, _ in await scheduler.ended(*held)} == {Status.COMPLETED}


async def test_a_long_python_task_is_told_as_started_while_it_runs(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        gate = tmp_path / "gate"
        held = scheduler.lease(["long"], python(f"{TASKS}:wait_for", str(gate)))
        held += scheduler.lease(["sh"], shell(f"until [ -e {gate} ]; do sleep 0.02; done"))
        await scheduler.until(lambda: set(held) <= set(scheduler.running))
        assert not scheduler.ends
        gate.touch()
        got = await scheduler.ended(*held)
        assert [end.started for _, end in got] == [scheduler.running[each] for each in held]
        assert got[0][1].result == "'waited'"


async def test_a_child_that_dies_fails_exactly_one(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("j700")
    async with working(tmp_path) as (scheduler, _):
        body = python(f"{TASKS}:die_if", str(victim))
        held = scheduler.lease([f"j{each}" for each in range(1_500)], body)
        got = dict(zip([each.key.job for each in held], await scheduler.ended(*held), strict=True))
        bad = {job: end.error for job, (status, end) in got.items() if status is not Status.COMPLETED}
        assert bad == {"j700": "its process ended: exit code 7"}
        assert scheduler.times == 1_500


async def test_a_call_that_turns_out_long_holds_up_no_other(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("j900")
    async with working(tmp_path) as (scheduler, _):
        held = scheduler.lease([f"j{each}" for each in range(1_500)], python(f"{TASKS}:slow_if", str(victim)))
        await scheduler.until(lambda: len(scheduler.ends) == 1_499)
        assert held[900] not in scheduler.ends
        await scheduler.until(lambda: held[900] in scheduler.running)
        victim.unlink()
        assert {status for status, _ in await scheduler.ended(*held)} == {Status.COMPLETED}
        assert scheduler.times == 1_500


async def test_what_waits_behind_a_long_call_is_cancelled_at_once(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("j0")
    async with working(tmp_path, capacity=Demand(slots=1), children=1) as (scheduler, _):
        warm = scheduler.lease([f"w{each}" for each in range(200)], python(f"{TASKS}:slow_if", str(victim)))
        await scheduler.ended(*warm)
        held = scheduler.lease([f"j{each}" for each in range(100)], python(f"{TASKS}:slow_if", str(victim)))
        await scheduler.until(lambda: held[0] in scheduler.running)
        scheduler.cancel(*held[1:])
        assert {status for status, _ in await scheduler.ended(*held[1:])} == {Status.CANCELLED}
        victim.unlink()
        assert [status for status, _ in await scheduler.ended(held[0])] == [Status.COMPLETED]


async def test_calls_cancelled_at_random_moments_disturb_no_other(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with working(tmp_path, capacity=Demand(slots=6)) as (scheduler, _):
        bodies = [python(f"{TASKS}:nap", chance.choice([0, 0, 0, 1, 5, 20]), grace_ms=50) for _ in range(1_200)]
        held = scheduler.lease([f"j{each}" for each in range(1_200)], bodies)
        unwanted = set(chance.sample(held, 300))
        for each in chance.sample(sorted(unwanted), 300):
            await scheduler.until(lambda: len(scheduler.ends) >= 100 or scheduler.running)
            scheduler.cancel(each)
            await asyncio.sleep(chance.random() / 200)
        got = dict(zip(held, await scheduler.ended(*held), strict=True))
        assert scheduler.times == len(held)
        assert {status for each, (status, _) in got.items() if each not in unwanted} == {Status.COMPLETED}
        assert {got[each][0] for each in unwanted} <= {Status.COMPLETED, Status.CANCELLED}


async def test_output_keeps_head_and_tail_and_counts_the_rest(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        size = 20_000_000
        (held,) = scheduler.lease(["big"], shell(f"printf start; head -c {size} /dev/zero; printf end"))
        assert (await scheduler.ended(held))[0][0] is Status.COMPLETED
        await poll(lambda: held in scheduler.outputs.complete)
        pieces = sorted(scheduler.outputs.pieces[held].items())
        assert pieces[0][1].startswith(b"start")
        assert pieces[-1][1].endswith(b"end")
        assert pieces[-1][0] + len(pieces[-1][1]) == size + len("startend")
        stored = sum(len(data) for _, data in pieces)
        assert OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES <= stored < size


async def test_output_is_seen_while_the_task_runs(tmp_path: Path) -> None:
    async with working(tmp_path) as (scheduler, _):
        gate = tmp_path / "gate"
        (held,) = scheduler.lease(["live"], shell(f"echo one; until [ -e {gate} ]; do sleep 0.02; done; echo two"))
        await poll(lambda: scheduler.outputs.text("live") == b"one\n")
        assert held not in scheduler.ends
        gate.touch()
        await poll(lambda: held in scheduler.outputs.complete)
        assert scheduler.outputs.text("live") == b"one\ntwo\n"


async def test_http(tmp_path: Path, unused_port: int) -> None:
    seen: list[tuple[str, str, dict[str, str], str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, dict(request.headers), await request.text()))
        if request.path == "/slow":
            await asyncio.sleep(30)
        return web.Response(status=int(request.query.get("status", "200")), text="the answer")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_port, shutdown_timeout=0.1).start()
    base = f"http://127.0.0.1:{unused_port}"

    def http(path: str, timeout_ms: int = 0, **fields: object) -> bytes:
        task = job_pb2.Task(http=job_pb2.HttpTask(url=path, **fields))  # type: ignore[arg-type]
        return worker_pb2.Body(task=task, timeout_ms=timeout_ms).SerializeToString()

    bodies = {
        "get": http(f"{base}/a"),
        "post": http(f"{base}/b", headers={"X-Own": "1"}, body="hello"),
        "bad": http(f"{base}/c?status=503"),
        "expected": http(f"{base}/d?status=404", success_statuses=[404]),
        "slow": http(f"{base}/slow", timeout_ms=200),
        "refused": http("http://127.0.0.1:1/"),
        "nonsense": http("nonsense"),
    }
    try:
        async with working(tmp_path) as (scheduler, _):
            held = scheduler.lease(list(bodies), list(bodies.values()))
            got = dict(zip(bodies, await scheduler.ended(*held), strict=True))
            await poll(lambda: scheduler.outputs.complete)
            assert scheduler.outputs.text("get") == b"the answer"
    finally:
        await runner.cleanup()
    results = {job: (status.name, end.code) for job, (status, end) in got.items()}
    assert results == {
        "get": ("COMPLETED", 200),
        "post": ("COMPLETED", 200),
        "bad": ("FAILED", 503),
        "expected": ("COMPLETED", 404),
        "slow": ("FAILED", 0),
        "refused": ("FAILED", 0),
        "nonsense": ("FAILED", 0),
    }
    assert got["bad"][1].error == f"GET {base}/c?status=503: status 503 Service Unavailable"
    assert got["slow"][1].error == "timed out after 0.2 s"
    post = next(each for each in seen if each[1] == "/b")
    assert (post[0], post[3], post[2]["X-Own"]) == ("POST", "hello", "1")
    ours = {name: value for name, value in post[2].items() if name.startswith("DTS-") or name == "Idempotency-Key"}
    assert ours == {
        "DTS-Job-Id": "post",
        "DTS-Execution-Id": str(Key("post", AT)),
        "DTS-Attempt": "1",
        "DTS-Scheduled-Time": "2026-03-29T01:00:00.000Z",
        "DTS-Fencing-Number": "1",
        "Idempotency-Key": str(Key("post", AT)),
    }


async def test_what_cannot_be_run_fails_with_a_reason(tmp_path: Path) -> None:
    custom = job_pb2.Task(custom=job_pb2.CustomTask(type="no-such"))
    async with working(tmp_path) as (scheduler, _):
        held = scheduler.lease(["custom"], worker_pb2.Body(task=custom).SerializeToString())
        held += scheduler.lease(["broken"], b"\xff\xff\xff")
        held += scheduler.lease(["none"], b"")
        got = await scheduler.ended(*held)
        assert [(status.name, end.error) for status, end in got] == [
            ("FAILED", "no task type 'no-such' is installed on this worker (entry point group dts.tasks)"),
            ("FAILED", "the task cannot be read: not a worker.v1.Body"),
            ("COMPLETED", ""),
        ]


@pytest.fixture
def unused_port() -> int:
    """A free port."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
