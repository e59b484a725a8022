"""The methods of job.v1.JobService about backfills."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from dts import bounds
from dts.api import values
from dts.api.ids import parse_backfill_id
from dts.errors import FailedPrecondition, InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.model import ENDS, Backfill, BackfillState, Instant
from dts.services.backfills import Span
from dts.services.ids import check_job_id, check_request_id
from dts.services.jobs import JobService


class BackfillMethods:
    """Part of JobMethods."""

    _jobs: JobService

    async def StartBackfill(self, request: job.StartBackfillRequest) -> job.StartBackfillResponse:
        """Runs the instants of a job's schedule in a range, at most so many at once."""
        id, request_id = check_job_id(request.id), check_request_id(request.request_id)
        span = self._span(request)
        backfills = self._jobs.backfills
        if not request.dry_run:
            return job.StartBackfillResponse(backfill=message(await backfills.start(id, span, request_id)))
        plan = await backfills.plan(id, span)
        planned = job.Backfill(
            job_id=id,
            to=values.timestamp(span.until + 1),
            parallel=span.parallel,
            total=plan.size,
        )
        getattr(planned, "from").CopyFrom(values.timestamp(span.after + 1))
        return job.StartBackfillResponse(
            backfill=planned,
            first=[values.timestamp(each) for each in plan.first],
            last=values.timestamp(plan.last),
        )

    def _span(self, request: job.StartBackfillRequest) -> Span:
        if not request.HasField("from"):  # a keyword of Python: only reachable by name
            raise InvalidArgument("from", "not given: a backfill needs its first instant")
        now = self._jobs.now()
        start = values.instant(getattr(request, "from"), "from")
        until = values.instant(request.to, "to") if request.HasField("to") else now
        if until > now + bounds.CLOCK_APART_MS:
            raise InvalidArgument("to", "is after now: what is still to come runs by itself")
        if start >= until:
            raise InvalidArgument("from", "is not before to")
        parallel = values.within(request.parallel, 0, bounds.BACKFILL_PARALLEL, "parallel")
        return Span(start - 1, min(until, now) - 1, parallel or bounds.BACKFILL_PARALLEL_DEFAULT)

    async def GetBackfill(self, request: job.GetBackfillRequest) -> job.Backfill:
        """How far a backfill is."""
        return message(await self._jobs.backfills.get(*parse_backfill_id(request.id)))

    async def ListBackfills(self, request: job.ListBackfillsRequest) -> job.ListBackfillsResponse:
        """Backfills that run or ran, the latest first."""
        limit = values.page_size(request)
        id = check_job_id(request.job_id, "job_id") if request.job_id else ""
        if request.last_id:
            parse_backfill_id(request.last_id, "last_id")
        found, following = await self._jobs.backfills.list(id, request.last_id, limit)
        return job.ListBackfillsResponse(backfills=[message(each) for each in found], next_page=following)

    async def CancelBackfill(self, request: job.CancelBackfillRequest) -> job.Backfill:
        """Starts nothing more of a backfill and ends what of it is open as CANCELLED."""
        name, reason = parse_backfill_id(request.id), values.text(request.reason, bounds.NAME_LENGTH, "reason")
        if not request.dry_run:
            return message(await self._jobs.backfills.cancel(*name, reason))
        found = await self._jobs.backfills.get(*name)
        if found.state is not BackfillState.RUNNING:
            raise FailedPrecondition(f"backfill {str(found)!r} is {found.state.name}: there is nothing to cancel")
        return message(found)


def message(found: Backfill) -> job.Backfill:
    """A backfill as the wire shows it: its end is exclusive there."""
    tally = {status.name.lower(): count for status, count in zip(ENDS, found.tally, strict=True)}
    shown = job.Backfill(
        id=str(found),
        job_id=found.job,
        state=found.state.name,
        to=values.timestamp(found.until + 1),
        parallel=found.parallel,
        total=found.size,
        started=found.started,
        open=found.open,
        reason=found.reason,
        completed=tally["completed"],
        failed=tally["failed"],
        skipped=tally["skipped"],
        cancelled=tally["cancelled"],
        lost=tally["lost"],
        began_time=values.timestamp(found.began),
        end_time=_given(found.ended),
    )
    getattr(shown, "from").CopyFrom(values.timestamp(found.after + 1))
    return shown


def _given(at: Instant) -> Timestamp | None:
    return values.timestamp(at) if at else None
