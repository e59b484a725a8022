"""What the schedulers committed, read from the topic itself: when each fire was durable, when each task began."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import TopicPartition

from dts.adapters.kafka.reading import bounds_of, reader, take
from dts.adapters.kafka.settings import KafkaSettings
from dts.codec import block_in
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Block, Key, Status

SILENCE_S = 3.0


class Events:
    """All events of the topic so far: `durable` = the broker's time of a fire's first record, `started`, `ended` by key."""

    def __init__(self, settings: KafkaSettings, partitions: int) -> None:
        self.durable: dict[Key, int] = {}
        self.started: dict[Key, int] = {}
        self.recorded: dict[Key, int] = {}  # when the verdict was durable
        self._consumer = reader(settings, eof=True)
        topic = settings.topics.events
        self._consumer.assign(
            [TopicPartition(topic, each, bounds_of(self._consumer, topic, each)[0]) for each in range(partitions)]
        )

    def read(self, want: int, prefix: str, timeout_s: float) -> int:
        """Until so many executions of jobs that begin so have a verdict; how many there are."""
        deadline = time.monotonic() + timeout_s
        done = sum(key.job.startswith(prefix) for key in self.recorded)
        while done < want and time.monotonic() < deadline:
            for at, block in self._blocks():
                keys = [key for key in block.keys if key.job.startswith(prefix)]
                for key in keys:
                    self.durable.setdefault(key, at)
                if not block.status.terminal or block.status is Status.SKIPPED:
                    continue
                for key, end in zip(block.keys, block.ends, strict=True):
                    if key.job.startswith(prefix) and key not in self.recorded:
                        self.started[key], self.recorded[key] = end.started, at
                        done += 1
        return done

    def _blocks(self) -> Iterator[tuple[int, Block]]:
        for message in take(self._consumer, 5_000, 0.2):
            value = message.value()
            if message.error() is not None or value is None:
                continue
            at = message.timestamp()[1]
            for block in log.Commit.FromString(value).blocks:
                yield at, block_in(block)

    def close(self) -> None:
        """Ends the reader."""
        self._consumer.close()
