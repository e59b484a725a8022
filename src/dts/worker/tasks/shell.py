"""Shell tasks: a command line or argv in a session and process group of its own, started and ended by the guard.

Success is exit code 0. Standard output and error are one stream, as a terminal would show them; standard input is empty. When
the first process ends, what it left behind is ended too.
"""

from __future__ import annotations

import asyncio
import os

from dts.bounds import ERROR_BYTES
from dts.model import End, Status
from dts.worker import clock
from dts.worker.attempts import Attempt
from dts.worker.bodies import Shell
from dts.worker.guarding import Guard
from dts.worker.runners import Ended, Host, context_of, how_it_ended, timed_out, work_of
from dts.worker.texts import cut

READ_BYTES = 64 * 1024
READS_AT_ONCE = 16  # before others have a turn
NOT_STARTED = 127  # the code of a command that cannot be started, as in a shell


class ShellRunner:
    """runners.Runner and guarding.Tasks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: Host) -> None:
        self._loop = loop
        self._host = host
        self._guard: Guard | None = None
        self._next_id = 0
        self._running: dict[int, tuple[Attempt, int]] = {}  # with the output's descriptor
        self._ids: dict[Attempt, int] = {}
        self._results: list[Ended] = []

    def use(self, guard: Guard) -> None:
        """The guard that starts tasks."""
        self._guard = guard

    # ---- Runner --------------------------------------------------------------------------------------------------

    def claim(self, kind: str) -> int:
        del kind
        return 1

    def start(self, attempts: list[Attempt]) -> None:
        assert self._guard is not None
        for attempt in attempts:
            work = work_of(attempt)
            assert isinstance(work.task, Shell)
            try:
                output, writer = os.pipe()
            except OSError as problem:
                self._host.ended([(attempt, Status.FAILED, _not_started(str(problem)))])
                continue
            os.set_blocking(output, False)
            self._next_id += 1
            id = self._next_id
            self._running[id] = (attempt, output)
            self._ids[attempt] = id
            self._loop.add_reader(output, self._read, id)
            env = {**work.task.env, **context_of(attempt).variables()}
            self._guard.spawn(
                id,
                attempt.shard,
                work.task.argv,
                env,
                work.task.directory,
                work.timeout_ms,
                work.kill_grace_ms,
                writer,
            )

    def stop(self, attempt: Attempt, within_ms: int | None) -> None:
        id = self._ids.get(attempt)
        if id is not None and self._guard is not None:
            self._guard.stop(id, within_ms)

    def skip(self, attempt: Attempt) -> None:
        """Tasks start as soon as they are handed over."""

    async def close(self) -> None:
        for _, output in self._running.values():
            self._loop.remove_reader(output)
            os.close(output)
        self._running.clear()
        self._ids.clear()

    # ---- guarding.Tasks ------------------------------------------------------------------------------------------

    def began(self, id: int, started_ns: int) -> None:
        if id in self._running:
            self._host.started(self._running[id][0], started_ns // 1_000_000)

    def ended(self, id: int, status: int, started_ns: int, ended_ns: int, why: str) -> None:
        if id not in self._running:
            return
        attempt = self._finish(id)
        code, error = how_it_ended(status)
        end = End(started_ns // 1_000_000, ended_ns // 1_000_000, code, error)
        if why == "timeout":
            self._results.append((attempt, Status.FAILED, end._replace(error=timed_out(work_of(attempt)))))
        elif why:
            self._results.append((attempt, Status.CANCELLED, end._replace(error="")))
        else:
            self._results.append((attempt, Status.FAILED if code else Status.COMPLETED, end))

    def failed(self, id: int, problem: str) -> None:
        if id in self._running:
            self._results.append((self._finish(id), Status.FAILED, _not_started(problem)))

    def settle(self) -> None:
        results, self._results = self._results, []
        if results:
            self._host.ended(results)

    # ---- output --------------------------------------------------------------------------------------------------

    def _read(self, id: int) -> None:
        attempt, output = self._running[id]
        for _ in range(READS_AT_ONCE):
            try:
                data = os.read(output, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(output)
                return
            self._host.wrote(attempt, data)

    def _finish(self, id: int) -> Attempt:
        """Takes what is still in the pipe; nobody of the task's tree is left to write more."""
        self._read(id)
        attempt, output = self._running.pop(id)
        self._loop.remove_reader(output)
        os.close(output)
        del self._ids[attempt]
        return attempt


def _not_started(problem: str) -> End:
    now = clock.wall_ms()
    return End(now, now, NOT_STARTED, cut(f"cannot start: {problem}", ERROR_BYTES))
