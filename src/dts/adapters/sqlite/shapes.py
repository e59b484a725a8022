"""Definitions in the file: what differs between jobs in columns, what most jobs share (`shape`) encoded and decoded once."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from dts.codec import definition_in, definition_out
from dts.gen.log.v1 import log_pb2 as log
from dts.model import CatchUp, Definition, Demand, Instant, JobState, Policies, ScheduleSpec

SHAPES = 20_000  # distinct ones kept decoded and encoded

COLUMNS = "job, revision, since, state, until, shape, body"
STATES = {int(state): state for state in JobState}


class Shape(NamedTuple):
    """What jobs share."""

    schedules: tuple[ScheduleSpec, ...]
    demand: Demand
    policies: Policies
    group: str
    catch_up: CatchUp


@lru_cache(maxsize=SHAPES)
def _encode(shape: Shape) -> bytes:
    bare = Definition(
        "", 0, 0, JobState.ACTIVE, None, shape.schedules, shape.demand, shape.policies, b"", group=shape.group
    )
    return definition_out(bare).SerializeToString(deterministic=True)


@lru_cache(maxsize=SHAPES)
def _decode(shape: bytes) -> Shape:
    got = definition_in(log.Definition.FromString(shape))
    return Shape(got.schedules, got.demand, got.policies, got.group, got.catch_up)


@lru_cache(maxsize=SHAPES)
def _same(body: bytes) -> bytes:
    return body  # equal bodies are one object


def shape_of(definition: Definition) -> bytes:
    """The column `shape`."""
    return _encode(
        Shape(definition.schedules, definition.demand, definition.policies, definition.group, definition.catch_up)
    )


def group_of(shape: bytes) -> str:
    """The concurrency group in a column `shape`."""
    return _decode(shape).group


def definition_of(row: tuple[str, int, Instant, int, Instant | None, bytes, bytes]) -> Definition:
    """A definition from a row of COLUMNS."""
    job, revision, since, state, until, shape, body = row
    like = _decode(shape)
    return Definition(
        job,
        revision,
        since,
        STATES[state],
        until,
        like.schedules,
        like.demand,
        like.policies,
        _same(body),
        group=like.group,
        catch_up=like.catch_up,
    )
