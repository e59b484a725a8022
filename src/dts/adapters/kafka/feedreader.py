"""The reader behind `KafkaFeed.changes`: one consumer without a group, in a thread, for all shards of a process.

Every partition begins at an explicit offset. A shard that takes its pages too slowly has its partitions paused. Where
the records from a position on are gone (`job-commands` keeps a fortnight; a command lives for a day), reading goes on at
the first one that is left.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, Message, TopicPartition
from google.protobuf.message import DecodeError

from dts.adapters.kafka import settings as s
from dts.adapters.kafka.reading import bounds_of, reader, take
from dts.adapters.kafka.settings import KafkaSettings
from dts.codec import command_in, definition_in
from dts.errors import Unavailable
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Change, Position, ShardId

logger = logging.getLogger("dts.kafka")

Place = tuple[str, int]
PAGE = 5_000  # changes handed over at once


class Subscription:
    """One shard's changes from a position on. Made on the event loop; filled by the reader's thread."""

    def __init__(self, shard: ShardId, after: Position) -> None:
        self.shard = shard
        self.after = after
        self.paused = False
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        self._waiting: deque[Change] = deque()
        self._failed: Exception | None = None

    async def page(self) -> Sequence[Change]:
        """The next changes. Raises what ended the reader."""
        while True:
            with self._lock:
                if self._waiting:
                    return [self._waiting.popleft() for _ in range(min(PAGE, len(self._waiting)))]
                if self._failed is not None:
                    raise self._failed
                self._news.clear()
            await self._news.wait()

    def put(self, changes: Sequence[Change]) -> int:
        """In the reader's thread: how many are waiting now."""
        with self._lock:
            self._waiting.extend(changes)
            self._wake()
            return len(self._waiting)

    def waiting(self) -> int:
        """How many are waiting."""
        return len(self._waiting)

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        with self._lock:
            self._failed = error
            self._wake()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)


class Readers:
    """As many readers as there are subscriptions of one and the same shard: in life one."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._readers: list[Reader] = []
        self._lock = threading.Lock()

    def add(self, subscription: Subscription) -> None:
        """Begins to read it."""
        with self._lock:
            for each in self._readers:
                if each.free(subscription.shard):
                    break
            else:
                each = Reader(self._settings)
                self._readers.append(each)
            each.add(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Reads it no more. Does not wait."""
        for each in self._readers:
            each.remove(subscription)

    def close(self) -> None:
        """Ends the threads."""
        for each in self._readers:
            each.close()


class Reader:
    """One consumer and its thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._jobs, self._commands = settings.topics.jobs, settings.topics.commands
        self._consumer = reader(settings)
        self._orders: deque[Callable[[], None]] = deque()  # for the thread, in order
        self._shards: dict[ShardId, Subscription] = {}  # as ordered: the event loop's
        self._places: dict[Place, Subscription] = {}  # as assigned: the thread's
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-feed", daemon=True)
        self._thread.start()

    def free(self, shard: ShardId) -> bool:
        """Whether the shard's partitions are not read here."""
        return shard not in self._shards

    def add(self, subscription: Subscription) -> None:
        """Orders it to be read."""
        self._shards[subscription.shard] = subscription
        self._orders.append(lambda: self._assign(subscription))

    def remove(self, subscription: Subscription) -> None:
        """Orders it to be read no more."""
        if self._shards.get(subscription.shard) is subscription:
            del self._shards[subscription.shard]
            self._orders.append(lambda: self._unassign(subscription))

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                while self._orders:
                    self._orders.popleft()()
                for subscription in {each for each in self._places.values() if each.paused}:
                    self._resume(subscription)
                self._deal(take(self._consumer, s.FEED_BATCH, s.FEED_POLL_S))
        except Exception as error:
            logger.exception("the reader of changes ended")
            for subscription in {*self._places.values(), *self._shards.values()}:
                subscription.fail(error)
        finally:
            self._consumer.close()

    def _offsets(self, subscription: Subscription) -> list[TopicPartition]:
        jobs, commands = subscription.after
        shard = subscription.shard
        return [TopicPartition(self._jobs, shard, jobs), TopicPartition(self._commands, shard, commands)]

    def _assign(self, subscription: Subscription) -> None:
        places = self._offsets(subscription)
        for each in places:
            self._places[each.topic, each.partition] = subscription
        self._consumer.incremental_assign(places)

    def _unassign(self, subscription: Subscription) -> None:
        names = {place for place, each in self._places.items() if each is subscription}
        places = [each for each in self._offsets(subscription) if (each.topic, each.partition) in names]
        for each in places:
            del self._places[each.topic, each.partition]
        self._consumer.incremental_unassign(places)

    def _resume(self, subscription: Subscription) -> None:
        if subscription.waiting() < s.FEED_WAITING // 2:
            self._consumer.resume(self._offsets(subscription))
            subscription.paused = False

    def _deal(self, messages: Sequence[Message]) -> None:
        found: dict[Subscription, list[Change]] = {}
        for message in messages:
            error = message.error()
            place = (message.topic() or "", message.partition() or 0)
            if error is not None:
                self._say(place, error)
                continue
            subscription = self._places.get(place)
            if subscription is not None and (change := self._change(message)) is not None:
                found.setdefault(subscription, []).append(change)
        for subscription, changes in found.items():
            if subscription.put(changes) > s.FEED_WAITING and not subscription.paused:
                subscription.paused = True
                self._consumer.pause(self._offsets(subscription))

    def _change(self, message: Message) -> Change | None:
        """None: a tombstone, the number of partitions, or what a later version wrote."""
        value, offset = message.value(), message.offset() or 0
        key = message.key() or b""
        if value is None or key.startswith(b"!"):
            return None
        try:
            if message.topic() == self._jobs:
                return Change((offset + 1, 0), definition_in(log.Definition.FromString(value)))
            return Change((0, offset + 1), command_in(log.Command.FromString(value)))
        except (DecodeError, ValueError) as error:
            logger.error("%s/%s offset %d is passed over: %s", message.topic(), message.partition(), offset, error)
            return None

    def _say(self, place: Place, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self._restart(place)
        elif error.fatal():
            raise Unavailable(f"{place[0]}/{place[1]} cannot be read: {error.str()}")
        else:
            logger.warning("%s/%d: %s", *place, error.str())

    def _restart(self, place: Place) -> None:
        """Goes on at the first record that is left. Raises Unavailable when the position lies beyond the end."""
        subscription = self._places.get(place)
        if subscription is None:
            return
        wanted = subscription.after[0 if place[0] == self._jobs else 1]
        low, high = bounds_of(self._consumer, *place)
        if wanted > high:
            raise Unavailable(
                f"{place[0]}/{place[1]} ends at {high}, but {wanted} was applied: the topic was made anew"
            )
        logger.warning("%s/%d: records from %d to %d are gone", *place, wanted, low - 1)
        self._consumer.incremental_unassign([TopicPartition(*place)])
        self._consumer.incremental_assign([TopicPartition(*place, low)])
