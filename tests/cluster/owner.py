"""A process that owns a shard, step by step: reads orders, a line each, and says what came of them.

Orders: `open`; `commit SEQ` and `beat SEQ` (nothing in it); `resolve SEQ`; `halt POINT` (then it says `at POINT` when it
passes there and waits for the order `go`). Points: those of a transaction, and `initialised`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

from dts.adapters.kafka.ledger import Owner
from dts.adapters.kafka.settings import KafkaSettings, Topics
from dts.adapters.kafka.store import KafkaStore
from dts.adapters.kafka.transactions import Transactions
from dts.errors import OwnershipLost
from dts.model import Key, Status
from tests.conformance.values import block, commit

halts: set[str] = set()


def say(what: str) -> None:
    print(what, flush=True)


def pass_by(point: str) -> None:
    if point in halts:
        halts.discard(point)
        say(f"at {point}")
        assert sys.stdin.readline().strip() == "go"


def probe(point: str, transactions: Transactions) -> None:
    if point == "produced" and point in halts:
        assert transactions.producer.flush(30) == 0  # the records are in the log, undecided
    pass_by(point)


class Halting(Transactions):
    """Passes by after it has fenced."""

    def initialise(self) -> None:
        super().initialise()
        pass_by("initialised")


async def serve(settings: KafkaSettings) -> None:
    store = await KafkaStore.open(settings, probe)
    epoch = 0
    say("ready")
    while line := (await asyncio.to_thread(sys.stdin.readline)).split():
        try:
            match line:
                case ["halt", point]:
                    halts.add(point)
                    continue
                case ["open"]:
                    epoch, stored = await store.ledger.open(0)
                    say(f"owner {epoch} {[each.seq async for each in stored]}")
                case ["commit", seq]:
                    blocks = [block([Key("a", int(seq))], Status.QUEUED)]
                    outcome = await store.ledger.commit(commit(epoch, int(seq), blocks=blocks))
                    say(outcome.name)
                case ["beat", seq]:
                    say((await store.ledger.commit(commit(epoch, int(seq)))).name)
                case ["resolve", seq]:
                    say((await store.ledger.resolve(commit(epoch, int(seq)))).name)
        except OwnershipLost:
            say("LOST")
    await store.close()


if __name__ == "__main__":
    logging.getLogger("dts.kafka").setLevel(logging.CRITICAL + 1)
    given = json.loads(sys.argv[1])
    Owner.transactions_class = Halting
    asyncio.run(serve(KafkaSettings(**{**given, "topics": Topics(*given["topics"])})))
