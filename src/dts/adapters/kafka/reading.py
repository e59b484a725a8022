"""Consumers that belong to no group: partitions and offsets are always given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from dts.adapters.kafka.logs import client_logger
from dts.adapters.kafka.settings import REQUEST_WAIT_S, KafkaSettings
from dts.errors import Unavailable

T = TypeVar("T")


def reader(settings: KafkaSettings, *, eof: bool = False, committed: bool = True) -> Consumer:
    """An offset that is gone is an error, never a jump. `eof`: tells when a partition is read up. `committed` False: sees
    what is undecided, too."""
    return Consumer(
        {
            **settings.common(),
            "group.id": f"{settings.group}-reader",  # the library wants one; nothing joins it, nothing is committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": eof,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "fetch.wait.max.ms": 10 if eof else 100,  # how late the end is told
            "fetch.error.backoff.ms": 50,
            "queued.max.messages.kbytes": 16_384,  # a partition
        },
        logger=client_logger(),
    )


def bounds_of(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """The first offset of a partition and the one after its last. Raises Unavailable.

    To begin at a known offset is 0.5 s faster than to begin at `OFFSET_BEGINNING`, and nothing is passed over unseen.
    """
    place = TopicPartition(topic, partition)
    return patiently(f"the ends of {topic}/{partition}", lambda: consumer.get_watermark_offsets(place, REQUEST_WAIT_S))


def patiently(what: str, ask: Callable[[], T]) -> T:
    """Asks until it is answered: a partition that has just been made or moved has no leader for a moment. Raises Unavailable."""
    deadline = time.monotonic() + REQUEST_WAIT_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"{what}: Kafka does not answer: {error.args[0].str()}") from error
            time.sleep(0.02)


def take(consumer: Consumer, limit: int, timeout_s: float) -> list[Message]:
    """What is there, at most `limit`; waits for the first message alone (`consume` would wait for all)."""
    first = consumer.poll(timeout_s)
    if first is None:
        return []
    return [first, *consumer.consume(limit - 1, 0)]
