"""What the Kafka adapters need to know, and every bound of theirs."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from dts import bounds
from dts.model import ShardId

PARTITIONS = 16  # of a new cluster: shards
REPLICATION = 3  # of new topics, or as many as there are brokers

RECORD_BYTES = 512 * 1024  # of a commit in one record of the log
TOPIC_RECORD_BYTES = 1024 * 1024  # the topics' limit: a larger record is refused
COMMIT_BYTES = 256 * 1024 * 1024  # of one commit: more is a bug of whoever decided it

TRANSACTION_TIMEOUT_MS = 60_000  # the broker aborts what is open for longer
DELIVERY_TIMEOUT_MS = 10_000  # a record that cannot be written for so long is given up
COMMIT_WAIT_S = 5.0  # then a commit's outcome is told as unknown
RESOLVE_WAIT_S = 90.0  # an outcome that is unknown for so long is given up: the broker has decided it by then
INIT_WAIT_S = 90.0  # a former owner's transaction is aborted in this time, or the take-over is tried again
REQUEST_WAIT_S = 30.0  # one question to the brokers
STABLE_WAIT_S = 90.0  # until nothing before the log's end is undecided; a broker that was killed takes its time
FOLD_SILENCE_S = 30.0  # a log that gives nothing for so long: the take-over is tried again
FOLD_STARTS = 5  # how often a fold begins anew because the log was trimmed under it

SNAPSHOT_FACTOR = 4  # the log after a snapshot may be so many times as long as it
SNAPSHOT_LEAST_BYTES = 1024 * 1024  # ... which counts as at least so long
SNAPSHOT_AGE_MS = 3_600_000

GROUP_SESSION_MS = bounds.BROKER_SESSION_MS
GROUP_HEARTBEAT_MS = 500
GROUP_POLL_LIMIT_MS = 7_000
GROUP_POLL_S = 0.05

FEED_BATCH = 5_000  # records taken from the reader at once
FEED_WAITING = 100_000  # records waiting for one shard: beyond, its partitions are paused
FEED_POLL_S = 0.1
EVENTS_WAITING_BYTES = 16 * 1024 * 1024  # events read and not yet written: beyond, reading pauses
EVENTS_TAKEN_BYTES = 1024 * 1024  # handed over at once, or one event
EVENTS_POLL_S = 0.1
EVENTS_BATCH = 500  # records taken from the reader at once
EVENTS_SESSION_MS = 10_000
OFFSETS_EVERY_S = 1.0
PUBLISH_WAITING = 200_000  # records on their way to the brokers: beyond, QueueFull

DAY_MS = 86_400_000

assert bounds.DEFINITION_BYTES + RECORD_BYTES <= TOPIC_RECORD_BYTES
assert 5 * bounds.DEFINITION_BYTES <= TOPIC_RECORD_BYTES  # any one definition, encoded, with room
assert 2 * bounds.STEP_BYTES <= COMMIT_BYTES  # a step is decided by an estimate from above
assert DELIVERY_TIMEOUT_MS < TRANSACTION_TIMEOUT_MS
assert COMMIT_WAIT_S * 1_000 < TRANSACTION_TIMEOUT_MS < RESOLVE_WAIT_S * 1_000
assert 3 * GROUP_HEARTBEAT_MS < GROUP_SESSION_MS < GROUP_POLL_LIMIT_MS


class Topics(NamedTuple):
    """Names of the four."""

    jobs: str = "jobs"
    commands: str = "job-commands"
    log: str = "scheduled-jobs"
    events: str = "job-executions"


class KafkaSettings(NamedTuple):
    """`brokers`: host:port, comma-separated. `client`: what other instances read of this one in the group."""

    brokers: str
    cluster: str = "dts"
    topics: Topics = Topics()
    partitions: int = PARTITIONS  # of topics that are made; those that are there keep theirs
    client: str = "dts"

    def transactional_id(self, shard: ShardId) -> str:
        """The one id under which a shard's owner writes: whoever initialises it fences all others."""
        return f"dts-{self.cluster}-{shard}"

    @property
    def group(self) -> str:
        """The consumer group of the schedulers: membership only, it commits no offset."""
        return f"dts-{self.cluster}-schedulers"

    @property
    def history_group(self) -> str:
        """The consumer group of the Execution Services: they share the partitions of events."""
        return f"dts-{self.cluster}-history"

    def common(self) -> dict[str, str | int | float | bool]:
        """Configuration of every client."""
        return {"bootstrap.servers": self.brokers, "client.id": self.client, "reconnect.backoff.max.ms": 1_000}


def shard_of(name: str, partitions: int) -> ShardId:
    """The shard of a job, for ever: crc32 of its concurrency group or else of its id, modulo the number of partitions."""
    return zlib.crc32(name.encode()) % partitions
