"""Reading a shard's log: from its start to its end as of now, checked record by record.

The log is: a snapshot (its pieces in order), then the commits that followed, each cut into parts. It begins with the
first commit ever or with a snapshot, because it is trimmed up to the first part of one. Gaps, repeats and falling
epochs are loud: they mean that somebody wrote who had no right to.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from confluent_kafka import KafkaError, TopicPartition
from google.protobuf.message import DecodeError

from dts.adapters.commitcodec import commit_in
from dts.adapters.kafka.reading import bounds_of, reader, take
from dts.adapters.kafka.settings import FOLD_SILENCE_S, FOLD_STARTS, STABLE_WAIT_S, KafkaSettings
from dts.errors import StoreDamaged, Unavailable
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Commit, ShardId

FORMAT = 1


class Folded(NamedTuple):
    """What a log holds. Sizes are bytes of slices; instants the broker's append times, ms."""

    commits: list[Commit]
    epoch: int
    seq: int
    snapshot: int  # size of the snapshot it begins with; 0: none
    tail: int  # size of what follows
    since: int  # when the first record was appended
    last: int  # ... the last one


class Assembly:
    """Puts records together to commits; `add` them in order of offsets."""

    def __init__(self, shard: ShardId) -> None:
        self._shard = shard
        self._whole: list[bytes] = []  # encoded commits since the last snapshot, itself included
        self._parts: list[bytes] = []  # of the commit that is being read
        self._pieces: list[bytes] = []  # of the snapshot that is being read
        self._before: log.Record | None = None
        self._epoch = 0
        self._seq: int | None = None  # of the last whole commit
        self._snapshot = self._tail = self._since = self._last = 0
        self._began = 0  # when the snapshot that is being read was appended

    def add(self, offset: int, value: bytes, at: int) -> None:
        """Raises StoreDamaged for a record that does not follow the one before."""
        try:
            record = log.Record.FromString(value)
        except DecodeError as error:
            raise self._damaged(offset, "is none of ours") from error
        if record.format != FORMAT:
            raise self._damaged(offset, f"has format {record.format}: it was written by a later version")
        self._last = at
        self._since = self._since or at
        self._check_part(offset, record)
        self._before = record
        self._parts.append(record.slice)
        if record.part + 1 < record.parts:
            return
        whole = b"".join(self._parts)
        self._parts.clear()
        if record.pieces:
            self._piece(offset, record, whole, at)
        else:
            self._commit(offset, record, whole)

    def finish(self) -> Folded:
        """What it all gives. Raises StoreDamaged when the log ends inside a commit."""
        if self._parts or self._pieces:
            raise self._damaged(-1, "is the last one, but more were to follow")
        try:
            commits = [commit_in(each) for each in self._whole]
        except (DecodeError, ValueError) as error:
            raise StoreDamaged(f"the log of shard {self._shard} cannot be read: {error}") from error
        return Folded(commits, self._epoch, self._seq or 0, self._snapshot, self._tail, self._since, self._last)

    def _check_part(self, offset: int, record: log.Record) -> None:
        before = self._before
        if self._parts:
            assert before is not None
            same = (record.epoch, record.seq, record.parts, record.piece, record.pieces)
            if same != (before.epoch, before.seq, before.parts, before.piece, before.pieces):
                raise self._damaged(offset, f"interrupts commit {before.epoch}/{before.seq}")
            if record.part != before.part + 1:
                raise self._damaged(offset, f"is part {record.part} after {before.part}")
        elif record.part != 0:
            raise self._damaged(offset, f"is part {record.part} of a commit that has not begun")
        elif bool(self._pieces) != (record.pieces > 0 and record.piece > 0) or record.piece != len(self._pieces):
            raise self._damaged(offset, f"is piece {record.piece} of a snapshot, after {len(self._pieces)}")
        if record.epoch < self._epoch:
            raise self._damaged(offset, f"is of epoch {record.epoch}, after {self._epoch}")

    def _commit(self, offset: int, record: log.Record, whole: bytes) -> None:
        follows = 1 if self._seq is None else self._seq + 1
        if record.seq != follows:
            raise self._damaged(offset, f"is commit {record.seq} where {follows} follows")
        self._epoch, self._seq = record.epoch, record.seq
        self._whole.append(whole)
        self._tail += len(whole)

    def _piece(self, offset: int, record: log.Record, whole: bytes, at: int) -> None:
        if not self._pieces:
            self._began = at
        self._pieces.append(whole)
        if len(self._pieces) < record.pieces:
            return
        if self._seq is not None and record.seq != self._seq:
            raise self._damaged(offset, f"is a snapshot of commit {record.seq}, after {self._seq}")
        self._epoch, self._seq = record.epoch, record.seq
        self._whole, self._pieces = self._pieces, []
        self._snapshot, self._tail, self._since = sum(map(len, self._whole)), 0, self._began

    def _damaged(self, offset: int, what: str) -> StoreDamaged:
        where = (
            f"at offset {offset} of the log of shard {self._shard}" if offset >= 0 else f"of shard {self._shard}'s log"
        )
        return StoreDamaged(f"the record {where} {what}")


def fold(settings: KafkaSettings, shard: ShardId) -> Folded:
    """The whole log. Only after the former owner was fenced. Blocks. Raises StoreDamaged or Unavailable."""
    end = _stable_end(settings, shard)
    for _ in range(FOLD_STARTS):
        found = _read(settings, shard, end)
        if found is not None:
            return found
    raise Unavailable(f"the log of shard {shard} was trimmed {FOLD_STARTS} times while it was read")


def _stable_end(settings: KafkaSettings, shard: ShardId) -> int:
    """The log's end, once nothing before it is undecided. (An admin client would be told the same up to 3 s later.)"""
    topic = settings.topics.log
    everything, committed = reader(settings, committed=False), reader(settings)
    try:
        deadline = time.monotonic() + STABLE_WAIT_S
        while True:
            _, end = bounds_of(everything, topic, shard)
            _, stable = bounds_of(committed, topic, shard)
            if stable >= end:
                return end
            if time.monotonic() > deadline:
                raise Unavailable(f"the log of shard {shard} has an undecided transaction from offset {stable} on")
            time.sleep(0.02)
    finally:
        everything.close()
        committed.close()


def _read(settings: KafkaSettings, shard: ShardId, end: int) -> Folded | None:
    """None: the log was trimmed meanwhile, read it again."""
    assembly = Assembly(shard)
    if end == 0:
        return assembly.finish()
    consumer = reader(settings, eof=True)
    try:
        low, _ = bounds_of(consumer, settings.topics.log, shard)
        consumer.assign([TopicPartition(settings.topics.log, shard, low)])
        heard = time.monotonic()
        while True:
            for message in take(consumer, 1_000, 0.5):
                heard = time.monotonic()
                error = message.error()
                offset = message.offset() or 0
                if error is None:
                    assembly.add(offset, message.value() or b"", message.timestamp()[1])
                elif error.code() == KafkaError._PARTITION_EOF:
                    if offset >= end:
                        return _finished(assembly, shard, low)
                elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                    return None
                elif not error.retriable():
                    raise Unavailable(f"the log of shard {shard} cannot be read: {error.str()}")
            if time.monotonic() - heard > FOLD_SILENCE_S:
                raise Unavailable(f"the log of shard {shard} gave nothing for {FOLD_SILENCE_S:g} s")
    finally:
        consumer.close()


def _finished(assembly: Assembly, shard: ShardId, low: int) -> Folded:
    found = assembly.finish()
    if low > 0 and not found.commits:
        raise StoreDamaged(f"the log of shard {shard} was emptied up to offset {low}: its state is gone")
    return found
