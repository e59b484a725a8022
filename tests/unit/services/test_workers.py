"""Workers' sessions: what is sent comes out in order, in parts that fit, to the present session alone."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from dts.api.workers import encode
from dts.bounds import LEASE_MESSAGE_KEYS
from dts.model import Block, Demand, Effects, Held, Key, Lease, Status, WorkerInfo, WorkerRef
from dts.services.workers import (
    LEASE_BODY_BYTES,
    OUTBOX_KEYS,
    Acks,
    Cancels,
    Echo,
    Leased,
    WorkerHub,
    split,
)

REF = WorkerRef("w", "i")
INFO = WorkerInfo(REF, Demand(slots=2), 10)


def lease(bodies: list[bytes]) -> Lease:
    keys = [Key(f"j{each}", 5) for each in range(len(bodies))]
    return Lease(Block(keys, list(range(len(keys))), Demand(), Status.PLACED, 1, report=(1, 2), fencing=3), bodies)


@given(
    st.lists(
        st.sampled_from([b"a", b"b" * 1_000, b"c" * (LEASE_BODY_BYTES // 2), b"d" * LEASE_BODY_BYTES]), max_size=1_200
    )
)
def test_parts_of_a_lease_fit_and_are_all_of_it(bodies: list[bytes]) -> None:
    whole = lease(bodies)
    parts = list(split(whole))
    assert [key for part in parts for key in part.block.keys] == whole.block.keys
    assert [body for part in parts for body in part.bodies] == bodies
    assert [revision for part in parts for revision in part.block.revisions] == whole.block.revisions
    for part in parts:
        distinct = set(part.bodies)
        assert len(part.bodies) <= LEASE_MESSAGE_KEYS
        assert len(distinct) <= 1 or sum(map(len, distinct)) <= LEASE_BODY_BYTES
        (message,) = encode(Leased(0, part))
        assert [message.lease.bodies[index] for index in message.lease.body or [0] * len(part.bodies)] == part.bodies


async def test_effects_come_out_in_order_to_their_worker() -> None:
    hub = WorkerHub()
    session = hub.connect(INFO)
    held = [Held(Key("a", 1), 1), Held(Key("b", 1), 1)]
    other = WorkerRef("x", "y")
    effects = Effects(
        leases={REF: [lease([b""])], other: [lease([b""])]}, cancels={REF: [(held[0], "why")]}, beats={REF: 4}
    )
    hub.send(0, 1, Effects(acks={REF: held[:1]}))
    hub.send(0, 1, Effects(acks={REF: held[1:]}))
    hub.send(0, 1, effects)
    acks, echo, cancels, leased = await session.drain()
    assert acks == Acks(0, held)
    assert echo == Echo(0, 1, 4)
    assert cancels == Cancels(0, 1, [(held[0], "why")])
    assert isinstance(leased, Leased)


async def test_a_new_session_takes_the_place_of_the_old() -> None:
    hub = WorkerHub()
    old = hub.connect(INFO)
    hub.ask(REF, 0, 1)
    new = hub.connect(INFO)
    assert await old.drain() == []
    assert not hub.disconnect(old)
    hub.ask(REF, 0, 2)
    assert len(await new.drain()) == 1
    assert hub.disconnect(new)
    assert hub.attached() == []


async def test_a_worker_that_reads_nothing_loses_its_session() -> None:
    hub = WorkerHub()
    session = hub.connect(INFO)
    for _ in range(OUTBOX_KEYS + 1):
        hub.ask(REF, 0, 1)
    assert session.closed
    assert await asyncio.wait_for(session.drain(), 1) == []
