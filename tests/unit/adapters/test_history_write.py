"""How rows of history are put into batches: each once, in bounds, long partitions by themselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dts.adapters.cassandra.history_write import (
    BATCH_ROWS,
    PACKED_BYTES,
    PACKED_PARTITIONS,
    ROW_BYTES,
    Write,
    _packed,
)


def rows(partition: int, count: int, text: int) -> list[Write]:
    return [(f"{partition}", [n, "x" * text]) for n in range(count)]


@given(st.lists(st.tuples(st.integers(1, 100), st.sampled_from([0, 10, 8_000])), max_size=40))
def test_every_row_once_and_in_bounds(shapes: list[tuple[int, int]]) -> None:
    groups = [rows(partition, count, text) for partition, (count, text) in enumerate(shapes)]
    found = list(_packed(groups))
    assert sorted((cql, values[0]) for batch in found for cql, values in batch) == sorted(
        (cql, values[0]) for group in groups for cql, values in group
    )
    for batch in found:
        partitions = {cql for cql, _ in batch}
        if len(partitions) == 1:
            assert len(batch) <= BATCH_ROWS
        else:
            assert len(partitions) <= PACKED_PARTITIONS
            assert sum(ROW_BYTES + len(str(values[1])) for _, values in batch) <= PACKED_BYTES
            assert all(len(groups[int(cql)]) < PACKED_PARTITIONS for cql in partitions)


def test_single_rows_go_together() -> None:
    assert [len(batch) for batch in _packed([rows(n, 1, 10) for n in range(25)])] == [10, 10, 5]
    assert [len(batch) for batch in _packed([rows(n, 1, 8_000) for n in range(3)])] == [1, 1, 1]
