"""A shard's state in a form that can be compared, and commits as another process would read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dts.codec import (
    backfill_in,
    backfill_out,
    block_in,
    block_out,
    command_in,
    command_out,
    debt_in,
    debt_out,
    definition_in,
    definition_out,
    gaps_in,
    gaps_out,
    streak_in,
    streak_out,
)
from dts.core.policies import spread
from dts.core.shard import Shard
from dts.model import Commit, Definition, Key, Status

Canon = dict[str, object]


def canon(shard: Shard) -> Canon:
    """All that decisions depend on; two shards with the same canon decide the same."""
    executions = {}
    for key, (block, place) in shard.open.items():
        whole = replace(block, keys=(key,), revisions=(block.revisions[place],), ends=())
        executions[key] = whole
    retries = sorted({item for item in shard.retries if _retrying(shard, *item)})
    openings = sorted(
        {
            (until, job, number)
            for until, job, number in shard.openings
            if job in shard.in_force and job not in shard.guises and shard.definitions[job].revision == number
        }
    )
    return {
        "epoch": shard.epoch,
        "seq": shard.seq,
        "now": shard.now,
        "applied": shard.applied,
        "watermark": shard.watermark,
        "definitions": dict(shard.definitions),
        "timetable": {job for job in shard.definitions if job in shard.timetable},
        "next_due": shard.timetable.next_due(),
        "in_force": dict(shard.in_force),
        "openings": openings,
        "kept": dict(shard.kept),
        "open": executions,
        "by_job": {job: set(keys) for job, keys in shard.by_job.items()},
        "waiting": {demand: list(keys) for demand, keys in shard.waiting.items() if keys},
        "placed": {worker: set(keys) for worker, keys in shard.placed.items() if keys},
        "retries": retries,
        "owed": dict(shard.owed),
        "given": dict(shard.given),
        "gaps": shard.gaps,
        "commands": set(shard.commands),
        "held_commands": shard.held_commands,
        "backfills": dict(shard.backfills),
        "counts": dict(shard.counts),
        "streaks": dict(shard.streaks),
        "guises": dict(shard.guises),
        "watched": set(shard.watched),
        "lines": {job: set(keys) for job, keys in shard.lines.items()},
        "turns": set(shard.turns),
        "ruled": set(shard.ruled),
        "deadlines": sorted({item for item in shard.deadlines if _must_start(shard, *item)}),
        "grouped": {
            (group, demand): list(keys)
            for group, demands in shard.groups.waiting.items()
            for demand, keys in demands.items()
            if keys
        },
        "in groups": dict(shard.groups.placed),
        "limits": {each.group: shard.groups.limit(each.group) for each in shard.definitions.values() if each.group},
    }


def _retrying(shard: Shard, not_before: int, key: Key) -> bool:
    entry = shard.open.get(key)
    if entry is None:
        return False
    block = entry[0]
    if block.jitter and block.status is Status.QUEUED:
        return not_before == block.queued + spread(key, block.jitter)
    return block.status is Status.RETRYING and block.not_before == not_before


def _must_start(shard: Shard, start_by: int, key: Key) -> bool:
    entry = shard.open.get(key)
    return (
        entry is not None
        and entry[0].status is Status.QUEUED
        and not entry[0].attempt
        and entry[0].start_by == start_by
    )


def difference(one: Canon, other: Canon) -> str:
    """What differs, for a person."""
    return "; ".join(f"{name}: {one[name]} != {other[name]}" for name in one if one[name] != other[name])


def _definition(definition: Definition) -> Definition:
    return definition_in(definition_out(definition))


def recoded(commit: Commit) -> Commit:
    """The commit after a way through log.v1: equal values, other objects."""
    return replace(
        commit,
        blocks=[block_in(block_out(block)) for block in commit.blocks],
        definitions=[_definition(each) for each in commit.definitions],
        kept=[_definition(each) for each in commit.kept],
        owed=[debt_in(debt_out(job, pieces)) for job, pieces in commit.owed],
        gaps=gaps_in(gaps_out(commit.gaps)),
        waiting=[command_in(command_out(each)) for each in commit.waiting],
        backfills=[backfill_in(backfill_out(each)) for each in commit.backfills],
        streaks=[streak_in(streak_out(each)) for each in commit.streaks],
    )


def folded(commits: Sequence[Commit], shard: int = 0) -> Shard:
    """The state that a new owner would fold."""
    state = Shard(shard)
    state.restore(recoded(commit) for commit in commits)
    return state
