"""The shape of a job: all of its document that says when, where and under which policies it runs, as the shard needs it.

Thousands of jobs often share one shape, so shapes are made once for each distinct encoding and remembered.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from dts import bounds
from dts.api import values
from dts.api.policies import group_of, policies_of
from dts.errors import InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.model import Demand, Policies, ScheduleSpec, intern_demand
from dts.services.demands import check_label, check_selector
from dts.services.schedules import checked

SHAPES = 10_000  # recent ones remembered
SLOTS_MAX = 10_000
CUSTOM_RESOURCES = 64
FIXED_RESOURCES = frozenset(("cpu", "memory", "storage", "slots"))
SELECTOR_LENGTH = 1_024

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")


class Shape(NamedTuple):
    """`schedules` are resolved for the job that the shape was made for."""

    schedules: tuple[ScheduleSpec, ...]
    demand: Demand
    policies: Policies
    timeout_s: int
    group: str = ""


def shape_of(document: job.JobResponse) -> Shape:
    """Checks and translates. Raises InvalidArgument naming the field."""
    has_policies, has_requirements = document.HasField("policies"), document.HasField("requirements")
    policies = document.policies.SerializeToString(deterministic=True) if has_policies else b""
    requirements = document.requirements.SerializeToString(deterministic=True) if has_requirements else b""
    return Shape(
        schedules_of(document),
        _demand(requirements, document.priority),
        policies_of(policies, document.max_retries),
        values.within(document.timeout, 0, bounds.TIMEOUT_MAX_S, "timeout"),
        group_of(document.policies) if has_policies else "",
    )


def schedules_of(document: job.JobResponse) -> tuple[ScheduleSpec, ...]:
    """The document's schedules, checked."""
    if len(document.schedules) > bounds.SCHEDULES:
        raise InvalidArgument("schedules", f"{len(document.schedules)} schedules; at most {bounds.SCHEDULES}")
    return tuple(spec_of(each, f"schedules[{at}]", document.id) for at, each in enumerate(document.schedules))


def spec_of(schedule: job.Schedule, field: str, job_id: str) -> ScheduleSpec:
    """One schedule, checked and resolved for a job. Raises InvalidArgument."""
    text = values.text(schedule.expression, bounds.SCHEDULE_LENGTH, f"{field}.expression").strip()
    if not text:
        raise InvalidArgument(f"{field}.expression", "empty: leave the schedule out for a job that runs on demand only")
    zone = values.text(schedule.time_zone, bounds.SCHEDULE_LENGTH, f"{field}.time_zone") or "UTC"
    start = values.instant(schedule.start, f"{field}.start") if schedule.HasField("start") else None
    end = values.instant(schedule.end, f"{field}.end") if schedule.HasField("end") else None
    return checked(ScheduleSpec(text, zone, start, end, schedule.gap, schedule.fold), job_id, field)


@lru_cache(maxsize=SHAPES)
def _demand(encoded: bytes, priority: int) -> Demand:
    needs = job.Requirements.FromString(encoded)
    where, most = "requirements", bounds.RESOURCE_MAX
    if len(needs.custom) > CUSTOM_RESOURCES:
        raise InvalidArgument(f"{where}.custom", f"{len(needs.custom)} resources; at most {CUSTOM_RESOURCES}")
    for name, amount in needs.custom.items():
        if _NAME.fullmatch(name) is None:
            raise InvalidArgument(f"{where}.custom", f"{name[:80]!r} is no name of a resource")
        if name in FIXED_RESOURCES:
            raise InvalidArgument(f"{where}.custom", f"{name!r} is a field of its own: {where}.{name}")
        values.within(amount, 0, most, f"{where}.custom[{name}]")
    return intern_demand(
        Demand(
            values.within(needs.cpu, 0, most, f"{where}.cpu"),
            values.within(needs.memory, 0, most, f"{where}.memory"),
            values.within(needs.storage, 0, most, f"{where}.storage"),
            values.within(needs.slots, 0, SLOTS_MAX, f"{where}.slots") or 1,
            tuple(sorted((name, amount) for name, amount in needs.custom.items() if amount)),
            _selector(needs.selector),
            priority,
            check_label(needs.spread.strip(), "requirements.spread"),
        )
    )


def _selector(selector: str) -> str:
    values.text(selector, SELECTOR_LENGTH, "requirements.selector")
    return check_selector(selector.strip(), "requirements.selector")
