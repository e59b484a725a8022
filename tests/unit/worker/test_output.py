"""What is kept of an attempt's output until the store has it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dts.bounds import OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES
from dts.model import Held, Key
from dts.worker.output import Piece

ID = Held(Key("a", 0), 1)


def test_all_of_a_short_output_is_kept_and_told_once() -> None:
    piece = Piece(ID)
    piece.write(b"abc", True)
    assert list(piece.take()) == [(0, b"abc", False)]
    piece.write(b"de", True)
    piece.confirm()
    piece.closed = True
    assert list(piece.take()) == [(3, b"de", True)]
    piece.confirm()
    assert list(piece.take()) == [(5, b"", True)]


def test_what_is_not_kept_is_counted() -> None:
    piece = Piece(ID)
    piece.write(b"abc", True)
    piece.write(b"x" * 10, False)
    piece.write(b"end", True)
    assert list(piece.take()) == [(0, b"abc", False), (13, b"end", False)]
    assert piece.size == 16


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=50), st.integers(1, 3 * OUTPUT_HEAD_BYTES), st.booleans())))
def test_head_and_tail_are_exact_whatever_is_sent_in_between(steps: list[bytes | int | bool]) -> None:
    """True: what was taken is stored; False: it was taken, but the call failed."""
    piece, written, stored = Piece(ID), bytearray(), {}
    for step in steps:
        if isinstance(step, bool):
            taken = list(piece.take())
            if step:
                stored.update({offset: data for offset, data, _ in taken})
                piece.confirm()
        else:
            data = step if isinstance(step, bytes) else bytes(index % 251 for index in range(step))
            written += data
            piece.write(data, True)
        assert piece.kept <= OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES
    piece.closed = True
    last = list(piece.take())
    stored.update({offset: data for offset, data, _ in last})
    assert last[-1][2]
    known = {offset + index for offset, data in stored.items() for index in range(len(data))}
    assert all(written[offset : offset + len(data)] == data for offset, data in stored.items())
    assert known >= set(range(min(len(written), OUTPUT_HEAD_BYTES)))
    assert known >= set(range(max(0, len(written) - OUTPUT_TAIL_BYTES), len(written)))
