"""What runs in processes of its own, started and ended by the guard: shell tasks, and python tasks with requests.

A shell task is a command line or argv in a session and process group of its own. Success is exit code 0. Standard output and error
are one stream, as a terminal would show them; standard input is empty. When the first process ends, what it left behind is ended too.
"""

from __future__ import annotations

import asyncio
import os
import socket

from dts.bounds import DEFINITION_BYTES, ERROR_BYTES
from dts.model import End, Status
from dts.worker import clock
from dts.worker.attempts import Attempt
from dts.worker.bodies import Call, Shell, Work
from dts.worker.frames import Frames, pack
from dts.worker.guarding import PYTHON, Guard
from dts.worker.runners import (
    OUT_OF_MEMORY,
    SCRATCH_FULL,
    TIMEOUT,
    Ended,
    Host,
    context_of,
    how_it_ended,
    timed_out,
    work_of,
)
from dts.worker.shared import COMPLETED
from dts.worker.texts import cut
from dts.worker.trees import Limits

READ_BYTES = 64 * 1024
READS_AT_ONCE = 16  # before others have a turn
CALL_BYTES = 4 * DEFINITION_BYTES  # what a call's socket takes at once
NOT_STARTED = 127  # the code of a command that cannot be started, as in a shell
ALONE = (*PYTHON[:2], "-u", *PYTHON[2:], "dts.worker.alone")


class Run:
    """An attempt that the guard was told to start. `private`: our end of a python call's socket."""

    __slots__ = ("attempt", "enforced", "output", "private")

    def __init__(self, attempt: Attempt, output: int, private: socket.socket | None) -> None:
        self.attempt = attempt
        self.output = output
        self.private = private
        self.enforced = ""

    def close(self) -> None:
        """Frees its descriptors."""
        os.close(self.output)
        if self.private is not None:
            self.private.close()


class ShellRunner:
    """runners.Runner and guarding.Tasks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: Host) -> None:
        self._loop = loop
        self._host = host
        self._guard: Guard | None = None
        self._next_id = 0
        self._running: dict[int, Run] = {}
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
        for attempt in attempts:
            try:
                self._start(attempt, work_of(attempt))
            except OSError as problem:
                self._host.ended([(attempt, Status.FAILED, _not_started(str(problem)))])

    def _start(self, attempt: Attempt, work: Work) -> None:
        """Raises OSError when there are no more descriptors."""
        assert self._guard is not None
        output, writer = os.pipe()
        fds, private = [writer], None
        match work.task:
            case Shell(argv, env, directory):
                pass
            case Call(function, arguments):
                argv, env, directory = ALONE, {}, ""
                try:
                    private = _private([function, arguments, *attempt.key, attempt.number, attempt.fencing], fds)
                except OSError:
                    os.close(output)
                    os.close(writer)
                    raise
            case other:
                raise AssertionError(f"no process for {other}")
        os.set_blocking(output, False)
        self._next_id += 1
        id = self._next_id
        self._running[id] = Run(attempt, output, private)
        self._ids[attempt] = id
        self._loop.add_reader(output, self._read, id)
        demand = attempt.demand
        self._guard.spawn(
            id,
            attempt.shard,
            argv,
            {**env, **context_of(attempt).variables()},
            directory,
            work.timeout_ms,
            work.kill_grace_ms,
            Limits(demand.cpu, demand.memory, demand.storage),
            fds,
        )

    def stop(self, attempt: Attempt, within_ms: int | None) -> None:
        id = self._ids.get(attempt)
        if id is not None and self._guard is not None:
            self._guard.stop(id, within_ms)

    def skip(self, attempt: Attempt) -> None:
        """Tasks start as soon as they are handed over."""

    async def close(self) -> None:
        for run in self._running.values():
            self._loop.remove_reader(run.output)
            run.close()
        self._running.clear()
        self._ids.clear()

    # ---- guarding.Tasks ------------------------------------------------------------------------------------------

    def began(self, id: int, started_ns: int, enforced: str) -> None:
        if run := self._running.get(id):
            run.enforced = enforced
            self._host.started(run.attempt, started_ns // 1_000_000)

    def ended(self, id: int, status: int, started_ns: int, ended_ns: int, why: str, used: int) -> None:
        if id not in self._running:
            return
        run = self._finish(id)
        attempt = run.attempt
        code, error = how_it_ended(status)
        end = End(started_ns // 1_000_000, ended_ns // 1_000_000, code, error, enforced=run.enforced)
        match why:
            case "":
                self._results.append(_by_itself(run, end))
            case "timeout":
                failed = end._replace(error=timed_out(work_of(attempt)), kind=TIMEOUT)
                self._results.append((attempt, Status.FAILED, failed))
            case "memory":
                text = f"out of memory: used {used} MiB, requested {attempt.demand.memory} MiB"
                self._results.append((attempt, Status.FAILED, end._replace(error=text, kind=OUT_OF_MEMORY)))
            case "scratch":
                text = f"scratch folder over {attempt.demand.storage} MiB: it held {used} MiB"
                self._results.append((attempt, Status.FAILED, end._replace(error=text, kind=SCRATCH_FULL)))
            case _:
                self._results.append((attempt, Status.CANCELLED, end._replace(error="")))

    def failed(self, id: int, problem: str) -> None:
        if id in self._running:
            self._results.append((self._finish(id).attempt, Status.FAILED, _not_started(problem)))

    def settle(self) -> None:
        results, self._results = self._results, []
        if results:
            self._host.ended(results)

    # ---- output --------------------------------------------------------------------------------------------------

    def _read(self, id: int) -> None:
        run = self._running[id]
        for _ in range(READS_AT_ONCE):
            try:
                data = os.read(run.output, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(run.output)
                return
            self._host.wrote(run.attempt, data)

    def _finish(self, id: int) -> Run:
        """Takes what is still in the pipe; nobody of the task's tree is left to write more."""
        self._read(id)
        run = self._running.pop(id)
        self._loop.remove_reader(run.output)
        os.close(run.output)
        del self._ids[run.attempt]
        return run


def _private(call: list[object], fds: list[int]) -> socket.socket:
    """Our end of a socket with a call in it; the other end is added to `fds`. Raises OSError."""
    ours, theirs = socket.socketpair()
    # A call is a definition's part: it fits into the socket's buffer, so nobody waits.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CALL_BYTES)
    ours.setblocking(False)
    ours.sendall(pack(call))
    fds.append(theirs.detach())
    return ours


def _by_itself(run: Run, end: End) -> Ended:
    """The end of what nobody ended."""
    if run.private is None:
        return run.attempt, Status.FAILED if end.code else Status.COMPLETED, end
    said = _answer(run.private)
    run.private.close()
    if said is None:
        how = end.error or "exit code 0"
        return run.attempt, Status.FAILED, end._replace(error=f"its process ended: {how}")
    status, error, result = said
    done = Status.COMPLETED if status == COMPLETED else Status.FAILED
    return run.attempt, done, end._replace(code=int(status != COMPLETED), error=error, result=result)


def _answer(private: socket.socket) -> tuple[int, str, str] | None:
    """What a call said of its end, before its process ended; None: nothing."""
    frames = Frames()
    try:
        while data := private.recv(READ_BYTES):
            for status, error, result in frames.feed(data):
                return status, error, result
    except (BlockingIOError, ConnectionError):
        pass
    return None


def _not_started(problem: str) -> End:
    now = clock.wall_ms()
    return End(now, now, NOT_STARTED, cut(f"cannot start: {problem}", ERROR_BYTES))
