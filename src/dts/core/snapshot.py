"""A shard's whole state as commits: folding them gives an equal state. Cut by count and by bytes, as steps are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import TypeVar

from dts import bounds
from dts.core.shard import Shard
from dts.core.weight import block_bytes, debt_bytes, definition_bytes
from dts.model import START, Block, Commit, Definition, Key, Owed, Term

T = TypeVar("T")
PART_BYTES = bounds.STEP_BYTES // 4  # of each of the four kinds in one commit


def snapshot(shard: Shard, limit: int, rules: str = "") -> list[Commit]:
    """The state as commits, folding which gives an equal state: of at most `limit` definitions, blocks, debts and kept revisions each."""
    parts = list(
        zip_longest(
            cut((shard.guises.get(job, each) for job, each in shard.definitions.items()), definition_bytes, limit),
            cut(_open_blocks(shard), block_bytes, limit),
            cut(_debts(shard), debt_bytes, limit),
            cut(shard.kept.values(), definition_bytes, limit),
            fillvalue=(),
        )
    ) or [((), (), (), ())]
    seq = shard.seq - len(parts)
    commits = []
    for part, (definitions, blocks, debts, kept) in enumerate(parts):
        last = part == len(parts) - 1
        commits.append(
            Commit(
                shard.shard,
                shard.epoch,
                seq + 1 + part,
                shard.now,
                shard.watermark,
                shard.applied,
                definitions=definitions,
                opened=[_term(shard, each, rules) for each in definitions],
                blocks=blocks,
                kept=kept,
                owed=debts,
                gaps=shard.gaps if last else (),
                waiting=shard.held_commands if last else (),
                backfills=list(shard.backfills.values()) if part == 0 else (),
                streaks=list(shard.streaks.values()) if part == 0 else (),
            )
        )
    return [*_commands(shard, seq), *commits]


def cut(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """In lists of at most `limit` items and PART_BYTES, but of one item at least."""
    part: list[T] = []
    total = 0
    for item in items:
        own = size(item)
        if part and (len(part) >= limit or total + own > PART_BYTES):
            yield part
            part, total = [], 0
        part.append(item)
        total += own
    if part:
        yield part


def _commands(shard: Shard, seq: int) -> list[Commit]:
    """Applied command ids, those that live longest first: so that none makes another forgotten."""
    groups = sorted(shard.expiries.items(), reverse=True)
    return [
        Commit(
            shard.shard,
            shard.epoch,
            seq - len(groups) + 1 + number,
            expires - bounds.COMMAND_EXPIRY_MS,
            START,
            shard.applied,
            commands=list(ids),
            issued=[shard.issued.get(id, 0) for id in ids],
        )
        for number, (expires, ids) in enumerate(groups)
    ]


def _term(shard: Shard, definition: Definition, rules: str) -> Term:
    since = definition.since
    return Term(definition.job, definition.revision, since, shard.in_force.get(definition.job, since), None, rules)


def _debts(shard: Shard) -> list[tuple[str, tuple[Owed, ...]]]:
    jobs = dict.fromkeys((*shard.given, *shard.owed))
    return [(job, (*shard.given.get(job, ()), *shard.owed.get(job, ()))) for job in jobs]


def _open_blocks(shard: Shard) -> Iterable[Block]:
    """The open executions in blocks again; waiting ones in their order of age. How attempts ended is history's."""
    entries: dict[int, tuple[Block, list[Key], list[int]]] = {}
    waiting = [key for keys in shard.waiting.values() for key in keys]
    waiting += shard.groups.queued()
    first = set(waiting)
    for key in [*waiting, *(key for key in shard.open if key not in first)]:
        block, place = shard.open[key]
        _, keys, revisions = entries.setdefault(id(block), (block, [], []))
        keys.append(key)
        revisions.append(block.revisions[place])
    return [replace(block, keys=keys, revisions=revisions, ends=()) for block, keys, revisions in entries.values()]
