"""The guard: starts shell tasks and the pool's zygote, and sees to it that nothing of them outlives its right to run or takes
more than it requested.

`python -m dts.worker.guard FD LOCK_FD OPTIONS`: one thread, few imports, so that starting a process is cheap. It is a child
subreaper: whatever a task leaves behind becomes its child. It ends a task's whole tree (its process group, its cgroup, its
descendants, what carries its mark in the environment, and orphans that nobody else can have started) with TERM, a grace time,
KILL; all trees at once with KILL when the worker is gone (end of the socket) and those of a shard whose timed lease is over (a
stopped worker renews nothing). It keeps the lock file's descriptor until no process is left.

Frames on the socket (frames.py): from the worker ["spawn", id, shard, argv, env, directory, timeout_ms, grace_ms, [cpu, memory,
storage]] and a descriptor for the output; ["call", ...], the same with another one for the process's private socket; ["zygote",
argv] and its socket; ["stop", id, within_ms or None]; ["kill", member, pid, mark, within_ms]; ["pool", member, pid, shards]:
what this child of the pool runs now; ["lease", {shard: deadline in CLOCK_BOOTTIME ms}], the whole of it; ["ping", n]. To the
worker, in lists of lists: ["began", id, pid, started_ns, enforced], ["ended", id, wait status, started_ns, ended_ns, why, used]
and ["failed", id, errno, text]; ["gone", member]: nothing is left of it; ["home", cgroup, scratch, controllers]: what must be
removed if it is killed, and what holds requests; ["pong", n].
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from dts.worker import cgroups, clock, processes, scratch, spawning
from dts.worker.cgroups import Cgroups
from dts.worker.frames import Frames, pack
from dts.worker.limits import Sampler, memory_at_end
from dts.worker.scratch import Scratch
from dts.worker.trees import Limits, Tree, strays

TICK_S = 0.02  # how often a tree that is being ended is looked at again
READ_BYTES = 256 * 1024
MAX_FDS = 64  # descriptors taken with one read


class Options(NamedTuple):
    """`cgroup` as Cgroups.open, `scratch` as Scratch.open; `cpu`: the worker's millicores."""

    cgroup: str = "off"
    scratch: str = ""
    cpu: int = 0


class Guard:
    """The guard's state and its loop."""

    def __init__(self, channel: socket.socket, lock: int, options: Options) -> None:
        self._channel = channel
        self._lock = lock  # -1: none
        self._frames = Frames()
        self._fds: list[int] = []
        self._out: list[Any] = []
        self._trees: dict[int, Tree] = {}  # by id
        self._by_pid: dict[int, Tree] = {}
        self._ending: set[int] = set()  # ids of trees to be looked at each tick
        self._leases: dict[int, int] = {}
        self._zygotes: set[int] = set()
        self._removers: set[int] = set()
        self._pool: dict[int, tuple[int, list[int]]] = {}  # member of the pool -> pid, shards of what it runs
        self._null = os.open(os.devnull, os.O_RDWR)
        self._home = Path.cwd()
        self._cgroups = Cgroups.open(options.cgroup, options.cpu)
        self._held = self._cgroups.held if self._cgroups is not None else frozenset[str]()
        self._sampler = Sampler(self._held)
        self._scratch = Scratch.open(options.scratch)
        homes = (
            each and str(each) for each in (self._cgroups and self._cgroups.path, self._scratch and self._scratch.home)
        )
        self._out.append(["home", *homes, sorted(self._held)])
        if self._scratch is not None:
            for left in self._scratch.leftovers():
                scratch.end_users(left)  # worker and guard were both killed: nobody else knows them
                self._remove(left)

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
            self._send()
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
        if (look := self._sampler.wait_s(self._trees.values())) is not None:
            waits.append(look)
        if self._scratch is not None and (trim := self._scratch.wait_s()) is not None:
            waits.append(trim)
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
            case ["spawn" | "call" as how, int(id), int(shard), argv, env, directory, int(timeout), int(grace), limits]:
                fds = [self._fds.pop(0) for _ in range(2 if how == "call" else 1)]
                try:
                    tree = self._spawn(id, shard, argv, env, directory, fds, Limits(*limits))
                    tree.timeout_at = time.monotonic() + timeout / 1000 if timeout else 0.0
                    tree.grace = grace / 1000
                except (OSError, ValueError) as problem:
                    number = problem.errno if isinstance(problem, OSError) else 0
                    self._out.append(["failed", id, number or 0, str(problem)])
                finally:
                    for fd in fds:
                        os.close(fd)
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
            case ["ping", number]:
                self._out.append(["pong", number])

    # ---- starting ------------------------------------------------------------------------------------------------

    def _spawn(
        self, id: int, shard: int, argv: list[str], env: dict[str, str], directory: str, fds: list[int], limits: Limits
    ) -> Tree:
        """`fds`: for the output, and the private socket if there is one. Raises OSError, ValueError."""
        cgroup = None
        folder = self._scratch.make(str(id)) if self._scratch is not None else None
        if limits != Limits() and self._cgroups is not None:
            cgroup = self._cgroups.make(str(id), limits.cpu, limits.memory)
        where = {"DTS_SCRATCH": str(folder), "TMPDIR": str(folder)} if folder is not None else {}
        full = {**self._environ(), **where, **env}
        places = [self._null, fds[0], fds[0], *fds[1:]]
        ticks = processes.now_ticks() - 1
        try:
            if limits == Limits():
                pid = spawning.plain(argv, full, directory, places, self._home)
            else:
                pid = spawning.confined(argv, full, directory, places, cgroup)
        except (OSError, ValueError):
            self._clear(cgroup, folder)
            raise
        mark = processes.mark(env.get("DTS_EXECUTION_ID", ""), env.get("DTS_ATTEMPT", ""))
        tree = self._trees[id] = self._by_pid[pid] = Tree(id, shard, pid, mark, ticks)
        tree.limits, tree.cgroup, tree.scratch = limits, cgroup, folder
        enforced = self._sampler.enforced(tree, self._held)
        self._out.append(["began", id, pid, tree.started, enforced])
        return tree

    def _environ(self) -> dict[str, str]:
        return {**os.environ, scratch.GUARD: str(self._scratch.home)} if self._scratch is not None else dict(os.environ)

    def _zygote(self, argv: list[str]) -> None:
        channel = self._fds.pop(0)
        os.set_inheritable(channel, True)
        try:
            pid = os.posix_spawn(
                argv[0],
                [*argv, str(channel)],
                self._environ(),
                file_actions=[(os.POSIX_SPAWN_DUP2, self._null, 0)],
                setsid=True,
                setsigdef=spawning.DEFAULTS,
            )
        finally:
            os.close(channel)
        self._zygotes.add(pid)

    # ---- ending --------------------------------------------------------------------------------------------------

    def _kill(self, member: int, pid: int, mark: bytes, within: float) -> None:
        """Ends a member of the pool with all that came of it; it may be dead already."""
        tree = self._trees.get(-member)
        if tree is None:
            tree = self._trees[-member] = Tree(-member, -1, pid, mark, 0)
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
        pids = tree.members(self._own())
        if number == signal.SIGKILL and tree.cgroup is not None:
            cgroups.kill(tree.cgroup)
        if tree.id >= 0 or processes.parent(tree.pid) in self._zygotes:
            processes.signal_group(tree.pid, number)
        for pid in pids:
            processes.signal_one(pid, number)

    def _own(self) -> set[int]:
        return {*self._by_pid, *self._zygotes, *self._removers}

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
            self._removers.discard(pid)

    def _check(self) -> None:
        """Time-outs and leases that are over, trees that take too much; those on their way out."""
        now = time.monotonic()
        for tree in [each for each in self._trees.values() if each.timeout_at and now >= each.timeout_at]:
            tree.timeout_at = 0.0
            self._stop(tree, "timeout", tree.grace)
        if self._leases:
            self._check_leases()
        if self._sampler.wait_s(self._trees.values()) == 0:
            for tree, why, used in self._sampler.look(self._trees.values(), self._own()):
                tree.used = used
                self._stop(tree, why, 0)
        for id in list(self._ending):
            self._finish(self._trees[id], now)
        if self._scratch is not None:
            self._scratch.trim()

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
        alive = tree.status is None if tree.id >= 0 else processes.parent(tree.pid) in self._zygotes
        if not alive:
            own = self._own()
            tree.adopt(strays(own, [other for other in self._trees.values() if other is not tree]))
            alive = tree.leftovers(own) if tree.id >= 0 else bool(tree.members(own))
        if not alive:
            self._report(tree)
        elif not tree.kill_at:
            self._stop(tree, "", tree.grace)
        elif now >= tree.kill_at:
            self._signal(tree, signal.SIGKILL)

    def _report(self, tree: Tree) -> None:
        """Nothing is left of it."""
        self._ending.discard(tree.id)
        del self._trees[tree.id], self._by_pid[tree.pid]
        if tree.id < 0:
            self._out.append(["gone", -tree.id])
            return
        assert tree.status is not None
        if not tree.why and (used := memory_at_end(tree)):
            tree.why, tree.used = "memory", used
        self._clear(tree.cgroup, tree.scratch)
        self._out.append(["ended", tree.id, tree.status, tree.started, tree.ended, tree.why, tree.used])

    def _clear(self, cgroup: Path | None, folder: Path | None) -> None:
        """Removes what an attempt had; a folder with something in it by a process of its own, which may take long."""
        if cgroup is not None:
            cgroups.end(cgroup)
        if folder is not None and self._scratch is not None and not self._scratch.take_back(folder):
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                self._channel.close()
                if self._lock >= 0:
                    os.close(self._lock)
                scratch.remove(folder)
            finally:
                os._exit(0)
        self._removers.add(pid)

    def _end_all(self) -> None:
        """KILL for every descendant, until there is none: nothing else may follow before."""
        while True:
            for pid in processes.descendants(os.getpid()):
                processes.signal_one(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                break
            time.sleep(TICK_S / 4)
        if self._cgroups is not None:
            self._cgroups.close()
        if self._lock >= 0:
            os.close(self._lock)  # no process is left; removing folders may take long
        if self._scratch is not None:
            scratch.remove(self._scratch.home)


def main() -> None:
    """Entry of `python -m dts.worker.guard FD LOCK_FD OPTIONS`: LOCK_FD -1: none; OPTIONS: the fields of Options as JSON."""
    channel, lock = int(sys.argv[1]), int(sys.argv[2])
    for fd in (channel, lock):
        if fd >= 0:
            os.set_inheritable(fd, False)
    processes.become_subreaper()
    Guard(socket.socket(fileno=channel), lock, Options(**json.loads(sys.argv[3]))).run()


if __name__ == "__main__":
    main()
