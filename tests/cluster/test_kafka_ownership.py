"""Who may write to a shard's log: owners are stopped, killed and overtaken at each point of a transaction.

Whatever happens, the log holds each commit once, in order, from the owner of its time (`fold` refuses anything else).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dts.adapters.commitcodec import commit_out
from dts.adapters.kafka.ledger import Owner, _records
from dts.adapters.kafka.settings import KafkaSettings
from dts.adapters.kafka.topics import prepare
from dts.adapters.kafka.transactions import Transactions, no_probe
from dts.errors import Bug, OwnershipLost
from tests.cluster.owners import log_of, owners
from tests.conformance.kafkaworld import fresh_settings
from tests.conformance.values import commit

pytestmark = pytest.mark.usefixtures("servers")


@pytest.fixture
def settings() -> KafkaSettings:
    made = fresh_settings()
    prepare(made)
    return made


def order(settings: KafkaSettings) -> list[tuple[int, int]]:
    """(epoch, seq) of the log's commits."""
    return [(each.epoch, each.seq) for each in log_of(settings).commits]


@pytest.mark.parametrize("point", ["begun", "produced"])
def test_an_owner_killed_inside_its_transaction_leaves_nothing(settings: KafkaSettings, point: str) -> None:
    with owners(settings, 2) as (first, second):
        assert first.ask("open") == "owner 1 []"
        assert first.ask("commit 1") == "COMMITTED"
        assert first.ask(f"halt {point}", "commit 2") == f"at {point}"
        first.kill()
        assert second.ask("open") == "owner 2 [1]"
        assert second.ask("commit 2") == "COMMITTED"
        assert order(settings) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("point", ["begun", "produced"])
def test_an_owner_stopped_inside_its_transaction_is_fenced(settings: KafkaSettings, point: str) -> None:
    with owners(settings, 2) as (first, second):
        first.ask("open")
        assert first.ask(f"halt {point}", "commit 1") == f"at {point}"
        first.stop()
        assert second.ask("open") == "owner 1 []"
        assert second.ask("commit 1") == "COMMITTED"
        first.order("go")
        first.go_on()
        assert first.answer() == "LOST"
        assert first.ask("commit 1") == "LOST"
        assert second.ask("commit 2") == "COMMITTED"
        assert [each.seq for each in log_of(settings).commits] == [1, 2]


def test_an_owner_killed_after_its_commit_was_committed(settings: KafkaSettings) -> None:
    with owners(settings, 2) as (first, second):
        first.ask("open")
        assert first.ask("halt committed", "commit 1") == "at committed"
        first.kill()
        assert second.ask("open") == "owner 2 [1]"
        assert second.ask("commit 2") == "COMMITTED"


def test_a_fenced_owner_with_nothing_to_say_hears_it(settings: KafkaSettings) -> None:
    """A keep-alive is a record: an empty transaction of a fenced producer would be answered with success."""
    with owners(settings, 2) as (first, second):
        first.ask("open")
        assert first.ask("beat 1") == "COMMITTED"
        second.ask("open")
        assert first.ask("beat 2") == "LOST"


def test_a_transaction_without_a_record_is_a_bug(settings: KafkaSettings) -> None:
    mine, other = Transactions(settings, 0), Transactions(settings, 0)
    mine.initialise()
    other.initialise()
    with pytest.raises(Bug, match="without a record"):
        mine.commit([], [])
    mine.producer.begin_transaction()
    mine.producer.commit_transaction(30)  # what the rule is for: this says nothing of the fence
    with pytest.raises(OwnershipLost):
        mine.commit([b"record"], [])


def test_two_take_overs_the_second_owner_killed_in_its_first_transaction(settings: KafkaSettings) -> None:
    with owners(settings, 3) as (first, second, third):
        first.ask("open")
        assert first.ask("commit 1") == "COMMITTED"
        assert first.ask("halt produced", "commit 2") == "at produced"
        first.stop()
        assert second.ask("open") == "owner 2 [1]"
        assert second.ask("halt produced", "commit 2") == "at produced"
        second.kill()
        assert third.ask("open") == "owner 2 [1]"
        assert third.ask("commit 2") == "COMMITTED"
        first.order("go")
        first.go_on()
        assert first.answer() == "LOST"
        assert third.ask("commit 3") == "COMMITTED"
        assert order(settings) == [(1, 1), (2, 2), (2, 3)]


def test_a_late_initialiser_reads_what_was_committed_before_it_fenced(settings: KafkaSettings) -> None:
    """It was to take over, stood still, and wakes after another has: it becomes the owner, and knows what that one did."""
    with owners(settings, 2) as (late, other):
        other.ask("open")
        assert other.ask("commit 1") == "COMMITTED"
        assert late.ask("open") == "owner 2 [1]"
        assert other.ask("commit 2") == "LOST"
        assert late.ask("commit 2") == "COMMITTED"
        assert order(settings) == [(1, 1), (2, 2)]


def test_overtaken_while_it_took_over(settings: KafkaSettings) -> None:
    """It fenced, then stood still; another fenced it and went on. What it folds then is too new, but it cannot write."""
    with owners(settings, 2) as (late, other):
        assert late.ask("halt initialised", "open") == "at initialised"
        late.stop()
        assert other.ask("open") == "owner 1 []"
        assert other.ask("commit 1") == "COMMITTED"
        late.order("go")
        late.go_on()
        assert late.answer() == "owner 2 [1]"
        assert late.ask("commit 2") == "LOST"
        assert other.ask("commit 2") == "COMMITTED"
        assert order(settings) == [(1, 1), (1, 2)]


def test_the_second_commit_of_a_number_is_refused_before_it_is_written(settings: KafkaSettings) -> None:
    owner = Owner(settings, 0, no_probe)
    owner.take_over(0)
    owner.commit(commit(owner.epoch, 1))
    for seq in (1, 3):
        with pytest.raises(Bug):
            owner.commit(commit(owner.epoch, seq))
    assert order(settings) == [(1, 1)]


def test_a_fold_waits_until_nothing_in_the_log_is_undecided(settings: KafkaSettings) -> None:
    """What is committed after the fold would be missing from it, whoever wrote it."""
    stranger = Transactions(settings._replace(cluster=f"{settings.cluster}-x"), 0)
    stranger.initialise()
    whole = commit_out(commit(1, 1))
    stranger.producer.begin_transaction()
    stranger.producer.produce(settings.topics.log, next(_records(commit(1, 1), whole)), partition=0)
    assert stranger.producer.flush(30) == 0
    with ThreadPoolExecutor(1) as pool:
        folding = pool.submit(log_of, settings)
        with pytest.raises(TimeoutError):
            folding.result(0.5)
        stranger.producer.commit_transaction(30)
        assert [each.seq for each in folding.result(30).commits] == [1]
