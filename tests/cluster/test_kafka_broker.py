"""A broker that stands still or dies during a commit: what became of it is told when it is known, and is what the log says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dts.adapters.kafka import settings as bounds
from dts.adapters.kafka.ledger import Owner
from dts.adapters.kafka.settings import KafkaSettings
from dts.adapters.kafka.topics import prepare
from dts.adapters.kafka.transactions import Transactions
from dts.errors import OwnershipLost
from dts.model import Commit, Key, Outcome, Status
from tests.cluster.owners import log_of
from tests.conformance.kafkaworld import fresh_settings
from tests.conformance.values import block, commit
from tests.servers import ROOT

# `servers`: this module needs Java as the others do; its broker is its own, because it is stopped.
pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(300), pytest.mark.soak]
SCRIPT = str(ROOT / "deploy/local/servers.py")


class Broker:
    """A broker of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = fresh_settings()._replace(brokers=self.up())

    def up(self) -> str:
        command = [sys.executable, SCRIPT, "up", str(self.folder), "--only", "kafka", "--free-ports"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return dict(line.split("=", 1) for line in done.stdout.split())["KAFKA_BROKERS"]

    def up_again(self) -> None:
        """Starts it when it has died."""
        pid = int((self.folder / "kafka.pid").read_text())
        while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.05)
        self.up()

    def signal(self, number: int) -> None:
        os.kill(int((self.folder / "kafka.pid").read_text()), number)

    def down(self) -> None:
        self.signal(signal.SIGCONT)
        subprocess.run([sys.executable, SCRIPT, "down", str(self.folder)], check=True, timeout=120)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"))
    yield made
    made.down()


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    made = fresh_settings()._replace(brokers=broker.settings.brokers)
    prepare(made)
    return made


def owner_of(settings: KafkaSettings, point: str = "", number: int = 0, broker: Broker | None = None) -> Owner:
    """A new owner; its next commit signals the broker at a point, once."""
    left = [number] if point else []

    def probe(at: str, transactions: Transactions) -> None:
        del transactions
        if at == point and left:
            assert broker is not None
            broker.signal(left.pop())

    owner = Owner(settings, 0, probe)
    owner.take_over(0)
    owner.transactions.wait_s = 0.5 if point else 5.0
    return owner


def one(owner: Owner) -> Commit:
    """Its next commit."""
    seq = owner.seq + 1
    return commit(owner.epoch, seq, blocks=[block([Key("a", seq)], Status.QUEUED)])


def end(owner: Owner, what: Commit) -> Outcome | None:
    """What became of a commit; None: only a new owner can tell."""
    try:
        outcome = owner.commit(what)
        return owner.resolve(what) if outcome is Outcome.UNKNOWN else outcome
    except OwnershipLost:
        return None


def later(delay_s: float, broker: Broker) -> threading.Timer:
    timer = threading.Timer(delay_s, broker.signal, [signal.SIGCONT])
    timer.start()
    return timer


def test_stopped_before_the_commit_was_answered(broker: Broker, settings: KafkaSettings) -> None:
    assert owner_of(settings).commit(commit(1, 1)) is Outcome.COMMITTED
    owner = owner_of(settings, "produced", signal.SIGSTOP, broker)
    two = one(owner)
    assert owner.commit(two) is Outcome.UNKNOWN
    timer = later(1, broker)
    assert owner.resolve(two) is Outcome.COMMITTED
    timer.join()
    assert [each.seq for each in log_of(settings).commits] == [1, 2]
    owner.transactions.wait_s = 5.0
    assert owner.commit(one(owner)) is Outcome.COMMITTED


def test_stopped_for_longer_than_a_record_may_wait(
    broker: Broker, settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not written in time is given up: refused, or left to the next owner's fold, but never told as committed."""
    assert owner_of(settings).commit(commit(1, 1)) is Outcome.COMMITTED
    monkeypatch.setattr(bounds, "DELIVERY_TIMEOUT_MS", 1_000)
    owner = owner_of(settings, "begun", signal.SIGSTOP, broker)
    timer = later(4, broker)
    outcome = end(owner, one(owner))
    timer.join()
    assert outcome in (Outcome.REFUSED, None)  # None: the broker took the abort's repeat amiss; the log decides
    assert [each.seq for each in log_of(settings).commits] == [1]
    monkeypatch.undo()
    again = owner_of(settings)
    assert again.commit(one(again)) is Outcome.COMMITTED
    assert [each.seq for each in log_of(settings).commits] == [1, 2]


@pytest.mark.parametrize("point", ["begun", "produced", "committed"])
def test_killed_during_a_commit(broker: Broker, settings: KafkaSettings, point: str) -> None:
    for _ in range(2):
        owner = owner_of(settings, point, signal.SIGKILL, broker)
        two = one(owner)
        restart = threading.Thread(target=broker.up_again)
        restart.start()
        outcome = end(owner, two)
        restart.join()
        there = [each.seq for each in log_of(settings).commits]
        assert there == list(range(1, len(there) + 1))
        if outcome is not None:
            assert (len(there) == two.seq) is (outcome is Outcome.COMMITTED)
        again = owner_of(settings)
        assert again.commit(one(again)) is Outcome.COMMITTED
