"""The methods of scheduler.v1.SchedulerService: messages in, messages out. Both gRPC and HTTP call them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dts import bounds
from dts.api import documents, edits, values, views
from dts.errors import FailedPrecondition, InvalidArgument, NotFound
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler
from dts.model import Instant, JobState, ShardView, StoredJob, WorkerView
from dts.services.ids import check_job_id
from dts.services.jobs import Change, JobService
from dts.services.schedules import format_instant, next_run

SCANNED_JOBS = 5_000  # rows looked through for one page


class Scheduler(Protocol):
    """What the shards' owners say of themselves."""

    async def workers(self) -> Sequence[WorkerView]:
        """The attached workers."""
        ...

    async def cordon(self, worker: str, *, cordoned: bool, drain: bool = False, grace_ms: int = 0) -> bool:
        """Nothing new for a worker, or something again. False: it is not attached."""
        ...

    async def status(self) -> tuple[Sequence[ShardView], str, Sequence[str]]:
        """Shards owned here, the clock's state, notes for a person."""
        ...


class SchedulerMethods:
    """Each method raises DtsError for what the caller did or the world is; anything else is a bug."""

    def __init__(self, jobs: JobService, scheduler: Scheduler) -> None:
        self._jobs = jobs
        self._scheduler = scheduler

    async def ScheduleJob(self, request: scheduler.ScheduleJobRequest) -> scheduler.ScheduleJobResponse:
        """Stores the job under its id with these resources and, unless it has a cron expression, runs it now."""
        asked = request.job
        id = check_job_id(asked.id, "job.id") if asked.id else self._jobs.new_ids(1)[0]
        try:
            await self._upsert(request, id)
        except InvalidArgument as error:
            raise InvalidArgument(f"job.{error.field}" if error.field else "job", error.problem) from None
        row = await self._jobs.stored(id)
        execution_id = ""
        if row.state is JobState.ACTIVE and not job.JobResponse.FromString(row.document).schedules:
            execution_id = await self._jobs.run(id)
        return scheduler.ScheduleJobResponse(schedule_id=id, execution_id=execution_id)

    async def _upsert(self, request: scheduler.ScheduleJobRequest, id: str) -> None:
        now = self._jobs.now()
        try:
            await self._jobs.change([Change(id, edits.reschedule(request, now))])
        except NotFound:
            create = _create_request(request)
            mark = documents.fingerprint(create)
            await self._jobs.create([documents.created(create, id, now, mark)])

    async def CancelJob(self, request: scheduler.CancelJobRequest) -> scheduler.CancelJobResponse:
        """The same as the Job Service's CancelJob."""
        id = check_job_id(request.job_id, "job_id")
        await self._jobs.change([Change(id, edits.end("cancel", JobState.CANCELLED))], settle=True)
        return scheduler.CancelJobResponse(success=True)

    async def GetScheduledJob(self, request: scheduler.GetScheduledJobRequest) -> scheduler.GetScheduledJobResponse:
        """When a job runs next."""
        row = await self._jobs.stored(check_job_id(request.job_id, "job_id"))
        shown, _ = _scheduled(row, self._jobs.now())
        return shown

    async def ListScheduledJobs(
        self, request: scheduler.ListScheduledJobsRequest
    ) -> scheduler.ListScheduledJobsResponse:
        """Jobs that have a next instant, by id."""
        limit = values.page_size(request, bounds.PAGE_SIZE_SCHEDULED)
        after = check_job_id(request.page_token, "page_token") if request.page_token else ""
        states = frozenset({int(JobState.ACTIVE), int(JobState.PAUSED)})
        found: list[scheduler.GetScheduledJobResponse] = []
        scanned, more = 0, True
        while more and len(found) <= limit and scanned < SCANNED_JOBS:
            rows = await self._jobs.page(after, limit + 1, states)
            scanned, more = scanned + len(rows), len(rows) > limit
            now = self._jobs.now()
            found += [shown for shown, following in (_scheduled(row, now) for row in rows) if following is not None]
            after = rows[-1].id if rows else after
        page = found[:limit]
        token = page[-1].job_id if len(found) > limit else after if more else ""
        return scheduler.ListScheduledJobsResponse(
            jobs=page, next_page_token=token, total_count=await self._jobs.count()
        )

    async def ListWorkers(self, request: scheduler.ListWorkersRequest) -> scheduler.ListWorkersResponse:
        """The attached workers and what is taken of each."""
        del request  # it has no fields
        workers = await self._scheduler.workers()
        return scheduler.ListWorkersResponse(workers=[views.worker_message(each) for each in workers])

    async def CordonWorker(self, request: scheduler.CordonWorkerRequest) -> scheduler.CordonWorkerResponse:
        """Nothing new goes to the worker; what it has runs on."""
        await self._cordon(request.id, cordoned=True)
        return scheduler.CordonWorkerResponse()

    async def UncordonWorker(self, request: scheduler.UncordonWorkerRequest) -> scheduler.UncordonWorkerResponse:
        """It takes new work again."""
        await self._cordon(request.id, cordoned=False)
        return scheduler.UncordonWorkerResponse()

    async def DrainWorker(self, request: scheduler.DrainWorkerRequest) -> scheduler.DrainWorkerResponse:
        """Cordons it, and hands back what waits there; what runs may finish."""
        if not 0 <= request.grace_seconds <= bounds.TIMEOUT_MAX_S:
            raise InvalidArgument("grace_seconds", f"must be 0 to {bounds.TIMEOUT_MAX_S}, not {request.grace_seconds}")
        await self._cordon(request.id, cordoned=True, drain=True, grace_ms=request.grace_seconds * 1000)
        return scheduler.DrainWorkerResponse()

    async def _cordon(self, id: str, *, cordoned: bool, drain: bool = False, grace_ms: int = 0) -> None:
        if not id:
            raise InvalidArgument("id", "the worker's id is missing")
        if not await self._scheduler.cordon(id, cordoned=cordoned, drain=drain, grace_ms=grace_ms):
            raise NotFound("worker", id)

    async def GetStatus(self, request: scheduler.GetStatusRequest) -> scheduler.GetStatusResponse:
        """How the scheduler itself is: shards, watermark, queues, clock."""
        del request  # it has no fields
        shards, clock, notes = await self._scheduler.status()
        return scheduler.GetStatusResponse(
            shards=[views.shard_message(each) for each in shards], clock=clock, notes=notes
        )


def _scheduled(row: StoredJob, now: Instant) -> tuple[scheduler.GetScheduledJobResponse, Instant | None]:
    """A job with when it runs next, as text and as an instant."""
    document = job.JobResponse.FromString(row.document)
    following = next_run(views.timing_of(row, document), now)
    needs = document.requirements
    return scheduler.GetScheduledJobResponse(
        job_id=row.id,
        next_execution_time=format_instant(following) if following is not None else "",
        resource_requirements=scheduler.Resources(cpu=needs.cpu, memory=needs.memory, storage=needs.storage),
    ), following


def _create_request(request: scheduler.ScheduleJobRequest) -> job.CreateJobRequest:
    """The create that an upsert of an unknown job is."""
    asked = request.job
    if asked.status in (job.PAUSED, job.CANCELLED) and not asked.schedules and not asked.cron_expression:
        raise FailedPrecondition("a job that is paused or cancelled cannot be run now")
    create = job.CreateJobRequest(
        name=asked.name,
        description=asked.description,
        cron_expression=asked.cron_expression,
        metadata=asked.metadata,
        priority=asked.priority,
        max_retries=asked.max_retries,
        timeout=asked.timeout,
        status=asked.status,
        schedules=asked.schedules,
        tags=asked.tags,
        time_zone=asked.time_zone,
    )
    for name in ("task", "policies", "requirements"):
        if asked.HasField(name):
            getattr(create, name).CopyFrom(getattr(asked, name))
    if request.HasField("resource_requirements"):
        edits.merge_resources(create.requirements, request.resource_requirements)
    return create
