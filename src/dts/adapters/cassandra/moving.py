"""MoveTarget over a keyspace: history as the projector writes it, jobs by conditional batches."""

from __future__ import annotations

from collections.abc import Sequence

from dts.adapters.cassandra import CassandraStore
from dts.adapters.cassandra.history_rows import slot
from dts.adapters.moving import earlier_blocks, last_blocks
from dts.model import LAST_JOB, Commit, MovedExecution, Range, Revision, ShardId, Term


class CassandraMoving:
    """The port MoveTarget over a keyspace."""

    def __init__(self, store: CassandraStore) -> None:
        self._store = store

    async def record(
        self, executions: Sequence[MovedExecution], ranges: Sequence[Range], terms: Sequence[Term]
    ) -> None:
        """See ports.MoveTarget. What is older than the retention is left out."""
        parts: dict[ShardId, list[MovedExecution]] = {}
        for each in executions:
            parts.setdefault(slot(each.execution.key.job), []).append(each)
        # Shards only spread rows here: which one a row lies in says nothing about who owned the job.
        commits = [_commit(shard, part) for shard, part in parts.items()]
        if ranges or terms:
            commits.append(_commit(0, (), ranges, terms))
        await self._store.history.write(commits)
        await self._store.outputs.take([(each.execution.key, of) for each in executions for of in each.outputs])

    async def adopt(self, jobs: Sequence[Sequence[Revision]]) -> None:
        """See ports.MoveTarget."""
        await self._store.jobs.adopt(jobs)


def _commit(
    shard: ShardId, executions: Sequence[MovedExecution], ranges: Sequence[Range] = (), terms: Sequence[Term] = ()
) -> Commit:
    """As if a shard had decided it at the beginning of time: progress stays where it is."""
    return Commit(
        shard=shard,
        epoch=0,
        seq=0,
        now=0,
        watermark=(0, LAST_JOB),
        applied=(0, 0),
        blocks=[*earlier_blocks(executions), *last_blocks(executions)],
        ranges=ranges,
        opened=terms,
    )
