"""The client for asyncio."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from dts.client import base
from dts.client.base import TIMEOUT_S, Addresses
from dts.config import load
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.gen.execution.v1.execution_pb2_grpc import ExecutionServiceStub
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.job.v1.job_pb2_grpc import JobServiceStub
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler
from dts.gen.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class AsyncDtsClient:
    """One connection to each of the three services, made when it is first needed; use it in one event loop, close it after use.

    Make it in a coroutine. Every method raises ApiError. `timeout` is in seconds. Reads and creations are repeated a few times
    while a service cannot be reached, which is safe: a creation carries a request id.
    """

    def __init__(self, addresses: Addresses | None = None) -> None:
        """Connects to where DTS_HOST and the port variables say, unless told. Raises ConfigError when those are wrong."""
        self.addresses = addresses or Addresses.of(load(os.environ))
        options = base.channel_options()
        self._channels = {
            address: grpc.aio.insecure_channel(address, options=options)
            for address in (self.addresses.jobs, self.addresses.scheduler, self.addresses.executions)
        }
        self._jobs = JobServiceStub(self._channels[self.addresses.jobs])
        self._scheduler = SchedulerServiceStub(self._channels[self.addresses.scheduler])
        self._executions = ExecutionServiceStub(self._channels[self.addresses.executions])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections and whatever still runs on them."""
        for channel in self._channels.values():
            await channel.close()

    # ---- jobs -------------------------------------------------------------------------------------------------------

    async def create_job(self, request: job.CreateJobRequest, *, timeout: float = TIMEOUT_S) -> str:
        """Creates a job and returns its id."""
        return (await self._call(self._jobs.CreateJob, base.named(request), timeout, self.addresses.jobs)).job_id

    async def get_job(self, id: str, *, timeout: float = TIMEOUT_S) -> job.JobResponse:
        """One job as it is now."""
        return await self._call(self._jobs.GetJob, job.GetJobRequest(id=id), timeout, self.addresses.jobs)

    async def list_jobs(self, request: job.ListJobsRequest, *, timeout: float = TIMEOUT_S) -> job.ListJobsResponse:
        """One page of jobs by id; `iter_jobs` follows the pages."""
        return await self._call(self._jobs.ListJobs, request, timeout, self.addresses.jobs)

    async def iter_jobs(
        self, request: job.ListJobsRequest, *, timeout: float = TIMEOUT_S
    ) -> AsyncIterator[job.JobResponse]:
        """Jobs that the request selects, page after page."""
        asked = job.ListJobsRequest()
        asked.CopyFrom(request)
        while True:
            page = await self.list_jobs(asked, timeout=timeout)
            for each in page.jobs:
                yield each
            if not page.next_page:
                return
            asked.last_id = page.next_page

    async def update_job(self, request: job.UpdateJobRequest, *, timeout: float = TIMEOUT_S) -> job.JobResponse:
        """Changes a job; empty fields are left as they are, unless the mask names them."""
        return await self._call(self._jobs.UpdateJob, request, timeout, self.addresses.jobs)

    async def delete_job(self, id: str, *, timeout: float = TIMEOUT_S) -> bool:
        """Deletes a job; its history stays."""
        return (
            await self._call(self._jobs.DeleteJob, job.DeleteJobRequest(id=id), timeout, self.addresses.jobs)
        ).success

    async def cancel_job(self, id: str, *, timeout: float = TIMEOUT_S) -> job.CancelJobResponse:
        """Ends a job for good, and its open executions as CANCELLED."""
        return await self._call(self._jobs.CancelJob, job.CancelJobRequest(id=id), timeout, self.addresses.jobs)

    async def pause_job(self, request: job.PauseJobRequest, *, timeout: float = TIMEOUT_S) -> job.JobResponse:
        """Stops a job's schedule for a while."""
        return await self._call(self._jobs.PauseJob, request, timeout, self.addresses.jobs)

    async def resume_job(
        self, id: str, revision: int = 0, catch_up: str = "", *, timeout: float = TIMEOUT_S
    ) -> job.JobResponse:
        """Ends a pause, or a suspension after failures. `catch_up`: what was missed is skipped (''), newest or all of it runs."""
        return await self._call(
            self._jobs.ResumeJob,
            job.ResumeJobRequest(id=id, revision=revision, catch_up=catch_up),
            timeout,
            self.addresses.jobs,
        )

    async def run_job(
        self, id: str, task: job.Task | None = None, request_id: str = "", *, timeout: float = TIMEOUT_S
    ) -> str:
        """Runs a job now, beside its schedule, with another task if one is given. Returns the execution's id."""
        request = job.RunJobRequest(id=id, task=task, request_id=request_id or base.new_request_id())
        return (await self._call(self._jobs.RunJob, request, timeout, self.addresses.jobs)).execution_id

    async def would_run_job(
        self, id: str, task: job.Task | None = None, *, timeout: float = TIMEOUT_S
    ) -> job.RunJobResponse:
        """What `run_job` would run now: the task, and the job's revision."""
        request = job.RunJobRequest(id=id, task=task, dry_run=True)
        return await self._call(self._jobs.RunJob, request, timeout, self.addresses.jobs)

    async def list_revisions(
        self, id: str, page_size: int = 0, before_revision: int = 0, *, timeout: float = TIMEOUT_S
    ) -> job.ListRevisionsResponse:
        """A job's revisions, newest first."""
        request = job.ListRevisionsRequest(id=id, page_size=page_size, before_revision=before_revision)
        return await self._call(self._jobs.ListRevisions, request, timeout, self.addresses.jobs)

    async def preview_schedule(
        self, request: job.PreviewScheduleRequest, *, timeout: float = TIMEOUT_S
    ) -> job.PreviewScheduleResponse:
        """A schedule in words and its next instants, without storing it."""
        return await self._call(self._jobs.PreviewSchedule, request, timeout, self.addresses.jobs)

    async def batch_create_jobs(
        self, requests: Iterable[job.CreateJobRequest], *, timeout: float = TIMEOUT_S
    ) -> base.Created:
        """Creates any number of jobs in bulk calls, each of them all or none. Returns their ids in order, and how many are not new."""
        found = base.Created()
        for portion in base.bulks(requests):
            request = job.BatchCreateJobsRequest(jobs=portion)
            try:
                answer = await self._call(self._jobs.BatchCreateJobs, request, timeout, self.addresses.jobs)
            except base.ApiError as error:
                raise base.placed(error, len(found), len(portion)) from None
            found.extend(answer.job_ids)
            found.existing += answer.existing
        return found

    async def batch_update_jobs(
        self, requests: Iterable[job.UpdateJobRequest], *, timeout: float = TIMEOUT_S
    ) -> list[int]:
        """Updates any number of jobs; each portion of 10 000 is all or none. Returns the new revisions in order."""
        found: list[int] = []
        for portion in base.portions(requests):
            request = job.BatchUpdateJobsRequest(jobs=portion)
            try:
                answer = await self._call(self._jobs.BatchUpdateJobs, request, timeout, self.addresses.jobs)
            except base.ApiError as error:
                raise base.placed(error, len(found), len(portion)) from None
            found.extend(answer.revisions)
        return found

    async def batch_pause_jobs(
        self,
        ids: Iterable[str],
        note: str = "",
        by: str = "",
        until: Timestamp | None = None,
        *,
        timeout: float = TIMEOUT_S,
    ) -> list[int]:
        """Pauses any number of jobs; each portion of 10 000 is all or none. Returns the new revisions in order."""
        found: list[int] = []
        for portion in base.portions(ids):
            request = job.BatchPauseJobsRequest(ids=portion, note=note, by=by, until=until)
            answer = await self._call(self._jobs.BatchPauseJobs, request, timeout, self.addresses.jobs)
            found.extend(answer.revisions)
        return found

    async def batch_resume_jobs(
        self, ids: Iterable[str], catch_up: str = "", *, timeout: float = TIMEOUT_S
    ) -> list[int]:
        """Ends the pauses of any number of jobs; each portion of 10 000 is all or none. Returns the new revisions in order."""
        found: list[int] = []
        for portion in base.portions(ids):
            request = job.BatchResumeJobsRequest(ids=portion, catch_up=catch_up)
            answer = await self._call(self._jobs.BatchResumeJobs, request, timeout, self.addresses.jobs)
            found.extend(answer.revisions)
        return found

    async def batch_delete_jobs(self, ids: Iterable[str], *, timeout: float = TIMEOUT_S) -> int:
        """Deletes any number of jobs; each portion of 10 000 is all or none. Returns how many."""
        deleted = 0
        for portion in base.portions(ids):
            request = job.BatchDeleteJobsRequest(ids=portion)
            deleted += (await self._call(self._jobs.BatchDeleteJobs, request, timeout, self.addresses.jobs)).deleted
        return deleted

    async def update_matching_jobs(
        self, request: job.BatchUpdateJobsRequest, *, timeout: float = TIMEOUT_S
    ) -> job.BatchUpdateJobsResponse:
        """Makes the request's change to all jobs that fit its filter; each portion of 10 000 is all or none."""
        found, asked = job.BatchUpdateJobsResponse(), job.BatchUpdateJobsRequest()
        asked.CopyFrom(request)
        while True:
            page = await self._call(self._jobs.BatchUpdateJobs, asked, timeout, self.addresses.jobs)
            found.MergeFrom(page)
            if not page.next_page_token:
                found.next_page_token = ""
                return found
            asked.page_token = page.next_page_token

    async def pause_matching_jobs(
        self, request: job.BatchPauseJobsRequest, *, timeout: float = TIMEOUT_S
    ) -> job.BatchPauseJobsResponse:
        """Pauses all jobs that fit the request's filter; each portion of 10 000 is all or none."""
        found, asked = job.BatchPauseJobsResponse(), job.BatchPauseJobsRequest()
        asked.CopyFrom(request)
        while True:
            page = await self._call(self._jobs.BatchPauseJobs, asked, timeout, self.addresses.jobs)
            found.MergeFrom(page)
            if not page.next_page_token:
                found.next_page_token = ""
                return found
            asked.page_token = page.next_page_token

    async def resume_matching_jobs(
        self, request: job.BatchResumeJobsRequest, *, timeout: float = TIMEOUT_S
    ) -> job.BatchResumeJobsResponse:
        """Ends the pauses of all jobs that fit the request's filter; each portion of 10 000 is all or none."""
        found, asked = job.BatchResumeJobsResponse(), job.BatchResumeJobsRequest()
        asked.CopyFrom(request)
        while True:
            page = await self._call(self._jobs.BatchResumeJobs, asked, timeout, self.addresses.jobs)
            found.MergeFrom(page)
            if not page.next_page_token:
                found.next_page_token = ""
                return found
            asked.page_token = page.next_page_token

    async def delete_matching_jobs(
        self, request: job.BatchDeleteJobsRequest, *, timeout: float = TIMEOUT_S
    ) -> job.BatchDeleteJobsResponse:
        """Deletes all jobs that fit the request's filter; each portion of 10 000 is all or none."""
        found, asked = job.BatchDeleteJobsResponse(), job.BatchDeleteJobsRequest()
        asked.CopyFrom(request)
        while True:
            page = await self._call(self._jobs.BatchDeleteJobs, asked, timeout, self.addresses.jobs)
            found.ids.extend(page.ids)
            found.deleted += page.deleted
            if not page.next_page_token:
                return found
            asked.page_token = page.next_page_token

    # ---- backfills --------------------------------------------------------------------------------------------------

    async def start_backfill(
        self, request: job.StartBackfillRequest, *, timeout: float = TIMEOUT_S
    ) -> job.StartBackfillResponse:
        """Runs the instants of a job's schedule in a range, at most so many at once; a dry run only says which."""
        complete = job.StartBackfillRequest()
        complete.CopyFrom(request)
        complete.request_id = request.request_id or base.new_request_id()
        return await self._call(self._jobs.StartBackfill, complete, timeout, self.addresses.jobs)

    async def get_backfill(self, id: str, *, timeout: float = TIMEOUT_S) -> job.Backfill:
        """How far a backfill is."""
        return await self._call(self._jobs.GetBackfill, job.GetBackfillRequest(id=id), timeout, self.addresses.jobs)

    async def list_backfills(
        self, request: job.ListBackfillsRequest, *, timeout: float = TIMEOUT_S
    ) -> job.ListBackfillsResponse:
        """One page of the backfills that run or ran, the latest first."""
        return await self._call(self._jobs.ListBackfills, request, timeout, self.addresses.jobs)

    async def cancel_backfill(
        self, id: str, reason: str = "", *, dry_run: bool = False, timeout: float = TIMEOUT_S
    ) -> job.Backfill:
        """Starts nothing more of a backfill and ends what of it is open as CANCELLED."""
        request = job.CancelBackfillRequest(id=id, reason=reason, dry_run=dry_run)
        return await self._call(self._jobs.CancelBackfill, request, timeout, self.addresses.jobs)

    # ---- the scheduler ----------------------------------------------------------------------------------------------

    async def schedule_job(
        self, request: scheduler.ScheduleJobRequest, *, timeout: float = TIMEOUT_S
    ) -> scheduler.ScheduleJobResponse:
        """Stores a job under its id and, unless it has a schedule, runs it now."""
        return await self._call(self._scheduler.ScheduleJob, request, timeout, self.addresses.scheduler)

    async def cancel_scheduled_job(self, job_id: str, *, timeout: float = TIMEOUT_S) -> bool:
        """The same as `cancel_job`."""
        return (
            await self._call(
                self._scheduler.CancelJob, scheduler.CancelJobRequest(job_id=job_id), timeout, self.addresses.scheduler
            )
        ).success

    async def get_scheduled_job(self, job_id: str, *, timeout: float = TIMEOUT_S) -> scheduler.GetScheduledJobResponse:
        """When a job runs next."""
        return await self._call(
            self._scheduler.GetScheduledJob,
            scheduler.GetScheduledJobRequest(job_id=job_id),
            timeout,
            self.addresses.scheduler,
        )

    async def list_scheduled_jobs(
        self, page_size: int = 0, page_token: str = "", *, timeout: float = TIMEOUT_S
    ) -> scheduler.ListScheduledJobsResponse:
        """One page of jobs that have a next instant."""
        request = scheduler.ListScheduledJobsRequest(page_size=page_size, page_token=page_token)
        return await self._call(self._scheduler.ListScheduledJobs, request, timeout, self.addresses.scheduler)

    async def list_workers(self, *, timeout: float = TIMEOUT_S) -> scheduler.ListWorkersResponse:
        """The attached workers and what is taken of each."""
        return await self._call(
            self._scheduler.ListWorkers, scheduler.ListWorkersRequest(), timeout, self.addresses.scheduler
        )

    async def cordon_worker(self, id: str, *, timeout: float = TIMEOUT_S) -> None:
        """Nothing new goes to a worker; what it has runs on."""
        request = scheduler.CordonWorkerRequest(id=id)
        await self._call(self._scheduler.CordonWorker, request, timeout, self.addresses.scheduler)

    async def uncordon_worker(self, id: str, *, timeout: float = TIMEOUT_S) -> None:
        """A worker takes new work again."""
        request = scheduler.UncordonWorkerRequest(id=id)
        await self._call(self._scheduler.UncordonWorker, request, timeout, self.addresses.scheduler)

    async def drain_worker(self, id: str, grace_seconds: int = 0, *, timeout: float = TIMEOUT_S) -> None:
        """Cordons a worker, and hands back what waits there. What runs may finish; with a grace time, what still runs after it
        is ended and handed back, too."""
        request = scheduler.DrainWorkerRequest(id=id, grace_seconds=grace_seconds)
        await self._call(self._scheduler.DrainWorker, request, timeout, self.addresses.scheduler)

    async def get_status(self, *, timeout: float = TIMEOUT_S) -> scheduler.GetStatusResponse:
        """How the scheduler itself is."""
        return await self._call(
            self._scheduler.GetStatus, scheduler.GetStatusRequest(), timeout, self.addresses.scheduler
        )

    # ---- executions -------------------------------------------------------------------------------------------------

    async def get_execution(self, id: str, *, timeout: float = TIMEOUT_S) -> execution.ExecutionResponse:
        """One execution with its earlier attempts."""
        return await self._call(
            self._executions.GetExecution, execution.GetExecutionRequest(id=id), timeout, self.addresses.executions
        )

    async def list_executions(
        self, request: execution.ListExecutionsRequest, *, timeout: float = TIMEOUT_S
    ) -> execution.ListExecutionsResponse:
        """One page of executions, newest first; `iter_executions` follows the pages."""
        return await self._call(self._executions.ListExecutions, request, timeout, self.addresses.executions)

    async def iter_executions(
        self, request: execution.ListExecutionsRequest, *, timeout: float = TIMEOUT_S
    ) -> AsyncIterator[execution.ExecutionResponse]:
        """Executions that the request selects, page after page, newest first."""
        asked = execution.ListExecutionsRequest()
        asked.CopyFrom(request)
        while True:
            page = await self.list_executions(asked, timeout=timeout)
            for each in page.executions:
                yield each
            if not page.next_page:
                return
            asked.last_id = page.next_page

    async def cancel_execution(
        self, id: str, reason: str = "", *, dry_run: bool = False, timeout: float = TIMEOUT_S
    ) -> execution.ExecutionResponse:
        """Ends an open execution as CANCELLED; a dry run only says how it is."""
        return await self._call(
            self._executions.CancelExecution,
            execution.CancelExecutionRequest(id=id, reason=reason, dry_run=dry_run),
            timeout,
            self.addresses.executions,
        )

    async def retry_execution(
        self, id: str, task: job.Task | None = None, request_id: str = "", *, timeout: float = TIMEOUT_S
    ) -> str:
        """Runs an ended execution's job again. Returns the new execution's id."""
        request = execution.RetryExecutionRequest(id=id, task=task, request_id=request_id or base.new_request_id())
        return (
            await self._call(self._executions.RetryExecution, request, timeout, self.addresses.executions)
        ).execution_id

    async def would_retry_execution(self, id: str, *, timeout: float = TIMEOUT_S) -> None:
        """Raises what `retry_execution` would raise now."""
        request = execution.RetryExecutionRequest(id=id, dry_run=True)
        await self._call(self._executions.RetryExecution, request, timeout, self.addresses.executions)

    async def cancel_executions(
        self, request: execution.CancelExecutionsRequest, *, timeout: float = TIMEOUT_S
    ) -> execution.CancelExecutionsResponse:
        """Cancels up to 1 000 open executions that fit the request's filter; its page token goes on."""
        return await self._call(self._executions.CancelExecutions, request, timeout, self.addresses.executions)

    async def retry_executions(
        self, request: execution.RetryExecutionsRequest, *, timeout: float = TIMEOUT_S
    ) -> execution.RetryExecutionsResponse:
        """Retries up to 1 000 ended executions that fit the request's filter; its page token goes on."""
        return await self._call(self._executions.RetryExecutions, request, timeout, self.addresses.executions)

    async def get_output(self, id: str, attempt: int = 0, *, timeout: float = TIMEOUT_S) -> execution.GetOutputResponse:
        """What is kept of an attempt's output; attempt 0 is the last."""
        return await self._call(
            self._executions.GetOutput,
            execution.GetOutputRequest(id=id, attempt=attempt),
            timeout,
            self.addresses.executions,
        )

    def follow_output(
        self, id: str, attempt: int = 0, *, timeout: float = base.STREAM_TIMEOUT_S
    ) -> AsyncIterator[execution.FollowOutputResponse]:
        """The output as it is written, until the execution ends; the last message carries its status."""
        request = execution.FollowOutputRequest(id=id, attempt=attempt)
        return self._stream(self._executions.FollowOutput, request, timeout)

    def watch_events(
        self, job_id: str = "", *, timeout: float = base.STREAM_TIMEOUT_S
    ) -> AsyncIterator[execution.WatchEventsResponse]:
        """Transitions as they are committed, from now on, of one job or of all."""
        request = execution.WatchEventsRequest(job_id=job_id)
        return self._stream(self._executions.WatchEvents, request, timeout)

    async def list_verdicts(
        self, request: execution.ListVerdictsRequest, *, timeout: float = TIMEOUT_S
    ) -> execution.ListVerdictsResponse:
        """One page of what became of due instants; `iter_verdicts` follows the pages."""
        return await self._call(self._executions.ListVerdicts, request, timeout, self.addresses.executions)

    async def iter_verdicts(
        self, request: execution.ListVerdictsRequest, *, timeout: float = TIMEOUT_S
    ) -> AsyncIterator[execution.Verdict]:
        """Verdicts that the request selects, page after page, in order of time."""
        asked = execution.ListVerdictsRequest()
        asked.CopyFrom(request)
        while True:
            page = await self.list_verdicts(asked, timeout=timeout)
            for each in page.verdicts:
                yield each
            if not page.next_page_token:
                return
            asked.page_token = page.next_page_token

    async def explain(
        self, request: execution.ExplainRequest, *, timeout: float = TIMEOUT_S
    ) -> execution.ExplainResponse:
        """Why an execution ran, waits, was skipped or will not run; or what a job does, now or at an instant."""
        return await self._call(self._executions.Explain, request, timeout, self.addresses.executions)

    async def audit(
        self, request: execution.AuditRequest, *, timeout: float = base.AUDIT_TIMEOUT_S
    ) -> execution.AuditResponse:
        """Recomputes what was due and compares it with the verdicts; takes long over long spans."""
        return await self._call(self._executions.Audit, request, timeout, self.addresses.executions)

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float,
        address: str,
    ) -> Response:
        try:
            return await method(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise base.api_error(error, address) from None

    async def _stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, timeout: float
    ) -> AsyncIterator[Response]:
        call = method(request, timeout=timeout)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise base.api_error(error, self.addresses.executions) from None
        finally:
            call.cancel()
