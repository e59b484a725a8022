"""Where definitions and commands go: by their job's concurrency group, or else by the job."""

from __future__ import annotations

import pytest

from dts.codec import command_in, command_out, definition_in, definition_out
from dts.gen.log.v1 import log_pb2 as log
from dts.model import (
    Cancel,
    Command,
    Definition,
    Demand,
    JobState,
    Key,
    Policies,
    Retry,
    Run,
    StartBackfill,
    StopBackfill,
    routed_by,
)

ID, KEY = bytes(16), Key("report", 1_000)


def commands(group: str) -> list[Command]:
    return [
        Run(ID, "report", 1, 2, 1, group=group),
        Cancel(ID, KEY, 1, 2, group=group),
        Retry(ID, KEY, 1, 2, 1, group=group),
        StartBackfill(ID, "report", 1, 2, 1, 0, 60_000, 4, group=group),
        StopBackfill(ID, "report", 1, 2, "0" * 12, group=group),
    ]


@pytest.mark.parametrize(("group", "expected"), [("", "report"), ("database", "database")])
def test_a_group_keeps_its_jobs_and_their_commands_together(group: str, expected: str) -> None:
    definition = Definition("report", 1, 0, JobState.ACTIVE, None, (), Demand(), Policies(), b"", group=group)
    assert routed_by(definition) == expected
    assert [routed_by(each) for each in commands(group)] == [expected] * 5


@pytest.mark.parametrize("group", ["", "database"])
def test_the_group_is_in_what_is_published(group: str) -> None:
    definition = Definition("report", 1, 0, JobState.ACTIVE, None, (), Demand(), Policies(), b"", group=group)
    told = definition_out(definition).SerializeToString()
    assert definition_in(log.Definition.FromString(told)) == definition
    for each in commands(group):
        assert command_in(log.Command.FromString(command_out(each).SerializeToString())) == each
