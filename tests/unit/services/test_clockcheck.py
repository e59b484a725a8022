"""Changes are refused while the service's clock is wrong."""

from __future__ import annotations

import pytest

from dts import bounds
from dts.adapters.memory import MemoryStore
from dts.errors import Unavailable
from dts.services.clockcheck import ClockCheck
from dts.services.jobs import JobService
from dts.services.publication import Publication
from tests.unit.services.test_jobs import NOW, Owner, renamed, revision


class Clocks:
    """The store's, which is right, and ours: `ahead` ms. A question takes `took` ms."""

    def __init__(self) -> None:
        self.ahead = 0
        self.took = 2
        self.ns = 1_000_000_000
        self.down = False

    async def apart(self) -> int:
        if self.down:
            raise Unavailable("no node")
        self.ns += self.took * 1_000_000
        return self.ahead

    def steady(self) -> int:
        return self.ns

    def check(self) -> ClockCheck:
        return ClockCheck(self.apart, lambda: NOW, self.steady)


@pytest.mark.parametrize("ahead", [300_000, -300_000, 2_002, -2_002])
async def test_creates_and_changes_are_refused_with_both_times(ahead: int) -> None:
    clocks, store = Clocks(), MemoryStore()
    check = clocks.check()
    jobs = JobService(
        store.jobs,
        store.feed,
        Owner(),  # type: ignore[arg-type]
        store.history,
        lambda: NOW,
        Publication(store.feed, lambda: NOW, refusals=[check.check]),
    )
    await check.sample()
    await jobs.create([revision("a", "0")])
    clocks.ahead = ahead
    await check.sample()
    with pytest.raises(Unavailable, match=r"clock says 2027-01-15.*the job store's 20.*2 s apart"):
        await jobs.create([revision("b")])
    with pytest.raises(Unavailable, match="apart"):
        await jobs.change([renamed("1")])
    assert set(await store.jobs.get(["a", "b"])) == {"a"}
    clocks.ahead = 1_999
    await check.sample()
    await jobs.change([renamed("1")])


async def test_what_a_slow_answer_leaves_open_is_no_reason() -> None:
    clocks = Clocks()
    check = clocks.check()
    clocks.ahead, clocks.took = 2_400, 1_000
    await check.sample()
    assert not check.trouble()
    clocks.took = 600
    await check.sample()
    assert check.trouble()
    clocks.ahead, clocks.took = 0, 10_000
    await check.sample()
    assert check.trouble()


async def test_no_comparison_and_an_old_one_say_nothing() -> None:
    clocks = Clocks()
    check = clocks.check()
    with pytest.raises(Unavailable, match="cannot be compared"):
        check.check()
    await check.sample()
    check.check()
    clocks.down = True
    with pytest.raises(Unavailable, match="no node"):
        await check.sample()
    check.check()
    clocks.ns += (bounds.CLOCK_SAMPLE_OLD_MS + 1) * 1_000_000
    with pytest.raises(Unavailable, match="cannot be compared"):
        check.check()
