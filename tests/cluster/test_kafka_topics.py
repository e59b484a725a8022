"""The topics: made right, checked, and refused with everything that is wrong in one message."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from dts.adapters.kafka.settings import KafkaSettings, shard_of
from dts.adapters.kafka.topics import prepare, rules
from dts.errors import ConfigError
from tests.conformance.kafkaworld import fresh_settings

pytestmark = pytest.mark.usefixtures("servers")


def change(settings: KafkaSettings, topic: str, **values: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in values.items()
    ]
    admin = AdminClient(settings.common())
    for future in admin.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)]
    ).values():
        future.result(30)


def test_they_are_made_once_and_pass_their_own_check() -> None:
    settings = fresh_settings(3)
    assert prepare(settings) == 3
    assert prepare(settings._replace(partitions=16)) == 3  # those that are there keep theirs


def test_all_problems_are_told_at_once() -> None:
    settings = fresh_settings(2)
    prepare(settings)
    change(settings, settings.topics.log, retention_ms="604800000", message_timestamp_type="CreateTime")
    change(settings, settings.topics.jobs, cleanup_policy="delete", segment_ms="604800000")
    change(settings, settings.topics.commands, retention_ms="3600000")
    with pytest.raises(ConfigError) as refused:
        prepare(settings)
    topics = settings.topics
    assert sorted(str(refused.value).splitlines()) == sorted(
        [
            f"topic {topics.jobs}: cleanup.policy is delete, but must be compact",
            f"topic {topics.jobs}: segment.ms is 604800000, but must be at most 3600000",
            f"topic {topics.commands}: retention.ms is 3600000, but must be at least 1209600000",
            f"topic {topics.log}: message.timestamp.type is CreateTime, but must be LogAppendTime",
            f"topic {topics.log}: retention.ms is 604800000, but must be -1",
        ]
    )


def widen(settings: KafkaSettings, count: int, *topics: str) -> None:
    """Adds partitions, and waits until the brokers say so."""
    admin = AdminClient(settings.common())
    for future in admin.create_partitions([NewPartitions(topic, count) for topic in topics]).values():
        future.result(30)
    deadline = time.monotonic() + 30
    while any(len(admin.list_topics(topic, timeout=30).topics[topic].partitions) < count for topic in topics):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_added_partition_is_refused() -> None:
    settings = fresh_settings(2)
    prepare(settings)
    widen(settings, 3, *settings.topics)
    with pytest.raises(ConfigError, match="has 3 partitions, but jobs are spread over 2"):
        prepare(settings)


def test_topics_of_different_width_are_refused() -> None:
    settings = fresh_settings(2)
    prepare(settings)
    widen(settings, 4, settings.topics.events)
    with pytest.raises(ConfigError, match="the same number of partitions"):
        prepare(settings)


def test_a_topic_that_another_program_writes_to_is_refused() -> None:
    settings = fresh_settings(1)
    name = settings.topics.jobs
    config = {key: rule.value for key, rule in rules(settings)[name].items()}
    admin = AdminClient(settings.common())
    admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1, config=config)])[name].result(30)
    producer = Producer(settings.common())
    producer.produce(name, b"theirs", b"key")
    assert producer.flush(30) == 0
    with pytest.raises(ConfigError, match="another program writes to it"):
        prepare(settings)


@pytest.mark.parametrize(
    ("job", "shards"),
    [
        ("a", (3, 7)),
        ("nightly-report", (0, 96)),
        ("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", (13, 85)),
        ("Job_1.x", (10, 42)),
    ],
)
def test_where_a_job_is_never_changes(job: str, shards: tuple[int, int]) -> None:
    """Vectors: a change here would look for jobs where they are not."""
    assert (shard_of(job, 16), shard_of(job, 100)) == shards
