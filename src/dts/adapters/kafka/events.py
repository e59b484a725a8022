"""The port EventSource: `job-executions`, read by a consumer group whose members share the shards.

One thread polls for ever, so that the group keeps us while the record is down; when too much waits, the partitions are paused.
Offsets are committed for what is done alone. Those that are lost (nobody read for a week) begin at the start: a fortnight is there.
A partition that moves on takes what waits of it with it: its next reader begins at the committed offset.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from google.protobuf.message import DecodeError

from dts.adapters.commitcodec import event_in
from dts.adapters.kafka import settings as s
from dts.adapters.kafka.logs import client_logger
from dts.adapters.kafka.reading import take
from dts.adapters.kafka.settings import KafkaSettings
from dts.errors import Unavailable
from dts.model import Commit, Instant, ShardId, Told

logger = logging.getLogger("dts.kafka")


class _Event(NamedTuple):
    place: _Place
    position: int  # after it
    at: Instant  # the broker's append time
    size: int
    commit: Commit | None  # None: none of ours


@dataclass(slots=True, eq=False)
class _Place:
    """A shard that is ours, from its assignment to its revocation."""

    shard: ShardId
    since: Instant  # when it became ours; then: when what was done last was told
    read: int = -1  # position after what was read last
    done: int = -1
    stored: int = -1  # committed, or on its way
    at_end: bool = False
    gone: bool = False


class KafkaEvents:
    """Joins the group at once; `close` leaves it."""

    def __init__(self, settings: KafkaSettings, clock: Callable[[], Instant]) -> None:
        self._topic = settings.topics.events
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        self._waiting: deque[_Event] = deque()
        self._bytes = 0  # of what waits
        self._places: dict[ShardId, _Place] = {}
        self._paused = False
        self._failed: Exception | None = None
        self._next_commit = 0.0
        self._closing = threading.Event()
        self._consumer = Consumer(
            {
                **settings.common(),
                "group.id": settings.history_group,
                "group.protocol": "classic",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": s.EVENTS_SESSION_MS,
                "heartbeat.interval.ms": s.EVENTS_SESSION_MS // 10,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 50,
                "queued.max.messages.kbytes": 16_384,
                "on_commit": self._stored,
            },
            logger=client_logger(),
        )
        self._thread = threading.Thread(target=self._run, name="kafka-events", daemon=True)
        self._thread.start()

    async def take(self) -> Told:
        """See ports.EventSource. Raises Unavailable when the reader ended."""
        while True:
            with self._lock:
                if self._waiting:
                    return self._taken()
                if self._failed is not None:
                    raise self._failed
                self._news.clear()
            await self._news.wait()

    def done(self, told: Told) -> None:
        """See ports.EventSource."""
        with self._lock:
            for shard, position, at in told.reached:
                place = self._places.get(shard)
                if place is not None and position > place.done:
                    place.done, place.since = position, at

    def lag(self, now: Instant) -> int | None:
        """See ports.EventSource."""
        with self._lock:
            places = list(self._places.values())
        behind = [0 if each.at_end and each.done >= each.read else now - each.since for each in places]
        return max(0, *behind) if behind else None

    async def close(self) -> None:
        """Stores how far we are and leaves the group."""
        self._closing.set()
        await asyncio.to_thread(self._thread.join)

    def _taken(self) -> Told:
        commits: list[Commit] = []
        reached: dict[ShardId, tuple[ShardId, int, Instant]] = {}
        size = 0
        while self._waiting and (not size or size + self._waiting[0].size <= s.EVENTS_TAKEN_BYTES):
            event = self._waiting.popleft()
            size += event.size
            if event.commit is not None:
                commits.append(event.commit)
            reached[event.place.shard] = (event.place.shard, event.position, event.at)
        self._bytes -= size
        return Told(commits, list(reached.values()))

    # ---- in the thread ----

    def _run(self) -> None:
        consumer = self._consumer
        try:
            consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
            while not self._closing.is_set():
                self._throttle()
                for message in take(consumer, s.EVENTS_BATCH, s.EVENTS_POLL_S):
                    self._read(message)
                self._store(wait=False)
        except Exception as error:
            logger.exception("the reader of events ended")
            self._failed = Unavailable(f"events are not read any more: {error}")
            self._wake()
        finally:
            self._store(wait=True)
            consumer.close()

    def _throttle(self) -> None:
        full = self._bytes > (s.EVENTS_WAITING_BYTES if not self._paused else s.EVENTS_WAITING_BYTES // 2)
        if full == self._paused:
            return
        places = [TopicPartition(self._topic, shard) for shard in self._places]
        (self._consumer.pause if full else self._consumer.resume)(places)
        self._paused = full

    def _read(self, message: Message) -> None:
        error, place = message.error(), self._places.get(message.partition() or 0)
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            if error.fatal():
                raise KafkaException(error)
            logger.warning("%s/%s: %s", message.topic(), message.partition(), error.str())
        if place is None:
            return
        if error is not None:
            place.at_end = place.at_end or error.code() == KafkaError._PARTITION_EOF
            return
        value, offset = message.value() or b"", message.offset() or 0
        try:
            commit: Commit | None = event_in(value)
        except (DecodeError, ValueError) as problem:
            logger.error("%s/%d offset %d is passed over: %s", self._topic, place.shard, offset, problem)
            commit = None
        with self._lock:
            place.read, place.at_end = offset + 1, False
            self._waiting.append(_Event(place, offset + 1, message.timestamp()[1], len(value) or 1, commit))
            self._bytes += len(value) or 1
        self._wake()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        now = self._clock()
        with self._lock:
            self._places.update((each.partition, _Place(each.partition, now)) for each in places)
        consumer.incremental_assign(places)
        if self._paused:
            consumer.pause(places)
        logger.info("history of shards %s", sorted(self._places))

    def _revoked(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._store(wait=True)
        self._lost(consumer, places)

    def _lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        with self._lock:
            for each in places:
                if (place := self._places.pop(each.partition, None)) is not None:
                    place.gone = True
            kept = [each for each in self._waiting if not each.place.gone]
            self._waiting = deque(kept)
            self._bytes = sum(each.size for each in kept)
        consumer.incremental_unassign(places)

    def _store(self, wait: bool) -> None:
        """Commits the offsets of what is done: each second, and when a shard goes."""
        if not wait and time.monotonic() < self._next_commit:
            return
        self._next_commit = time.monotonic() + s.OFFSETS_EVERY_S
        with self._lock:
            due = [each for each in self._places.values() if each.done > each.stored]
            offsets = [TopicPartition(self._topic, each.shard, each.done) for each in due]
        if not offsets:
            return
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            logger.warning("offsets of history are not stored yet: %s", error.args[0].str())
            return
        for each, offset in zip(due, offsets, strict=True):
            each.stored = offset.offset

    def _stored(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """What became of a commit of offsets; one that failed is made again."""
        if error is None and not any(each.error for each in places):
            return
        logger.warning("offsets of history were not stored: %s", error.str() if error else "a partition was refused")
        for each in self._places.values():
            each.stored = -1
