"""Jobs from the wire to the store: requests become documents (a JobResponse without computed fields) and revisions."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from dts import bounds
from dts.api import shapes, tasks, values
from dts.errors import InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.model import CatchUp, Definition, Instant, JobState, Revision, ScheduleSpec
from dts.services.schedules import unexpired

Schedules = RepeatedCompositeFieldContainer[job.Schedule]
JobContent = job.CreateJobRequest | job.JobResponse

_STATES = {job.PAUSED: JobState.PAUSED, job.CANCELLED: JobState.CANCELLED}
# Fields that differ from job to job while the rest is often the same for thousands.
_OWN = ("name", "description", "metadata", "tags", "id", "request_id")
_HAND_OVER = ("cron_expression", "time_zone", "priority", "max_retries", "timeout")  # copied as they are


class _Template(NamedTuple):
    """What jobs that were asked for alike share. `tail` is the document's encoding without the job's own fields."""

    shape: shapes.Shape
    has_task: bool
    body: bytes
    state: JobState
    tail: bytes
    spread: bool  # its schedules depend on the job's id (H)


def fingerprint(request: job.CreateJobRequest) -> str:
    """Stands for the content of a create: a repeat has the same."""
    return blake2b(request.SerializeToString(deterministic=True), digest_size=16).hexdigest()


def created(request: job.CreateJobRequest, id: str, now: Instant, mark: str = "") -> Revision:
    """The first revision of a job; takes the request's own fields out of it. `mark`: the request's fingerprint, if repeats matter.

    Raises InvalidArgument naming the field.
    """
    name = values.text(request.name, bounds.NAME_LENGTH, "name")
    description = values.text(request.description, bounds.DESCRIPTION_LENGTH, "description")
    metadata = values.metadata(request.metadata) if request.metadata else {}
    tags = values.tags(request.tags) if request.tags else ()
    for field in _OWN:
        request.ClearField(field)  # type: ignore[arg-type]
    encoded = request.SerializeToString(deterministic=True)
    try:
        template = _template(encoded, "")
        if template.spread:
            template = _template(encoded, id)
        for at, spec in enumerate(template.shape.schedules):
            unexpired(spec, now, f"schedules[{at}]")
    except InvalidArgument as error:
        raise error if request.schedules else as_cron(error) from None
    head = job.JobResponse(id=id, name=name, description=description)
    if metadata:
        head.metadata.update(metadata)
    if tags:
        head.tags.extend(tags)
    if template.state is JobState.PAUSED:
        head.pause.since.CopyFrom(values.timestamp(now))
    document = bounded(head.SerializeToString() + template.tail)  # two encodings in a row are one message
    shape, body = template.shape, template.body
    if metadata and not template.has_task:
        body = tasks.body(tasks.task_of(None, metadata), shape.timeout_s)
    definition = Definition(
        id,
        1,
        now,
        template.state,
        None,
        shape.schedules,
        shape.demand,
        shape.policies,
        body,
        group=shape.group,
    )
    return Revision(definition, "create", now, name, tags, document, mark)


@lru_cache(maxsize=shapes.SHAPES)
def _template(encoded: bytes, id: str) -> _Template:
    request = job.CreateJobRequest.FromString(encoded)
    document = job.JobResponse(id=id)
    copy_content(request, document)
    document.schedules.extend(asked_schedules(request))
    shape = shapes.shape_of(document)
    spread = not id and any(
        spec.text != asked.expression.strip() for spec, asked in zip(shape.schedules, document.schedules, strict=True)
    )
    show_schedules(document, shape.schedules)
    document.ClearField("id")
    task = tasks.task_of(document.task if document.HasField("task") else None, {})
    state = _STATES.get(request.status, JobState.ACTIVE)
    tail = document.SerializeToString(deterministic=True)
    return _Template(shape, task is not None, tasks.body(task, shape.timeout_s), state, tail, spread)


def copy_content(content: JobContent, document: job.JobResponse) -> None:
    """What to run and under which policies, as it was asked for; the schedules are the caller's."""
    for field in _HAND_OVER:
        setattr(document, field, getattr(content, field))
    if content.HasField("task") and content.task.WhichOneof("kind") is not None:
        document.task.CopyFrom(content.task)
    if content.HasField("requirements"):
        document.requirements.CopyFrom(content.requirements)
    if content.HasField("policies"):
        document.policies.CopyFrom(content.policies)


def as_cron(error: InvalidArgument) -> InvalidArgument:
    """The same error with the names of who gave one cron expression and no list of schedules."""
    field = error.field.replace("schedules[0].time_zone", "time_zone")
    field = field.replace("schedules[0].expression", "cron_expression").replace("schedules[0]", "cron_expression")
    return InvalidArgument(field, error.problem)


def asked_schedules(content: JobContent) -> list[job.Schedule]:
    """The schedules of a new job: those given, or the one cron expression. Raises InvalidArgument when they disagree."""
    if not content.schedules:
        if not content.cron_expression.strip():
            if content.time_zone:
                raise InvalidArgument("time_zone", "belongs to cron_expression, which is empty")
            return []
        return [job.Schedule(expression=content.cron_expression, time_zone=content.time_zone)]
    first = content.schedules[0]
    if content.cron_expression not in ("", first.expression):
        raise InvalidArgument("cron_expression", "is not the first of schedules: give one of the two")
    if content.time_zone not in ("", first.time_zone):
        raise InvalidArgument("time_zone", "is not that of the first of schedules: give one of the two")
    return list(content.schedules)


def show_schedules(document: job.JobResponse, specs: tuple[ScheduleSpec, ...]) -> None:
    """Puts resolved schedules into the document; the first one is also its cron expression and time zone."""
    for schedule, spec in zip(document.schedules, specs, strict=True):
        schedule.expression, schedule.time_zone = spec.text, spec.zone
    first = document.schedules[0] if document.schedules else job.Schedule()
    document.cron_expression, document.time_zone = first.expression, first.time_zone


def revised(
    document: job.JobResponse,
    change: str,
    state: JobState,
    until: Instant | None,
    shape: shapes.Shape | None = None,
    catch_up: CatchUp = CatchUp.SKIP,
) -> Revision:
    """The next revision of a job; its number, `since`, creation and fingerprint are set by the use case. Raises InvalidArgument."""
    shape = shape or shapes.shape_of(document)
    metadata = values.metadata(document.metadata)
    tags = values.tags(document.tags)
    task = tasks.task_of(document.task if document.HasField("task") else None, metadata)
    definition = Definition(
        document.id,
        0,
        0,
        state,
        until,
        shape.schedules,
        shape.demand,
        shape.policies,
        tasks.body(task, shape.timeout_s),
        group=shape.group,
        catch_up=catch_up,
    )
    return Revision(
        definition,
        change,
        0,
        values.text(document.name, bounds.NAME_LENGTH, "name"),
        tags,
        bounded(document.SerializeToString(deterministic=True)),
    )


def bounded(document: bytes) -> bytes:
    """The document itself. Raises InvalidArgument when the job as a whole is too large."""
    if len(document) > bounds.DEFINITION_BYTES:
        raise InvalidArgument("", f"the job takes {len(document)} bytes; at most {bounds.DEFINITION_BYTES}")
    return document
