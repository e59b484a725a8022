"""What both stores share of taking history in: executions as the blocks that a commit would have carried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dts.model import Block, Demand, Execution, MovedExecution, Status, WorkerRef

NO_DEMAND = Demand()  # history keeps none

# The inverse of dts.adapters.ended: how a block says that an attempt ended so and was not the last one.
_NOT_LAST = {Status.FAILED: Status.RETRYING, Status.LOST: Status.QUEUED}


def last_blocks(moved: Iterable[MovedExecution]) -> list[Block]:
    """Of the verdicts."""
    return _blocks((each.execution, each.execution.status) for each in moved)


def earlier_blocks(moved: Iterable[MovedExecution]) -> list[Block]:
    """Of the attempts before."""
    return _blocks((each, _NOT_LAST.get(each.status, Status.RETRYING)) for of in moved for each in of.earlier)


def _blocks(told: Iterable[tuple[Execution, Status]]) -> list[Block]:
    """Those that differ in key, revision and end alone are one block."""
    groups: dict[tuple[object, ...], list[tuple[Execution, Status]]] = {}
    for execution, status in told:
        of = execution
        shared = (status, of.attempt, of.cause, of.queued, of.placed, of.not_before, of.worker, of.fencing, of.reason)
        groups.setdefault((*shared, of.retry_of), []).append((execution, status))
    return [_block(group) for group in groups.values()]


def _block(group: Sequence[tuple[Execution, Status]]) -> Block:
    first, status = group[0]
    return Block(
        keys=[each.key for each, _ in group],
        revisions=[each.revision for each, _ in group],
        demand=NO_DEMAND,
        status=status,
        attempt=first.attempt,
        cause=first.cause,
        queued=first.queued,
        not_before=first.not_before,
        worker=WorkerRef(first.worker, "") if first.worker else None,
        fencing=first.fencing,
        placed=first.placed,
        reason=first.reason,
        retry_of=first.retry_of,
        ends=[each.end for each, _ in group],
    )
