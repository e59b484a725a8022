"""The pool: warm processes for python tasks, each given a chunk at a time and only while it is idle.

A kind (function) starts with chunks of one, which grow as long as its calls prove short; so long calls spread over children, of
which more are forked when attempts wait and none becomes idle. A child that dies fails the one attempt that it had marked as
running; what it had not begun goes back to the leases and to another child.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import socket
import tempfile
import time
from functools import partial
from typing import Any

from dts.model import End, Status
from dts.worker import processes
from dts.worker.attempts import Attempt, State
from dts.worker.bodies import Call
from dts.worker.channel import Channel
from dts.worker.frames import decode_all
from dts.worker.guarding import Guard
from dts.worker.runners import Ended, Host, context_of, how_it_ended, timed_out, work_of
from dts.worker.shared import CHUNK_MAX, COMPLETED, FAILED, SIZE, SKIP, SKIPPED, STOP, Shared

log = logging.getLogger(__name__)

CHUNK_S = 0.004  # how long a chunk should take
SHORT_S = 0.001  # calls shorter than this go in chunks
GROWTH = 4  # a chunk is so many times the last one of its kind, at most
GROW_AFTER_S = 0.01  # attempts that wait so long without an idle child get new ones
STUCK_S = 0.05  # a chunk that takes so long was not of short calls after all
LOOK_S = 0.02  # how often busy children are looked at: starts, time-outs, results not yet told
IDLE_S = 60.0  # children beyond the base end after so long without work
KINDS = 10_000  # functions whose speed is remembered
BARREN = 10  # children that die in a row without having begun anything: then what they were given fails
READ_BYTES = 64 * 1024


class _Child:
    """One process of the pool, or one on its way."""

    def __init__(self, id: int, sock: socket.socket, shared: Shared, raw: int) -> None:
        self.id = id
        self.pid = 0
        self.socket = sock
        self.channel: Channel | None = None
        self.shared = shared
        self.raw = raw  # what bypasses sys.stdout
        self.chunk: list[Attempt] = []
        self.open: set[int] = set()  # indexes whose attempts are ours to end or give back
        self.left = 0  # results to come: each index has one
        self.seen = (-1, 0)  # what ran when it was looked at last
        self.skipped: set[int] = set()  # told to skip
        self.reclaimable: set[int] = set()  # of those: since before it was looked at last
        self.timed_out: set[int] = set()
        self.kind = ""
        self.given = 0.0
        self.spent = 0  # in calls of this chunk (ns)
        self.idle_since = 0.0
        self.news = False
        self.alive = True


class Pool:
    """The runner of python tasks (runners.Runner). `base` children are kept, `most` are there at most."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, guard: Guard, host: Host, base: int, most: int, guarded: bool
    ) -> None:
        self._loop = loop
        self._guard = guard
        self._host = host
        self._base = min(base, most)
        self._most = most
        self._guarded = guarded  # timed leases: the guard must know what runs where
        self._children: dict[int, _Child] = {}
        self._idle: list[_Child] = []
        self._reserved: list[_Child] = []
        self._busy: dict[Attempt, tuple[_Child, int]] = {}
        self._sizes: dict[str, int] = {}  # by kind: the next chunk's
        self._long: set[str] = set()  # kinds whose calls take longer than SHORT_S
        self._next_id = 0
        self._hungry = 0.0  # since when attempts wait for a child; 0: they don't
        self._barren = 0
        self._look: asyncio.TimerHandle | None = None
        self._grow: asyncio.TimerHandle | None = None
        self._closed = False
        self._zygote = self._start_zygote()
        for _ in range(self._base):
            self._fork()

    # ---- Runner --------------------------------------------------------------------------------------------------

    def claim(self, kind: str) -> int:
        """The size of the next chunk of this kind, and an idle child reserved for it."""
        if not self._idle:
            self._want(kind)
            return 0
        self._reserved.append(self._idle.pop())
        return self._sizes.get(kind, 1)

    def start(self, attempts: list[Attempt]) -> None:
        child = self._reserved.pop()
        if not attempts:
            self._idle.append(child)
            return
        specs: dict[bytes, int] = {}
        calls: list[tuple[str, bytes]] = []
        items = []
        for index, attempt in enumerate(attempts):
            place = specs.get(attempt.body)
            if place is None:
                task = work_of(attempt).task
                assert isinstance(task, Call)
                place = specs[attempt.body] = len(calls)
                calls.append((task.function, task.arguments))
            job, at, nonce = attempt.key
            items.append((place, job, at, nonce, attempt.number, attempt.fencing))
            self._busy[attempt] = (child, index)
        child.chunk, child.kind = attempts, attempts[0].kind
        child.open, child.left = set(range(len(attempts))), len(attempts)
        child.seen = (-1, 0)
        child.skipped.clear()
        child.reclaimable.clear()
        child.given, child.spent = time.monotonic(), 0
        child.shared.reset()
        if self._guarded:
            self._guard.pool(child.pid, sorted({attempt.shard for attempt in attempts}))
        assert child.channel is not None
        child.channel.send((calls, items))
        if self._look is None:
            self._look = self._loop.call_later(LOOK_S, self._look_at_busy)

    def stop(self, attempt: Attempt, within_ms: int | None) -> None:
        if attempt in self._busy:
            child, index = self._busy[attempt]
            self._stop(child, index, work_of(attempt).kill_grace_ms if within_ms is None else within_ms)

    def skip(self, attempt: Attempt) -> None:
        if attempt in self._busy:
            self._skip(*self._busy[attempt])

    async def close(self) -> None:
        self._closed = True
        for timer in (self._look, self._grow):
            if timer is not None:
                timer.cancel()
        self._zygote.close()
        for child in self._children.values():
            self._dispose(child)
        self._children.clear()

    # ---- children ------------------------------------------------------------------------------------------------

    def _start_zygote(self) -> Channel:
        ours, theirs = socket.socketpair()
        self._guard.zygote(theirs.detach())
        return Channel(self._loop, ours, self._on_zygote, lambda: None, self._on_zygote_gone)

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        memory = _memory()
        raw, raw_child = os.pipe()
        os.set_blocking(raw, False)
        self._next_id += 1
        child = self._children[self._next_id] = _Child(self._next_id, ours, Shared(memory), raw)
        self._zygote.send(["fork", child.id], [theirs.detach(), memory, raw_child])

    def _on_zygote(self, frame: list[Any]) -> None:
        match frame:
            case ["forked", id, pid] if id in self._children:
                child = self._children[id]
                child.pid = pid
                child.channel = Channel(
                    self._loop,
                    child.socket,
                    partial(self._on_child, child),
                    partial(self._collect, child),
                    lambda: None,  # the zygote tells how it died
                )
                self._loop.add_reader(child.raw, self._read_raw, child)
                self._now_idle(child)
                self._host.poke()
            case ["died", id, status] if id in self._children:
                self._on_death(self._children[id], *how_it_ended(status))

    def _on_zygote_gone(self) -> None:
        """Its children died with it."""
        if self._closed:
            return
        log.error("the pool's zygote is gone: starting another")
        self._zygote = self._start_zygote()
        for child in list(self._children.values()):
            self._on_death(child, 0, "the pool's zygote ended")
        self._replenish()

    def _on_death(self, child: _Child, code: int, how: str) -> None:
        """One attempt failed with the child, at most; what it did not begin is given back."""
        child.alive = False
        self._collect(child, force=True)
        self._read_raw(child)
        if child in self._idle:
            self._idle.remove(child)
        index, started_ns = child.shared.running()
        results: list[Ended] = []
        if index in child.open:
            self._barren = 0
            attempt = child.chunk[index]
            child.open.discard(index)
            del self._busy[attempt]
            end = End(
                started_ns // 1_000_000, time.time_ns() // 1_000_000, code, f"its process ended: {how or 'exit code 0'}"
            )
            stopped = child.shared.control(index) == STOP
            results.append(self._stopped(child, index, attempt, end) if stopped else (attempt, Status.FAILED, end))
        elif child.open:
            self._barren += 1
        rest = [child.chunk[each] for each in sorted(child.open)]
        for attempt in rest:
            del self._busy[attempt]
        del self._children[child.id]
        self._dispose(child)
        self._replenish()
        if rest and self._barren >= BARREN:
            end = End(error=f"the pool's processes end before they run anything: {how}")
            results += [(attempt, Status.FAILED, end) for attempt in rest]
            rest = []
        self._host.ended(results)
        self._host.returned(rest)

    def _dispose(self, child: _Child) -> None:
        if child.channel is not None:
            child.channel.close()
            self._loop.remove_reader(child.raw)
        else:
            child.socket.close()
        os.close(child.raw)
        child.shared.close()
        if self._guarded and child.chunk and not self._closed:
            self._guard.pool(child.pid, [])

    def _replenish(self) -> None:
        while len(self._children) < self._base and not self._closed and self._barren < BARREN:
            self._fork()

    # ---- growing and shrinking -----------------------------------------------------------------------------------

    def _want(self, kind: str) -> None:
        """Somebody waits for a child: more are forked if none becomes idle soon."""
        if not self._hungry:
            self._hungry = self._loop.time()
        if self._grow is None and len(self._children) < self._most:
            self._grow = self._loop.call_later(0 if kind in self._long else GROW_AFTER_S, self._grow_now)

    def _grow_now(self) -> None:
        self._grow = None
        if self._idle or not self._hungry or any(child.pid == 0 for child in self._children.values()):
            return
        stuck = time.monotonic() - STUCK_S
        if any(child.given > stuck and child.kind not in self._long for child in self._children.values()):
            self._grow = self._loop.call_later(
                GROW_AFTER_S, self._grow_now
            )  # short calls: more processes would not help
            return
        more = max(1, len(self._children) // 2)
        for _ in range(min(more, self._most - len(self._children))):
            self._fork()
        self._hungry = 0.0

    def _now_idle(self, child: _Child) -> None:
        child.idle_since = self._loop.time()
        child.chunk = []
        self._idle.append(child)
        self._hungry = 0.0
        if len(self._children) > self._base:
            self._loop.call_later(IDLE_S, self._shrink)

    def _shrink(self) -> None:
        """Lets children go that were idle long enough; the ones used last are at the end of the list."""
        before = self._loop.time() - IDLE_S
        while self._idle and len(self._children) > self._base and self._idle[0].idle_since <= before:
            child = self._idle.pop(0)
            del self._children[child.id]
            self._dispose(child)  # it ends with its socket

    # ---- what children tell --------------------------------------------------------------------------------------

    def _on_child(self, child: _Child, frame: list[Any]) -> None:
        match frame:
            case ["o", index, data] if index in child.open:
                self._host.wrote(child.chunk[index], data)
            case ["r"]:
                child.news = True
            case ["f"]:
                child.news = True
                self._loop.call_soon(self._read_full, child)

    def _read_full(self, child: _Child) -> None:
        if child.channel is not None and not child.channel.closed:
            self._collect(child, force=True)
            child.shared.empty()
            child.channel.send(["go"])

    def _read_raw(self, child: _Child) -> None:
        """What bypassed sys.stdout belongs to what runs now: the child waits with the next until it is read."""
        while True:
            try:
                data = os.read(child.raw, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(child.raw)
                return
            index, _ = child.shared.running()
            if index in child.open:
                self._host.wrote(child.chunk[index], data)

    def _collect(self, child: _Child, force: bool = False) -> None:
        """Takes results; the output that was sent before them is read first."""
        results: list[Ended] = []
        returned: list[Attempt] = []
        while child.news or force:
            child.news = force = False
            data = child.shared.read()
            assert child.channel is not None
            child.channel.drain()
            for each in decode_all(data):
                self._take(child, each, results, returned)
        if child.alive and child.chunk and not child.left:
            self._learn(child)
            self._now_idle(child)
        if results:
            self._host.ended(results)
        if returned:
            self._host.returned(returned)

    def _take(self, child: _Child, got: list[Any], results: list[Ended], returned: list[Attempt]) -> None:
        index, started_ns, ended_ns, status, error, result = got
        child.spent += ended_ns - started_ns
        started, ended = started_ns // 1_000_000, ended_ns // 1_000_000
        child.left -= 1
        self._barren = 0
        if index not in child.open:
            return  # it was taken back
        attempt = child.chunk[index]
        child.open.discard(index)
        del self._busy[attempt]
        if status == COMPLETED:
            results.append((attempt, Status.COMPLETED, End(started, ended, 0, "", result)))
        elif status == FAILED:
            results.append((attempt, Status.FAILED, End(started, ended, 1, error, result)))
        elif status == SKIPPED:
            returned.append(attempt)
        else:
            results.append(self._stopped(child, index, attempt, End(started, ended)))

    def _stopped(self, child: _Child, index: int, attempt: Attempt, end: End) -> Ended:
        if index not in child.timed_out:
            return attempt, Status.CANCELLED, end._replace(error="")
        child.timed_out.discard(index)
        return attempt, Status.FAILED, end._replace(error=timed_out(work_of(attempt)))

    def _learn(self, child: _Child) -> None:
        """The next chunk's size, from the time that this one's calls took by themselves."""
        count = len(child.chunk)
        each = max(child.spent / count / 1e9, 1e-6)
        if len(self._sizes) >= KINDS:
            self._sizes.clear()
            self._long.clear()
        fitting = max(1, int(CHUNK_S / each))
        self._sizes[child.kind] = min(CHUNK_MAX, count * GROWTH, fitting) if each < SHORT_S else 1
        if each > SHORT_S:
            self._long.add(child.kind)
        else:
            self._long.discard(child.kind)

    # ---- time ----------------------------------------------------------------------------------------------------

    def _look_at_busy(self) -> None:
        self._look = None
        now = time.monotonic()
        for child in [each for each in self._children.values() if each.chunk]:
            if now - child.given > LOOK_S:
                self._collect(child, force=True)
            if child.chunk:
                self._look_at(child)
        if self._busy and not self._closed and self._look is None:
            self._look = self._loop.call_later(LOOK_S, self._look_at_busy)

    def _look_at(self, child: _Child) -> None:
        """Tells of a start, ends what runs too long, takes back what waits behind it."""
        running = child.shared.running()
        if running == child.seen:
            self._take_back(child, running[0])
        child.seen = running
        child.reclaimable = set(child.skipped)
        index, started_ns = running
        if index not in child.open:
            return
        attempt = child.chunk[index]
        if attempt.state is State.HANDED:
            self._host.started(attempt, started_ns // 1_000_000)
        work = work_of(attempt)
        ran_ms = (time.time_ns() - started_ns) // 1_000_000
        if work.timeout_ms and ran_ms > work.timeout_ms and index not in child.timed_out:
            child.timed_out.add(index)
            self._stop(child, index, work.kill_grace_ms)

    def _take_back(self, child: _Child, running: int) -> None:
        """The same call runs as at the last look: the rest of the chunk is told to be skipped, and at the next look given back.

        A child marks what it runs before it reads the control byte, which was written a look ago: so it can neither have begun
        nor ever begin what is given back here.
        """
        if running < 0:
            return
        self._sizes[child.kind] = 1
        self._long.add(child.kind)
        back = [child.chunk[index] for index in sorted(child.reclaimable & child.open) if index != running]
        child.open -= child.reclaimable - {running}
        for attempt in back:
            del self._busy[attempt]
        for index in child.open:
            if index > running:
                self._skip(child, index)
        if back:
            self._host.returned(back)

    def _skip(self, child: _Child, index: int) -> None:
        if child.shared.control(index) != STOP:
            child.shared.set_control(index, SKIP)
            child.skipped.add(index)

    def _stop(self, child: _Child, index: int, within_ms: int) -> None:
        """Forbids its start; if it runs already, its process gets TERM and KILL with all that came of it."""
        self._skip(child, index)
        if child.shared.running()[0] == index:
            child.shared.set_control(index, STOP)
            context = context_of(child.chunk[index])
            mark = processes.mark(context.execution_id, str(context.attempt))
            self._guard.kill(child.pid, mark, within_ms)


def _memory() -> int:
    """An anonymous file for shared memory."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("dts-pool")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, -(-SIZE // mmap.PAGESIZE) * mmap.PAGESIZE)
    return fd
