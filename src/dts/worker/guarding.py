"""The worker's side of the guard: starts it, speaks with it, hears when it is gone."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from dts.worker import cgroups, scratch
from dts.worker.channel import Channel
from dts.worker.guard import Options
from dts.worker.trees import Limits

PYTHON = (sys.executable, "-P", "-m")  # -P: a file in the working directory must not take a library module's place
SECRETS = {"DTS_WORKER_TOKEN"}  # variables that no task may see
PING_S = 1.0
UNANSWERED = 15  # pings after which the guard counts as stopped: what it watches is watched by nobody

log = logging.getLogger(__name__)


class Tasks(Protocol):
    """Who started something through the guard: hears how it goes, by the id that it gave."""

    def began(self, id: int, started_ns: int, enforced: str) -> None:
        """`enforced` as model.End has it."""
        ...

    def ended(self, id: int, status: int, started_ns: int, ended_ns: int, why: str, used: int) -> None:
        """`status` is waitpid's; `why`: timeout, stop, lease, memory or scratch (`used`: MiB), '' when it ended by itself."""
        ...

    def failed(self, id: int, problem: str) -> None:
        """It could not be started."""
        ...

    def settle(self) -> None:
        """No more news for now."""
        ...


class GuardProcess:
    """Started before the loop and before gRPC, so that nothing is inherited; it holds the lock's descriptor too."""

    def __init__(self, lock: int | None, options: Options) -> None:
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno()] if lock is None else [theirs.fileno(), lock]
        command = [*PYTHON, "dts.worker.guard", f"{theirs.fileno()}", f"{-1 if lock is None else lock}"]
        command.append(json.dumps(options._asdict()))
        env = {name: value for name, value in os.environ.items() if name not in SECRETS}
        self.process = subprocess.Popen(
            command, pass_fds=fds, stdin=subprocess.DEVNULL, start_new_session=True, env=env
        )
        theirs.close()
        self.socket = ours
        self.cgroup = options.cgroup
        self.homes: list[
            str
        ] = []  # a cgroup and a folder, '' where there is none: what it cannot remove once it is killed

    def tidy(self) -> None:
        """Removes what a killed guard left. Nothing of what it started may live any more."""
        for path, removed in zip(map(Path, self.homes), (cgroups.end, scratch.remove), strict=False):
            if path.name and path.exists():
                removed(path)


class Guard:
    """The guard while it lives; `on_gone` is called once when it does not any more."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, process: GuardProcess, tasks: Tasks, on_gone: Callable[[], None]
    ) -> None:
        self._process = process
        self._tasks = tasks
        self.on_member_gone: Callable[[int], None] = lambda _: None
        self._loop = loop
        self._pings = 0
        self.answered = 0
        self._ping = loop.call_later(PING_S, self._look)
        self._channel = Channel(loop, process.socket, self._on_frame, tasks.settle, on_gone)

    @property
    def alive(self) -> bool:
        """Whether it can be told anything."""
        return not self._channel.closed

    def spawn(
        self,
        id: int,
        shard: int,
        argv: Sequence[str],
        env: dict[str, str],
        directory: str,
        timeout_ms: int,
        grace_ms: int,
        limits: Limits,
        fds: Sequence[int],
    ) -> None:
        """Starts a task with `env` on top of the guard's own environment. Takes the descriptors: for its output and, if there
        is a second one, its private socket (spawning.CONTROL_FD)."""
        how = "spawn" if len(fds) == 1 else "call"
        self._channel.send([how, id, shard, argv, env, directory, timeout_ms, grace_ms, limits], fds)

    def zygote(self, channel: int) -> None:
        """Starts the pool's zygote; takes the descriptor of its socket."""
        self._channel.send(["zygote", [*PYTHON, "dts.worker.zygote"]], [channel])

    def stop(self, id: int, within_ms: int | None) -> None:
        """TERM, then KILL after so long (None: its own grace time)."""
        self._channel.send(["stop", id, within_ms])

    def kill(self, member: int, pid: int, mark: bytes, within_ms: int) -> None:
        """The same for a member of the pool with all that came of it; `on_member_gone` tells when nothing is left."""
        self._channel.send(["kill", member, pid, mark, within_ms])

    def pool(self, member: int, pid: int, shards: Sequence[int]) -> None:
        """What a member of the pool runs now: it is killed when a lease of these shards is over."""
        self._channel.send(["pool", member, pid, shards])

    def lease(self, deadlines: dict[int, int]) -> None:
        """Until when what runs for each shard may run (CLOCK_BOOTTIME, ms)."""
        self._channel.send(["lease", deadlines])

    def close(self) -> int:
        """Lets it end everything; waits until it is gone. Its exit status."""
        self._ping.cancel()
        self._channel.close()
        return self._process.process.wait()

    def _look(self) -> None:
        """A guard that is stopped or stuck watches nothing: it is ended, which ends all that it started, and this worker."""
        if self._channel.closed:
            return
        if self._pings - self.answered >= UNANSWERED:
            log.critical("the guard does not answer: it is ended")
            self._process.process.send_signal(signal.SIGKILL)
            return
        self._pings += 1  # counted, not timed: while this process was stopped itself, none was sent
        self._channel.send(["ping", self._pings])
        self._ping = self._loop.call_later(PING_S, self._look)

    def _tell_homes(self, cgroup: str | None, scratch: str | None, held: Sequence[str]) -> None:
        if cgroup:
            log.info("attempts with requests get cgroups in %s, which hold: %s", cgroup, ", ".join(held) or "nothing")
        elif self._process.cgroup not in ("auto", "off"):
            log.warning(
                "%s is no cgroup v2 that this worker may divide: memory is sampled instead", self._process.cgroup
            )
        if not scratch:
            log.warning("no scratch folders: nothing can be written where they should be (DTS_SCRATCH_ROOT)")

    def _on_frame(self, frame: list[Any]) -> None:
        for news in frame:
            match news:
                case ["began", id, _, started, enforced]:
                    self._tasks.began(id, started, enforced)
                case ["ended", id, status, started, ended, why, used]:
                    self._tasks.ended(id, status, started, ended, why, used)
                case ["pong", number]:
                    self.answered = number
                case ["home", cgroup, scratch, held]:
                    self._process.homes = [cgroup or "", scratch or ""]
                    self._tell_homes(cgroup, scratch, held)
                case ["failed", id, _, problem]:
                    self._tasks.failed(id, problem)
                case ["gone", member]:
                    self.on_member_gone(member)
