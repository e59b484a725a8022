"""One error per cause. The constructor writes the sentence that a person reads; `status` is the gRPC code's name for the API."""

from __future__ import annotations


class DtsError(Exception):
    """An error of the world, not a bug of ours. `status` is a gRPC status name; str(error) says what, where and what to do."""

    status = "UNKNOWN"


class InvalidArgument(DtsError):
    """A request that no state of the system could accept. `field` is its path in the message, dots between."""

    status = "INVALID_ARGUMENT"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


class InvalidSchedule(DtsError):
    """A schedule or zone that is refused: which field, at which column (from 1), what was read, what would be valid."""

    status = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, field: str = "", column: int = 0, read: str = "", expected: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.column = column
        self.read = read
        self.expected = expected


class NotFound(DtsError):
    """No such job, execution, worker or output."""

    status = "NOT_FOUND"

    def __init__(self, kind: str, id: str, hint: str = "") -> None:
        super().__init__(f"{kind} {id!r} not found{f'; {hint}' if hint else ''}")
        self.kind = kind
        self.id = id


class AlreadyExists(DtsError):
    """The id is taken by something with other content."""

    status = "ALREADY_EXISTS"


class RevisionConflict(DtsError):
    """The request names an old revision: read again and repeat."""

    status = "ABORTED"

    def __init__(self, job: str, named: int, current: int) -> None:
        super().__init__(f"job {job!r} is at revision {current}, not {named}: read it again and repeat the change")


class FailedPrecondition(DtsError):
    """The state of the thing does not allow it, and a repeat will not help until the state changes."""

    status = "FAILED_PRECONDITION"


class QueueFull(DtsError):
    """A named bound is reached: try again later."""

    status = "RESOURCE_EXHAUSTED"


class Unavailable(DtsError):
    """A store or service is not reachable now: the same request may be repeated."""

    status = "UNAVAILABLE"


class OutcomeUnknown(DtsError):
    """A change may or may not have been made: read before you repeat it."""

    status = "UNKNOWN"


class Unauthenticated(DtsError):
    """The token is missing or wrong."""

    status = "UNAUTHENTICATED"


class OwnershipLost(DtsError):
    """Another process owns the shard now: drop its state; nothing of the refused commit is kept."""

    status = "UNAVAILABLE"


class StoreDamaged(DtsError):
    """The database file cannot be trusted: nothing was overwritten."""

    status = "DATA_LOSS"


class StoreBusy(DtsError):
    """Another server owns the database file."""

    status = "FAILED_PRECONDITION"


class ConfigError(DtsError):
    """One or more settings are wrong; the message lists all of them."""

    status = "FAILED_PRECONDITION"


class Bug(AssertionError):
    """Ours, not the world's: an invariant of the core does not hold. Please report it with the log."""
