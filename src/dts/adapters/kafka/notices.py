"""The port Notices: the topic `jobs` read as a whole, a partition at a time, and tombstones into it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from google.protobuf.message import DecodeError

from dts.adapters.kafka import settings as s
from dts.adapters.kafka.logs import client_logger
from dts.adapters.kafka.reading import bounds_of, reader, take
from dts.adapters.kafka.settings import KafkaSettings
from dts.errors import Unavailable
from dts.gen.log.v1 import log_pb2 as log
from dts.model import JobState, Notice, ShardId

logger = logging.getLogger("dts.kafka")

OWN_KEY = b"!"  # begins keys that are no job's


class KafkaNotices:
    """Over `partitions` of the topic."""

    def __init__(self, settings: KafkaSettings, partitions: int) -> None:
        self._settings = settings
        self._topic = settings.topics.jobs
        self._partitions = partitions

    def shards(self) -> Sequence[ShardId]:
        """See ports.Notices."""
        return range(self._partitions)

    async def last(self, shard: ShardId) -> Mapping[str, Notice]:
        """See ports.Notices. Raises Unavailable."""
        return await asyncio.to_thread(self._last, shard)

    async def bury(self, jobs: Mapping[str, ShardId]) -> None:
        """See ports.Notices. Raises Unavailable: some may be there, it may be repeated."""
        if jobs:
            await asyncio.to_thread(self._bury, jobs)

    def _last(self, shard: ShardId) -> dict[str, Notice]:
        found: dict[str, tuple[bytes, int] | None] = {}
        consumer = reader(self._settings, eof=True)
        try:
            low, high = bounds_of(consumer, self._topic, shard)
            if low < high:
                consumer.assign([TopicPartition(self._topic, shard, low)])
                self._read(consumer, high, found)
        finally:
            consumer.close()
        notices: dict[str, Notice] = {}
        for job, record in found.items():
            if record is None:
                continue
            try:
                of = log.Definition.FromString(record[0])
                notices[job] = Notice(shard, of.revision, JobState(of.state), record[1])
            except (DecodeError, ValueError) as error:
                logger.error("%s/%d: the last record of %r is passed over: %s", self._topic, shard, job, error)
        return notices

    def _read(self, consumer: Consumer, high: int, found: dict[str, tuple[bytes, int] | None]) -> None:
        heard = time.monotonic()
        while True:
            for message in take(consumer, s.FEED_BATCH, 0.5):
                heard = time.monotonic()
                error = message.error()
                if error is None:
                    key, value = message.key() or b"", message.value()
                    if not key.startswith(OWN_KEY):
                        found[key.decode()] = None if value is None else (value, message.timestamp()[1])
                elif error.code() == KafkaError._PARTITION_EOF:
                    if (message.offset() or 0) >= high:
                        return
                elif not error.retriable():
                    raise Unavailable(f"{self._topic} cannot be read: {error.str()}")
            if time.monotonic() - heard > s.FOLD_SILENCE_S:
                raise Unavailable(f"{self._topic} gave nothing for {s.FOLD_SILENCE_S:g} s")

    def _bury(self, jobs: Mapping[str, ShardId]) -> None:
        failed: list[str] = []

        def told(error: KafkaError | None, message: Message) -> None:
            del message
            if error is not None:
                failed.append(error.str())

        producer = Producer(
            {**self._settings.common(), "acks": "all", "enable.idempotence": True, "linger.ms": 5},
            logger=client_logger(),
        )
        for job, shard in jobs.items():
            producer.produce(self._topic, None, job.encode(), shard, on_delivery=told)
        left = producer.flush(s.REQUEST_WAIT_S)
        if left or failed:
            raise Unavailable(
                f"{left + len(failed)} tombstones were not written: {failed[0] if failed else 'no answer'}"
            )
