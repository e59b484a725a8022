"""What both clients share: where the services are, how a call is repeated, the one exception, and how requests are completed."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import grpc

from dts.bounds import BULK_JOBS, REQUEST_BYTES
from dts.config import Config
from dts.errors import DtsError
from dts.gen.job.v1 import job_pb2 as job

TIMEOUT_S = 30.0  # of a call that names none
ATTEMPTS = 4  # of a call that may be repeated, the first included (gRPC allows 5)
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 2.0
ANSWER_BYTES = 64 * 1024 * 1024  # an answer larger than this is refused
BULK_BYTES = REQUEST_BYTES // 2  # of the jobs in one bulk call
AUDIT_TIMEOUT_S = 600.0
STREAM_TIMEOUT_S = 86_400.0  # a stream is left open for so long at most; whoever follows then asks again

# Repeated when the service could not be reached: reads, and writes that say the same the second time. Not: deletions and
# writes that name a revision, whose second answer would differ.
_REPEATABLE = {
    "job.v1.JobService": [
        "CreateJob",
        "GetJob",
        "ListJobs",
        "RunJob",
        "ListRevisions",
        "PreviewSchedule",
        "StartBackfill",
        "GetBackfill",
        "ListBackfills",
        "BatchCreateJobs",
    ],
    "scheduler.v1.SchedulerService": ["GetScheduledJob", "ListScheduledJobs", "ListWorkers", "GetStatus"],
    "execution.v1.ExecutionService": [
        "GetExecution",
        "ListExecutions",
        "RetryExecution",
        "RetryExecutions",
        "GetOutput",
        "ListVerdicts",
        "Audit",
        "Explain",
    ],
}

T = TypeVar("T")


class ApiError(DtsError):
    """The service refused the call or could not be reached. `code` is a gRPC status name such as 'NOT_FOUND'."""

    def __init__(self, code: str, message: str, address: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.address = address

    @property
    def status(self) -> str:  # type: ignore[override] # of this error, not of its class
        return self.code


class Created(list[str]):
    """Ids of jobs. `existing`: so many of them were there already, by the same create."""

    existing = 0


@dataclass(frozen=True, slots=True)
class Addresses:
    """`host:port` of each service's gRPC."""

    jobs: str
    scheduler: str
    executions: str

    @classmethod
    def of(cls, config: Config) -> Addresses:
        """The addresses that DTS_HOST and the port variables name."""
        host = f"[{config.host}]" if ":" in config.host and not config.host.startswith("[") else config.host
        ports = config.ports
        return cls(f"{host}:{ports.job_grpc}", f"{host}:{ports.scheduler_grpc}", f"{host}:{ports.execution_grpc}")


def channel_options() -> list[tuple[str, str | int]]:
    """Repeats are gRPC's own, so that they are the same for both clients and end with the call's deadline."""
    names = [{"service": service, "method": method} for service, methods in _REPEATABLE.items() for method in methods]
    policy = {
        "maxAttempts": ATTEMPTS,
        "initialBackoff": f"{FIRST_BACKOFF_S}s",
        "maxBackoff": f"{LAST_BACKOFF_S}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return [
        ("grpc.service_config", json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]})),
        ("grpc.max_receive_message_length", ANSWER_BYTES),
        ("grpc.min_reconnect_backoff_ms", int(FIRST_BACKOFF_S * 1000)),
        ("grpc.initial_reconnect_backoff_ms", int(FIRST_BACKOFF_S * 1000)),
        ("grpc.max_reconnect_backoff_ms", int(LAST_BACKOFF_S * 1000)),
        ("grpc.keepalive_time_ms", 30_000),
    ]


def api_error(error: grpc.RpcError, address: str) -> ApiError:
    """Our exception for gRPC's, which is a Call in all but its declared type."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError), "gRPC raises no other kind"
    return ApiError(error.code().name, error.details() or "", address)


_ITEM = re.compile(r"jobs\[(\d+)\]")


def placed(error: ApiError, before: int, size: int) -> ApiError:
    """An error about one job of a portion, with its place among all: `before` of them came in earlier portions."""
    if error.code != "INVALID_ARGUMENT":
        return error
    found = _ITEM.match(error.message)
    if found is not None:
        message = f"jobs[{before + int(found[1])}]{error.message[found.end() :]}"
    elif size == 1:
        message = f"jobs[{before}].{error.message}"
    else:
        return error
    return ApiError(error.code, message, error.address)


def named(request: job.CreateJobRequest) -> job.CreateJobRequest:
    """The request with a request_id, so that a repeat of it makes no second job."""
    if request.request_id or request.id:
        return request
    complete = job.CreateJobRequest()
    complete.CopyFrom(request)
    complete.request_id = new_request_id()
    return complete


def new_request_id() -> str:
    return uuid.uuid4().hex


def bulks(requests: Iterable[job.CreateJobRequest]) -> Iterator[list[job.CreateJobRequest]]:
    """Requests in the portions that one bulk call takes, by count and by size."""
    portion: list[job.CreateJobRequest] = []
    size = 0
    for request in requests:
        complete = named(request)
        weight = complete.ByteSize() + 8
        if portion and (len(portion) == BULK_JOBS or size + weight > BULK_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(complete)
        size += weight
    if portion:
        yield portion


def portions(items: Iterable[T], size: int = BULK_JOBS) -> Iterator[list[T]]:
    iterator = iter(items)
    while portion := list(islice(iterator, size)):
        yield portion
