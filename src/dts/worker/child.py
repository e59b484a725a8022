"""A child of the pool: takes chunks of python calls, runs them one after the other, writes results to shared memory.

Frames from the worker: [specs, items] with specs [function, encoded arguments, kill_grace_ms] and items [spec, job, instant,
nonce, attempt, fencing]; ["go"] when a full result area was read. To the worker: ["r"] there are results, ["f"] the area is
full, ["o", index, bytes] output. What a call left running is ended before its result is written.
"""

from __future__ import annotations

import fcntl
import io
import os
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any

from dts.worker import processes
from dts.worker.calling import Caller
from dts.worker.context import CURRENT, Context, execution_id
from dts.worker.frames import Frames, encode, pack
from dts.worker.shared import SKIP, SKIPPED, STOP, STOPPED, Shared

NOTIFY_NS = 1_000_000  # results are told at most so often, and at the end of a chunk
LINE_BYTES = 4_096  # output is sent at a line's end or when there is so much of it
DRAIN_S = 0.2  # how long the next call waits until what bypassed sys.stdout is read
READ_BYTES = 256 * 1024


class Capture(io.TextIOBase):
    """sys.stdout and sys.stderr of user code: goes to the worker by lines, with the index of the running attempt."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self._send = send
        self._text: list[str] = []
        self._size = 0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def buffer(self) -> io.FileIO:
        """For who writes bytes: past us, straight to the descriptor."""
        return io.FileIO(1, "w", closefd=False)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def write(self, text: str, /) -> int:
        self._text.append(text)
        self._size += len(text)
        if "\n" in text or self._size > LINE_BYTES:
            self.flush()
        return len(text)

    def flush(self) -> None:
        if self._text:
            text, self._text, self._size = "".join(self._text), [], 0
            self._send(text.encode("utf-8", "backslashreplace"))


class Child:
    """The loop of one child."""

    def __init__(self, channel: socket.socket, memory: int) -> None:
        self._channel = channel
        self._frames = Frames()
        self._shared = Shared(memory)
        os.close(memory)
        self._capture = Capture(self._send_output)
        self._caller = Caller(self._capture.write, lambda: self._shared.control(self._index) == STOP)
        self._index = 0
        self._told = 0

    def run(self) -> None:
        """Until the worker closes the socket."""
        signal.signal(signal.SIGTERM, self._caller.on_term)
        sys.stdout = sys.stderr = self._capture
        while frame := self._receive():
            specs, items = frame
            if not self._run_chunk(specs, items):
                return

    def _receive(self) -> list[Any] | None:
        """The next frame: the worker sends one at a time."""
        while data := self._channel.recv(READ_BYTES):
            for frame in self._frames.feed(data):
                return frame
        return None

    def _run_chunk(self, specs: Sequence[tuple[str, bytes, int]], items: Sequence[Any]) -> bool:
        """False: told to stop, nothing more may run in this process."""
        shared, clock = self._shared, time.time_ns
        shared.offset = 0
        environ = os.environ
        for index, (spec, job, at, nonce, attempt, fencing) in enumerate(items):
            self._index = index
            context = Context(job, execution_id(job, at, nonce), attempt, at, fencing)
            environ.update(context.variables())
            CURRENT.set(context)
            started = clock()
            if shared.begin(index, started) == SKIP:
                self._finish((index, 0, 0, SKIPPED, "", ""))
                continue
            function, arguments, grace_ms = specs[spec]
            status, error, result = self._caller.call(function, arguments)
            if processes.has_children() and status != STOPPED:
                processes.end_below(grace_ms / 1000)
            self._settle_output()
            ended = clock()
            self._finish((index, started, ended, status, error, result))
            if shared.control(index) == STOP:
                self._channel.sendall(pack(["r"]))
                return False
            if ended - self._told > NOTIFY_NS:
                self._told = ended
                self._channel.sendall(pack(["r"]))
        self._told = clock()
        self._channel.sendall(pack(["r"]))
        return True

    def _send_output(self, data: bytes) -> None:
        self._channel.sendall(pack(["o", self._index, data]))

    def _settle_output(self) -> None:
        """Sends what is left of the output; waits until what went to the descriptor is read, so that it is ours."""
        self._capture.flush()
        end = 0.0
        while struct.unpack("i", fcntl.ioctl(1, termios.FIONREAD, b"\0\0\0\0"))[0]:
            now = time.monotonic()
            end = end or now + DRAIN_S
            if now > end:
                return
            time.sleep(0.000_5)

    def _finish(self, result: tuple[int, int, int, int, str, str]) -> None:
        encoded = encode(result)
        if not self._shared.fits(len(encoded)):
            self._channel.sendall(pack(["f"]))
            if self._receive() is None:
                os._exit(0)
            self._shared.offset = 0
        self._shared.finish(encoded)
