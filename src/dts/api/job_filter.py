"""Which jobs a list or a batch is about."""

from __future__ import annotations

from dts import bounds
from dts.api import values
from dts.api.reading import enum_names
from dts.errors import InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.model import JobState, Status

_DONE = frozenset({job.PAUSED, job.CANCELLED, job.COMPLETED})


class Filter:
    """`states`: what the store can tell apart; `narrow`: not all jobs are wanted; `looks`: what a job does now decides, too."""

    def __init__(self, request: job.ListJobsRequest | job.JobFilter, field: str = "") -> None:
        self._active = request.status.lower() == "active"
        self._status = job.UNSPECIFIED if self._active else _status(request.status, f"{field}status")
        self._last = _last_status(request.last_status, f"{field}last_status")
        self.tag = values.text(request.tag, bounds.TAG_LENGTH, f"{field}tag")
        self.name = values.text(request.name_contains, bounds.NAME_LENGTH, f"{field}name_contains")
        self.looks = bool(request.status or self._last)
        self.narrow = bool(self.looks or request.tag or request.name_contains)
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


def _status(text: str, field: str) -> job.JobStatus.ValueType:
    if not text:
        return job.UNSPECIFIED
    name = enum_names(job.JobStatus.DESCRIPTOR).get(text.upper())
    if name is None:
        raise InvalidArgument(field, f"{text[:40]!r} is none of active, {', '.join(job.JobStatus.keys())}")
    return job.JobStatus.Value(name)


def _last_status(text: str, field: str) -> str:
    ended = [status.name for status in Status if status.terminal]
    if text and text.upper() not in ended:
        raise InvalidArgument(field, f"{text[:40]!r} is none of {', '.join(ended)}")
    return text.upper()
