"""Edits: from a job's current row to its next revision. None: there is nothing to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from dts import bounds
from dts.api import documents, shapes, values
from dts.api.reading import fields_of
from dts.errors import FailedPrecondition, InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler
from dts.model import CatchUp, Instant, JobState, Revision, StoredJob
from dts.services.schedules import unexpired

Edit = Callable[[StoredJob], Revision | None]

_PLAIN: Final = ("name", "description", "priority", "max_retries", "timeout")
_MESSAGES: Final = ("task", "requirements", "policies")
_COLLECTIONS: Final = ("metadata", "tags")
_MASKABLE: Final = frozenset(
    {*_PLAIN, *_MESSAGES, *_COLLECTIONS, "schedules", "cron_expression", "time_zone", "status", "last_run"}
)
_RESUMES: Final = frozenset({job.PENDING, job.SCHEDULED})


def update(request: job.UpdateJobRequest, now: Instant) -> Edit:
    """The request's fields over the job's; empty ones are left as they are unless the mask names them. Raises InvalidArgument."""
    masked = _masked(request.update_mask)
    if len(request.time_zone) > bounds.SCHEDULE_LENGTH:  # also where no job is found to be changed
        raise InvalidArgument("time_zone", f"{len(request.time_zone)} characters; at most {bounds.SCHEDULE_LENGTH}")

    def edit(row: StoredJob) -> Revision | None:
        document, state, until = _current(row, now)
        for name in (*_PLAIN, *_MESSAGES, *_COLLECTIONS):
            _take(request, document, name, name in masked)
        retimed = _reschedule(request, document, masked)
        state, until, change = _restate(request.status, document, state, until, now)
        try:
            return _next(row, document, change, (state, until), now if retimed else None)
        except InvalidArgument as error:
            raise documents.as_cron(error) if request.cron_expression and not request.schedules else error from None

    return edit


def _masked(mask: FieldMask) -> frozenset[str]:
    known = fields_of(job.UpdateJobRequest.DESCRIPTOR)
    names = set()
    for path in mask.paths:
        field = known.get(path)
        if field is None or field.name not in _MASKABLE:
            raise InvalidArgument("update_mask", f"{path[:80]!r} is none of {', '.join(sorted(_MASKABLE))}")
        names.add(field.name)
    return frozenset(names)


def _current(row: StoredJob, now: Instant) -> tuple[job.JobResponse, JobState, Instant | None]:
    """The document and state as they are; a pause that has ended by itself is over."""
    document = job.JobResponse.FromString(row.document)
    if row.state is JobState.PAUSED and row.until is not None and row.until <= now:
        document.ClearField("pause")
        return document, JobState.ACTIVE, None
    return document, row.state, row.until


def _take(request: job.UpdateJobRequest, document: job.JobResponse, name: str, masked: bool) -> None:
    """One field: taken when it is given or named by the mask."""
    if name in _PLAIN:
        if masked or getattr(request, name):
            setattr(document, name, getattr(request, name))
        return
    given = request.HasField(name) if name in _MESSAGES else bool(getattr(request, name))  # type: ignore[arg-type]
    if name == "task" and given and request.task.WhichOneof("kind") is None:
        given = False
    group, limit = document.policies.group, document.policies.group_limit
    if given or masked:
        document.ClearField(name)  # type: ignore[arg-type]
    if given:
        document.MergeFrom(_alone(request, name))
    if name == "policies":
        _keep_group(document.policies, group, limit)


def _keep_group(policies: job.Policies, group: str, limit: int) -> None:
    """A job's concurrency group is fixed at creation; its limit is not."""
    if policies.group not in ("", group):
        is_now = f"it is {group!r}" if group else "it has none"
        raise InvalidArgument("policies.group", f"a job's group is fixed at creation: {is_now}")
    if group and not policies.group:
        policies.group, policies.group_limit = group, policies.group_limit or limit


def _alone(request: job.UpdateJobRequest, name: str) -> job.JobResponse:
    """A document with one of the request's fields."""
    alone = job.JobResponse()
    match name:
        case "metadata":
            alone.metadata.update(request.metadata)
        case "tags":
            alone.tags.extend(request.tags)
        case _:
            getattr(alone, name).CopyFrom(getattr(request, name))
    return alone


def _reschedule(request: job.UpdateJobRequest, document: job.JobResponse, masked: frozenset[str]) -> bool:
    """Whether the schedules change. A client that sends the whole job back changes the one of the two forms that it edited."""
    before = [each.SerializeToString() for each in document.schedules]
    same_list = [each.SerializeToString() for each in request.schedules] == before
    if "schedules" in masked or (request.schedules and not same_list):
        first = request.schedules[0] if request.schedules else job.Schedule()
        if request.cron_expression not in ("", document.cron_expression, first.expression):
            raise InvalidArgument("cron_expression", "is not the first of schedules: give one of the two")
        if request.time_zone not in ("", document.time_zone, first.time_zone):
            raise InvalidArgument("time_zone", "is not that of the first of schedules: give one of the two")
        document.ClearField("schedules")
        document.schedules.extend(request.schedules)
    elif request.cron_expression.strip():
        first = document.schedules[0] if document.schedules else document.schedules.add()
        first.expression = request.cron_expression
        first.time_zone = request.time_zone or first.time_zone
    elif "cron_expression" in masked:
        document.ClearField("schedules")
    elif document.schedules and (request.time_zone or "time_zone" in masked):
        document.schedules[0].time_zone = request.time_zone or "UTC"
    if request.time_zone and not document.schedules:
        raise InvalidArgument("time_zone", "belongs to a schedule, and the job has none")
    return [each.SerializeToString() for each in document.schedules] != before


def _restate(
    status: job.JobStatus.ValueType, document: job.JobResponse, state: JobState, until: Instant | None, now: Instant
) -> tuple[JobState, Instant | None, str]:
    """What a status in an update means: PAUSED, CANCELLED, and PENDING or SCHEDULED to resume; the others are observations."""
    if status == job.PAUSED and state is not JobState.PAUSED:
        document.pause.since.CopyFrom(values.timestamp(now))
        return JobState.PAUSED, None, "pause"
    if status == job.CANCELLED and state is not JobState.CANCELLED:
        document.ClearField("pause")
        return JobState.CANCELLED, None, "cancel"
    if status in _RESUMES and state is not JobState.ACTIVE:
        document.ClearField("pause")
        return JobState.ACTIVE, None, "resume"
    return state, until, "update"


def _next(
    row: StoredJob,
    document: job.JobResponse,
    change: str,
    state: tuple[JobState, Instant | None],
    timed: Instant | None,
    catch_up: CatchUp = CatchUp.SKIP,
) -> Revision | None:
    """The revision, or None when nothing changes. `timed`: the instant after which new schedules must fire."""
    values.text(document.description, bounds.DESCRIPTION_LENGTH, "description")
    shape = shapes.shape_of(document)
    if timed is not None:
        for at, spec in enumerate(shape.schedules):
            unexpired(spec, timed, f"schedules[{at}]")
    documents.show_schedules(document, shape.schedules)
    if state[0] is JobState.PAUSED:
        catch_up = CatchUp(document.pause.catch_up or CatchUp.SKIP)
    revision = documents.revised(document, change, *state, shape, catch_up)
    unchanged = (row.state, row.until) == state and _same(row.document, document)
    return None if unchanged else revision


def _same(encoded: bytes, document: job.JobResponse) -> bool:
    return job.JobResponse.FromString(encoded) == document


def pause(note: str, by: str, until: Instant | None, now: Instant, catch_up: CatchUp = CatchUp.SKIP) -> Edit:
    """Pauses, or changes the note, who, until when and what then of a pause. Raises InvalidArgument."""
    values.text(note, bounds.DESCRIPTION_LENGTH, "note")
    values.text(by, bounds.NAME_LENGTH, "by")
    if until is not None and until <= now:
        raise InvalidArgument("until", "is not after now")

    def edit(row: StoredJob) -> Revision | None:
        document, state, _ = _current(row, now)
        if state is JobState.CANCELLED:
            raise FailedPrecondition(f"job {row.id!r} is cancelled: resume it first")
        since = document.pause.since if state is JobState.PAUSED else values.timestamp(now)
        ends = values.timestamp(until) if until is not None else None
        document.pause.CopyFrom(job.Pause(note=note, by=by, since=since, until=ends, catch_up=_named(catch_up)))
        return _next(row, document, "pause", (JobState.PAUSED, until), None)

    return edit


def _named(catch_up: CatchUp) -> str:
    return "" if catch_up is CatchUp.SKIP else str(catch_up)


def resume(now: Instant, catch_up: CatchUp = CatchUp.SKIP) -> Edit:
    """Ends a pause or a cancellation; the schedule goes on from now. `catch_up`: what becomes of what a pause missed."""

    def edit(row: StoredJob) -> Revision | None:
        document, _, _ = _current(row, now)
        document.ClearField("pause")
        return _next(row, document, "resume", (JobState.ACTIVE, None), None, catch_up)

    return edit


def end(change: str, state: JobState) -> Edit:
    """Cancels or deletes."""

    def edit(row: StoredJob) -> Revision | None:
        document = job.JobResponse.FromString(row.document)
        document.ClearField("pause")
        return _next(row, document, change, (state, None), None)

    return edit


def reschedule(request: scheduler.ScheduleJobRequest, now: Instant) -> Edit:
    """The Scheduler Service's upsert of a job that exists: its fields and the resources."""
    asked = request.job
    change = job.UpdateJobRequest(
        name=asked.name,
        description=asked.description,
        cron_expression=asked.cron_expression,
        metadata=asked.metadata,
        priority=asked.priority,
        max_retries=asked.max_retries,
        timeout=asked.timeout,
        status=asked.status if asked.status in (job.PAUSED, job.CANCELLED) else job.UNSPECIFIED,
        schedules=asked.schedules,
        tags=asked.tags,
        time_zone=asked.time_zone,
    )
    for name in ("task", "policies", "requirements"):
        if asked.HasField(name):
            getattr(change, name).CopyFrom(getattr(asked, name))
    if request.HasField("resource_requirements"):
        merge_resources(change.requirements, request.resource_requirements)
    return update(change, now)


def merge_resources(requirements: job.Requirements, resources: scheduler.Resources) -> None:
    """Puts the three resources of the Scheduler Service's API into a job's requirements."""
    requirements.cpu, requirements.memory, requirements.storage = resources.cpu, resources.memory, resources.storage
