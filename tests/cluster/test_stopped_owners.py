"""Scheduler processes over a real Kafka, stopped (SIGSTOP) at each step of a take-over and of a commit, overtaken, and woken.

Whatever happens: the log is in order (its fold refuses anything else), each due instant has one execution, and no attempt
is placed twice.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from dts import bounds
from dts.adapters.kafka.settings import KafkaSettings
from dts.adapters.kafka.topics import prepare
from dts.model import Block, Demand, Key, Lease, Status, WorkerRef
from dts.worker.attempts import OneEach
from dts.worker.leases import Leases
from tests.cluster.pumps import begun, job, log_of, placements, publish, pumps, seconds
from tests.conformance.kafkaworld import fresh_settings

REF = WorkerRef("w", "1")  # the worker of tests/cluster/pump.py
pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(120)]

SHORT = ["initialised", "folded"]  # the others are the same code at other points: `make soak`
LONG = ["opening", "installed", "begun", "produced", "committed", "acting", "following"]
TAKE_OVER = [*SHORT, *(pytest.param(each, marks=pytest.mark.soak) for each in LONG)]
COMMIT = ["acting", *(pytest.param(each, marks=pytest.mark.soak) for each in ("begun", "produced", "committed"))]


@pytest.fixture
def settings() -> KafkaSettings:
    made = fresh_settings()
    prepare(made)
    return made


def check(settings: KafkaSettings) -> None:
    """Of job `tick` (each second): no second is missing, none is there twice, no attempt was placed twice."""
    commits = log_of(settings)
    ticks = seconds("tick", begun(commits))
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
    assert len(ticks) >= 3
    placed = placements(commits)
    assert len(set(placed)) == len(placed)


def fires_until_now(status: dict[str, dict[str, dict[str, int]]]) -> bool:
    """It owns the shard, is up to date and has some fires behind it."""
    recent = time.time_ns() // 1_000_000 - 2_000
    return any(each["watermark"] >= recent and each["queued"] >= 3 for each in status["shards"].values())


@pytest.mark.parametrize("point", TAKE_OVER)
def test_stopped_inside_a_step_of_its_take_over(settings: KafkaSettings, point: str) -> None:
    """The former owner is killed; the next one stops while it takes over; a third one does; then the second one wakes."""
    asyncio.run(publish(settings, job("tick", "@every 1s")))
    with pumps(settings, 2) as (late, other):
        late.order(f"halt {point}")
        assert late.ask("give 0", "at ") == f"at {point}"
        other.ask("give 0", "owns 0")
        other.until("it fires", fires_until_now)
        late.order("give")
        late.go_on()
        assert late.until("it let go", lambda status: not status["shards"])
        other.until("it fires again, perhaps taken over anew", fires_until_now)
        check(settings)


@pytest.mark.parametrize("point", COMMIT)
def test_stopped_inside_a_commit_and_overtaken(settings: KafkaSettings, point: str) -> None:
    """It wakes and is still told that it owns the shard: it finds out that it does not, and the group has the last word."""
    with pumps(settings, 2) as (first, other):
        first.ask("give 0", "owns 0")
        asyncio.run(publish(settings, job("tick", "@every 1s")))
        first.until("it fires", lambda s: s["shards"]["0"]["queued"] >= 1)
        first.order(f"halt {point}")
        assert first.wait_for("at ") == f"at {point}"
        other.ask("give 0", "owns 0")
        other.until("it fires", fires_until_now)
        first.order("give")
        first.go_on()
        first.until("it let go", lambda status: not status["shards"])
        other.until("it fires", fires_until_now)
        check(settings)


def test_a_fenced_owner_with_nothing_to_say_hears_it_by_its_keep_alive(settings: KafkaSettings) -> None:
    """Nothing is due, no one asks: within its keep-alive's time it knows, and takes the shard anew only while it is given."""
    with pumps(settings, 2, keep_alive_ms=500) as (first, other):
        first.ask("give 0", "owns 0 1")
        assert other.ask("give 0", "owns 0") == "owns 0 2"
        other.order("give")
        other.until("it let go", lambda status: not status["shards"])
        begun_at = time.monotonic()
        assert first.wait_for("owns 0", 5) == "owns 0 3"
        assert time.monotonic() - begun_at < 5


def test_two_that_are_both_told_that_they_own_it_take_turns_more_and_more_slowly(settings: KafkaSettings) -> None:
    """No split brain whatever the group says: each take-over fences the other one, and the pauses grow."""
    asyncio.run(publish(settings, job("tick", "@every 1s")))
    with pumps(settings, 2) as (first, other):
        first.ask("give 0", "owns 0 1")
        other.ask("give 0", "owns 0")
        note = first.until("it says so", lambda s: any("fought over" in each for each in s["notes"]), 30)["notes"]
        assert any("shard 0 is fought over: fenced" in each for each in note)
        other.order("give")
        first.until("one has it in the end", fires_until_now, 30)
        check(settings)


def test_stopped_between_its_commit_and_the_dispatch(settings: KafkaSettings) -> None:
    """The worker reports to the next owner meanwhile, which is a promise: what the old one sends when it wakes is refused."""
    reported = Leases(REF, Demand(slots=10), 0, True, OneEach())
    reported.attach(1, bounds.LEASE_MS)
    reported.attach(2, bounds.LEASE_MS)
    with pumps(settings, 2) as (first, other):
        first.ask("give 0", "owns 0 1")
        first.order("worker 1")
        reported.ask(1, 0, 1, 0)
        first.order("halt dispatching")
        asyncio.run(publish(settings, job("once", f"@at {instant(1_500)}")))
        assert first.wait_for("at ") == "at dispatching"
        assert placements(log_of(settings))[0][1] == 1
        assert not first.leases, "it was stopped before the dispatch"
        other.ask("give 0", "owns 0 2")
        reported.ask(2, 0, 2, 1)  # its second report
        other.order("worker 2")
        again = lease_of(other.wait_for("lease once@"))
        assert (again.attempt, again.report) == (2, (2, 2))
        first.order("give")
        first.go_on()
        late = lease_of(first.wait_for("lease once@"))
        assert (late.attempt, late.report) == (1, (1, 1))
        reported.lease(0, Lease(late, [b""]), 2)
        assert (reported.refused, list(reported.held())) == (1, [])
        reported.lease(0, Lease(again, [b""]), 3)
        assert [each.id.attempt for each in reported.held()] == [2]


def instant(ms: int) -> str:
    """So many ms from now, as @at wants it."""
    return datetime.fromtimestamp(time.time() + ms / 1_000, UTC).isoformat(timespec="milliseconds")


def lease_of(said: str) -> Block:
    _, key, attempt, epoch, number, fencing = said.split()
    name, at = key.split("@")
    moment = datetime.strptime(at, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    return Block(
        [Key(name, round(moment.timestamp() * 1_000))],
        [1],
        Demand(),
        Status.PLACED,
        attempt=int(attempt),
        worker=REF,
        report=(int(epoch), int(number)),
        fencing=int(fencing),
    )
