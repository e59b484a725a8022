"""The methods of job.v1.JobService: messages in, messages out. Both gRPC and HTTP call them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, TypeVar

from google.protobuf.message import Message

from dts import bounds
from dts.api import documents, edits, tasks, values, views
from dts.api.backfill_methods import BackfillMethods
from dts.api.job_batches import JobBatchMethods, bounded, in_item
from dts.api.job_filter import Filter
from dts.api.policies import catch_up_of
from dts.errors import FailedPrecondition, InvalidArgument, NotFound
from dts.gen.job.v1 import job_pb2 as job
from dts.model import CatchUp, JobState, ScheduleSpec, StoredJob
from dts.services.ids import check_job_id, check_request_id, job_id_of
from dts.services.jobs import Change, JobService
from dts.services.schedules import explain

SCANNED_JOBS = 5_000  # rows looked through for one page of a filtered list
PREVIEWED = 5  # instants of a preview that names no count
NAMESAKES = 20  # jobs looked at for one that has the name that was taken for an id

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


def _hints_at_names(
    method: Callable[[JobMethods, Q], Awaitable[A]],
) -> Callable[[JobMethods, Q], Coroutine[Any, Any, A]]:
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


class JobMethods(JobBatchMethods, BackfillMethods):
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
        rows = await self._jobs.change([change], settle=settle)
        if request.status in (job.PENDING, job.SCHEDULED):
            await self._jobs.lift(rows, CatchUp.SKIP)
        return await self._shown(rows)

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
        catch_up = catch_up_of(request.catch_up)
        rows = await self._jobs.change([Change(id, edits.resume(self._jobs.now(), catch_up), revision)], settle=True)
        await self._jobs.lift(rows, catch_up)
        return await self._shown(rows)

    @_hints_at_names
    async def RunJob(self, request: job.RunJobRequest) -> job.RunJobResponse:
        """Runs a job now, beside its schedule."""
        id, request_id = check_job_id(request.id), check_request_id(request.request_id)
        arguments = b""
        changed = request.HasField("task") and request.task.WhichOneof("kind") is not None
        if changed:
            tasks.check(request.task)
            row = await self._jobs.stored(id)
            arguments = tasks.body(request.task, job.JobResponse.FromString(row.document).timeout)
        if request.dry_run:
            return await self._would_run(id, request.task if changed else None)
        return job.RunJobResponse(execution_id=await self._jobs.run(id, arguments, request_id))

    @_hints_at_names
    async def StartBackfill(self, request: job.StartBackfillRequest) -> job.StartBackfillResponse:
        """Runs the instants of a job's schedule in a range, at most so many at once."""
        return await super().StartBackfill(request)

    async def _would_run(self, id: str, changed: job.Task | None) -> job.RunJobResponse:
        row = await self._jobs.stored(id)
        if row.state is JobState.CANCELLED:
            raise FailedPrecondition(f"job {id!r} is cancelled: resume it first")
        document = job.JobResponse.FromString(row.document)
        own = tasks.task_of(document.task if document.HasField("task") else None, document.metadata)
        return job.RunJobResponse(task=changed or own, revision=row.revision)

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
        chosen = Filter(request)
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
        bounded(len(request.jobs), "jobs")
        ids, existing = await self._create(request.jobs)
        return job.BatchCreateJobsResponse(job_ids=ids, existing=existing)

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
            raise in_item(error, index, len(requests)) from None
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
            raise in_item(error, index, len(requests)) from None
        return ids, marks

    async def _job(self, id: str) -> job.JobResponse:
        seen = await self._jobs.get(id)
        return views.job_message(seen, self._jobs.now())

    async def _shown(self, rows: Sequence[StoredJob]) -> job.JobResponse:
        (seen,) = await self._jobs.see(rows)
        return views.job_message(seen, self._jobs.now())


def _chosen_id(request: job.CreateJobRequest) -> str:
    """The id that a request chooses, or the one that its request id stands for."""
    check_request_id(request.request_id)
    return check_job_id(request.id) if request.id else job_id_of(request.request_id)
