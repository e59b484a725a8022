"""Membership: the consumer group of the schedulers suggests which shards this process should own.

It decides nothing: who can write is decided by the fencing of producers. It reads no record and commits no offset.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterable

from confluent_kafka import OFFSET_END, Consumer, KafkaError, TopicPartition

from dts.adapters.kafka import settings as s
from dts.adapters.kafka.logs import client_logger
from dts.adapters.kafka.settings import KafkaSettings
from dts.model import ShardId

log = logging.getLogger("dts.kafka")


class Membership:
    """Joins when `shards` is first asked for; leaves at `close`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._shards: frozenset[ShardId] = frozenset()  # swapped as a whole, by callbacks in the thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = False  # the group has answered once
        self._failed: Exception | None = None

    async def shards(self) -> AsyncIterator[frozenset[ShardId]]:
        """The shards suggested, now and at each change; none when it is closed, then the end. Raises what ended the thread."""
        if self._thread is None and not self._closing.is_set():
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="kafka-group", daemon=True)
            self._thread.start()
        seen: frozenset[ShardId] | None = None
        while not self._closing.is_set():
            if self._failed is not None:
                raise self._failed
            now = self._shards
            if self._told and now != seen:
                seen = now
                yield now
            else:
                await self._news.wait()
                self._news.clear()
        yield frozenset()

    async def close(self) -> None:
        """Leaves the group, so that the others need not wait for the session to end."""
        self._closing.set()
        self._news.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:
            log.exception("the membership of group %s ended", self._settings.group)
            self._failed = error
            self._wake()

    def _follow(self) -> None:
        consumer = Consumer(
            {
                **self._settings.common(),
                "group.id": self._settings.group,
                "group.protocol": "classic",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": s.GROUP_SESSION_MS,
                "heartbeat.interval.ms": s.GROUP_HEARTBEAT_MS,
                "max.poll.interval.ms": s.GROUP_POLL_LIMIT_MS,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "latest",
            },
            logger=client_logger(),
        )
        consumer.subscribe(
            [self._settings.topics.log],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._revoked,
        )
        try:
            while not self._closing.is_set():
                message = consumer.poll(s.GROUP_POLL_S)
                if message is not None and (error := message.error()) is not None:
                    self._say(error)
        finally:
            consumer.close()

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        at_end = [TopicPartition(each.topic, each.partition, OFFSET_END) for each in places]
        consumer.incremental_assign(at_end)
        consumer.pause(at_end)
        self._swap(self._shards.union(_numbers(places)))

    def _revoked(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._swap(self._shards.difference(_numbers(places)))
        consumer.incremental_unassign(places)

    def _swap(self, shards: frozenset[ShardId]) -> None:
        self._shards = shards
        self._told = True
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def _say(self, error: KafkaError) -> None:
        log.warning("group %s: %s", self._settings.group, error.str())


def _numbers(places: Iterable[TopicPartition]) -> list[ShardId]:
    return [each.partition for each in places]
