"""Between the agent and the runners, one for each task type: what both may ask of the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Protocol

from dts.model import Demand, End, Instant, Status
from dts.worker.attempts import Attempt
from dts.worker.bodies import Work, read
from dts.worker.context import Context, execution_id

Ended = tuple[Attempt, Status, End]

# Of model.End.kind.
TIMEOUT = "timeout"
OUT_OF_MEMORY = "out_of_memory"
SCRATCH_FULL = "scratch_full"


class Host(Protocol):
    """What runners tell."""

    def started(self, attempt: Attempt, at: Instant) -> None: ...

    def ended(self, results: Sequence[Ended]) -> None:
        """COMPLETED, FAILED, or CANCELLED: it ended because it was told to stop."""
        ...

    def returned(self, attempts: Sequence[Attempt]) -> None:
        """These were not started."""
        ...

    def wrote(self, attempt: Attempt, data: bytes) -> None:
        """Output, as it comes; never after the attempt's end."""
        ...

    def poke(self) -> None:
        """There is room where there was none."""
        ...


class Runner(Protocol):
    """Runs the attempts of one task type."""

    def claim(self, kind: str) -> int:
        """As leases.Rooms.claim."""
        ...

    def start(self, attempts: list[Attempt]) -> None:
        """One group; may be empty: what was claimed is free again."""
        ...

    def stop(self, attempt: Attempt, within_ms: int | None) -> None:
        """TERM, then KILL after `within_ms` (None: its own grace time); may come again, more urgent."""
        ...

    def skip(self, attempt: Attempt) -> None:
        """Gives it back if it has not started."""
        ...

    async def close(self) -> None:
        """Frees what it holds; nothing runs any more."""
        ...


def work_of(attempt: Attempt) -> Work:
    """What it is to run."""
    return read(attempt.body)


def context_of(attempt: Attempt) -> Context:
    """What its task may know."""
    job, at, nonce = attempt.key
    return Context(job, execution_id(job, at, nonce), attempt.number, at, attempt.fencing)


def not_held(demand: Demand) -> str:
    """model.End.enforced of what runs in a process that it shares with others: nothing holds its requests."""
    requests = {"cpu": demand.cpu, "memory": demand.memory, "storage": demand.storage}
    return ",".join(f"{name}=none" for name, amount in requests.items() if amount)


def timed_out(work: Work) -> str:
    """The error of an attempt that ran too long."""
    return f"timed out after {work.timeout_ms / 1000:g} s"


def how_it_ended(status: int) -> tuple[int, str]:
    """A waitpid status as (code, error); signals as 128 + number, like shells have it."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code, f"exit code {code}" if code else ""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "a real-time signal"
    return 128 - code, f"killed by signal {-code} ({name})"
