"""The API's JSON, compared with protobuf's own printer and with what grpc-gateway adds to it."""

from __future__ import annotations

import json

import pytest
from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.message import Message

from dts.gen.execution.v1 import execution_pb2 as execution
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler
from dts.wirejson import Json, to_json

MESSAGES: list[Message] = [
    job.JobResponse(),
    job.JobResponse(id="é\x01", status=job.PAUSED, metadata={"b": "1", "a": "2"}, revision=2**60, tags=["x"]),
    job.Task(shell=job.ShellTask(argv=["a"])),
    job.Task(python=job.PythonTask(function="m:f")),
    job.Policies(retry_factor=1.5),
    job.UpdateJobRequest(),
    execution.GetOutputResponse(head=b"\x00\xff", cut_bytes=3),
    execution.Verdict(range=execution.Range(count=3)),
    execution.WatchEventsResponse(missed_events=4),
    execution.AuditResponse(verdicts={"COMPLETED": 5}),
    scheduler.ListWorkersResponse(workers=[scheduler.Worker(capacity=scheduler.Capacity(custom={"gpu": 2}))]),
]


def without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_it_is_protobufs_json_with_nulls_for_unset_messages(message: Message) -> None:
    printed = to_json(message)
    assert without_nulls(printed) == MessageToDict(message, always_print_fields_with_no_presence=True)
    assert Parse(json.dumps(printed), type(message)()) == message


def test_unset_messages_are_null_and_unset_members_of_a_oneof_are_not_there() -> None:
    printed = to_json(job.JobResponse())
    assert printed["nextRun"] is None
    assert printed["task"] is None
    assert printed["cronExpression"] == ""
    assert printed["metadata"] == {}
    assert to_json(job.Task()) == {}


def test_times_and_structures() -> None:
    shown = job.JobResponse()
    shown.next_run.FromMilliseconds(1_500)
    shown.policies.grace_period.FromMilliseconds(1_500)
    shown.task.python.kwargs.update({"a": [1, None]})
    printed = to_json(shown)
    assert printed["nextRun"] == "1970-01-01T00:00:01.500Z"
    assert json.dumps(printed["policies"]).count('"1.500s"') == 1
    assert json.dumps(printed["task"]).count('{"a": [1.0, null]}') == 1


def test_an_enum_value_of_a_later_version_is_its_number() -> None:
    assert to_json(job.JobResponse(status=99))["status"] == 99  # type: ignore[arg-type] # what a newer server may send
