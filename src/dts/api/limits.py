"""What OpenAPI says of fields beyond their types: the same bounds that the methods hold requests to."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.descriptor import FieldDescriptor

from dts import bounds
from dts.services.ids import REQUEST_ID_LENGTH
from dts.wirejson import Json

Facets = Mapping[str, Json]

JOB_ID: Facets = {"pattern": r"^[A-Za-z0-9._-]{1,64}$", "minLength": 1, "maxLength": 64}
EXECUTION_ID: Facets = {
    "pattern": r"^[A-Za-z0-9._-]{1,64}@\d{8}T\d{6}\.\d{3}Z(~[0-9a-f]{12})?$",
    "examples": ["backup@20260329T010000.000Z"],
}
_LATER: Facets = {"pattern": f"^({str(JOB_ID['pattern'])[1:-1]})?$"}  # may be empty
_LATER_EXECUTION: Facets = {"pattern": f"^({str(EXECUTION_ID['pattern'])[1:-1]})?$"}
_NOT_NEGATIVE: Facets = {"minimum": 0}

# By message and field, or by field alone.
_LIMITS: dict[str, Facets] = {
    "name": {"maxLength": bounds.NAME_LENGTH},
    "description": {"maxLength": bounds.DESCRIPTION_LENGTH},
    "metadata": {"maxProperties": bounds.METADATA_ENTRIES},
    "max_retries": {"minimum": 0, "maximum": bounds.MAX_RETRIES},
    "timeout": {"minimum": 0, "maximum": bounds.TIMEOUT_MAX_S},
    "schedules": {"maxItems": bounds.SCHEDULES},
    "tags": {"maxItems": bounds.TAGS},
    "request_id": {"maxLength": REQUEST_ID_LENGTH},
    "page_size": _NOT_NEGATIVE,
    "before_revision": _NOT_NEGATIVE,
    "attempt": _NOT_NEGATIVE,
    "jobs": {"maxItems": bounds.BULK_JOBS},
    "ids": {"maxItems": bounds.BULK_JOBS},
    "cron_expression": {"maxLength": bounds.SCHEDULE_LENGTH},
    "expression": {"maxLength": bounds.SCHEDULE_LENGTH},
    "time_zone": {"maxLength": bounds.SCHEDULE_LENGTH},
    "job.v1.PreviewScheduleRequest.count": {"minimum": 0, "maximum": bounds.PREVIEW_INSTANTS},
    "job.v1.GetJobRequest.id": JOB_ID,
    "job.v1.UpdateJobRequest.id": JOB_ID,
    "job.v1.DeleteJobRequest.id": JOB_ID,
    "job.v1.CancelJobRequest.id": JOB_ID,
    "job.v1.PauseJobRequest.id": JOB_ID,
    "job.v1.ResumeJobRequest.id": JOB_ID,
    "job.v1.RunJobRequest.id": JOB_ID,
    "job.v1.ListRevisionsRequest.id": JOB_ID,
    "job.v1.CreateJobRequest.id": _LATER,
    "job.v1.ListJobsRequest.last_id": _LATER,
    "job.v1.ListJobsRequest.tag": {"maxLength": bounds.TAG_LENGTH},
    "job.v1.ListJobsRequest.name_contains": {"maxLength": bounds.NAME_LENGTH},
    "scheduler.v1.CancelJobRequest.job_id": JOB_ID,
    "scheduler.v1.GetScheduledJobRequest.job_id": JOB_ID,
    "scheduler.v1.ListScheduledJobsRequest.page_token": _LATER,
    "execution.v1.GetExecutionRequest.id": EXECUTION_ID,
    "execution.v1.CancelExecutionRequest.id": EXECUTION_ID,
    "execution.v1.RetryExecutionRequest.id": EXECUTION_ID,
    "execution.v1.GetOutputRequest.id": EXECUTION_ID,
    "execution.v1.FollowOutputRequest.id": EXECUTION_ID,
    "execution.v1.ListExecutionsRequest.job_id": _LATER,
    "execution.v1.ListExecutionsRequest.last_id": _LATER_EXECUTION,
    "execution.v1.WatchEventsRequest.job_id": _LATER,
    "execution.v1.ListVerdictsRequest.job_id": _LATER,
    "execution.v1.AuditRequest.job_id": _LATER,
    "execution.v1.CancelExecutionRequest.reason": {"maxLength": bounds.NAME_LENGTH},
}
for _message in ("UpdateJobRequest", "PauseJobRequest", "ResumeJobRequest"):
    _LIMITS[f"job.v1.{_message}.revision"] = _NOT_NEGATIVE
for _message in ("PauseJobRequest", "BatchPauseJobsRequest"):
    _LIMITS[f"job.v1.{_message}.note"] = {"maxLength": bounds.DESCRIPTION_LENGTH}
    _LIMITS[f"job.v1.{_message}.by"] = {"maxLength": bounds.NAME_LENGTH}
for _name in ("cpu", "memory", "storage", "slots", "misfire_limit"):
    _LIMITS[_name] = _NOT_NEGATIVE


def limits_of(field: FieldDescriptor, in_body: bool = False) -> Facets:
    """A field's facets in JSON schema's words. In a body an id may be left empty: the path has it."""
    facets = _LIMITS.get(field.full_name) or _LIMITS.get(field.name, {})
    if in_body and facets is JOB_ID:
        return _LATER
    return _LATER_EXECUTION if in_body and facets is EXECUTION_ID else facets
