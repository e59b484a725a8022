"""OutputStore: head and tail of what an attempt wrote, whatever order and repeats it arrives in, and who waits for more."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from dts import bounds
from dts.adapters.output import empty, extend
from dts.model import Key, Output
from tests.conformance.worlds import WITH_CASSANDRA, World, opened

KINDS = WITH_CASSANDRA

KEY = Key("a", 1_000)


async def test_chunks_add_up_and_repeats_are_ignored(world: World) -> None:
    async with opened(world) as store:
        assert await store.outputs.get(KEY, 1) is None
        await store.outputs.put(KEY, 1, 0, b"hello ", False)
        await store.outputs.put(KEY, 1, 0, b"hello ", False)
        await store.outputs.put(KEY, 1, 3, b"lo wor", False)
        await store.outputs.put(KEY, 1, 9, b"ld\x00\xff", True)
        await store.outputs.put(KEY, 2, 0, b"", False)
    async with opened(world) as store:
        assert await store.outputs.get(KEY, 1) == Output(1, b"hello world\x00\xff", b"", 0, 13, True)
        assert await store.outputs.get(KEY, 0) == Output(2, b"", b"", 0, 0, False)
        assert await store.outputs.get(Key("a", 1_000, "0f"), 0) is None


@given(st.lists(st.binary(max_size=40_000), max_size=8), st.lists(st.integers(0, 7), max_size=4))
def test_head_and_tail_are_those_of_all_that_was_written(chunks: list[bytes], repeated: list[int]) -> None:
    whole, output = b"", empty(1)
    for n, chunk in enumerate(chunks):
        output = extend(output, len(whole), chunk, False)
        whole += chunk
        for place in repeated:
            if place <= n:
                output = extend(output, len(b"".join(chunks[:place])), chunks[place], False)
    head = whole[: bounds.OUTPUT_HEAD_BYTES]
    tail = whole[len(head) :][-bounds.OUTPUT_TAIL_BYTES :]
    assert output == Output(1, head, tail, len(whole) - len(head) - len(tail), len(whole), False)


def test_what_never_arrived_counts_as_cut() -> None:
    output = extend(extend(empty(1), 0, b"start", False), 100, b"end", True)
    assert output == Output(1, b"start", b"end", 95, 103, True)
    assert extend(output, 103, b"more", False) == output


async def test_a_follower_hears_of_more_and_of_the_end(world: World) -> None:
    async with opened(world) as store:
        waiting = asyncio.ensure_future(store.outputs.wait(KEY, 1, 0, 20))
        await store.outputs.put(KEY, 1, 0, b"x", False)
        first = await waiting
        assert first is not None
        assert first.size == 1
        waiting = asyncio.ensure_future(store.outputs.wait(KEY, 1, 1, 20))
        await store.outputs.put(KEY, 1, 1, b"", True)
        last = await waiting
        assert last is not None
        assert last.complete
        assert await store.outputs.wait(KEY, 1, 1, 20) == last
        assert await store.outputs.wait(Key("nobody", 1), 0, 0, 0.01) is None


async def test_old_outputs_are_forgotten_in_slices(deleting_world: World) -> None:
    async with opened(deleting_world) as store:
        for n in range(5):
            deleting_world.now = 100 * n
            await store.outputs.put(Key("a", n), 1, 0, b"x", True)
        assert await store.outputs.forget(300, 2) == 2
        assert await store.outputs.forget(300, 2) == 1
        assert await store.outputs.forget(300, 2) == 0
        assert [n for n in range(5) if await store.outputs.get(Key("a", n), 0)] == [3, 4]
