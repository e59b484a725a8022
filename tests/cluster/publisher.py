"""A Job Service in a process of its own that dies at a point: `create JOB`, `change JOB`, `both JOB JOB`; argument: a point, or ''.

It says `at POINT` and stands still there: whoever waits for that kills it. `done`: the change was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import NamedTuple
from uuid import uuid4

from dts.adapters.cassandra import CassandraStore
from dts.adapters.kafka.feed import KafkaFeed
from dts.adapters.kafka.settings import KafkaSettings, Topics
from dts.services.publication import Promise, Publication, Publisher
from tests.conformance.values import revision


def now() -> int:
    return time.time_ns() // 1_000_000


class Where(NamedTuple):
    """Where its servers are."""

    kafka: KafkaSettings
    hosts: list[str]
    port: int
    keyspace: str

    def out(self) -> str:
        """As an argument."""
        return json.dumps([self.kafka._asdict(), self.hosts, self.port, self.keyspace])


def where(text: str) -> Where:
    """From an argument."""
    kafka, hosts, port, keyspace = json.loads(text)
    return Where(KafkaSettings(**{**kafka, "topics": Topics(*kafka["topics"])}), hosts, port, keyspace)


async def serve(given: Where, point: str) -> None:
    store = await CassandraStore.open(given.hosts, given.port, given.keyspace)
    feed = KafkaFeed(given.kafka, 1)

    def probe(passed: str) -> None:
        if passed == point:
            print(f"at {point}", flush=True)
            time.sleep(3_600)  # killed meanwhile

    promise = Promise(store.intents, Publisher(store.jobs, feed), uuid4().hex)
    publication = Publication(feed, now, promise, probe=probe)
    print("ready", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).split():
        match line:
            case ["create", *jobs]:
                await publication.make([revision(job, since=now(), request="f") for job in jobs], store.jobs.create)
            case ["change", *jobs]:
                await publication.make([revision(job, 2, since=now()) for job in jobs], store.jobs.change)
        print("done", flush=True)
    await publication.close()
    await feed.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(serve(where(sys.argv[1]), sys.argv[2]))
