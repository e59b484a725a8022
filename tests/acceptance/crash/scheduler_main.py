"""`dts scheduler-service`, but USR1 makes it die (KILL) inside its next transaction: after the records, before the commit."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

from dts.adapters.kafka.store import KafkaStore
from dts.adapters.kafka.transactions import Transactions
from dts.config import load
from dts.server.schedulerservice import serve_scheduler

armed = False


def arm(*_: object) -> None:
    global armed
    armed = True


def probe(point: str, transactions: Transactions) -> None:
    if armed and point == "produced":
        transactions.producer.flush(1.0)  # the broker has them
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, arm)
    KafkaStore.open = partial(KafkaStore.open, probe=probe)  # type: ignore[method-assign]
    sys.exit(serve_scheduler(load(os.environ, Path(".env"))))
