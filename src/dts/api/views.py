"""Domain values as the wire shows them: jobs with what is computed when read, executions, ranges, workers, shards."""

from __future__ import annotations

from dts.api.values import timestamp
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler
from dts.model import (
    Definition,
    Demand,
    Execution,
    Instant,
    JobState,
    JobView,
    Range,
    Revision,
    ScheduleSpec,
    ShardView,
    Status,
    StoredJob,
    WorkerView,
)
from dts.services.explain import Explained
from dts.services.jobs import Seen
from dts.services.schedules import Explanation, Timing, next_run

STATES: dict[JobState, job.JobStatus.ValueType] = {JobState.PAUSED: job.PAUSED, JobState.CANCELLED: job.CANCELLED}


def job_message(seen: Seen, now: Instant) -> job.JobResponse:
    """A job as it is now."""
    row = seen.job
    message = job.JobResponse.FromString(row.document)
    following = next_run(timing_of(row, message), now)
    state = state_now(row, now)
    if state is JobState.ACTIVE and seen.view.suspended:
        state, following = JobState.PAUSED, None
        view = seen.view
        why = job.Pause(note=view.suspension, by="dts", since=timestamp(view.suspended), failures=view.failures)
        message.pause.CopyFrom(why)
    message.status = job_status(state, seen.view, following, seen.last)
    message.revision = row.revision
    message.created_at.CopyFrom(timestamp(row.created))
    message.updated_at.CopyFrom(timestamp(row.updated))
    if following is not None:
        message.next_run.CopyFrom(timestamp(following))
    if state is not JobState.PAUSED:
        message.ClearField("pause")
    if seen.last is not None:
        message.last_run.CopyFrom(timestamp(seen.last.end.started or seen.last.key.at))
        message.last_status = seen.last.status.name
        message.last_execution_id = str(seen.last.key)
    return message


def state_now(row: StoredJob, now: Instant) -> JobState:
    """A pause that has ended by itself is over."""
    over = row.state is JobState.PAUSED and row.until is not None and row.until <= now
    return JobState.ACTIVE if over else row.state


def timing_of(row: StoredJob, document: job.JobResponse) -> Timing:
    """What decides a stored job's next instant."""
    return Timing(tuple(_spec(each) for each in document.schedules), row.state, row.until)


def _spec(schedule: job.Schedule) -> ScheduleSpec:
    """A stored schedule, which was checked when it was stored."""
    start = schedule.start.ToMilliseconds() if schedule.HasField("start") else None
    end = schedule.end.ToMilliseconds() if schedule.HasField("end") else None
    return ScheduleSpec(schedule.expression, schedule.time_zone, start, end, schedule.gap, schedule.fold)


def job_status(
    state: JobState, view: JobView, following: Instant | None, last: Execution | None
) -> job.JobStatus.ValueType:
    """The first that applies: CANCELLED, PAUSED, RUNNING, RETRYING, PENDING, SCHEDULED, else how the last execution ended."""
    if state in STATES:
        return STATES[state]
    if view.running:
        return job.RUNNING
    if view.retrying:
        return job.RETRYING
    if view.queued or view.placed:
        return job.PENDING
    if following is not None:
        return job.SCHEDULED
    if last is None:
        return job.PENDING
    return job.COMPLETED if last.status is Status.COMPLETED else job.FAILED


def revision_message(revision: Revision) -> job.Revision:
    """A revision as it was stored."""
    definition = revision.definition
    return job.Revision(
        revision=definition.revision,
        since=timestamp(definition.since),
        change=revision.change,
        job=_as_stored(revision),
    )


def _as_stored(revision: Revision) -> job.JobResponse:
    definition: Definition = revision.definition
    message = job.JobResponse.FromString(revision.document)
    message.revision = definition.revision
    message.created_at.CopyFrom(timestamp(revision.created))
    message.updated_at.CopyFrom(timestamp(definition.since))
    message.status = STATES.get(definition.state, job.UNSPECIFIED)
    return message


def shown_status(found: Execution) -> str:
    """A placed attempt that its worker has started is RUNNING."""
    return "RUNNING" if found.status is Status.PLACED and found.end.started else found.status.name


def execution_message(found: Execution, earlier: tuple[Execution, ...] = ()) -> execution.ExecutionResponse:
    """An execution, open or ended, with its earlier attempts."""
    end = found.end
    message = execution.ExecutionResponse(
        id=str(found.key),
        job_id=found.key.job,
        status=shown_status(found),
        result=end.result,
        error=end.error,
        scheduled_time=timestamp(found.key.at),
        attempt=found.attempt,
        cause=found.cause,
        revision=found.revision,
        worker_id=found.worker,
        exit_code=end.code,
        reason=found.reason,
        retry_of=found.retry_of,
        fencing_number=found.fencing,
        attempts=[_attempt(each) for each in earlier],
        error_kind=end.kind,
        enforced=_enforced(end.enforced),
    )
    for field, at in (
        (message.start_time, end.started),
        (message.end_time, end.ended),
        (message.queued_time, found.queued),
        (message.placed_time, found.placed),
        (message.retry_time, found.not_before),
    ):
        if at:
            field.CopyFrom(timestamp(at))
    return message


def _attempt(found: Execution) -> execution.Attempt:
    end = found.end
    return execution.Attempt(
        attempt=found.attempt,
        status=found.status.name,
        worker_id=found.worker,
        start_time=timestamp(end.started) if end.started else None,
        end_time=timestamp(end.ended) if end.ended else None,
        exit_code=end.code,
        error=end.error,
        error_kind=end.kind,
        enforced=_enforced(end.enforced),
    )


def _enforced(text: str) -> dict[str, str]:
    """As model.End has it, by resource."""
    return dict(each.split("=", 1) for each in text.split(",")) if text else {}


def range_message(found: Range) -> execution.Range:
    """One verdict over instants that did not run."""
    return execution.Range(
        job_id=found.job,
        after=timestamp(found.after),
        until=timestamp(found.until),
        count=found.size,
        reason=found.reason,
        revision=found.revision,
    )


def preview_message(explained: Explanation) -> job.PreviewScheduleResponse:
    """A schedule explained."""
    return job.PreviewScheduleResponse(
        next=[timestamp(each.instant) for each in explained.next],
        sentence=explained.sentence,
        hints=explained.hints,
        occurrences=[
            job.Occurrence(instant=timestamp(each.instant), local=each.local, note=each.note) for each in explained.next
        ],
        transitions=[job.Transition(instant=timestamp(each.instant), note=each.note) for each in explained.transitions],
    )


def worker_message(view: WorkerView) -> scheduler.Worker:
    """A worker and what is taken of it."""
    info = view.info
    return scheduler.Worker(
        id=info.ref.id,
        incarnation=info.ref.incarnation,
        host=info.host,
        pid=info.pid,
        version=info.version,
        capacity=_capacity(info.total),
        taken=_capacity(view.taken),
        labels=dict(info.labels),
        attempts=view.attempts,
        attached=view.attached,
        last_heard=timestamp(view.heard),
        cordoned=view.cordoned,
        leaving=view.attached and view.leaving,
        credit=_capacity(view.credit) if view.credit is not None else None,
    )


def _capacity(demand: Demand) -> scheduler.Capacity:
    return scheduler.Capacity(
        cpu=demand.cpu, memory=demand.memory, storage=demand.storage, slots=demand.slots, custom=dict(demand.custom)
    )


def shard_message(view: ShardView) -> scheduler.Shard:
    """How a shard is."""
    return scheduler.Shard(
        shard=view.shard,
        epoch=view.epoch,
        seq=view.seq,
        watermark=timestamp(view.watermark),
        jobs=view.jobs,
        queued=view.queued,
        placed=view.placed,
        retrying=view.retrying,
    )


def pause_words(revision: Revision) -> str:
    """Who paused a job, and why, as a revision's document has it: 'by alice: migration'; '' for nothing told."""
    pause = job.JobResponse.FromString(revision.document).pause
    by = f"by {pause.by}" if pause.by else ""
    return f"{by}: {pause.note}" if by and pause.note else by or (f"with the note: {pause.note}" if pause.note else "")


def explained_message(found: Explained) -> execution.ExplainResponse:
    """An answer with its steps."""
    return execution.ExplainResponse(
        job_id=found.job,
        execution_id=str(found.execution) if found.execution is not None else "",
        at=timestamp(found.at) if found.at is not None else None,
        outcome=found.outcome,
        answer=found.answer,
        steps=[execution.ExplainStep(topic=each.topic, verdict=each.verdict, text=each.text) for each in found.steps],
        next_run=timestamp(found.next) if found.next is not None else None,
    )
