"""JobFeed: definitions in `jobs`, commands in `job-commands`, both in the partition of their job.

A position is (the next offset of `jobs`, the next offset of `job-commands`); a record's own position has the offset
after it in its place and 0 in the other. So (0, 0) is before everything, and the greater of each counts.

A command that is published twice is told twice: the shard knows which ids it has applied.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dts.adapters.kafka import settings as s
from dts.adapters.kafka.feedreader import Readers, Subscription
from dts.adapters.kafka.logs import client_logger
from dts.adapters.kafka.settings import KafkaSettings, shard_of
from dts.codec import command_out, definition_out
from dts.errors import QueueFull, Unavailable
from dts.model import Cancel, Change, Command, Definition, Position, Retry, ShardId, routed_by

log = client_logger()


def job_of(change: Definition | Command) -> str:
    """The job that a change is about: its key."""
    return change.key.job if isinstance(change, Cancel | Retry) else change.job


class _Batch:
    """Records on their way; `done` is told when the last one has arrived, or been given up."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[KafkaError | None] = self._loop.create_future()
        self._left = count
        self._error: KafkaError | None = None

    def told(self, error: KafkaError | None, message: Message) -> None:
        """A delivery report, in the producer's thread."""
        del message
        self._left -= 1
        self._error = self._error or error
        if self._left == 0 and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(self._error)


class KafkaFeed:
    """The port JobFeed. `partitions` is what `topics.prepare` gave."""

    def __init__(self, settings: KafkaSettings, partitions: int) -> None:
        self._topics = settings.topics
        self._partitions = partitions
        self._readers = Readers(settings)
        self._closing = threading.Event()
        self._producer = Producer(
            {
                **settings.common(),
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                "delivery.timeout.ms": s.DELIVERY_TIMEOUT_MS,
                "message.max.bytes": s.TOPIC_RECORD_BYTES,
                "queue.buffering.max.messages": s.PUBLISH_WAITING,
                "compression.type": "lz4",
            },
            logger=log,
        )
        self._poller = threading.Thread(target=self._poll, name="kafka-publish", daemon=True)
        self._poller.start()

    async def publish(self, changes: Sequence[Definition | Command]) -> Sequence[Command]:
        """See ports.JobFeed: none is given back, what is in the topics is not known here. Raises Unavailable when a broker did not
        take all (some may be there: it may be repeated), QueueFull when too much is on its way."""
        if not changes:
            return ()
        batch = _Batch(len(changes))
        for number, change in enumerate(changes):
            try:
                self._produce(change, batch)
            except (BufferError, KafkaException) as error:
                if number == 0 and isinstance(error, BufferError):
                    raise QueueFull("too many changes are on their way to Kafka: try again later") from error
                raise Unavailable(f"Kafka took {number} of {len(changes)} changes: {error}") from error
        failed = await batch.done
        if failed is not None:
            raise Unavailable(f"Kafka did not take the change: {failed.str()}")
        return ()

    def _produce(self, change: Definition | Command, batch: _Batch) -> None:
        job = job_of(change)
        if isinstance(change, Definition):
            topic, value = self._topics.jobs, definition_out(change).SerializeToString()
        else:
            topic, value = self._topics.commands, command_out(change).SerializeToString()
        shard = shard_of(routed_by(change), self._partitions)
        self._producer.produce(topic, value, job.encode(), shard, on_delivery=batch.told)

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(0.2)  # returns with the first report

    async def changes(self, shard: ShardId, after: Position) -> AsyncIterator[Sequence[Change]]:
        """See ports.JobFeed."""
        subscription = Subscription(shard, after)
        await asyncio.to_thread(self._readers.add, subscription)
        try:
            while True:
                yield await subscription.page()
        finally:
            self._readers.remove(subscription)

    async def close(self) -> None:
        """Sends what is on its way, then ends the threads."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._producer.flush(s.DELIVERY_TIMEOUT_MS / 1_000)
        self._closing.set()
        self._poller.join()
        self._readers.close()
