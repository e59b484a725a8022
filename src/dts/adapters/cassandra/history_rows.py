"""What a commit leaves in history, as rows: executions and attempts that ended, and how long each row is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from zlib import crc32

from dts.adapters.cassandra.session import Row, Value
from dts.adapters.ended import ended_as
from dts.model import NO_END, Block, Cause, Commit, End, Execution, Instant, Key, ShardId, Status

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
SLOTS = 16
RANKS = 8  # statuses: a transition's number is 8 times the attempt and the rank of the status

COMPLETED, OTHERS = 4, 5  # classes of executions_by_time
BUCKET_MS = {COMPLETED: MINUTE_MS, OTHERS: HOUR_MS}

EXECUTION = (
    "status, revision, attempt, cause, queued, placed, not_before, worker, fencing, reason, retry_of,"
    " started, ended, code, error, result, kind, enforced"
)
COLUMNS = EXECUTION.count(",") + 1


class Part(NamedTuple):
    """A partition of executions_by_time."""

    kind: int  # COMPLETED or OTHERS
    bucket: int
    shard: ShardId


class Ended(NamedTuple):
    """An attempt that ended; `final`: its execution's verdict."""

    execution: Execution
    number: int
    final: bool


def slot(job: str) -> int:
    """The partition of history_jobs that names a job."""
    return crc32(job.encode()) % SLOTS


def class_of(status: Status) -> int:
    """Where executions_by_time has a verdict."""
    return COMPLETED if status is Status.COMPLETED else OTHERS


def part_of(execution: Execution, shard: ShardId) -> Part:
    """The partition of executions_by_time that holds a verdict."""
    kind = class_of(execution.status)
    return Part(kind, execution.key.at // BUCKET_MS[kind], shard)


def ended(commit: Commit) -> Iterator[Ended]:
    """All attempts that a commit says have ended."""
    for block in commit.blocks:
        status = ended_as(block)
        if status is not None:
            yield from _of_block(block, status)


def _of_block(block: Block, status: Status) -> Iterator[Ended]:
    number, final = RANKS * block.attempt + block.status, block.status.terminal
    worker = block.worker.id if block.worker else ""
    ends: Iterable[End] = block.ends or [NO_END] * len(block.keys)
    for key, revision, end in zip(block.keys, block.revisions, ends, strict=True):
        execution = Execution(
            key,
            revision,
            status,
            block.attempt,
            block.cause,
            block.queued,
            block.placed,
            block.not_before,
            worker,
            block.fencing,
            block.reason,
            block.retry_of,
            end,
        )
        yield Ended(execution, number, final)


def values(execution: Execution) -> list[Value]:
    """The columns EXECUTION."""
    of, end = execution, execution.end
    return [
        int(of.status),
        of.revision,
        of.attempt,
        of.cause.value,
        of.queued,
        of.placed,
        of.not_before,
        of.worker,
        of.fencing,
        of.reason,
        of.retry_of,
        end.started,
        end.ended,
        end.code,
        end.error,
        end.result,
        end.kind,
        end.enforced,
    ]


def execution_of(key: Key, row: Row) -> Execution:
    """From the columns EXECUTION."""
    status, revision, attempt, cause, queued, placed, not_before, worker, fencing, reason, retry_of, *end = row
    shared = (Status(status), attempt, Cause(cause), queued, placed, not_before, worker, fencing, reason, retry_of)
    return Execution(
        key, revision, *shared, End(*end[:-2], *(each or "" for each in end[-2:]))
    )  # older rows have no kind


def dated(at: Instant, number: int) -> int:
    """The timestamp of a row in microseconds: a replay writes the same, a later transition wins."""
    return 1_000 * at + min(number, 999) + 1


class Retention(NamedTuple):
    """How long rows are kept; `kept_ms` 0: for ever."""

    kept_ms: int
    now: Instant

    def ttl(self, ended: Instant) -> int | None:
        """Seconds that are left to what ended then; 0: for ever; None: it is over."""
        if not self.kept_ms:
            return 0
        left = (self.kept_ms - (self.now - ended)) // 1_000
        return int(left) if left > 0 else None
