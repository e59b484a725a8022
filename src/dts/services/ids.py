"""Ids of jobs and commands: made, derived from a request id, or chosen and checked."""

from __future__ import annotations

import re
import secrets
from uuid import UUID, uuid4, uuid5

from dts.errors import InvalidArgument
from dts.model import Instant

CHOSEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
FORM = "1 to 64 of A-Z a-z 0-9 . _ - and not . or .."
REQUEST_ID_LENGTH = 256
_REQUESTS = UUID("5d1a5b2c-0f51-5f6e-9d3e-6f7d2c0b8a11")  # the namespace of ids made from request ids
_SEQUENCE = 1 << 12


class JobIds:
    """UUIDv7, in order of creation within one process also when many are made in one millisecond."""

    def __init__(self) -> None:
        self._ms = 0
        self._next = 0

    def take(self, count: int, now: Instant) -> list[str]:
        """`count` new ids, ascending, above every one given before. 12 bits count within a ms, then the next ms is borrowed."""
        if now > self._ms:
            self._ms, self._next = now, 0
        tails = secrets.token_bytes(8 * count).hex()
        ids = []
        ms, number = self._ms, self._next
        head = f"{ms:012x}"
        for at in range(0, 16 * count, 16):
            if number == _SEQUENCE:
                ms, number = ms + 1, 0
                head = f"{ms:012x}"
            variant = "89ab"[int(tails[at], 16) & 3]
            tail = tails[at : at + 16]
            ids.append(f"{head[:8]}-{head[8:]}-7{number:03x}-{variant}{tail[1:4]}-{tail[4:]}")
            number += 1
        self._ms, self._next = ms, number
        return ids


def check_job_id(id: str, field: str = "id") -> str:
    """The id itself. Raises InvalidArgument when it could be no job's id."""
    if CHOSEN.fullmatch(id) is None or id in (".", ".."):
        shown = id if len(id) <= 80 else id[:77] + "..."
        raise InvalidArgument(field, f"{shown!r} is no job id; write {FORM}" if id else f"empty; write {FORM}")
    return id


def check_request_id(id: str, field: str = "request_id") -> str:
    """The request id itself. Raises InvalidArgument when it is too long."""
    if len(id) > REQUEST_ID_LENGTH:
        raise InvalidArgument(field, f"{len(id)} characters; at most {REQUEST_ID_LENGTH}")
    return id


def job_id_of(request_id: str) -> str:
    """The id of the job that a request with this id creates."""
    return str(uuid5(_REQUESTS, "job\0" + request_id))


def command_id(request_id: str, subject: str) -> bytes:
    """A command's id: made, or the same for the same request about the same subject."""
    return (uuid5(_REQUESTS, f"command\0{subject}\0{request_id}") if request_id else uuid4()).bytes
