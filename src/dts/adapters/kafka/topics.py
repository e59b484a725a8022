"""The four topics: made with the settings that ownership and the log rely on, or checked, and refused with all that is wrong.

The number of partitions decides where each job is; it is written once, under a key of its own, into partition 0 of `jobs`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import (
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from dts.adapters.kafka.reading import bounds_of, reader, take
from dts.adapters.kafka.settings import DAY_MS, REPLICATION, REQUEST_WAIT_S, TOPIC_RECORD_BYTES, KafkaSettings
from dts.errors import ConfigError, Unavailable

log = logging.getLogger("dts.kafka")

COUNT_KEY = b"!partitions"  # `!` begins no job id
MANY_BROKERS = 3
VISIBLE_WAIT_S = 15.0  # from a topic's creation until all brokers know of it

T = TypeVar("T")


class Rule(NamedTuple):
    """What a topic's setting is when we make it, and what is right."""

    value: str
    right: Callable[[str], bool]
    want: str


def _exactly(value: str) -> Rule:
    return Rule(value, lambda there: there == value, value)


def _at_least(value: int) -> Rule:
    return Rule(str(value), lambda there: int(there) >= value or int(there) == -1, f"at least {value}")


def _at_most(value: int) -> Rule:
    return Rule(str(value), lambda there: 0 <= int(there) <= value, f"at most {value}")


_EVERY = {
    "unclean.leader.election.enable": _exactly("false"),
    "message.timestamp.type": _exactly("LogAppendTime"),
    "max.message.bytes": _at_least(TOPIC_RECORD_BYTES),
}
_LOG = {"cleanup.policy": _exactly("delete"), "retention.ms": _exactly("-1"), "retention.bytes": _exactly("-1")}
_FORTNIGHT = {
    "cleanup.policy": _exactly("delete"),
    "retention.ms": _at_least(14 * DAY_MS),
    "retention.bytes": _exactly("-1"),
}
_JOBS = {
    "cleanup.policy": _exactly("compact"),
    "min.compaction.lag.ms": _at_least(7 * DAY_MS),
    "max.compaction.lag.ms": _at_least(8 * DAY_MS),
    "segment.ms": _at_most(3_600_000),
    "min.cleanable.dirty.ratio": Rule("0.1", lambda there: float(there) <= 0.1, "at most 0.1"),
}


def rules(settings: KafkaSettings) -> dict[str, dict[str, Rule]]:
    """What each topic's settings must be."""
    topics = settings.topics
    own = {topics.jobs: _JOBS, topics.commands: _FORTNIGHT, topics.log: _LOG, topics.events: _FORTNIGHT}
    return {name: {**_EVERY, **rest} for name, rest in own.items()}


def prepare(settings: KafkaSettings) -> int:
    """Makes the topics that are missing, checks all. The number of partitions. Blocks for seconds: not on the event loop.

    Raises ConfigError with every problem in one message, Unavailable when no broker answers.
    """
    if len(set(settings.topics)) < len(settings.topics):
        raise ConfigError(f"the four topics need four names, not {', '.join(settings.topics)}")
    admin = AdminClient(settings.common())
    wanted = rules(settings)
    there = _partitions(admin, settings)
    missing = [name for name in wanted if name not in there]
    if missing:
        count = max(there.values(), default=settings.partitions)
        _create(admin, {name: wanted[name] for name in missing}, count)
        there = _await_topics(admin, settings, list(wanted))
    count = there[settings.topics.jobs]
    problems = _differences(there, settings) + _check(admin, wanted)
    if not problems:
        problems = _check_count(settings, count, new=settings.topics.jobs in missing)
    if problems:
        raise ConfigError("\n".join(problems))
    return count


def _ask(question: Callable[[], T]) -> T:
    try:
        return question()
    except KafkaException as error:
        raise Unavailable(f"Kafka does not answer: {error.args[0].str()}") from error


def _partitions(admin: AdminClient, settings: KafkaSettings) -> dict[str, int]:
    metadata = _ask(lambda: admin.list_topics(timeout=REQUEST_WAIT_S))
    found = {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}
    return {name: found[name] for name in settings.topics if found.get(name)}


def _create(admin: AdminClient, wanted: Mapping[str, Mapping[str, Rule]], count: int) -> None:
    brokers = len(_ask(lambda: admin.list_topics(timeout=REQUEST_WAIT_S)).brokers)
    replication = min(REPLICATION, brokers)
    topics = []
    for name, rules_ in wanted.items():
        config = {key: rule.value for key, rule in rules_.items()}
        if replication >= MANY_BROKERS:
            config["min.insync.replicas"] = "2"
        topics.append(NewTopic(name, num_partitions=count, replication_factor=replication, config=config))
    for name, future in admin.create_topics(topics, request_timeout=REQUEST_WAIT_S).items():
        try:
            future.result()
            log.info("topic %s: made with %d partitions, replication %d", name, count, replication)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise Unavailable(f"topic {name} could not be made: {error.args[0].str()}") from error


def _await_topics(admin: AdminClient, settings: KafkaSettings, names: list[str]) -> dict[str, int]:
    """Until each topic is known with a leader for every partition."""
    deadline = time.monotonic() + VISIBLE_WAIT_S
    while True:
        described: dict[str, Future[Any]] = admin.describe_topics(
            TopicCollection(names), request_timeout=REQUEST_WAIT_S
        )
        found: dict[str, int] = {}
        for name, future in described.items():
            try:
                partitions = future.result().partitions
            except KafkaException:
                continue
            if partitions and all(each.leader is not None and each.leader.id >= 0 for each in partitions):
                found[name] = len(partitions)
        if len(found) == len(names):
            return {name: found[name] for name in settings.topics}
        if time.monotonic() > deadline:
            raise Unavailable(f"topics have no leader yet: {', '.join(sorted(set(names) - set(found)))}")
        time.sleep(0.05)


def _differences(there: Mapping[str, int], settings: KafkaSettings) -> list[str]:
    counts = {there[name] for name in settings.topics}
    if len(counts) == 1:
        return []
    listed = ", ".join(f"{name} {there[name]}" for name in settings.topics)
    return [f"the four topics must have the same number of partitions, but have: {listed}"]


def _check(admin: AdminClient, wanted: Mapping[str, Mapping[str, Rule]]) -> list[str]:
    resources = {name: ConfigResource(ResourceType.TOPIC, name) for name in wanted}
    answers = admin.describe_configs(list(resources.values()), request_timeout=REQUEST_WAIT_S)
    problems = []
    for name, rules_ in wanted.items():
        future = answers[resources[name]]
        entries = {key: entry.value for key, entry in _ask(future.result).items()}
        for key, rule in rules_.items():
            value = entries.get(key)
            if value is None or not rule.right(value):
                problems.append(f"topic {name}: {key} is {value}, but must be {rule.want}")
        problems += _check_replicas(admin, name, entries)
    return problems


def _check_replicas(admin: AdminClient, name: str, entries: Mapping[str, str | None]) -> list[str]:
    described = admin.describe_topics(TopicCollection([name]), request_timeout=REQUEST_WAIT_S)
    least = min(len(each.replicas) for each in _ask(described[name].result).partitions)
    in_sync = int(entries.get("min.insync.replicas") or 1)
    if least >= MANY_BROKERS and in_sync < 2:
        return [f"topic {name}: min.insync.replicas is {in_sync}, but must be 2 at replication {least}"]
    if least == 1:
        log.warning("topic %s has one replica: what its broker loses is lost (docs/operations/kafka.md)", name)
    return []


def _check_count(settings: KafkaSettings, count: int, *, new: bool) -> list[str]:
    topic = settings.topics.jobs
    recorded, empty = _recorded(settings)
    if recorded is None and (new or empty):
        _record(settings, count)
        return []
    if recorded is None:
        return [f"topic {topic} holds records, but not the number of partitions: another program writes to it"]
    if recorded != count:
        advice = f"partitions must never be added; make topics with {recorded} and move the records, or restore them"
        return [f"topic {topic} has {count} partitions, but jobs are spread over {recorded}: {advice}"]
    return []


def _recorded(settings: KafkaSettings) -> tuple[int | None, bool]:
    """The number of partitions that is written down, and whether partition 0 holds nothing."""
    consumer = reader(settings, eof=True)
    try:
        first, _ = bounds_of(consumer, settings.topics.jobs, 0)
        consumer.assign([TopicPartition(settings.topics.jobs, 0, first)])
        deadline = time.monotonic() + REQUEST_WAIT_S
        empty = True
        while time.monotonic() < deadline:
            for message in take(consumer, 1_000, 0.5):
                error = message.error()
                if error is None:
                    empty = False
                    if message.key() == COUNT_KEY:
                        return int(message.value() or b"0"), False
                elif error.code() == KafkaError._PARTITION_EOF:
                    return None, empty
                elif not error.retriable():
                    raise Unavailable(f"topic {settings.topics.jobs} cannot be read: {error.str()}")
        raise Unavailable(f"topic {settings.topics.jobs}: partition 0 was not read within {REQUEST_WAIT_S:g} s")
    finally:
        consumer.close()


def _record(settings: KafkaSettings, count: int) -> None:
    failed: list[str] = []

    def told(error: KafkaError | None, message: object) -> None:
        del message
        if error is not None:
            failed.append(error.str())

    producer = Producer({**settings.common(), "acks": "all"})  # twice is as good as once
    producer.produce(settings.topics.jobs, str(count).encode(), COUNT_KEY, 0, on_delivery=told)
    left = producer.flush(REQUEST_WAIT_S)
    if left or failed:
        raise Unavailable(f"the number of partitions could not be written: {failed[0] if failed else 'no answer'}")
