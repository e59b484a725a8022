"""The guard: starts shell tasks and the pool's zygote, and sees to it that nothing of them outlives its right to run.

`python -m dts.worker.guard FD [LOCK_FD]`: one thread, few imports, so that starting a process is cheap. It is a child subreaper:
whatever a task leaves behind becomes its child. It ends a task's whole tree (its process group, its descendants, and what
carries its mark in the environment) with TERM, a grace time, KILL; all trees at once with KILL when the worker is gone (end of
the socket) and those of a shard whose timed lease is over (a stopped worker renews nothing). It keeps the lock file's descriptor
until no process is left.

Frames on the socket (frames.py): from the worker ["spawn", id, shard, argv, env, directory, timeout_ms, grace_ms] and a
descriptor for the output; ["zygote", argv] and its socket; ["stop", id, within_ms or None]; ["kill", member, pid, mark, within_ms];
["pool", member, pid, shards]: what this child of the pool runs now; ["lease", {shard: deadline in CLOCK_BOOTTIME ms}], the whole of it. To
the worker, in lists of lists: ["began", id, pid, started_ns], ["ended", id, wait status, started_ns, ended_ns, why] and
["failed", id, errno, text]; ["gone", member]: nothing is left of it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from dts.worker import clock, processes
from dts.worker.frames import Frames, pack

PR_SET_CHILD_SUBREAPER = 36
TICK_S = 0.02  # how often a tree that is being ended is looked at again
READ_BYTES = 256 * 1024
MAX_FDS = 64  # descriptors taken with one read

DEFAULTS = [signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]  # handled or ignored here, not in tasks


class Tree:
    """One started process and all that came of it."""

    __slots__ = (
        "ended",
        "grace",
        "id",
        "kill_at",
        "mark",
        "pid",
        "shard",
        "started",
        "status",
        "timeout_at",
        "why",
    )

    def __init__(self, id: int, shard: int, pid: int, mark: bytes) -> None:
        self.id = id
        self.shard = shard
        self.pid = pid
        self.mark = mark
        self.started = time.time_ns()
        self.ended = 0
        self.status: int | None = None  # of waitpid; None: the first process lives
        self.timeout_at = 0.0  # monotonic; 0: none
        self.grace = 0.0
        self.kill_at = 0.0  # monotonic; 0: not told to stop
        self.why = ""  # timeout | stop | lease; '': ended by itself


class Guard:
    """The guard's state and its loop."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._frames = Frames()
        self._fds: list[int] = []
        self._out: list[Any] = []
        self._trees: dict[int, Tree] = {}  # by id
        self._by_pid: dict[int, Tree] = {}
        self._ending: set[int] = set()  # ids of trees to be looked at each tick
        self._leases: dict[int, int] = {}
        self._zygotes: set[int] = set()
        self._pool: dict[int, tuple[int, list[int]]] = {}  # member of the pool -> pid, shards of what it runs
        self._null = os.open(os.devnull, os.O_RDWR)
        self._home = Path.cwd()

    # ---- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves the worker until it is gone, then ends everything."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        try:
            while True:
                for fd, _ in poll.poll(self._wait_ms()):
                    if fd == wake_read:
                        processes.drain(wake_read)
                    elif not self._read():
                        return
                self._reap()
                self._check()
                self._send()
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            self._end_all()

    def _wait_ms(self) -> float | None:
        if self._ending:
            return TICK_S * 1000
        times = [tree.timeout_at for tree in self._trees.values() if tree.timeout_at]
        waits = [min(times) - time.monotonic()] if times else []
        if self._leases:
            waits.append((min(self._leases.values()) - clock.boottime_ms()) / 1000)
        return max(min(waits) * 1000, 0) + 1 if waits else None

    def _read(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._channel, READ_BYTES, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        except InterruptedError:
            return True
        self._fds += fds
        for frame in self._frames.feed(data):
            self._serve(frame)
        return bool(data)

    def _send(self) -> None:
        if self._out:
            out, self._out = self._out, []
            self._channel.sendall(pack(out))

    def _serve(self, frame: list[Any]) -> None:
        match frame:
            case ["spawn", int(id), int(shard), list(argv), dict(env), str(directory), int(timeout), int(grace)]:
                output = self._fds.pop(0)
                try:
                    self._spawn(id, shard, argv, env, directory, output)
                    tree = self._trees[id]
                    tree.timeout_at = time.monotonic() + timeout / 1000 if timeout else 0.0
                    tree.grace = grace / 1000
                except (OSError, ValueError) as problem:
                    number = problem.errno if isinstance(problem, OSError) else 0
                    self._out.append(["failed", id, number or 0, str(problem)])
                finally:
                    os.close(output)
            case ["zygote", list(argv)]:
                self._zygote(argv)
            case ["stop", int(id), within] if id in self._trees:
                tree = self._trees[id]
                self._stop(tree, "stop", tree.grace if within is None else within / 1000)
            case ["kill", int(member), int(pid), bytes(mark), int(within)]:
                self._kill(member, pid, mark, within / 1000)
            case ["pool", int(member), int(pid), list(shards)]:
                self._pool[member] = (pid, shards)
                if not shards:
                    del self._pool[member]
            case ["lease", dict(deadlines)]:
                self._leases = deadlines

    # ---- starting ------------------------------------------------------------------------------------------------

    def _spawn(self, id: int, shard: int, argv: list[str], env: dict[str, str], directory: str, output: int) -> None:
        actions = [
            (os.POSIX_SPAWN_DUP2, self._null, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        if directory:
            os.chdir(directory)
        try:
            full = {**os.environ, **env}
            pid = os.posix_spawnp(argv[0], argv, full, file_actions=actions, setsid=True, setsigdef=DEFAULTS)
        finally:
            if directory:
                os.chdir(self._home)
        mark = processes.mark(env.get("DTS_EXECUTION_ID", ""), env.get("DTS_ATTEMPT", ""))
        tree = self._trees[id] = self._by_pid[pid] = Tree(id, shard, pid, mark)
        self._out.append(["began", id, pid, tree.started])

    def _zygote(self, argv: list[str]) -> None:
        channel = self._fds.pop(0)
        os.set_inheritable(channel, True)
        try:
            pid = os.posix_spawn(
                argv[0],
                [*argv, str(channel)],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, self._null, 0)],
                setsid=True,
                setsigdef=DEFAULTS,
            )
        finally:
            os.close(channel)
        self._zygotes.add(pid)

    # ---- ending --------------------------------------------------------------------------------------------------

    def _kill(self, member: int, pid: int, mark: bytes, within: float) -> None:
        """Ends a member of the pool with all that came of it; it may be dead already."""
        tree = self._trees.get(-member)
        if tree is None:
            tree = self._trees[-member] = Tree(-member, -1, pid, mark)
            self._by_pid[pid] = tree
        tree.mark = tree.mark or mark
        self._stop(tree, "stop", within)

    def _stop(self, tree: Tree, why: str, within: float) -> None:
        """TERM now (once), KILL after `within` seconds; the sooner of two counts."""
        kill_at = time.monotonic() + within
        if not tree.kill_at:
            tree.why = tree.why or (why if tree.status is None else "")
            tree.kill_at = kill_at
            if within > 0:
                self._signal(tree, signal.SIGTERM)
        tree.kill_at = min(tree.kill_at, kill_at)
        self._ending.add(tree.id)

    def _signal(self, tree: Tree, number: signal.Signals) -> None:
        """Signals what is left of a tree."""
        pids = processes.members(tree.pid, tree.mark, self._own())
        if tree.id >= 0 or processes.parent(tree.pid) in self._zygotes:
            processes.signal_group(tree.pid, number)
        for pid in pids:
            processes.signal_one(pid, number)

    def _own(self) -> set[int]:
        return set(self._by_pid) | self._zygotes

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if tree := self._by_pid.get(pid):
                tree.status = status
                tree.ended = time.time_ns()
                self._ending.add(tree.id)
            self._zygotes.discard(pid)

    def _check(self) -> None:
        """Time-outs and leases that are over; trees on their way out."""
        now = time.monotonic()
        for tree in [each for each in self._trees.values() if each.timeout_at and now >= each.timeout_at]:
            tree.timeout_at = 0.0
            self._stop(tree, "timeout", tree.grace)
        if self._leases:
            self._check_leases()
        for id in list(self._ending):
            self._finish(self._trees[id], now)

    def _check_leases(self) -> None:
        boot = clock.boottime_ms()
        over = {shard for shard, deadline in self._leases.items() if boot >= deadline}
        if not over:
            return
        for tree in list(self._trees.values()):
            if tree.shard in over:
                self._stop(tree, "lease", 0)
        for member, (pid, shards) in self._pool.items():
            if not over.isdisjoint(shards):
                self._kill(member, pid, b"", 0)
        for shard in over:
            del self._leases[shard]

    def _finish(self, tree: Tree, now: float) -> None:
        """Reports a tree of which nothing is left; what the first process left behind is told to go."""
        if tree.id < 0:
            first = processes.parent(tree.pid) in self._zygotes
            alive = first or bool(processes.members(tree.pid, tree.mark, self._own()))
        elif tree.status is None:
            alive = True
        else:
            group = processes.signal_group(tree.pid, None)
            alive = group or bool(processes.orphans(tree.pid, tree.mark, self._own()))
        if not alive:
            self._ending.discard(tree.id)
            del self._trees[tree.id], self._by_pid[tree.pid]
            if tree.id >= 0:
                assert tree.status is not None
                self._out.append(["ended", tree.id, tree.status, tree.started, tree.ended, tree.why])
            else:
                self._out.append(["gone", -tree.id])
        elif not tree.kill_at:
            self._stop(tree, "", tree.grace)
        elif now >= tree.kill_at:
            self._signal(tree, signal.SIGKILL)

    def _end_all(self) -> None:
        """KILL for every descendant, until there is none: nothing else may follow before."""
        while True:
            for pid in processes.descendants(os.getpid()):
                processes.signal_one(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(TICK_S / 4)


def main() -> None:
    """Entry of `python -m dts.worker.guard FD [LOCK_FD]`."""
    numbers = [int(each) for each in sys.argv[1:]]
    for fd in numbers:
        os.set_inheritable(fd, False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    Guard(socket.socket(fileno=numbers[0])).run()


if __name__ == "__main__":
    main()
