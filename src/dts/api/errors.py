"""Errors as clients see them: a gRPC status, and the HTTP status and JSON body that stand for it."""

from __future__ import annotations

import logging
import secrets
from typing import NamedTuple

import grpc
from google.protobuf.message import DecodeError

from dts.errors import DtsError

log = logging.getLogger(__name__)

# The usual HTTP status of each gRPC code (google.rpc.Code).
HTTP_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Problem(NamedTuple):
    """What a client is told."""

    code: grpc.StatusCode
    message: str
    status: int  # HTTP

    def body(self) -> dict[str, object]:
        """The JSON body of an HTTP error."""
        return {"code": self.code.value[0], "message": self.message, "details": []}


def problem(code: grpc.StatusCode, message: str, status: int = 0) -> Problem:
    """A problem with its usual HTTP status, or another one."""
    return Problem(code, message, status or HTTP_STATUS[code])


def problem_of(error: Exception, method: str) -> Problem:
    """What a client is told of an exception; an unexpected one is logged under an id that the client gets too."""
    if isinstance(error, DtsError):
        return problem(grpc.StatusCode[error.status], str(error))
    if isinstance(error, DecodeError):
        return problem(INVALID, "the request is no such message: wrong types, cut short, or text that is not UTF-8")
    mark = secrets.token_hex(4)
    log.error("%s failed (%s)", method, mark, exc_info=error)
    return problem(grpc.StatusCode.INTERNAL, f"an error of ours, not of your request; its mark in the log is {mark}")
