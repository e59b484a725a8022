"""Who is in a consumer group, by client.id (the address under which a service says it can be reached), and what it is given.

So the services of a cluster find each other: Scheduler instances in the schedulers' group, Execution Services in history's.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import warnings
from collections.abc import Mapping, Sequence
from typing import cast

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from dts.adapters.kafka.logs import client_logger
from dts.adapters.kafka.settings import KafkaSettings
from dts.model import ShardId

log = logging.getLogger("dts.kafka")

LOOK_S = 0.5  # between two looks
ANSWER_S = 2.0

Seats = Mapping[str, frozenset[ShardId]]


class Members:
    """`of(group)`: as last seen. `run()` looks until cancelled; what cannot be seen now stays as it was."""

    def __init__(self, settings: KafkaSettings, groups: Sequence[str]) -> None:
        self._admin = AdminClient(settings.common(), logger=client_logger())
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
        # The older call of the two: while no broker answers, describe_consumer_groups ends the process by an assertion of
        # librdkafka (2.12: `eonce->refcnt > 0`).
        found: dict[str, Seats] = {}
        for group in self._groups:
            seats: dict[str, frozenset[ShardId]] = {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                described = self._admin.list_groups(group, timeout=ANSWER_S)
            for member in (member for each in described for member in each.members):
                client, assignment = cast(str, member.client_id), cast(bytes, member.assignment)  # untyped there
                seats[client] = seats.get(client, frozenset()) | partitions(assignment)
            found[group] = seats
        return found


def partitions(assignment: bytes) -> frozenset[ShardId]:
    """Of the classic protocol's assignment (Kafka's ConsumerProtocolAssignment, any version): a member that was given none yet
    has an empty one."""
    if not assignment:
        return frozenset()
    found: set[ShardId] = set()
    _, topics = struct.unpack_from(">hi", assignment)
    at = struct.calcsize(">hi")
    for _ in range(topics):
        (length,) = struct.unpack_from(">h", assignment, at)
        at += 2 + length
        (count,) = struct.unpack_from(">i", assignment, at)
        found.update(struct.unpack_from(f">{count}i", assignment, at + 4))
        at += 4 + 4 * count
    return frozenset(found)
