"""The worker's end of a private socket: frames and descriptors out without blocking the loop, frames in by callback."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from dts.worker.frames import Frames, pack

READ_BYTES = 256 * 1024
FDS_PER_MESSAGE = 48  # below what the reader takes at once
JOIN_BYTES = 128 * 1024  # frames sent with one call


class Channel:
    """Owns the socket. What is sent waits in memory while the other side is slow: its users bound what they send."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_frame: Callable[[list[Any]], None],
        on_read: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._on_frame = on_frame
        self._on_read = on_read
        self._on_close = on_close
        self._frames = Frames()
        self._queue: deque[tuple[bytes, Sequence[int]]] = deque()
        self._writing = False
        self.closed = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def send(self, value: object, fds: Sequence[int] = ()) -> None:
        """Queues a frame. Its descriptors are closed here once they are sent."""
        if self.closed:
            for fd in fds:
                os.close(fd)
            return
        self._queue.append((pack(value), fds))
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)

    def drain(self) -> bool:
        """Reads all that is there. False: the other side is gone."""
        while not self.closed:
            try:
                data = self._socket.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return True
            except ConnectionError:
                return False
            if not data:
                return False
            for frame in self._frames.feed(data):
                self._on_frame(frame)
        return False

    def close(self) -> None:
        """Closes the socket without a callback."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            for _, fds in self._queue:
                for fd in fds:
                    os.close(fd)
            self._queue.clear()

    def _readable(self) -> None:
        alive = self.drain()
        self._on_read()
        if not alive and not self.closed:
            self.close()
            self._on_close()

    def _write(self) -> None:
        try:
            while self._queue and not self.closed:
                self._send_some()
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._socket.fileno(), self._write)
            return
        except ConnectionError:
            return  # the reader will see the end
        finally:
            self._writing = bool(self._queue)
        if not self.closed:
            self._loop.remove_writer(self._socket.fileno())

    def _send_some(self) -> None:
        """Frames from the queue's head with one call; what the socket did not take stays at the head."""
        parts: list[bytes] = []
        fds: list[int] = []
        size = 0
        for body, own in self._queue:
            if parts and (len(fds) + len(own) > FDS_PER_MESSAGE or size + len(body) > JOIN_BYTES):
                break
            parts.append(body)
            fds += own
            size += len(body)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self._socket.sendmsg(parts, ancillary)
        for fd in fds:
            os.close(fd)
        for number, body in enumerate(parts):
            self._queue.popleft()
            if sent < len(body):
                # Their descriptors went with the first byte: what is left of the frames are bytes.
                rest = parts[number:]
                for _ in rest[1:]:
                    self._queue.popleft()
                self._queue.extendleft((each, ()) for each in reversed([body[sent:], *rest[1:]]))
                return
            sent -= len(body)
