"""The methods of job.v1.JobService: messages in, messages out. Both gRPC and HTTP call them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import TypeVar

from google.protobuf.message import Message

from dts import bounds
from dts.api import documents, edits, tasks, values, views
from dts.api.reading import enum_names
from dts.errors import InvalidArgument, NotFound
from dts.gen.job.v1 import job_pb2 as job
from dts.model import JobState, ScheduleSpec, Status, StoredJob
from dts.services.ids import check_job_id, check_request_id, job_id_of
from dts.services.jobs import Change, JobService
from dts.services.schedules import explain

SCANNED_JOBS = 5_000  # rows looked through for one page of a filtered list
PREVIEWED = 5  # instants of a preview that names no count
_DONE = frozenset({job.PAUSED, job.CANCELLED, job.COMPLETED})

NAMESAKES = 20  # jobs looked at for one that has the name that was taken for an id

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


def _hints_at_names(
    method: Callable[[JobMethods, Q], Awaitable[A]],
) -> Callable[[JobMethods, Q], Awaitable[A]]:
    """A job that is not found may have been called by its name: the refusal then says its id."""

    @wraps(method)
    async def hinting(self: JobMethods, request: Q) -> A:
        try:
            return await method(self, request)
        except NotFound as error:
            found = await self.namesake(error.id) if error.kind == "job" else ""
            if not found:
                raise
            raise NotFound(error.kind, error.id, f"there is a job named {error.id!r}: {found}") from None

    return hinting


class JobMethods:
    """Each method raises DtsError for what the caller did or the world is; anything else is a bug."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    # ---- one job ----

    async def CreateJob(self, request: job.CreateJobRequest) -> job.CreateJobResponse:
        """Creates a job. The same id or request_id with the same content gives the first answer again."""
        (id,), _ = await self._create([request])
        return job.CreateJobResponse(job_id=id)

    @_hints_at_names
    async def GetJob(self, request: job.GetJobRequest) -> job.JobResponse:
        """One job as it is now, with its next and last run."""
        return await self._job(check_job_id(request.id))

    @_hints_at_names
    async def UpdateJob(self, request: job.UpdateJobRequest) -> job.JobResponse:
        """Changes a job. Empty fields are left as they are, unless the field mask names them."""
        change = self._update(request)
        settle = request.status != job.UNSPECIFIED
        return await self._shown(await self._jobs.change([change], settle=settle))

    @_hints_at_names
    async def DeleteJob(self, request: job.DeleteJobRequest) -> job.DeleteJobResponse:
        """Deletes a job and ends what it has open. Its history stays."""
        change = Change(check_job_id(request.id), edits.end("delete", JobState.DELETED))
        await self._jobs.change([change], settle=True)
        return job.DeleteJobResponse(success=True)

    @_hints_at_names
    async def CancelJob(self, request: job.CancelJobRequest) -> job.CancelJobResponse:
        """Cancels a job: its schedule ends, its open executions end as CANCELLED. Only a resume makes it run again."""
        id = check_job_id(request.id)
        before = await self._jobs.stored(id)
        await self._jobs.change([Change(id, edits.end("cancel", JobState.CANCELLED))], settle=True)
        done = "was cancelled already" if before.state is JobState.CANCELLED else "is cancelled"
        return job.CancelJobResponse(success=True, message=f"job {id} {done}")

    @_hints_at_names
    async def PauseJob(self, request: job.PauseJobRequest) -> job.JobResponse:
        """Stops a job's schedule for a while. Instants of the pause become one range in the record."""
        id, revision = check_job_id(request.id), values.within(request.revision, 0, 2**63 - 1, "revision")
        change = Change(id, self._pause(request), revision)
        return await self._shown(await self._jobs.change([change], settle=True))

    @_hints_at_names
    async def ResumeJob(self, request: job.ResumeJobRequest) -> job.JobResponse:
        """Ends a pause or a cancellation."""
        id, revision = check_job_id(request.id), values.within(request.revision, 0, 2**63 - 1, "revision")
        return await self._shown(
            await self._jobs.change([Change(id, edits.resume(self._jobs.now()), revision)], settle=True)
        )

    @_hints_at_names
    async def RunJob(self, request: job.RunJobRequest) -> job.RunJobResponse:
        """Runs a job now, beside its schedule."""
        id, request_id = check_job_id(request.id), check_request_id(request.request_id)
        arguments = b""
        if request.HasField("task") and request.task.WhichOneof("kind") is not None:
            tasks.check(request.task)
            row = await self._jobs.stored(id)
            arguments = tasks.body(request.task, job.JobResponse.FromString(row.document).timeout)
        return job.RunJobResponse(execution_id=await self._jobs.run(id, arguments, request_id))

    async def ListRevisions(self, request: job.ListRevisionsRequest) -> job.ListRevisionsResponse:
        """All revisions of a job, newest first."""
        id, limit = check_job_id(request.id), values.page_size(request)
        before = values.within(request.before_revision, 0, 2**63 - 1, "before_revision")
        found = await self._jobs.revisions(id, before, limit)
        return job.ListRevisionsResponse(revisions=[views.revision_message(each) for each in found])

    async def PreviewSchedule(self, request: job.PreviewScheduleRequest) -> job.PreviewScheduleResponse:
        """The next instants of a schedule that need not be stored, and what it means in words."""
        count = values.within(request.count, 0, bounds.PREVIEW_INSTANTS, "count") or PREVIEWED
        after = values.instant(request.after, "after") if request.HasField("after") else self._jobs.now()
        text = values.text(request.expression, bounds.SCHEDULE_LENGTH, "expression").strip()
        zone = values.text(request.time_zone, bounds.SCHEDULE_LENGTH, "time_zone") or "UTC"
        spec = ScheduleSpec(text, zone, None, None, request.gap, request.fold)
        return views.preview_message(explain(spec, after, count))

    # ---- lists ----

    async def ListJobs(self, request: job.ListJobsRequest) -> job.ListJobsResponse:
        """Jobs by id, a page at a time."""
        limit = values.page_size(request)
        after = check_job_id(request.last_id, "last_id") if request.last_id else ""
        chosen = _Filter(request)
        found: list[job.JobResponse] = []
        scanned, more = 0, True
        while more and len(found) <= limit and scanned < SCANNED_JOBS:
            rows = await self._jobs.page(after, limit + 1, chosen.states, request.tag, request.name_contains)
            scanned, more = scanned + len(rows), len(rows) > limit
            now = self._jobs.now()
            seen = await self._jobs.see(rows)
            found += [shown for each in seen if chosen.shows(shown := views.job_message(each, now))]
            after = rows[-1].id if rows else after
        page = found[:limit]
        following = page[-1].id if len(found) > limit else after if more else ""
        total = len(page) if chosen.narrow else await self._jobs.count()
        return job.ListJobsResponse(jobs=page, total=total, next_page=following)

    # ---- many jobs ----

    async def BatchCreateJobs(self, request: job.BatchCreateJobsRequest) -> job.BatchCreateJobsResponse:
        """Creates up to 10 000 jobs, all or none."""
        _bounded(len(request.jobs), "jobs")
        ids, existing = await self._create(request.jobs)
        return job.BatchCreateJobsResponse(job_ids=ids, existing=existing)

    async def BatchUpdateJobs(self, request: job.BatchUpdateJobsRequest) -> job.BatchUpdateJobsResponse:
        """Updates up to 10 000 jobs, all or none."""
        _bounded(len(request.jobs), "jobs")
        changes, index = [], 0
        try:
            for index, each in enumerate(request.jobs):  # noqa: B007 - for the message
                changes.append(self._update(each))
        except InvalidArgument as error:
            raise _in_item(error, index, len(request.jobs) + 1) from None
        return job.BatchUpdateJobsResponse(revisions=_numbers(await self._jobs.change(changes, settle=True)))

    async def BatchPauseJobs(self, request: job.BatchPauseJobsRequest) -> job.BatchPauseJobsResponse:
        """Pauses up to 10 000 jobs, all or none."""
        edit = self._pause(request)
        rows = await self._jobs.change([Change(id, edit) for id in _ids(request.ids)], settle=True)
        return job.BatchPauseJobsResponse(revisions=_numbers(rows))

    async def BatchResumeJobs(self, request: job.BatchResumeJobsRequest) -> job.BatchResumeJobsResponse:
        """Resumes up to 10 000 jobs, all or none."""
        edit = edits.resume(self._jobs.now())
        rows = await self._jobs.change([Change(id, edit) for id in _ids(request.ids)], settle=True)
        return job.BatchResumeJobsResponse(revisions=_numbers(rows))

    async def BatchDeleteJobs(self, request: job.BatchDeleteJobsRequest) -> job.BatchDeleteJobsResponse:
        """Deletes up to 10 000 jobs, all or none."""
        edit = edits.end("delete", JobState.DELETED)
        rows = await self._jobs.change([Change(id, edit) for id in _ids(request.ids)], settle=True)
        return job.BatchDeleteJobsResponse(deleted=len(rows))

    # ---- shared ----

    async def namesake(self, name: str) -> str:
        """The id of a job with this very name, '' for none."""
        for row in await self._jobs.page("", NAMESAKES, frozenset(), name=name):
            if job.JobResponse.FromString(row.document).name == name:
                return row.id
        return ""

    async def _create(self, requests: Sequence[job.CreateJobRequest]) -> tuple[list[str], int]:
        """Creates all or none; their ids in order, and how many are repeats of an earlier create, which are left as they are."""
        ids, marks = self._named(requests)
        repeats = (
            await self._jobs.repeats({ids[index]: mark for index, mark in marks.items()}) if marks else frozenset()
        )
        now, revisions, index = self._jobs.now(), [], 0
        try:
            for index, (each, id) in enumerate(zip(requests, ids, strict=True)):
                if id not in repeats:
                    revisions.append(documents.created(each, id, now, marks.get(index, "")))
        except InvalidArgument as error:
            raise _in_item(error, index, len(requests)) from None
        await self._jobs.create(revisions)
        return ids, len(ids) - len(revisions)

    def _named(self, requests: Sequence[job.CreateJobRequest]) -> tuple[list[str], dict[int, str]]:
        """Each request's id, and the fingerprints of those that may be repeats, by index."""
        wanted = [each.id or each.request_id for each in requests]
        fresh = iter(self._jobs.new_ids(wanted.count("")))
        ids, marks, index = [], {}, 0
        try:
            for index, name in enumerate(wanted):
                if name:
                    marks[index] = documents.fingerprint(requests[index])
                ids.append(_chosen_id(requests[index]) if name else next(fresh))
        except InvalidArgument as error:
            raise _in_item(error, index, len(requests)) from None
        return ids, marks

    def _update(self, request: job.UpdateJobRequest) -> Change:
        id, revision = check_job_id(request.id), values.within(request.revision, 0, 2**63 - 1, "revision")
        return Change(id, edits.update(request, self._jobs.now()), revision)

    def _pause(self, request: job.PauseJobRequest | job.BatchPauseJobsRequest) -> edits.Edit:
        until = values.instant(request.until, "until") if request.HasField("until") else None
        return edits.pause(request.note, request.by, until, self._jobs.now())

    async def _job(self, id: str) -> job.JobResponse:
        seen = await self._jobs.get(id)
        return views.job_message(seen, self._jobs.now())

    async def _shown(self, rows: Sequence[StoredJob]) -> job.JobResponse:
        (seen,) = await self._jobs.see(rows)
        return views.job_message(seen, self._jobs.now())


class _Filter:
    """Which jobs a list shows. `states`: what the store can tell apart; `narrow`: not all jobs are shown."""

    def __init__(self, request: job.ListJobsRequest) -> None:
        self._active = request.status.lower() == "active"
        self._status = job.UNSPECIFIED if self._active else _status(request.status)
        self._last = _last_status(request.last_status)
        values.text(request.tag, bounds.TAG_LENGTH, "tag")
        values.text(request.name_contains, bounds.NAME_LENGTH, "name_contains")
        self.narrow = bool(request.status or self._last or request.tag or request.name_contains)
        self.states: frozenset[int] = frozenset()
        if self._status == job.CANCELLED:
            self.states = frozenset({JobState.CANCELLED})
        elif self._active or self._status != job.UNSPECIFIED:
            self.states = frozenset({JobState.ACTIVE, JobState.PAUSED})  # a pause may have ended by itself

    def shows(self, shown: job.JobResponse) -> bool:
        """Whether a job is wanted."""
        if self._active and shown.status in _DONE:
            return False
        if self._status not in (job.UNSPECIFIED, shown.status):
            return False
        return not self._last or shown.last_status == self._last


def _status(text: str) -> job.JobStatus.ValueType:
    if not text:
        return job.UNSPECIFIED
    name = enum_names(job.JobStatus.DESCRIPTOR).get(text.upper())
    if name is None:
        raise InvalidArgument("status", f"{text[:40]!r} is none of active, {', '.join(job.JobStatus.keys())}")
    return job.JobStatus.Value(name)


def _last_status(text: str) -> str:
    ended = [status.name for status in Status if status.terminal]
    if text and text.upper() not in ended:
        raise InvalidArgument("last_status", f"{text[:40]!r} is none of {', '.join(ended)}")
    return text.upper()


def _chosen_id(request: job.CreateJobRequest) -> str:
    """The id that a request chooses, or the one that its request id stands for."""
    check_request_id(request.request_id)
    return check_job_id(request.id) if request.id else job_id_of(request.request_id)


def _ids(ids: Sequence[str]) -> list[str]:
    _bounded(len(ids), "ids")
    return [check_job_id(id, f"ids[{index}]") for index, id in enumerate(ids)]


def _bounded(count: int, field: str) -> None:
    if count > bounds.BULK_JOBS:
        raise InvalidArgument(field, f"{count} in one request; at most {bounds.BULK_JOBS}")


def _numbers(rows: Sequence[StoredJob]) -> list[int]:
    return [row.revision for row in rows]


def _in_item(error: InvalidArgument, index: int, count: int) -> InvalidArgument:
    """The error with its place in a request for many jobs."""
    if count == 1:
        return error
    return InvalidArgument(f"jobs[{index}].{error.field}" if error.field else f"jobs[{index}]", error.problem)
