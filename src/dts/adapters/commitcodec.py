"""Between whole commits and log.v1: what a shard's log holds, and the events that tell the world of it.

A block is encoded once: its bytes stand in the log and in the events alike (encoded messages that are joined are merged).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dts.adapters.ended import tells_end
from dts.codec import (
    backfill_in,
    backfill_out,
    block_in,
    block_out,
    command_in,
    command_out,
    debt_in,
    debt_out,
    definition_in,
    definition_out,
    gaps_in,
    gaps_out,
    streak_in,
    streak_out,
)
from dts.gen.log.v1 import log_pb2 as log
from dts.model import START, Block, Close, Commit, Range, Term

EVENT_EXECUTIONS = 500  # executions told in one event
EVENT_BYTES = 512 * 1024  # of one event; a single execution may need more (its end: 16 kB, its arguments: 64 kB)


class Encoded:
    """A commit in bytes."""

    __slots__ = ("_commit", "_shared", "_told")

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._told = [piece for block in commit.blocks for piece in _pieces(block)]
        shared = log.Commit(
            ranges=[_range_out(each) for each in commit.ranges],
            opened=[_term_out(each) for each in commit.opened],
            closed=[log.Close(job=each.job, revision=each.revision, until=each.until) for each in commit.closed],
            answers=[log.Answer(command=command, answer=answer) for command, answer in commit.answers],
        )
        self._shared = shared.SerializeToString()

    def whole(self) -> bytes:
        """log.v1.Commit with all that a fold needs."""
        commit = self._commit
        own = log.Commit(
            definitions=[definition_out(each) for each in commit.definitions],
            kept=[definition_out(each) for each in commit.kept],
            owed=[debt_out(job, owed) for job, owed in commit.owed],
            gaps=gaps_out(commit.gaps).gaps,
            commands=list(commit.commands),
            issued=list(commit.issued),
            waiting=[command_out(each) for each in commit.waiting],
            backfills=[backfill_out(each) for each in commit.backfills],
            streaks=[streak_out(each) for each in commit.streaks],
        )
        blocks = (piece for _, piece in self._told)
        return b"".join((_head(commit), own.SerializeToString(), self._shared, *blocks))

    def events(self) -> list[bytes]:
        """log.v1.Commit in parts of at most EVENT_EXECUTIONS each; the first one has ranges, terms and answers."""
        parts: list[list[bytes]] = [[self._shared]]
        count, size = 0, len(self._shared)
        for keys, piece in self._told:
            if count and (count + keys > EVENT_EXECUTIONS or size + len(piece) > EVENT_BYTES):
                parts.append([])
                count = size = 0
            parts[-1].append(piece)
            count, size = count + keys, size + len(piece)
        total = len(parts)
        return [b"".join((_head(self._commit, at, total), *part)) for at, part in enumerate(parts)]


def commit_out(commit: Commit) -> bytes:
    """To log.v1.Commit, encoded."""
    return Encoded(commit).whole()


def commit_in(encoded: bytes) -> Commit:
    """From log.v1.Commit. Raises google.protobuf.message.DecodeError or ValueError for what is none."""
    got = log.Commit.FromString(encoded)
    return Commit(
        shard=got.shard,
        epoch=got.epoch,
        seq=got.seq,
        now=got.now,
        watermark=(got.watermark_at, got.watermark_job),
        applied=(got.applied_definitions, got.applied_commands),
        blocks=[block_in(each) for each in got.blocks],
        ranges=[Range(each.job, each.revision, each.after, each.until, each.count, each.reason) for each in got.ranges],
        opened=[_term_in(each) for each in got.opened],
        closed=[Close(each.job, each.revision, each.until) for each in got.closed],
        definitions=[definition_in(each) for each in got.definitions],
        kept=[definition_in(each) for each in got.kept],
        owed=[debt_in(each) for each in got.owed],
        gaps=gaps_in(log.Gaps(gaps=got.gaps)),
        commands=list(got.commands),
        issued=list(got.issued),
        waiting=[command_in(each) for each in got.waiting],
        answers=[(each.command, each.answer) for each in got.answers],
        backfills=[backfill_in(each) for each in got.backfills],
        streaks=[streak_in(each) for each in got.streaks],
    )


def event_in(encoded: bytes) -> Commit:
    """From an event: what has ended, ranges and terms; the watermark from the last part alone. What raises: as `commit_in`."""
    got = log.Commit.FromString(encoded)
    last = got.part + 1 >= got.parts
    return Commit(
        shard=got.shard,
        epoch=got.epoch,
        seq=got.seq,
        now=got.now,
        watermark=(got.watermark_at, got.watermark_job) if last else START,
        applied=(got.applied_definitions, got.applied_commands),
        blocks=[block_in(each) for each in got.blocks if tells_end(each.status, each.attempt)],
        ranges=[Range(each.job, each.revision, each.after, each.until, each.count, each.reason) for each in got.ranges],
        opened=[_term_in(each) for each in got.opened],
        closed=[Close(each.job, each.revision, each.until) for each in got.closed],
    )


def slices(encoded: bytes, limit: int) -> Iterator[bytes]:
    """The bytes in pieces of at most `limit`; one empty piece when there is nothing."""
    for start in range(0, max(1, len(encoded)), limit):
        yield encoded[start : start + limit]


def _head(commit: Commit, part: int = 0, parts: int = 0) -> bytes:
    return log.Commit(
        shard=commit.shard,
        epoch=commit.epoch,
        seq=commit.seq,
        now=commit.now,
        watermark_at=commit.watermark[0],
        watermark_job=commit.watermark[1],
        applied_definitions=commit.applied[0],
        applied_commands=commit.applied[1],
        part=part,
        parts=parts,
    ).SerializeToString()


def _pieces(block: Block) -> Iterator[tuple[int, bytes]]:
    """A block as (executions, encoded Commit of it alone), cut where it is too much for one event."""
    count = len(block.keys)
    if count <= EVENT_EXECUTIONS:
        piece = log.Commit(blocks=[block_out(block)]).SerializeToString()
        if len(piece) <= EVENT_BYTES or count == 1:
            yield count, piece
            return
    middle = EVENT_EXECUTIONS if count > EVENT_EXECUTIONS else count // 2
    yield from _pieces(_part(block, 0, middle))
    yield from _pieces(_part(block, middle, count))


def _part(block: Block, start: int, end: int) -> Block:
    return replace(block, keys=block.keys[start:end], revisions=block.revisions[start:end], ends=block.ends[start:end])


def _range_out(each: Range) -> log.Range:
    return log.Range(
        job=each.job,
        revision=each.revision,
        after=each.after,
        until=each.until,
        count=each.size,
        reason=each.reason,
    )


def _term_out(each: Term) -> log.Term:
    return log.Term(
        job=each.job,
        revision=each.revision,
        since=each.since,
        in_force=each.in_force,
        until=each.until,
        rules=each.rules,
    )


def _term_in(got: log.Term) -> Term:
    until = got.until if got.HasField("until") else None
    return Term(got.job, got.revision, got.since, got.in_force, until, got.rules)
