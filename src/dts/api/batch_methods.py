"""The methods of execution.v1.ExecutionService that cancel and retry all executions that fit a filter."""

from __future__ import annotations

from dts import bounds
from dts.api import tasks, values
from dts.api.ids import parse_execution_id
from dts.api.wanted import cause_of, job_of, span_of, statuses_of
from dts.errors import InvalidArgument
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.model import ExecutionQuery, Key, Status
from dts.services.batches import Asked, Batch, Batches
from dts.services.executions import OPEN, ExecutionService, Wanted
from dts.services.ids import check_request_id

_RETRIED = frozenset({Status.FAILED, Status.LOST})

Request = execution.CancelExecutionsRequest | execution.RetryExecutionsRequest


class BatchMethods:
    """Part of ExecutionMethods."""

    _executions: ExecutionService
    _batches: Batches

    async def CancelExecutions(self, request: execution.CancelExecutionsRequest) -> execution.CancelExecutionsResponse:
        """Cancels up to 1 000 open executions that fit a filter, the newest first."""
        reason, request_id = values.text(request.reason, bounds.NAME_LENGTH, "reason"), request.request_id
        asked = await self._asked(request, OPEN, "has ended: there is nothing to cancel")
        done = await self._batches.cancel(asked, reason, check_request_id(request_id))
        return execution.CancelExecutionsResponse(
            ids=[str(key) for key in done.done], refused=_refused(done), next_page_token=_token(done.next)
        )

    async def RetryExecutions(self, request: execution.RetryExecutionsRequest) -> execution.RetryExecutionsResponse:
        """Retries up to 1 000 ended executions that fit a filter, the newest first: a new execution for each."""
        request_id = check_request_id(request.request_id)
        arguments = b""
        if request.HasField("task") and request.task.WhichOneof("kind") is not None:
            tasks.check(request.task)
            arguments = tasks.body(request.task, 0)
        asked = await self._asked(request, _RETRIED, "has not ended: cancel it first")
        done = await self._batches.retry(asked, arguments, request_id)
        return execution.RetryExecutionsResponse(
            ids=[str(key) for key in done.done],
            execution_ids=done.made,
            refused=_refused(done),
            next_page_token=_token(done.next),
        )

    async def _asked(self, request: Request, usual: frozenset[Status], otherwise: str) -> Asked:
        chosen = request.filter
        start, until = span_of(chosen, "filter.")
        job = job_of(chosen.job_id, "filter.job_id")
        statuses, running = statuses_of(chosen.status, "filter.status")
        if not (job or statuses or start or until or chosen.cause):
            raise InvalidArgument("filter", "is empty: name a job, a status, a time or a cause")
        if job:
            await self._executions.check_job(job)
        allowed = OPEN if usual is OPEN else frozenset(status for status in Status if status.terminal)
        for status in sorted(statuses - allowed):
            raise InvalidArgument("filter.status", f"an execution that is {status.name} {otherwise}")
        wanted = Wanted(
            ExecutionQuery(job, statuses or usual, start, until), running, cause_of(chosen.cause, "filter.cause")
        )
        before = parse_execution_id(request.page_token, "page_token") if request.page_token else None
        return Asked(wanted, before, values.page_size(request, bounds.BULK_EXECUTIONS), request.dry_run)


def _refused(done: Batch) -> list[execution.Refusal]:
    return [execution.Refusal(id=str(key), problem=problem) for key, problem in done.refused]


def _token(key: Key | None) -> str:
    return str(key) if key is not None else ""
