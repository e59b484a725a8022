"""The pool's zygote: forks children that run python tasks, from a process that has neither threads nor gRPC.

`python -m dts.worker.zygote FD`. Frames from the worker: ["fork", id] with the child's socket, its shared memory and the pipe for
what bypasses sys.stdout. To the worker: ["forked", id, pid] and ["died", id, wait status]. It ends with the worker's socket, its
children with it.
"""

from __future__ import annotations

import asyncio  # noqa: F401  # imported once here, shared by all children
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import traceback  # noqa: F401
from pathlib import Path

from dts.worker import processes
from dts.worker.child import Child
from dts.worker.frames import Frames, pack

PR_SET_PDEATHSIG = 1
READ_BYTES = 64 * 1024
MAX_FDS = 48


class Zygote:
    """Forks on request, reaps, tells."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._frames = Frames()
        self._fds: list[int] = []
        self._children: dict[int, int] = {}  # pid -> id
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def run(self) -> None:
        """Until the worker's end of the socket is closed."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        self._mine = (wake_read, wake_write)
        while True:
            for fd, _ in poll.poll():
                if fd == wake_read:
                    processes.drain(wake_read)
                    self._reap()
                elif not self._read():
                    return

    def _read(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._channel, READ_BYTES, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        self._fds += fds
        for frame in self._frames.feed(data):
            own, self._fds = self._fds[:3], self._fds[3:]
            self._fork(int(frame[1]), own)
        return bool(data)

    def _fork(self, id: int, fds: list[int]) -> None:
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._become(zygote, fds)
                code = 0
            finally:
                os._exit(code)
        for fd in fds:
            os.close(fd)
        self._children[pid] = id
        self._channel.sendall(pack(["forked", id, pid]))

    def _become(self, zygote: int, fds: list[int]) -> None:
        """The child: a session of its own, nothing of the zygote's left open."""
        os.setsid()
        processes.become_subreaper()  # what a call leaves running stays this child's, which ends it
        if self._libc is not None:
            self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != zygote:
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._channel.close()
        for fd in [*self._mine, *self._fds]:
            os.close(fd)
        commands, memory, output = fds
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        Child(socket.socket(fileno=commands), memory).run()

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            id = self._children.pop(pid, None)
            if id is not None:
                self._channel.sendall(pack(["died", id, status]))


def main() -> None:
    """Entry of `python -m dts.worker.zygote FD`."""
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path.append(str(Path.cwd()))  # where people keep their tasks; last, so that nothing of it hides a library
    gc.collect()
    gc.freeze()  # what the children share stays shared: no collection of theirs writes to it
    try:
        Zygote(socket.socket(fileno=fd)).run()
    except (BrokenPipeError, ConnectionResetError):
        pass


if __name__ == "__main__":
    main()
