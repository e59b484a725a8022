"""The SDK: its public face, that it has every method of the API, how requests are completed, and what a dead server looks like."""

from __future__ import annotations

import inspect
import re
import socket
from pathlib import Path

import pytest

import dts.client
from dts.bounds import BULK_JOBS, REQUEST_BYTES
from dts.client import Addresses, ApiError, AsyncDtsClient, DtsClient, base, http, python, shell
from dts.config import load
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler

COMMAND_LINE = Path(dts.client.__file__).parents[1] / "cli"
RENAMED = {("scheduler.v1.SchedulerService", "CancelJob"): "cancel_scheduled_job"}


def methods_of_the_api() -> list[str]:
    found = []
    for file in (job, scheduler, execution):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                plain = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
                found.append(RENAMED.get((service.full_name, method.name), plain))
    return found


def test_the_public_face() -> None:
    assert dts.client.__all__ == ["Addresses", "ApiError", "AsyncDtsClient", "DtsClient", "http", "python", "shell"]
    public = {name for name in vars(DtsClient) if not name.startswith("_")}
    matching = {f"{what}_matching_jobs" for what in ("delete", "pause", "resume", "update")}
    more = {"iter_executions", "iter_jobs", "iter_verdicts", "would_retry_execution", "would_run_job"}
    assert public == {*methods_of_the_api(), *matching, *more, "close"}


@pytest.mark.parametrize("name", methods_of_the_api())
def test_every_method_of_the_api_is_in_both_clients_and_on_the_command_line(name: str) -> None:
    plain, aio = getattr(DtsClient, name), getattr(AsyncDtsClient, name)
    mine, others = inspect.signature(plain), inspect.signature(aio)
    assert list(mine.parameters.values()) == list(others.parameters.values())
    assert plain.__doc__ == aio.__doc__
    assert plain.__doc__
    assert any(f"dts.{name}(" in module.read_text() for module in COMMAND_LINE.glob("*.py"))


def test_addresses_come_from_the_settings() -> None:
    config = load({"DTS_HOST": "::1", "JOB_SERVICE_GRPC_PORT": "6001"})
    assert Addresses.of(config) == Addresses("[::1]:6001", "[::1]:50052", "[::1]:50053")


def test_a_create_without_an_id_gets_a_request_id() -> None:
    request = job.CreateJobRequest(name="a")
    assert base.named(request).request_id != base.named(request).request_id != ""
    assert request.request_id == ""
    for given in (job.CreateJobRequest(id="mine"), job.CreateJobRequest(request_id="r")):
        assert base.named(given) == given


def test_an_error_about_one_of_many_names_its_place_among_all() -> None:
    def placed(message: str, size: int, code: str = "INVALID_ARGUMENT") -> str:
        return base.placed(ApiError(code, message), 10_000, size).message

    assert placed("jobs[7].name: too long", 500) == "jobs[10007].name: too long"
    assert placed("jobs[0]: odd", 2) == "jobs[10000]: odd"
    assert placed("name: too long", 1) == "jobs[10000].name: too long"
    assert placed("name: too long", 2) == "name: too long"
    assert placed("jobs[7] is gone", 9, "NOT_FOUND") == "jobs[7] is gone"


def test_bulk_calls_keep_within_the_bounds() -> None:
    small = list(base.bulks(job.CreateJobRequest(name=f"job {i}") for i in range(BULK_JOBS + 1)))
    assert [len(portion) for portion in small] == [BULK_JOBS, 1]
    large = list(base.bulks(job.CreateJobRequest(description="x" * 8000) for _ in range(1000)))
    assert sum(len(portion) for portion in large) == 1000
    assert all(job.BatchCreateJobsRequest(jobs=portion).ByteSize() < REQUEST_BYTES for portion in large)
    assert list(base.bulks([])) == []
    assert list(base.portions(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_tasks() -> None:
    assert shell("echo hi", env={"A": "1"}).shell == job.ShellTask(command="echo hi", env={"A": "1"})
    assert list(shell(["a", "b c"]).shell.argv) == ["a", "b c"]
    assert http("http://x", body="b", success_statuses=[200]).http.success_statuses == [200]
    task = python("m:f", [1, "two", None], {"a": {"b": [True]}}).python
    assert (task.function, len(task.args), task.kwargs["a"]["b"][0]) == ("m:f", 3, True)
    assert not python("m:f").python.HasField("args")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_a_dead_server_is_one_error() -> None:
    address = f"127.0.0.1:{free_port()}"
    with DtsClient(Addresses(address, address, address)) as client:
        for call in (lambda: client.get_job("x"), lambda: client.delete_job("x"), lambda: list(client.watch_events())):
            with pytest.raises(ApiError) as caught:
                call()
            assert (caught.value.code, caught.value.status, caught.value.address) == (
                "UNAVAILABLE",
                "UNAVAILABLE",
                address,
            )


async def test_a_dead_server_is_one_error_for_asyncio_too() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with AsyncDtsClient(Addresses(address, address, address)) as client:
        with pytest.raises(ApiError, match="connect"):
            await client.get_job("x")
        with pytest.raises(ApiError, match="connect"):
            async for _ in client.follow_output("x"):
                pass
