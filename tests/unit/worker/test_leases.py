"""The lease protocol's rules on the worker's side, on the pure object, with a clock that the test moves."""

from __future__ import annotations

from dts.bounds import BEATS_PER_LEASE, LEASE_MESSAGE_KEYS
from dts.model import Block, Demand, End, Held, Key, Lease, Report, Status, WorkerRef
from dts.worker.attempts import Attempt, OneEach, Skip, Start, Started, State, Stop
from dts.worker.leases import Leases

REF = WorkerRef("w", "i")
SLOT = Demand()
L = 60_000


class Batches(OneEach):
    """A room that takes three at once."""

    def claim(self, kind: str) -> int:
        return 3


def worker(slots: int = 2, backlog: int = 10, timed: bool = True, rooms: OneEach | None = None, **total: int) -> Leases:
    leases = Leases(REF, Demand(slots=slots, **total), backlog, timed, rooms or OneEach())
    leases.attach(1, L)
    leases.ask(1, 0, 1, 0)
    report = leases.take_messages()[0].message
    assert isinstance(report, Report)
    assert (report.full, report.epoch, report.number) == (True, 1, 1)
    return leases


def lease(
    *jobs: str, report: tuple[int, int] = (1, 1), fencing: int = 1, demand: Demand = SLOT, attempt: int = 1
) -> Lease:
    keys = [Key(job, 1_000) for job in jobs]
    block = Block(keys, [1] * len(keys), demand, Status.PLACED, attempt, report=report, fencing=fencing)
    return Lease(block, [b"body"] * len(keys))


def starts(leases: Leases) -> list[Attempt]:
    return [each for action in leases.take_actions() if isinstance(action, Start) for each in action.attempts]


def stops(leases: Leases) -> list[tuple[str, int | None]]:
    return [(each.attempt.key.job, each.within) for each in leases.take_actions() if isinstance(each, Stop)]


def reports(leases: Leases) -> list[Report]:
    return [up.message for up in leases.take_messages() if isinstance(up.message, Report)]


def ends(leases: Leases) -> list[tuple[str, Status]]:
    return [(key.job, block.status) for report in reports(leases) for block in report.ended for key in block.keys]


def finish(leases: Leases, *attempts: Attempt, now: int = 0, status: Status = Status.COMPLETED) -> None:
    leases.ended([(each, status, End(started=5, ended=6)) for each in attempts], now)


def test_starts_up_to_its_slots_and_the_rest_waits() -> None:
    leases = worker(slots=2)
    leases.lease(0, lease("a", "b", "c"), 0)
    a, b = starts(leases)
    assert [a.key.job, b.key.job] == ["a", "b"]
    finish(leases, a)
    assert [each.key.job for each in starts(leases)] == ["c"]
    assert ends(leases) == [("a", Status.COMPLETED)]


def test_refuses_what_does_not_echo_its_last_report() -> None:
    leases = worker()
    leases.ask(1, 0, 2, 10)
    leases.lease(0, lease("a", report=(1, 1)), 20)
    leases.lease(0, lease("b", report=(2, 1)), 20)
    assert starts(leases) == []
    leases.lease(0, lease("c", report=(2, 2)), 20)
    assert [each.key.job for each in starts(leases)] == ["c"]
    assert leases.refused == 2


def test_a_promise_is_not_taken_back() -> None:
    leases = worker()
    leases.ask(1, 0, 5, 10)
    leases.take_messages()
    leases.ask(1, 0, 4, 20)
    assert leases.take_messages() == []
    leases.lease(0, lease("a", report=(5, 2)), 20)
    leases.take_actions()
    leases.cancel(0, 4, [(Held(Key("a", 1_000), 1), "old owner")], 30)
    assert stops(leases) == []


def test_a_lease_that_comes_twice_runs_once_even_after_its_end_is_acknowledged() -> None:
    leases = worker()
    leases.lease(0, lease("a"), 0)
    (a,) = starts(leases)
    leases.lease(0, lease("a"), 0)
    finish(leases, a)
    leases.lease(0, lease("a"), 0)
    leases.ack(0, [a.id])
    leases.lease(0, lease("a"), 0)
    leases.lease(0, lease("b", fencing=2), 0)
    leases.lease(0, lease("c", fencing=1), 0)
    assert [each.key.job for each in starts(leases)] == ["b"]


def test_ends_are_told_again_until_acknowledged() -> None:
    leases = worker()
    leases.lease(0, lease("a"), 0)
    (a,) = starts(leases)
    leases.detach(1)
    finish(leases, a)
    assert leases.take_messages() == []
    leases.attach(2, L)
    leases.ask(2, 0, 2, 100)
    (report,) = reports(leases)
    assert report.full
    assert not report.held
    assert [block.status for block in report.ended] == [Status.COMPLETED]
    leases.ask(2, 0, 2, 200)
    assert ends(leases) == [("a", Status.COMPLETED)]
    leases.ack(0, [a.id])
    leases.ask(2, 0, 2, 300)
    assert ends(leases) == []
    assert leases.idle


def test_a_long_list_of_ends_is_split_and_what_follows_is_listed_as_held() -> None:
    size = 3 * LEASE_MESSAGE_KEYS
    leases = worker(slots=size)
    leases.lease(0, lease(*(f"j{each}" for each in range(size))), 0)
    finish(leases, *starts(leases))
    assert [len(report.ended[0].keys) for report in reports(leases)] == [LEASE_MESSAGE_KEYS] * 3
    leases.ask(1, 0, 1, 10)
    full, *rest = reports(leases)
    assert full.full
    assert len(full.held) == 2 * LEASE_MESSAGE_KEYS
    assert len(full.ended[0].keys) == LEASE_MESSAGE_KEYS
    assert {Held(key, 1) for report in rest for key in report.ended[0].keys} == set(full.held)


def test_what_finds_no_room_is_handed_back_at_once_and_not_started() -> None:
    leases = worker(slots=4, cpu=1_000)
    big = Demand(cpu=600)
    leases.lease(0, lease("a", "b", demand=big), 0)
    (a,) = starts(leases)
    assert ends(leases) == [("b", Status.QUEUED)]
    finish(leases, a)
    leases.lease(0, lease("c", demand=big, fencing=2), 0)
    assert [each.key.job for each in starts(leases)] == ["c"]


def test_what_waits_for_a_slot_and_needs_more_is_not_passed() -> None:
    leases = worker(slots=1, cpu=1_000)
    leases.lease(0, lease("s"), 0)
    (s,) = starts(leases)
    leases.lease(0, lease("a", demand=Demand(cpu=600), fencing=2), 0)
    leases.lease(0, lease("c", fencing=3), 0)
    assert starts(leases) == []
    finish(leases, s)
    (a,) = starts(leases)
    assert a.key.job == "a"
    finish(leases, a)
    assert [each.key.job for each in starts(leases)] == ["c"]


def test_a_drained_worker_hands_back_what_waits_and_lets_what_runs_finish() -> None:
    leases = worker(slots=1)
    leases.lease(0, lease("a", "b"), 0)
    (a,) = starts(leases)
    leases.started(a, 5)
    leases.cordon(True, True, 0, 10)
    leases.lease(0, lease("c", fencing=2), 20)
    assert sorted(ends(leases)) == [("b", Status.QUEUED), ("c", Status.QUEUED)]
    assert stops(leases) == []
    assert not leases.idle
    finish(leases, a)
    assert ends(leases) == [("a", Status.COMPLETED)]
    leases.cordon(False, False, 0, 30)
    leases.lease(0, lease("d", fencing=3), 40)
    assert [each.key.job for each in starts(leases)] == ["d"]


def test_a_drain_with_a_grace_time_ends_what_still_runs_and_hands_it_back() -> None:
    leases = worker(slots=2)
    leases.lease(0, lease("a"), 0)
    (a,) = starts(leases)
    leases.started(a, 5)
    leases.cordon(True, True, 1_000, 10)
    assert (leases.wake_at() or 0) <= 1_010  # a beat may be due before
    leases.tick(1_009)
    assert stops(leases) == []
    leases.tick(1_010)
    assert stops(leases) == [("a", None)]
    finish(leases, a, now=1_020, status=Status.CANCELLED)
    assert ends(leases) == [("a", Status.QUEUED)]


def test_a_cordoned_worker_runs_what_it_has() -> None:
    leases = worker(slots=1)
    leases.lease(0, lease("a", "b"), 0)
    (a,) = starts(leases)
    leases.cordon(True, False, 0, 10)
    finish(leases, a)
    assert [each.key.job for each in starts(leases)] == ["b"]
    assert leases.cordoned


def test_what_is_held_counts_for_the_stream_of_the_owner_now() -> None:
    leases = worker(slots=3, cpu=1_000)
    leases.attach(2, L)
    leases.ask(2, 1, 7, 0)
    leases.lease(0, lease("a", "b"), 0)
    leases.lease(1, lease("c", report=(7, 1), demand=Demand(cpu=600)), 0)
    assert len(starts(leases)) == 3
    assert {stream: (use.taken[0], use.taken[3], use.pinned) for stream, use in leases.uses().items()} == {
        1: (0, 2, 2),
        2: (600, 1, 1),
    }
    leases.ask(1, 1, 8, 10)  # shard 1 moves to the owner behind stream 1
    leases.detach(1)
    assert {stream: use.taken[3] for stream, use in leases.uses().items()} == {None: 3}


def test_each_stream_gets_its_own_messages() -> None:
    leases = worker()
    leases.attach(2, L)
    leases.ask(2, 1, 1, 0)
    leases.lease(0, lease("a"), 0)
    leases.lease(1, lease("b"), 0)
    assert [up.stream for up in leases.take_messages(2)] == [2]
    finish(leases, *starts(leases))
    (up,) = leases.take_messages(1)
    assert isinstance(up.message, Report)
    assert [key.job for block in up.message.ended for key in block.keys] == ["a"]
    leases.detach(2)
    assert leases.take_messages() == []


def test_what_is_more_than_the_backlog_is_handed_back() -> None:
    leases = worker(slots=1, backlog=2)
    leases.lease(0, lease("a", "b", "c", "d", "e"), 0)
    assert ends(leases) == [("d", Status.QUEUED), ("e", Status.QUEUED)]


def test_a_group_holds_one_slot_until_its_last_has_ended() -> None:
    leases = worker(slots=1, rooms=Batches())
    leases.lease(0, lease("a", "b", "c", "d"), 0)
    group = starts(leases)
    assert [each.key.job for each in group] == ["a", "b", "c"]
    finish(leases, *group[:2])
    assert starts(leases) == []
    leases.returned([group[2]], 0)  # the pool's child died before it began
    assert [each.key.job for each in starts(leases)] == ["c", "d"]


def test_cancel_of_waiting_running_and_unknown() -> None:
    leases = worker(slots=1)
    leases.lease(0, lease("a", "b"), 0)
    (a,) = starts(leases)
    leases.cancel(0, 1, [(Held(Key(job, 1_000), 1), "asked") for job in ("a", "b", "x")], 0)
    assert stops(leases) == [("a", None)]
    assert ends(leases) == [("b", Status.CANCELLED)]
    finish(leases, a, status=Status.CANCELLED)
    assert ends(leases) == [("a", Status.CANCELLED)]


def test_an_answered_beat_renews_from_when_it_was_sent() -> None:
    leases = worker()
    leases.lease(0, lease("a"), 0)
    leases.take_actions()
    due = L // BEATS_PER_LEASE
    assert leases.wake_at() == due
    leases.tick(due)
    (report,) = reports(leases)
    assert (report.beat, report.full) == (1, False)
    leases.echo(0, 1, 1)
    assert leases.deadlines() == {0: due + L}
    leases.echo(0, 2, 1)
    leases.echo(0, 1, 1)
    assert leases.deadlines() == {0: due + L}


def test_a_lease_that_runs_out_gets_term_then_kill_then_is_lost() -> None:
    leases = worker(slots=1)
    leases.lease(0, lease("a", "b"), 0)
    (a,) = starts(leases)
    leases.detach(1)
    at = leases.wake_at()
    assert at == L - 5_000
    leases.tick(at - 1)
    assert leases.take_actions() == []
    leases.tick(at)
    assert stops(leases) == [("a", 4_000)]
    kill = leases.wake_at()
    assert kill == L - 1_000
    leases.tick(kill)
    assert stops(leases) == [("a", 0)]
    assert leases.wake_at() is None
    finish(leases, a, status=Status.CANCELLED)
    leases.attach(2, L)
    leases.ask(2, 0, 1, L)
    assert sorted(ends(leases)) == [("a", Status.LOST), ("b", Status.QUEUED)]


def test_a_failure_on_a_lease_that_is_over_is_a_loss() -> None:
    leases = worker()
    leases.lease(0, lease("a", "b"), 0)
    a, b = starts(leases)
    finish(leases, a, now=L - 1, status=Status.FAILED)
    finish(leases, b, now=L, status=Status.FAILED)
    assert ends(leases) == [("a", Status.FAILED), ("b", Status.LOST)]


def test_nothing_starts_on_a_lease_that_is_over() -> None:
    leases = worker()
    leases.lease(0, lease("a"), L)
    assert starts(leases) == []
    assert ends(leases) == [("a", Status.QUEUED)]


def test_an_untimed_lease_never_runs_out() -> None:
    leases = worker(timed=False)
    leases.lease(0, lease("a"), 0)
    (a,) = starts(leases)
    leases.tick(10 * L)
    assert stops(leases) == []
    assert leases.deadlines() == {}
    assert a.state is State.HANDED


def test_leave_hands_back_what_waits_and_ends_what_runs_after_the_grace_time() -> None:
    leases = worker(slots=2, rooms=Batches())
    leases.lease(0, lease("a", "b", "c", "d", "e", "f", "g"), 0)
    group = starts(leases)
    leases.started(group[0], 5)
    leases.leave(1_000, 0)
    skipped = [action.attempt for action in leases.take_actions() if isinstance(action, Skip)]
    assert [each.key.job for each in skipped] == ["b", "c", "d", "e", "f"]
    leases.returned(skipped, 10)
    leases.lease(0, lease("h", fencing=2), 10)
    assert {job for job, status in ends(leases) if status is Status.QUEUED} == set("bcdefgh")
    assert leases.wake_at() == 1_000
    leases.tick(1_000)
    assert stops(leases) == [("a", None)]
    finish(leases, group[0], status=Status.CANCELLED, now=1_100)
    assert ends(leases) == [("a", Status.QUEUED)]
    assert not leases.idle
    leases.ack(0, [Held(Key(job, 1_000), 1) for job in "abcdefgh"])
    assert leases.idle


def test_only_what_still_runs_is_told_as_started() -> None:
    leases = worker(slots=2)
    leases.lease(0, lease("a", "b"), 0)
    a, b = starts(leases)
    leases.started(a, 5)
    leases.started(b, 5)
    finish(leases, a)
    told = [up.message for up in leases.take_messages() if isinstance(up.message, Started)]
    assert [held.key.job for started in told for held in started.held] == ["b"]
