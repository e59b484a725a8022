"""What a task may know of its attempt: `current()` inside a python task; DTS_* variables and headers everywhere."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple


class Context(NamedTuple):
    """One attempt. `execution_id` with `attempt` is an idempotency key; `fencing` grows with every attempt."""

    job_id: str
    execution_id: str
    attempt: int
    scheduled_time: int  # UTC milliseconds
    fencing: int

    def variables(self) -> dict[str, str]:
        """The environment variables of a task."""
        return {
            "DTS_JOB_ID": self.job_id,
            "DTS_EXECUTION_ID": self.execution_id,
            "DTS_ATTEMPT": str(self.attempt),
            "DTS_SCHEDULED_TIME": rfc3339(self.scheduled_time),
            "DTS_FENCING_NUMBER": str(self.fencing),
        }

    def headers(self) -> dict[str, str]:
        """The HTTP headers of a task."""
        return {
            "DTS-Job-Id": self.job_id,
            "DTS-Execution-Id": self.execution_id,
            "DTS-Attempt": str(self.attempt),
            "DTS-Scheduled-Time": rfc3339(self.scheduled_time),
            "DTS-Fencing-Number": str(self.fencing),
            "Idempotency-Key": self.execution_id,
        }


CURRENT: ContextVar[Context] = ContextVar("dts_context")


def current() -> Context:
    """The attempt that this code runs for. Raises LookupError outside of a task."""
    return CURRENT.get()


@lru_cache(maxsize=1_024)
def rfc3339(instant: int) -> str:
    """UTC milliseconds as `2026-03-29T01:00:00.000Z`."""
    moment = datetime.fromtimestamp(instant / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{instant % 1000:03d}Z"


@lru_cache(maxsize=1_024)
def _stamp(instant: int) -> str:
    moment = datetime.fromtimestamp(instant / 1000, UTC)
    return f"{moment:%Y%m%dT%H%M%S}.{instant % 1000:03d}Z"


def execution_id(job: str, at: int, nonce: str) -> str:
    """The text form of a key, as `str(model.Key)`, with the instant's part kept from call to call."""
    return f"{job}@{_stamp(at)}~{nonce}" if nonce else f"{job}@{_stamp(at)}"
