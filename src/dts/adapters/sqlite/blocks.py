"""Open executions in the file: one row a block, not one an execution, and rows are not rewritten when keys leave them.

In the file a key's last state is its terminal row in `executions`, else the highest row of `open_blocks` that names it;
what older rows say of it is void. In memory each key knows its row and each row how many keys are left in it: a row goes
with its last key, and is rewritten when few are left, so a million fires leave a small table. Before history forgets
terminal rows, `purge` rewrites the rows that still name such keys.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dts.adapters.sqlite.bulk import Insert
from dts.codec import block_in, block_out
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Block, Instant, Key, ShardId

FEW = 8  # a row with less than one in so many of its keys left is rewritten
CHECKED = 1_000  # keys looked up in `executions` by one statement

_insert = Insert("INSERT INTO open_blocks (id, shard, block)", 3)


@dataclass(slots=True)
class _Row:
    block: Block
    left: int


@dataclass(slots=True)
class Plan:
    """What one commit does to the rows; applied in memory only when the commit is durable."""

    moved: dict[Key, int] = field(default_factory=dict)  # key -> its row now, 0: it ended
    added: dict[int, _Row] = field(default_factory=dict)
    rewritten: dict[int, _Row] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)  # rows that were there: how many keys stay
    gone: list[int] = field(default_factory=list)


class OpenBlocks:
    """The open executions of one shard."""

    def __init__(self, shard: ShardId, next_row: int) -> None:
        self._shard = shard
        self._next = next_row
        self._row_of: dict[Key, int] = {}
        self._rows: dict[int, _Row] = {}

    def plan(self, blocks: Sequence[Block]) -> Plan:
        """Reads only."""
        plan, leaving = Plan(), Counter[int | None]()
        row_of = self._row_of
        for block in blocks:
            keys = block.keys
            if plan.moved.keys().isdisjoint(keys):
                leaving.update(map(row_of.get, keys))
            else:
                leaving.update(plan.moved.get(key, row_of.get(key)) for key in keys)
            row = 0
            if not block.status.terminal and keys:
                row = self._next + len(plan.added)
                plan.added[row] = _Row(block, len(keys))
            plan.moved.update(dict.fromkeys(keys, row))
        for row_, count in leaving.items():
            if row_:  # None: a new execution, 0: it ended in this very commit
                self._leave(plan, row_, count)
        return plan

    def _leave(self, plan: Plan, row: int, count: int) -> None:
        if row in plan.added:
            plan.added[row].left -= count
            return
        there = self._rows[row]
        left = there.left - count
        if left == 0:
            plan.gone.append(row)
        elif left * FEW < len(there.block.keys):
            plan.rewritten[row] = _Row(self._what_is_left(row, plan.moved), left)
        else:
            plan.left[row] = left

    def _what_is_left(self, row: int, moved: dict[Key, int]) -> Block:
        block = self._rows[row].block
        return pick(block, [n for n, key in enumerate(block.keys) if self._row_of.get(key) == row and key not in moved])

    def write(self, conn: sqlite3.Connection, plan: Plan) -> None:
        """Into the transaction of the commit. Raises sqlite3.Error."""
        rows = [(id, self._shard, _encode(row.block)) for id, row in plan.added.items() if row.left]
        _insert(conn, rows)
        for id, row in plan.rewritten.items():
            conn.execute("UPDATE open_blocks SET block = ? WHERE id = ?", (_encode(row.block), id))
        if plan.gone:
            conn.execute(
                "DELETE FROM open_blocks WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(plan.gone),)
            )

    def apply(self, plan: Plan) -> None:
        """The commit is durable."""
        row_of = self._row_of
        for key, row in plan.moved.items():
            if row:
                row_of[key] = row
            else:
                row_of.pop(key, None)
        self._next += len(plan.added)
        self._rows.update((id, row) for id, row in plan.added.items() if row.left)
        self._rows.update(plan.rewritten)
        for id, left in plan.left.items():
            self._rows[id].left = left
        for id in plan.gone:
            del self._rows[id]

    def plan_purge(self, before: Instant) -> Plan:
        """Rewrites every row that still names ended keys of instants before `before`: history is about to forget them."""
        plan = Plan()
        for id, row in self._rows.items():
            if row.left < len(row.block.keys) and min(key.at for key in row.block.keys) < before:
                plan.rewritten[id] = _Row(self._what_is_left(id, {}), row.left)
        return plan

    def load(self, conn: sqlite3.Connection) -> list[Block]:
        """From the file: what is open, in the order in which it was written."""
        found = conn.execute("SELECT id, block FROM open_blocks WHERE shard = ? ORDER BY id", (self._shard,))
        blocks = {id: block_in(log.Block.FromString(blob)) for id, blob in found}
        for id, block in blocks.items():
            self._row_of.update(dict.fromkeys(block.keys, id))
        for key in _ended(conn, list(self._row_of)):
            del self._row_of[key]
        left = Counter(self._row_of.values())
        self._rows = {id: _Row(block, left[id]) for id, block in blocks.items()}
        partial = [id for id, row in self._rows.items() if row.left < len(row.block.keys)]
        live = {**blocks, **{id: self._what_is_left(id, {}) for id in partial}}
        return [block for block in live.values() if block.keys]

    def revisions(self) -> set[tuple[str, int]]:
        """(job, revision) of all open executions."""
        wanted = set()
        for id, row in self._rows.items():
            for key, revision in zip(row.block.keys, row.block.revisions, strict=True):
                if self._row_of.get(key) == id:
                    wanted.add((key.job, revision))
        return wanted


def pick(block: Block, places: Sequence[int]) -> Block:
    """The executions of a block at these places."""
    return replace(
        block,
        keys=[block.keys[n] for n in places],
        revisions=[block.revisions[n] for n in places],
        ends=[block.ends[n] for n in places] if block.ends else (),
    )


def _encode(block: Block) -> bytes:
    return block_out(block).SerializeToString()


def _ended(conn: sqlite3.Connection, keys: Sequence[Key]) -> list[Key]:
    sql = (
        "SELECT e.job, e.at, e.nonce FROM json_each(?) AS k CROSS JOIN executions AS e"
        " ON e.at = k.value ->> 1 AND e.job = k.value ->> 0 AND e.nonce = k.value ->> 2"
    )
    found: list[Key] = []
    for at in range(0, len(keys), CHECKED):
        found += [Key(*row) for row in conn.execute(sql, (json.dumps(keys[at : at + CHECKED]),))]
    return found
