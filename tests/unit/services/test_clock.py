"""The clock believes small corrections at once, a jump only after a while, and never counts a jump as elapsed time."""

from __future__ import annotations

from dts import bounds
from dts.services.clock import Clock

SECOND = 1_000_000_000


class Clocks:
    """Two clocks moved by hand (ns)."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000 * SECOND
        self.steady = 5 * SECOND

    def pass_s(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        self.steady += round(seconds * SECOND)

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.steady)


def test_time_passes() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    began = clock.now()
    clocks.pass_s(3)
    assert clock.now() == began + 3_000
    assert clock.state == "ok"


def test_a_small_correction_is_followed() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    began = clock.now()
    clocks.wall += SECOND
    assert clock.now() == began + 1_000
    assert not clock.holding
    assert clock.moved == 1_000, "elapsed time is not what `now` differs by: timed leases last as long as they did"


def test_a_jump_holds_and_is_believed_in_the_end() -> None:
    for jump_s in (3_600, -3_600):
        clocks = Clocks()
        clock = clocks.clock()
        began = clock.now()
        clocks.wall += jump_s * SECOND
        assert clock.now() == began
        assert clock.holding
        assert "jumped" in clock.state
        clocks.pass_s(bounds.CLOCK_HOLD_MS / 1000 - 1)
        assert clock.now() == began + bounds.CLOCK_HOLD_MS - 1_000
        assert clock.holding
        clocks.pass_s(1)
        assert clock.now() == began + bounds.CLOCK_HOLD_MS + jump_s * 1_000
        assert not clock.holding
        assert clock.moved == jump_s * 1_000


def test_a_jump_that_goes_back_is_forgotten() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    began = clock.now()
    clocks.wall += 60 * SECOND
    clock.now()
    assert clock.holding
    clocks.wall -= 60 * SECOND
    assert clock.now() == began
    assert not clock.holding


def test_a_stopped_process_is_no_jump() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    began = clock.now()
    clocks.pass_s(20)
    assert clock.now() == began + 20_000
    assert not clock.holding
