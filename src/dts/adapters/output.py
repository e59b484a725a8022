"""How an attempt's output is kept: the head, then the latest bytes; what lies between is counted, not kept."""

from __future__ import annotations

from dts import bounds
from dts.model import Output


def extend(output: Output, offset: int, data: bytes, last: bool) -> Output:
    """With `data`, which begins at byte `offset` of all that was written; what is there already is ignored, what is
    missing before it counts as cut. A complete output changes no more."""
    if output.complete:
        return output
    new = data[max(0, output.size - offset) :] if offset <= output.size else data
    size = max(output.size, offset + len(data))
    head, tail = output.head, output.tail
    if new:
        whole = len(head) == output.size and offset <= output.size  # nothing was cut yet and nothing is missing
        room = bounds.OUTPUT_HEAD_BYTES - len(head) if whole else 0
        head += new[:room]
        tail = (tail + new[room:])[-bounds.OUTPUT_TAIL_BYTES :]
    return Output(output.attempt, head, tail, size - len(head) - len(tail), size, last)


def empty(attempt: int) -> Output:
    """Nothing was written yet."""
    return Output(attempt, b"", b"", 0, 0, False)
