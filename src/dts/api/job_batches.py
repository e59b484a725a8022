"""The methods of job.v1.JobService that change many jobs: those named, or those that fit a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dts import bounds
from dts.api import edits, values, views
from dts.api.job_filter import Filter
from dts.api.policies import catch_up_of
from dts.errors import InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.model import JobState, StoredJob
from dts.services.ids import check_job_id
from dts.services.jobs import Change, JobService

SCANNED_JOBS: Final = 100_000  # rows looked through for one batch by filter
PAGE: Final = 1_000  # of them at once

ByFilter = (
    job.BatchUpdateJobsRequest | job.BatchPauseJobsRequest | job.BatchResumeJobsRequest | job.BatchDeleteJobsRequest
)


class JobBatchMethods:
    """Part of JobMethods."""

    _jobs: JobService

    async def BatchUpdateJobs(self, request: job.BatchUpdateJobsRequest) -> job.BatchUpdateJobsResponse:
        """Updates up to 10 000 jobs, all or none."""
        bounded(len(request.jobs), "jobs")
        following = ""
        if request.HasField("filter"):
            _alone(request.jobs, "jobs")
            if request.change.id or request.change.revision:
                raise InvalidArgument("change", "names an id or a revision: the filter says which jobs")
            edit = edits.update(request.change, self._jobs.now())
            ids, following = await self._fitting(request)
            changes = [Change(id, edit) for id in ids]
        else:
            if request.HasField("change"):
                raise InvalidArgument(
                    "change", "belongs to a filter, and there is none: the change of each job is in jobs"
                )
            changes = self._updates(request.jobs)
        rows = await self._changed(changes, dry_run=request.dry_run)
        return job.BatchUpdateJobsResponse(
            revisions=_numbers(rows), ids=_ids_of(request, rows), next_page_token=following
        )

    def _updates(self, requests: Sequence[job.UpdateJobRequest]) -> list[Change]:
        changes, index = [], 0
        try:
            for index, each in enumerate(requests):  # noqa: B007 - for the message
                changes.append(self._update(each))
        except InvalidArgument as error:
            raise in_item(error, index, len(requests) + 1) from None
        return changes

    async def BatchPauseJobs(self, request: job.BatchPauseJobsRequest) -> job.BatchPauseJobsResponse:
        """Pauses up to 10 000 jobs, all or none."""
        rows, following = await self._each(request, self._pause(request))
        return job.BatchPauseJobsResponse(
            revisions=_numbers(rows), ids=_ids_of(request, rows), next_page_token=following
        )

    async def BatchResumeJobs(self, request: job.BatchResumeJobsRequest) -> job.BatchResumeJobsResponse:
        """Resumes up to 10 000 jobs, all or none."""
        catch_up = catch_up_of(request.catch_up)
        rows, following = await self._each(request, edits.resume(self._jobs.now(), catch_up))
        if not request.dry_run:
            await self._jobs.lift(rows, catch_up)
        return job.BatchResumeJobsResponse(
            revisions=_numbers(rows), ids=_ids_of(request, rows), next_page_token=following
        )

    async def BatchDeleteJobs(self, request: job.BatchDeleteJobsRequest) -> job.BatchDeleteJobsResponse:
        """Deletes up to 10 000 jobs, all or none."""
        rows, following = await self._each(request, edits.end("delete", JobState.DELETED))
        return job.BatchDeleteJobsResponse(deleted=len(rows), ids=_ids_of(request, rows), next_page_token=following)

    async def _each(
        self,
        request: job.BatchPauseJobsRequest | job.BatchResumeJobsRequest | job.BatchDeleteJobsRequest,
        edit: edits.Edit,
    ) -> tuple[list[StoredJob], str]:
        """The same edit to all jobs of a request; their rows, and the token to go on with."""
        if request.HasField("filter"):
            _alone(request.ids, "ids")
            ids, following = await self._fitting(request)
        else:
            ids, following = _named(request.ids), ""
        return await self._changed([Change(id, edit) for id in ids], dry_run=request.dry_run), following

    async def _changed(self, changes: Sequence[Change], *, dry_run: bool) -> list[StoredJob]:
        if dry_run:
            return await self._jobs.would_change(changes)
        return await self._jobs.change(changes, settle=True)

    async def _fitting(self, request: ByFilter) -> tuple[list[str], str]:
        """The first BULK_JOBS ids that fit a filter, and the token to go on with."""
        asked = request.filter
        chosen = Filter(asked, "filter.")
        if not chosen.narrow and not asked.all:
            raise InvalidArgument("filter", "is empty: name a tag, a part of the name or a status, or say all")
        after = check_job_id(request.page_token, "page_token") if request.page_token else ""
        found: list[str] = []
        for _ in range(0, SCANNED_JOBS, PAGE):
            rows = await self._jobs.page(after, PAGE, chosen.states, chosen.tag, chosen.name)
            fitting = await self._looked_at(rows, chosen)
            room = bounds.BULK_JOBS - len(found)
            found += fitting[:room]
            if len(fitting) > room:
                return found, found[-1]
            if len(rows) < PAGE:
                return found, ""
            after = rows[-1].id
        return found, after

    async def _looked_at(self, rows: Sequence[StoredJob], chosen: Filter) -> list[str]:
        if not chosen.looks:
            return [row.id for row in rows]
        now = self._jobs.now()
        return [each.job.id for each in await self._jobs.see(rows) if chosen.shows(views.job_message(each, now))]

    def _update(self, request: job.UpdateJobRequest) -> Change:
        id, revision = check_job_id(request.id), values.within(request.revision, 0, 2**63 - 1, "revision")
        return Change(id, edits.update(request, self._jobs.now()), revision)

    def _pause(self, request: job.PauseJobRequest | job.BatchPauseJobsRequest) -> edits.Edit:
        until = values.instant(request.until, "until") if request.HasField("until") else None
        if request.catch_up and until is None:
            raise InvalidArgument("catch_up", "belongs to until: a resume says it itself")
        return edits.pause(request.note, request.by, until, self._jobs.now(), catch_up_of(request.catch_up))


def bounded(count: int, field: str) -> None:
    """Raises InvalidArgument for more than one request may name."""
    if count > bounds.BULK_JOBS:
        raise InvalidArgument(field, f"{count} in one request; at most {bounds.BULK_JOBS}")


def in_item(error: InvalidArgument, index: int, count: int) -> InvalidArgument:
    """The error with its place in a request for many jobs."""
    if count == 1:
        return error
    return InvalidArgument(f"jobs[{index}].{error.field}" if error.field else f"jobs[{index}]", error.problem)


def _alone(named: Sequence[object], field: str) -> None:
    if named:
        raise InvalidArgument(field, "are named beside a filter: give one of the two")


def _named(ids: Sequence[str]) -> list[str]:
    bounded(len(ids), "ids")
    return [check_job_id(id, f"ids[{index}]") for index, id in enumerate(ids)]


def _numbers(rows: Sequence[StoredJob]) -> list[int]:
    return [row.revision for row in rows]


def _ids_of(request: ByFilter, rows: Sequence[StoredJob]) -> list[str]:
    """Those of whoever did not name them."""
    return [row.id for row in rows] if request.HasField("filter") else []
