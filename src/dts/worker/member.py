"""One process of the pool, as the worker sees it: its chunk, its results, what must be ended.

An index of a chunk is open until its attempt is ended or given back. A member that was told to stop is doomed: it gets no other
chunk, since the guard kills it sooner or later.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from dts.model import End, Status
from dts.worker import processes
from dts.worker.attempts import Attempt, State
from dts.worker.bodies import Call
from dts.worker.channel import Channel
from dts.worker.frames import decode_all
from dts.worker.guarding import Guard
from dts.worker.runners import TIMEOUT, Ended, Host, context_of, timed_out, work_of
from dts.worker.shared import COMPLETED, FAILED, SIZE, SKIP, SKIPPED, STOP, Shared

READ_BYTES = 64 * 1024
NOTHING_RUNS = (-1, 0)


class Taken(NamedTuple):
    """What became of attempts: ended, given back unstarted, or ended once the guard says that nothing is left of the member."""

    ended: list[Ended]
    returned: list[Attempt]
    ending: list[Ended]


class Member:
    """Made before its process: `theirs` are the descriptors that the zygote hands to it. `shards`: tell the guard of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, guard: Guard, host: Host, id: int, shards: bool) -> None:
        self.id = id
        self.pid = 0
        self.kind = ""
        self.idle_since = 0.0
        self.given = 0.0  # when it got its chunk (monotonic)
        self.spent_ns = 0  # in calls of this chunk
        self.chunk: list[Attempt] = []
        self.left = 0  # results to come: each index has one
        self.doomed = False
        self._loop = loop
        self._guard = guard
        self._host = host
        self._tell_shards = shards
        self._open: set[int] = set()
        self._seen = NOTHING_RUNS  # what ran at the last look
        self._skipped: set[int] = set()  # told to be skipped
        self._reclaimable: set[int] = set()  # of those: before the last look
        self._timed_out: set[int] = set()
        self._news = False
        self._channel: Channel | None = None
        self._socket, theirs = socket.socketpair()
        memory = _memory()
        self._shared = Shared(memory)
        self._raw, raw = os.pipe()  # what bypasses sys.stdout
        os.set_blocking(self._raw, False)
        self.theirs = (theirs.detach(), memory, raw)

    # ---- its process ---------------------------------------------------------------------------------------------

    def join(self, pid: int, on_news: Callable[[], None]) -> None:
        """Its process is there; `on_news` is called when there is something to collect."""
        self.pid = pid
        # How it died is the zygote's to tell, not the socket's.
        self._channel = Channel(self._loop, self._socket, self._on_frame, on_news, lambda: None)
        self._loop.add_reader(self._raw, self._read_raw)

    def give(self, attempts: list[Attempt]) -> None:
        """A chunk, once it has nothing left of the one before."""
        assert self._channel is not None
        assert not self.left, "a busy member got a chunk"
        assert not self.doomed, "a member that will be killed got a chunk"
        places: dict[bytes, int] = {}
        calls: list[tuple[str, bytes, int]] = []
        items = []
        for attempt in attempts:
            place = places.get(attempt.body)
            if place is None:
                work = work_of(attempt)
                task = work.task
                assert isinstance(task, Call)
                place = places[attempt.body] = len(calls)
                calls.append((task.function, task.arguments, work.kill_grace_ms))
            job, at, nonce = attempt.key
            items.append((place, job, at, nonce, attempt.number, attempt.fencing))
        self.chunk, self.kind = attempts, attempts[0].kind
        self._open, self.left = set(range(len(attempts))), len(attempts)
        self._seen = NOTHING_RUNS
        self._skipped.clear()
        self._reclaimable.clear()
        self.given, self.spent_ns = time.monotonic(), 0
        self._shared.reset()
        if self._tell_shards:
            self._guard.pool(self.id, self.pid, sorted({attempt.shard for attempt in attempts}))
        self._channel.send((calls, items))

    def dispose(self) -> None:
        """Closes all of it; its process, if it lives, ends with its socket."""
        if self._channel is not None:
            self._channel.close()
            self._loop.remove_reader(self._raw)
            if self._tell_shards and self.chunk:
                self._guard.pool(self.id, self.pid, [])
        else:
            self._socket.close()
        self.chunk = []
        os.close(self._raw)
        self._shared.close()

    # ---- its results ---------------------------------------------------------------------------------------------

    def collect(self, force: bool = False) -> Taken:
        """Results since the last call (`force`: also those not told yet). Output that was sent before them is read first."""
        taken = Taken([], [], [])
        while self._news or force:
            self._news = force = False
            data = self._shared.read()
            if self._channel is not None:
                self._channel.drain()
            for result in decode_all(data):
                self._take(result, taken)
        return taken

    def die(self, code: int, how: str) -> tuple[Taken, bool]:
        """It is dead: one attempt ended with it, at most, the rest is given back. False: it had begun nothing of what is left."""
        taken = self.collect(force=True)
        self._read_raw()
        index, started_ns = self._shared.running()
        begun = index in self._open
        if begun:
            self._open.discard(index)
            end = End(started_ns // 1_000_000, time.time_ns() // 1_000_000, code, f"its process ended: {how}")
            attempt = self.chunk[index]
            taken.ending.append(self._stopped(index, end) if self.doomed else (attempt, Status.FAILED, end))
            self.kill(attempt, 0)  # what it had started may live
        taken.returned.extend(self.chunk[each] for each in sorted(self._open))
        self._open.clear()
        return taken, begun

    def _take(self, result: list[Any], taken: Taken) -> None:
        index, started_ns, ended_ns, status, error, value = result
        self.left -= 1
        self.spent_ns += ended_ns - started_ns
        if index not in self._open:
            return  # it was given back
        self._open.discard(index)
        attempt = self.chunk[index]
        started, ended = started_ns // 1_000_000, ended_ns // 1_000_000
        if status == COMPLETED:
            taken.ended.append((attempt, Status.COMPLETED, End(started, ended, 0, "", value)))
        elif status == FAILED:
            taken.ended.append((attempt, Status.FAILED, End(started, ended, 1, error, value)))
        elif status == SKIPPED:
            taken.returned.append(attempt)
        else:
            taken.ending.append(self._stopped(index, End(started, ended)))

    def _stopped(self, index: int, end: End) -> Ended:
        attempt = self.chunk[index]
        if index in self._timed_out:
            return attempt, Status.FAILED, end._replace(error=timed_out(work_of(attempt)), kind=TIMEOUT)
        return attempt, Status.CANCELLED, end._replace(error="")

    def _on_frame(self, frame: list[Any]) -> None:
        match frame:
            case ["o", index, data] if index in self._open:
                self._host.wrote(self.chunk[index], data)
            case ["r"]:
                self._news = True
            case ["f"]:
                self._news = True
                self._loop.call_soon(self._make_room)

    def _make_room(self) -> None:
        """The area was full: the results in it are collected by now."""
        assert self._channel is not None
        if not self._channel.closed:
            self._shared.empty()
            self._channel.send(["go"])

    def _read_raw(self) -> None:
        """What bypassed sys.stdout belongs to what runs now: the process waits with the next until it is read."""
        while True:
            try:
                data = os.read(self._raw, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(self._raw)
                return
            index, _ = self._shared.running()
            if index in self._open:
                self._host.wrote(self.chunk[index], data)

    # ---- looking at what runs ------------------------------------------------------------------------------------

    def look(self) -> list[Attempt]:
        """Tells of a start, ends what runs too long; what waits behind a long call is given back."""
        running = self._shared.running()
        index, started_ns = running
        back = self._take_back(index) if running == self._seen and index >= 0 else []
        self._seen = running
        self._reclaimable = set(self._skipped)
        if index in self._open:
            attempt = self.chunk[index]
            if attempt.state is State.HANDED:
                self._host.started(attempt, started_ns // 1_000_000)
            work = work_of(attempt)
            ran_ms = (time.time_ns() - started_ns) // 1_000_000
            if work.timeout_ms and ran_ms > work.timeout_ms and index not in self._timed_out:
                self._timed_out.add(index)
                self.stop(index, work.kill_grace_ms)
        return back

    def _take_back(self, running: int) -> list[Attempt]:
        """The same call runs as at the last look: the rest of the chunk is told to be skipped, and at the next look given back.

        A process marks what it runs before it reads the control byte, which was written a look ago: so it can neither have begun
        nor ever begin what is given back here.
        """
        back = sorted(self._reclaimable & self._open - {running})
        self._open.difference_update(back)
        for index in self._open:
            if index > running:
                self.skip(index)
        return [self.chunk[index] for index in back]

    def skip(self, index: int) -> None:
        """It is given back, unless it has started."""
        if self._shared.control(index) != STOP:
            self._shared.set_control(index, SKIP)
            self._skipped.add(index)

    def stop(self, index: int, within_ms: int) -> None:
        """Forbids its start; if it runs already, its process gets TERM and KILL with all that came of it."""
        self.skip(index)
        if self._shared.running()[0] != index:
            return
        self._shared.set_control(index, STOP)
        self.doomed = True
        for other in self._open - {index}:
            self.skip(other)
        self.kill(self.chunk[index], within_ms)

    def kill(self, attempt: Attempt, within_ms: int) -> None:
        """TERM and KILL for what is left of an attempt and of this member; `Guard.on_member_gone` tells when it is done."""
        context = context_of(attempt)
        mark = processes.mark(context.execution_id, str(context.attempt))
        self._guard.kill(self.id, self.pid, mark, within_ms)


def _memory() -> int:
    """An anonymous file for shared memory."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("dts-pool")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, -(-SIZE // mmap.PAGESIZE) * mmap.PAGESIZE)
    return fd
