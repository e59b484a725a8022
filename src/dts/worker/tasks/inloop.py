"""Task types that run in the worker's own event loop: HTTP, and those that packages add."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import NamedTuple, Protocol

from dts.bounds import ERROR_BYTES, RESULT_BYTES
from dts.model import End, Instant, Status
from dts.worker import clock
from dts.worker.attempts import Attempt
from dts.worker.bodies import Task
from dts.worker.context import Context
from dts.worker.runners import TIMEOUT, Host, context_of, not_held, timed_out, work_of
from dts.worker.texts import cut

CODE_MAX = 2**31 - 1


class Result(NamedTuple):
    """How a task ended. `code` is shown as exit code or HTTP status; `error` says why it failed."""

    success: bool
    code: int = 0
    error: str = ""
    result: str = ""


class Work(NamedTuple):
    """What a task type gets to run one attempt. `write` adds to its output."""

    task: Task
    context: Context
    write: Callable[[bytes], None]


class TaskType(Protocol):
    """A task type: an object of it is made once a worker. It must not block the event loop."""

    async def run(self, work: Work) -> Result:
        """Runs one attempt. Cancelled at its time-out or when it must stop; what it raises is a failure."""
        ...

    async def close(self) -> None:
        """The worker ends."""
        ...


class InLoopRunner:
    """runners.Runner for a TaskType: time-outs, cancellation, results."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: Host, type: TaskType) -> None:
        self._loop = loop
        self._host = host
        self._type = type
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}

    def claim(self, kind: str) -> int:
        del kind
        return 1

    def start(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self._tasks[attempt] = self._loop.create_task(self._run(attempt), name=f"task {attempt.key}")

    def stop(self, attempt: Attempt, within_ms: int | None) -> None:
        if task := self._tasks.get(attempt):
            task.cancel()

    def skip(self, attempt: Attempt) -> None:
        """Tasks start as soon as they are handed over."""

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await self._type.close()

    async def _run(self, attempt: Attempt) -> None:
        work = work_of(attempt)
        started = clock.wall_ms()
        self._host.started(attempt, started)
        status, end = Status.CANCELLED, End(started)

        def write(data: bytes) -> None:
            self._host.wrote(attempt, data)

        limit = asyncio.timeout(work.timeout_ms / 1000 or None)
        try:
            async with limit:
                result = await self._type.run(Work(work.task, context_of(attempt), write))
            end = _end(started, result)
            status = Status.COMPLETED if result.success else Status.FAILED
        except asyncio.CancelledError:
            pass  # told to stop
        except Exception as problem:  # noqa: BLE001  # whatever a task type raises is its attempt's failure
            status = Status.FAILED
            if isinstance(problem, TimeoutError) and limit.expired():
                end = _end(started, Result(False, 0, timed_out(work)))._replace(kind=TIMEOUT)
            else:
                write("".join(traceback.format_exception(problem)).encode("utf-8", "backslashreplace"))
                end = _end(started, Result(False, 0, f"{type(problem).__name__}: {problem}"))
        del self._tasks[attempt]
        end = end._replace(ended=clock.wall_ms(), enforced=not_held(attempt.demand))
        self._host.ended([(attempt, status, end)])


def _end(started: Instant, result: Result) -> End:
    """Raises TypeError or ValueError for what is no Result, which is a failure of the task type."""
    code = max(-CODE_MAX, min(int(result.code), CODE_MAX))
    return End(started, 0, code, cut(str(result.error), ERROR_BYTES), cut(str(result.result), RESULT_BYTES))
