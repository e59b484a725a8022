"""How many bytes a draft makes in the log, at most: one that is too heavy is decided again with fewer inputs (core/instance.py).

An estimate from above, cheap where there are many: what varies is counted, the rest has a size that it never exceeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dts import bounds
from dts.model import Block, Cancel, Command, Definition, Demand, Owed

if TYPE_CHECKING:
    from dts.core.draft import Draft

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
    size = sum(map(block_bytes, draft.decided)) + sum(map(block_bytes, draft.ready))
    size += sum(map(definition_bytes, draft.definitions)) + sum(map(definition_bytes, draft.kept))
    size += sum(map(debt_bytes, draft.owed.items()))
    size += SMALL * (len(draft.opened) + len(draft.closed) + len(draft.commands))
    size += sum(SMALL + len(each.reason) for each in draft.ranges)
    size += sum(SMALL + len(answer) for _, answer in draft.answers)
    size += sum(_command(each) for each in draft.held_commands)
    size += sum(KEY + ID * len(gap.skip) for gap in draft.gaps)
    for backfill in draft.backfills.values():
        size += DEFINITION + len(backfill.reason) + sum(SCHEDULE + len(spec.text) for spec in backfill.schedules)
    return size


def block_bytes(block: Block) -> int:
    """Of a block, at most."""
    size = BLOCK + KEY * len(block.keys) + _demand(block.demand) + len(block.arguments)
    size += len(block.reason) + len(block.cancel) + len(block.retry_of)
    if block.ends:
        size += sum(PIECE + 4 * (len(end.error) + len(end.result)) for end in block.ends)
    return size


def definition_bytes(definition: Definition) -> int:
    """Of a definition, at most."""
    size = DEFINITION + len(definition.body) + _demand(definition.demand)
    for spec in definition.schedules:
        size += SCHEDULE + len(spec.text)
    return size


def debt_bytes(debt: tuple[str, tuple[Owed, ...]]) -> int:
    """Of what a job owes, at most."""
    return ID + sum(definition_bytes(each.definition) + PIECE + INSTANT * len(each.skip) for each in debt[1])


def _demand(demand: Demand) -> int:
    return 0 if demand.slots_only and not demand.selector else 4 * len(demand.selector) + 128 * len(demand.custom)


def _command(command: Command) -> int:
    if isinstance(command, Cancel):
        return SMALL + len(command.reason)
    return SMALL + len(getattr(command, "arguments", b""))
