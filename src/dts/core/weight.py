"""How many bytes a draft makes in the log, at most: one that is too heavy is decided again with fewer inputs (core/instance.py).

An estimate from above, cheap where there are many: what varies is counted, the rest has a size that it never exceeds.
"""

from __future__ import annotations

from collections.abc import Iterable

from dts import bounds
from dts.core.draft import Draft
from dts.model import Block, Cancel, Command, Definition, Demand

ID = bounds.JOB_ID_BYTES
KEY = ID + 64  # instant, nonce, revision and what protobuf adds
BLOCK = 512
DEFINITION = ID + 512
SCHEDULE = 256
PIECE = 64
INSTANT = 10
SMALL = ID + 128  # a range, a term, an answer, a command id


def weight(draft: Draft) -> int:
    """Bytes at most. What the commit holds in the end is less: some of what is ready finds no place."""
    size = _blocks(draft.decided) + _blocks(draft.ready)
    size += sum(map(_definition, draft.definitions)) + sum(map(_definition, draft.kept))
    for pieces in draft.owed.values():
        size += ID + sum(_definition(each.definition) + PIECE + INSTANT * len(each.skip) for each in pieces)
    size += SMALL * (len(draft.opened) + len(draft.closed) + len(draft.commands))
    size += sum(SMALL + len(each.reason) for each in draft.ranges)
    size += sum(SMALL + len(answer) for _, answer in draft.answers)
    size += sum(_command(each) for each in draft.held_commands)
    size += sum(KEY + ID * len(gap.skip) for gap in draft.gaps)
    for backfill in draft.backfills.values():
        size += DEFINITION + len(backfill.reason) + sum(SCHEDULE + len(spec.text) for spec in backfill.schedules)
    return size


def _blocks(blocks: Iterable[Block]) -> int:
    size = 0
    for block in blocks:
        size += BLOCK + KEY * len(block.keys) + _demand(block.demand) + len(block.arguments)
        size += len(block.reason) + len(block.cancel) + len(block.retry_of)
        if block.ends:
            size += sum(PIECE + 4 * (len(end.error) + len(end.result)) for end in block.ends)
    return size


def _definition(definition: Definition) -> int:
    size = DEFINITION + len(definition.body) + _demand(definition.demand)
    for spec in definition.schedules:
        size += SCHEDULE + len(spec.text)
    return size


def _demand(demand: Demand) -> int:
    return 0 if demand.slots_only and not demand.selector else 4 * len(demand.selector) + 128 * len(demand.custom)


def _command(command: Command) -> int:
    if isinstance(command, Cancel):
        return SMALL + len(command.reason)
    return SMALL + len(getattr(command, "arguments", b""))
