"""How a worker is divided among instances: equal shares, what is wanted moves, a large demand is gathered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dts.amounts import Vector, plus, total_of, within
from dts.worker.shares import GATHERED_MS, LOOK_MS, Shares, Use, divided

WHOLE: Vector = (4_000, 8_192, 100, 10, 20, 1)  # cpu, memory, storage, slots, backlog, a gpu
NOTHING: Vector = (0,) * 6


def vector(slots: int = 0, cpu: int = 0, backlog: int = 0, gpu: int = 0) -> Vector:
    return (cpu, 0, 0, slots, backlog, gpu)


def divide(shares: Shares, now: int = 0, **used: Vector) -> dict[int, Vector]:
    """What is sent: the last share of each stream. `s1=...`: what is used on stream 1."""
    uses = {int(name[1:]): Use(amount, 0) for name, amount in used.items()}
    return {grant.stream: grant.share for grant in shares.divide(uses, NOTHING, now)}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 100))
def test_room_is_divided_max_min(claims: list[int], room: int) -> None:
    shares = divided(claims, room)
    assert sum(shares) == room
    for share, claim in zip(shares, claims, strict=True):
        if share < claim:  # nobody has more than one unit more than who lacks
            assert max(shares) <= share + 1
    if sum(claims) <= room:
        level = max((share for share, claim in zip(shares, claims, strict=True) if share > claim), default=0)
        assert all(share >= max(claim, level - 1) for share, claim in zip(shares, claims, strict=True))


def test_one_instance_alone_has_all() -> None:
    shares = Shares(WHOLE)
    shares.join(1, "a")
    assert divide(shares) == {1: WHOLE}
    assert shares.wake_at() is None


def test_two_share_alike_and_the_first_by_name_gets_what_cannot_be_divided() -> None:
    shares = Shares(WHOLE)
    shares.join(1, "b")
    shares.join(2, "a")
    assert divide(shares) == {1: (2_000, 4_096, 50, 5, 10, 0), 2: (2_000, 4_096, 50, 5, 10, 1)}


def test_who_comes_later_gets_his_share_when_the_other_has_given_it_back() -> None:
    shares = Shares(WHOLE)
    shares.join(1, "a")
    divide(shares)
    shares.join(2, "b")
    assert divide(shares, s1=vector(slots=7)) == {1: (2_000, 4_096, 50, 7, 10, 1)}, "what it uses stays its own"
    shares.returned(1, 2, (2_000, 4_096, 50, 7, 10, 1))
    assert divide(shares, s1=vector(slots=7))[2] == (2_000, 4_096, 50, 3, 10, 0)


def test_what_one_does_not_use_goes_to_who_wants() -> None:
    shares = Shares(WHOLE)
    shares.join(1, "a")
    shares.join(2, "b")
    divide(shares)
    shares.want(2, vector(slots=30), NOTHING)
    first = divide(shares, s1=vector(slots=1), s2=vector(slots=5))
    assert first[1][3] == 1
    assert 2 not in first, "there is nothing to give yet"
    shares.returned(1, 2, first[1])
    assert divide(shares, s1=vector(slots=1), s2=vector(slots=5))[2][3] == 9


def test_two_that_want_all_share_alike() -> None:
    shares = Shares(WHOLE)
    shares.join(1, "a")
    divide(shares)
    shares.join(2, "b")
    shares.want(1, vector(slots=30), NOTHING)
    shares.want(2, vector(slots=30), NOTHING)
    assert divide(shares, s1=vector(slots=10))[1][3] == 5
    shares.returned(1, 2, (*WHOLE[:3], 8, *WHOLE[4:]))
    assert divide(shares, s1=vector(slots=8))[2][3] == 2
    assert shares.wake_at() == LOOK_MS


def test_a_large_demand_is_gathered_at_the_first_by_name_then_at_the_next() -> None:
    shares = Shares(WHOLE)
    shares.join(1, "a")
    shares.join(2, "b")
    divide(shares)
    for stream in (1, 2):
        shares.want(stream, vector(cpu=4_000, slots=1), vector(cpu=4_000, slots=1))
    lowered = divide(shares)
    assert lowered[2][0] == 0
    shares.returned(2, 2, lowered[2])
    assert divide(shares)[1][0] == 4_000
    divide(shares, GATHERED_MS - 1)
    assert not divide(shares, GATHERED_MS), "it is kept there so long"
    turned = divide(shares, 2 * GATHERED_MS + 1)
    assert turned[1][0] == 0, "the turn of the other"
    shares.returned(1, 3, turned[1])
    assert divide(shares, 2 * GATHERED_MS + 2)[2][0] == 4_000


def test_nothing_is_credited_of_what_runs_for_nobody() -> None:
    shares = Shares(WHOLE)
    shares.join(1, "a")
    orphans = vector(slots=4, cpu=1_000)
    (grant,) = shares.divide({}, orphans, 0)
    assert grant.share == (3_000, 8_192, 100, 6, 20, 1)
    assert shares.wake_at() == LOOK_MS
    (grant,) = shares.divide({}, NOTHING, LOOK_MS)
    assert grant.share == WHOLE


def test_who_goes_leaves_his_share_to_the_others() -> None:
    shares = Shares(WHOLE)
    shares.join(1, "a")
    shares.join(2, "b")
    divide(shares)
    shares.part(1)
    assert divide(shares) == {2: WHOLE}


def test_a_credit_under_way_counts_until_its_answer() -> None:
    shares = Shares(WHOLE)
    shares.join(1, "a")
    shares.join(2, "b")
    divide(shares)
    shares.want(1, vector(slots=30), NOTHING)
    divide(shares, s1=vector(slots=5))  # 2 lowers 2's share to 0
    shares.returned(2, 1, NOTHING)  # of before: the lowered one is not answered
    assert within(total_of(list(shares.granted().values()), WHOLE), plus(WHOLE, NOTHING))
    assert shares.silent(59_999, 60_000) == []
    assert shares.silent(60_000, 60_000) == [2]
    shares.returned(2, 2, NOTHING)
    assert shares.silent(60_000, 60_000) == []
