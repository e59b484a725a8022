"""The owner's clock and the real broker's: samples come from delivery reports; the wall clock goes an hour ahead and back."""

from __future__ import annotations

import asyncio
import time

import pytest

from dts import bounds
from dts.adapters.kafka.settings import KafkaSettings
from dts.adapters.kafka.store import KafkaStore
from dts.core.instance import Instance
from dts.model import Instant, ShardId
from dts.services.clock import Clock
from dts.services.scheduler import Scheduler
from dts.services.workers import WorkerHub
from tests.cluster.pumps import begun, job, log_of, publish
from tests.conformance.kafkaworld import fresh_settings

pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(180)]
HOUR_NS = 3_600 * 10**9


class Owner:
    """A Scheduler over Kafka whose wall clock is `ahead_ns` ahead of the broker's."""

    def __init__(self, settings: KafkaSettings, ahead_ns: int = 0) -> None:
        self.settings = settings
        self.ahead_ns = ahead_ns
        self.clock = Clock(lambda: time.time_ns() + self.ahead_ns)
        self.samples: list[tuple[ShardId, Instant, int]] = []

    async def __aenter__(self) -> Owner:
        self.store = await KafkaStore.open(self.settings, sampled=self._sampled)
        core = Instance(keep_alive_ms=bounds.IDLE_COMMIT_MS)
        self.scheduler = Scheduler(core, self.store.ledger, self.store.feed, WorkerHub(), self.clock, many=True)
        self.running = asyncio.create_task(self.scheduler.run())
        await self.until(lambda: any(not desk.fresh for desk in core.desks.values()))
        return self

    async def __aexit__(self, *error: object) -> None:
        self.scheduler.stop()
        await self.running
        await self.store.close()

    def _sampled(self, shard: ShardId, at: Instant, took_ns: int) -> None:
        self.samples.append((shard, at, took_ns))
        self.clock.sample(shard, at, took_ns)

    async def until(self, true: object, timeout_s: float = 60.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not true():  # type: ignore[operator]  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def fires(self, more: int = 2) -> None:
        """Until it has fired so often once more."""
        counts = self.scheduler.core.desks[0].shard.by_job.get("tick", {})
        count = len(counts)
        await self.until(lambda: len(self.scheduler.core.desks[0].shard.by_job.get("tick", {})) >= count + more)


async def test_the_brokers_time_is_told_with_each_quick_commit() -> None:
    settings = fresh_settings()
    async with Owner(settings) as owner:
        await publish(settings, job("tick", "@every 1s"))
        await owner.until(lambda: len(owner.samples) >= 5)
        for _, at, took_ns in owner.samples[-5:]:
            assert 0 < took_ns < 500_000_000
            assert abs(at - time.time_ns() // 1_000_000) < 15_000
        assert (owner.clock.state, owner.clock.note) == ("ok", "")


async def test_an_hour_ahead_and_back() -> None:
    """Nothing fires early, nothing is passed over, and the shard stands for no longer than a sample takes."""
    settings = fresh_settings()
    async with Owner(settings) as owner:
        await publish(settings, job("tick", "@every 1s"))
        await owner.fires()
        owner.ahead_ns = HOUR_NS
        held = time.monotonic()
        await owner.until(lambda: owner.clock.note.startswith("ALARM: the wall clock jumped by +3600"))
        await owner.fires()
        stood = time.monotonic() - held
        assert owner.clock.state == "ok"
        assert "ALARM" in "; ".join((await owner.scheduler.status())[2])
        owner.ahead_ns = 0
        await owner.fires()
        print(f"wall clock + 1 h: it fired again after {stood:.1f} s")
        assert stood < bounds.CLOCK_HOLD_MS / 1_000 / 2
    ticks = [key.at // 1_000 for key in begun(log_of(settings))]
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
    assert ticks[-1] <= time.time()


@pytest.mark.soak
async def test_a_clock_that_was_wrong_from_the_start_holds_for_30_s_and_wins_with_an_alarm() -> None:
    settings = fresh_settings()
    async with Owner(settings, ahead_ns=10 * 10**9) as owner:
        await owner.until(lambda: owner.clock.holding)
        begun_at = time.monotonic()
        _, state, _ = await owner.scheduler.status()
        assert state.startswith("the brokers' clock is -10.0 s")
        await owner.until(lambda: not owner.clock.holding)
        assert bounds.CLOCK_HOLD_MS / 1_000 - 2 < time.monotonic() - begun_at < bounds.CLOCK_HOLD_MS / 1_000 + 5
        assert owner.clock.note.startswith("ALARM")
