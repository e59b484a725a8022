"""Who is in a consumer group, by client.id (the address under which a service says it can be reached), and what it is given.

So the services of a cluster find each other: Scheduler instances in the schedulers' group, Execution Services in history's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription  # type: ignore[attr-defined]

from dts.adapters.kafka.settings import KafkaSettings
from dts.model import ShardId

log = logging.getLogger("dts.kafka")

LOOK_S = 0.5  # between two looks
ANSWER_S = 2.0

Seats = Mapping[str, frozenset[ShardId]]


class Members:
    """`of(group)`: as last seen. `run()` looks until cancelled; what cannot be seen now stays as it was."""

    def __init__(self, settings: KafkaSettings, groups: Sequence[str]) -> None:
        self._admin = AdminClient(settings.common())
        self._groups = list(groups)
        self._seen: dict[str, Seats] = {group: {} for group in groups}
        self._failed = ""

    def of(self, group: str) -> Seats:
        """Each member's shards; a member that has just come may have none yet."""
        return self._seen[group]

    @property
    def problem(self) -> str:
        """Why the last look failed; empty: it did not."""
        return self._failed

    async def run(self) -> None:
        """Looks again and again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Once."""
        try:
            self._seen.update(await asyncio.to_thread(self._describe))
        except KafkaException as error:
            if not self._failed:
                log.warning("the members of %s are not known: %s", ", ".join(self._groups), error.args[0].str())
            self._failed = f"Kafka does not answer: {error.args[0].str()}"
        else:
            self._failed = ""

    def _describe(self) -> dict[str, Seats]:
        asked: dict[str, Future[ConsumerGroupDescription]] = self._admin.describe_consumer_groups(
            self._groups, request_timeout=ANSWER_S
        )
        found: dict[str, Seats] = {}
        for group, answer in asked.items():
            seats: dict[str, frozenset[ShardId]] = {}
            for member in answer.result().members:
                places = member.assignment.topic_partitions
                seats[member.client_id] = seats.get(member.client_id, frozenset()).union(
                    place.partition for place in places
                )
            found[group] = seats
        return found
