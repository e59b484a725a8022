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
        assert clock.state == "ok"
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


# --- beside brokers


class Beside(Clocks):
    """With three brokers, whose clocks go `apart_s` from true time."""

    def __init__(self) -> None:
        super().__init__()
        self.true = self.wall
        self.apart_s = [0.0, 0.0, 0.0]

    def pass_s(self, seconds: float) -> None:
        super().pass_s(seconds)
        self.true += round(seconds * SECOND)

    def go_on(self, clock: Clock, seconds: int, took_s: float = 0.02) -> list[bool]:
        """Time passes with a commit of each shard each second: whether the watermark was held."""
        held = []
        for _ in range(seconds):
            self.pass_s(1)
            for shard, apart in enumerate(self.apart_s):
                middle = self.true - round(took_s / 2 * SECOND)
                clock.sample(shard, (middle + round(apart * SECOND)) // 1_000_000, round(took_s * SECOND))
            clock.now()
            held.append(clock.holding)
        return held


def test_brokers_that_agree_say_nothing() -> None:
    clocks = Beside()
    clock = clocks.clock()
    clocks.apart_s = [0.4, -1.2, 1.9]
    assert not any(clocks.go_on(clock, 60))
    assert clock.note == ""


def test_a_clock_apart_from_the_brokers_holds_for_30_s_and_wins_with_an_alarm() -> None:
    clocks = Beside()
    clock = clocks.clock()
    clocks.apart_s = [-5.0, -5.1, -4.9]
    held = clocks.go_on(clock, 40)
    assert held == [True] * 30 + [False] * 10
    assert clock.now() == clocks.wall // 1_000_000
    assert clock.state == "ok"
    assert clock.note.startswith("ALARM: the brokers' clock is -5.0 s")
    assert not any(clocks.go_on(clock, 300)), "it is not held again for the same thing"
    clocks.apart_s = [-60.0] * 3
    assert clocks.go_on(clock, 1) == [True], "but for another"


def test_while_it_holds_it_says_why() -> None:
    clocks = Beside()
    clock = clocks.clock()
    clocks.apart_s = [9.0] * 3
    clocks.go_on(clock, 1)
    assert clock.state == "the brokers' clock is +9.0 s from this one: nothing fires until it is believed"


def test_one_broker_of_three_that_is_wrong_holds_nothing() -> None:
    clocks = Beside()
    clock = clocks.clock()
    clocks.apart_s = [0.0, 3_600.0, 0.0]
    assert not any(clocks.go_on(clock, 60))


def test_an_alarm_ends_when_they_agree_again() -> None:
    clocks = Beside()
    clock = clocks.clock()
    clocks.apart_s = [7.0] * 3
    clocks.go_on(clock, 31)
    clocks.apart_s = [0.0] * 3
    assert clocks.go_on(clock, 2) == [False, False]
    assert "agree again" in clock.note


def test_a_jump_that_the_brokers_share_is_believed_at_once() -> None:
    """One machine: its brokers have the same wall clock."""
    clocks = Beside()
    clock = clocks.clock()
    clocks.go_on(clock, 5)
    for jump_s in (3_600, -3_600):
        clocks.wall += jump_s * SECOND
        clocks.true += jump_s * SECOND
        clock.now()
        assert clock.holding
        assert clocks.go_on(clock, 3) == [False] * 3
        assert clock.now() == clocks.wall // 1_000_000
        assert clock.note == f"the wall clock jumped by {jump_s:+.1f} s and the brokers agree: it is believed now"


def test_a_jump_that_the_brokers_do_not_share_is_passed_over_until_it_is_undone() -> None:
    """Wall clock + 1 h and back: the time before goes on, and nothing is held for longer than a sample takes."""
    clocks = Beside()
    clock = clocks.clock()
    clocks.go_on(clock, 5)
    clocks.wall += 3_600 * SECOND
    clock.now()
    assert clock.holding
    assert not any(clocks.go_on(clock, 120))
    assert clock.now() == clocks.true // 1_000_000
    assert clock.note.startswith("ALARM: the wall clock jumped by +3600.0 s and the brokers do not agree")
    clocks.wall -= 3_600 * SECOND
    assert not any(clocks.go_on(clock, 5))
    assert clock.now() == clocks.true // 1_000_000
    assert clock.moved == 0


def test_passed_over_the_brokers_correct_what_drifts() -> None:
    clocks = Beside()
    clock = clocks.clock()
    clocks.wall += 3_600 * SECOND
    clocks.go_on(clock, 2)
    for _ in range(10):
        clocks.true += SECOND // 2
        assert not any(clocks.go_on(clock, 10))
    assert abs(clock.now() - clocks.true // 1_000_000) <= 600


def test_a_jump_that_nobody_shares_is_believed_after_30_s() -> None:
    clocks = Beside()
    clock = clocks.clock()
    clocks.go_on(clock, 5)
    clocks.wall += 3_600 * SECOND
    clocks.apart_s = [100.0] * 3
    assert clocks.go_on(clock, 90) == [True] * 30 + [False] * 60
    assert clock.now() == clocks.wall // 1_000_000
    assert clock.note.startswith("ALARM")


def test_samples_from_before_a_jump_do_not_count() -> None:
    """The broker of one's own machine: what it said before says nothing of now."""
    clocks = Beside()
    clock = clocks.clock()
    clocks.go_on(clock, 5)
    clocks.wall += 3_600 * SECOND
    clock.now()
    clocks.pass_s(1)
    clock.now()
    assert clock.holding
