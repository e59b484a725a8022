"""Values for the suites."""

from __future__ import annotations

from collections.abc import Sequence

from dts.model import (
    Block,
    Commit,
    Definition,
    Demand,
    End,
    JobState,
    Key,
    Policies,
    Revision,
    ScheduleSpec,
    Status,
    WorkerRef,
    intern_demand,
)

SLOT = intern_demand(Demand())
BIG = intern_demand(Demand(cpu=500, memory=64, custom=(("gpu", 1),), selector="zone=a", priority=3))
WORKER = WorkerRef("w1", "i1")


def definition(job: str, revision: int = 1, since: int = 1_000, state: JobState = JobState.ACTIVE) -> Definition:
    """One revision."""
    schedules = (ScheduleSpec("*/5 * * * *", "Europe/Berlin"),)
    return Definition(
        job, revision, since, state, None, schedules, SLOT, Policies(max_retries=2), f"body of {job}".encode()
    )


def revision(
    job: str,
    number: int = 1,
    since: int = 1_000,
    state: JobState = JobState.ACTIVE,
    name: str = "",
    tags: Sequence[str] = (),
    request: str = "",
) -> Revision:
    """One revision as the job store keeps it."""
    of = definition(job, number, since, state)
    change = "create" if number == 1 else "update"
    return Revision(of, change, 500, name or f"Name of {job}", tuple(tags), f"{job}/{number}".encode(), request)


def block(keys: Sequence[Key], status: Status, attempt: int = 0, **more: object) -> Block:
    """Executions of revision 1; those that ended carry an end each."""
    ends = (
        [End(10, 20, 0, "", f"result of {key}", "", "memory=cgroup") for key in keys]
        if status.terminal and attempt
        else ()
    )
    worker = WORKER if attempt else None
    fields = {"keys": list(keys), "revisions": [1] * len(keys), "demand": SLOT, "status": status, "attempt": attempt}
    return Block(**{**fields, "worker": worker, "ends": ends, **more})  # type: ignore[arg-type]


def commit(epoch: int, seq: int, **more: object) -> Commit:
    """A commit whose instant and watermark follow from its seq."""
    now = 1_000 * seq
    fields = {"shard": 0, "epoch": epoch, "seq": seq, "now": now, "watermark": (now, "~"), "applied": (0, 0)}
    return Commit(**{**fields, **more})  # type: ignore[arg-type]
