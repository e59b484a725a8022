"""What a block tells of attempts that ended: of its executions' last one, or of one that was not the last."""

from __future__ import annotations

from dts.model import Block, Status

# An open block says what comes next; how the attempt before ended follows from that.
_ENDED_AS = {Status.RETRYING: Status.FAILED, Status.QUEUED: Status.LOST}


def ended_as(block: Block) -> Status | None:
    """The status of the block's attempt; None: it has not ended, or there was none."""
    if block.status.terminal:
        return block.status
    return _ENDED_AS.get(block.status) if block.attempt else None


def tells_end(status: int, attempt: int) -> bool:
    """Whether `ended_as` of such a block is something, before the block is decoded."""
    return status >= Status.COMPLETED or (attempt > 0 and status in _ENDED_AS)
