"""Which executions a request asks for: job, statuses, span of time and cause, from their names."""

from __future__ import annotations

from dts.api import values
from dts.errors import InvalidArgument
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.model import Cause, Instant, Status
from dts.services.executions import OPEN
from dts.services.ids import check_job_id

FAILURES = frozenset({Status.FAILED, Status.LOST, Status.SKIPPED, Status.CANCELLED})

Spanned = execution.ListExecutionsRequest | execution.ListVerdictsRequest | execution.ExecutionFilter


def span_of(request: Spanned, field: str = "") -> tuple[Instant, Instant]:
    """From (inclusive) and to (exclusive); 0: not given. `field`: before the names of the fields in a refusal."""
    start = values.instant(getattr(request, "from"), f"{field}from") if request.HasField("from") else 0
    until = values.instant(request.to, f"{field}to") if request.HasField("to") else 0
    if until and start > until:
        raise InvalidArgument(f"{field}from", "is after to")
    return start, until


def job_of(id: str, field: str) -> str:
    """The id of a job, '' for all. Raises InvalidArgument."""
    return check_job_id(id, field) if id else ""


def statuses_of(text: str, field: str) -> tuple[frozenset[Status], bool | None]:
    """The statuses that a name stands for (none: all), and of the placed ones whether they have started. Raises InvalidArgument."""
    name = text.upper()
    running = {"RUNNING": True, "PLACED": False}.get(name)
    if not name:
        return frozenset(), None
    if name in ("OPEN", "FAILURES"):
        return OPEN if name == "OPEN" else FAILURES, None
    if running is not None:
        return frozenset({Status.PLACED}), running
    if name in Status.__members__:
        return frozenset({Status[name]}), None
    valid = ", ".join([*Status.__members__, "RUNNING", "open", "failures"])
    raise InvalidArgument(field, f"{text[:40]!r} is none of {valid}")


def cause_of(text: str, field: str) -> Cause | None:
    """A cause by its name; '' for all. Raises InvalidArgument."""
    if not text:
        return None
    if text.lower() not in {str(each) for each in Cause}:
        raise InvalidArgument(field, f"{text[:40]!r} is none of {', '.join(Cause)}")
    return Cause(text.lower())
