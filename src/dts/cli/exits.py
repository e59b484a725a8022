"""Exit codes, and what to do about each failure. Scripts rely on the numbers: docs/reference/cli.md."""

from __future__ import annotations

from dts.errors import ConfigError, DtsError

OK = 0
FINDINGS = 1  # the audit found something; the awaited execution did not complete
WRONG = 2  # the command or what it asks for is wrong
UNREACHABLE = 3
NOT_FOUND = 4
CONFLICT = 5
LATER = 6  # a bound is reached: try again later
FORBIDDEN = 7
BROKEN = 8  # an error of the server, or a bug
INTERRUPTED = 130

_BY_STATUS = {
    "INVALID_ARGUMENT": WRONG,
    "OUT_OF_RANGE": WRONG,
    "UNAVAILABLE": UNREACHABLE,
    "DEADLINE_EXCEEDED": UNREACHABLE,
    "NOT_FOUND": NOT_FOUND,
    "ALREADY_EXISTS": CONFLICT,
    "ABORTED": CONFLICT,
    "FAILED_PRECONDITION": CONFLICT,
    "RESOURCE_EXHAUSTED": LATER,
    "UNAUTHENTICATED": FORBIDDEN,
    "PERMISSION_DENIED": FORBIDDEN,
}
_HINTS = {
    "DEADLINE_EXCEEDED": "The server did not answer in time: see what it is doing with: dts status",
    "RESOURCE_EXHAUSTED": "Try again in a moment.",
    "UNAUTHENTICATED": "Check the token.",
    "UNIMPLEMENTED": "The server is older than this command, or another program listens on that port.",
}


def code_of(error: DtsError) -> int:
    """The exit code for an error."""
    return WRONG if isinstance(error, ConfigError) else _BY_STATUS.get(error.status, BROKEN)


def hint(error: DtsError) -> str:
    """What to do next, or nothing."""
    if isinstance(error, ConfigError):
        return "See what is in force with: dts config"
    return _HINTS.get(error.status, "")
