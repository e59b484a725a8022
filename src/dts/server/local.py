"""The workers of this machine, whose leases are their lives: starts this server's own, ends with care those of the one before.

Each holds an OS lock on a file of its own beside the database as long as it or its guard lives: a free lock is a dead worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dts.adapters.sqlite import lock
from dts.model import WorkerRef
from dts.services.scheduler import Scheduler
from dts.services.workers import WorkerHub
from dts.worker.launch import launch
from dts.worker.options import WorkerOptions

log = logging.getLogger("dts.server")

LOOK_S = 0.5  # how often the locks of workers are looked at
FORMER_GRACE_MS = 7 * 24 * 3_600_000  # a worker of the server before finishes what runs, however long it takes
RESTART_PAUSE_S = (0.1, 2.0)  # before a worker that died is replaced: first, longest
LOCK_BYTES = 256


def life_lock(database: Path, incarnation: str) -> Path:
    """The file that one incarnation keeps locked."""
    path = lock.worker_lock_path(database)
    return path.with_name(f"{path.name}.{incarnation}")


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock. A missing file is nobody's."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def kill(path: Path) -> None:
    """Ends the process that a life lock names; its guard ends what it had started."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int(path.read_bytes()[:LOCK_BYTES].split()[0])
        command = Path(f"/proc/{pid}/cmdline")
        if command.parent.parent.joinpath("self").exists() and b"dts.worker" not in command.read_bytes():
            return  # it died and its guard has not: the number may be another's by now
        os.kill(pid, signal.SIGKILL)


class LocalWorkers:
    """`run()` until cancelled; `leave()` asks them to end, `gone` is set when none of them lives."""

    def __init__(
        self, database: Path, options: WorkerOptions, scheduler: Scheduler, hub: WorkerHub, lease_ms: int
    ) -> None:
        self.gone = asyncio.Event()
        self._database = database
        self._options = options
        self._scheduler = scheduler
        self._hub = hub
        self._lease_ms = lease_ms
        self._own: WorkerRef | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._leaving = False
        self._ended = asyncio.Event()  # this server's own is no more, and no other is to be started
        self._awaited: set[Path] = set()  # locks of the workers that were asked to end
        self._asked: set[WorkerRef] = set()  # to leave
        self._silent: dict[WorkerRef, tuple[int, float]] = {}  # last heard (ms), silent since so many seconds of ours

    async def run(self) -> None:
        """Starts a worker, and another when it dies; looks after those of earlier servers."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_one())
            tasks.create_task(self._look_after())
            tasks.create_task(self._tell_gone())

    async def _tell_gone(self) -> None:
        await self._ended.wait()
        while not all(is_free(path) for path in self._awaited):
            await asyncio.sleep(LOOK_S / 10)
        self.gone.set()

    def leave(self, grace_ms: int, reason: str) -> None:
        """Hand back what waits, finish within the grace time, go: so it is for workers of earlier servers too. A second
        call hurries."""
        self._leaving = True
        attached = [info.ref for info in self._hub.attached() if not info.timed]
        for ref in attached:
            self._scheduler.leaving(ref)
            self._hub.leave(ref, grace_ms, reason)
        self._awaited |= {life_lock(self._database, ref.incarnation) for ref in attached}
        if self._own is None:
            self._ended.set()
        elif self._own not in attached and self._process is not None:
            self._scheduler.leaving(self._own)
            self._terminate(self._process)

    @staticmethod
    def _terminate(process: asyncio.subprocess.Process) -> None:
        """Asks a worker that has no stream: what it says to TERM is what it says to `leave`; one that still starts just ends."""
        with contextlib.suppress(ProcessLookupError):
            process.terminate()

    def _is_leaving(self) -> bool:
        """Whether this server's worker was asked to end."""
        return self._leaving

    async def _keep_one(self) -> None:
        pause = RESTART_PAUSE_S[0]
        while not self._is_leaving():
            incarnation = uuid.uuid4().hex
            path = life_lock(self._database, incarnation)
            self._own = WorkerRef(self._options.worker, incarnation)
            started = asyncio.get_running_loop().time()
            how = await self._live(incarnation, path)
            ref, self._own = self._own, None
            await self._buried(ref, path)
            if self._is_leaving():
                break
            log.warning("the worker %s: another one is started", how)
            lived = asyncio.get_running_loop().time() - started
            pause = RESTART_PAUSE_S[0] if lived > RESTART_PAUSE_S[1] else min(pause * 2, RESTART_PAUSE_S[1])
            await asyncio.sleep(pause)
        self._ended.set()

    async def _live(self, incarnation: str, path: Path) -> str:
        """One worker's life, until nothing of it is left: how it ended."""
        try:
            process = await launch(replace(self._options, incarnation=incarnation, life_lock=str(path)))
        except OSError as problem:
            return f"could not be started ({problem})"
        self._process = process
        if self._is_leaving():
            self._terminate(process)
        code = await process.wait()
        self._process = None
        while not is_free(path):  # its guard is still ending what it had started
            await asyncio.sleep(LOOK_S / 10)
        return f"(pid {process.pid}) ended with code {code}"

    async def _buried(self, ref: WorkerRef, path: Path) -> None:
        await self._scheduler.gone(ref)
        path.unlink(missing_ok=True)
        self._silent.pop(ref, None)

    async def _look_after(self) -> None:
        for ref in self._scheduler.holders():
            if not life_lock(self._database, ref.incarnation).exists():
                await self._scheduler.gone(ref)
        while True:
            await self._former()
            self._silent_ones()
            await asyncio.sleep(LOOK_S)

    async def _former(self) -> None:
        """Workers of earlier servers: those that ended are buried, those that attach are asked to leave when they are done."""
        prefix = lock.worker_lock_path(self._database).name + "."
        attached = {info.ref for info in self._hub.attached()}
        for path in self._database.absolute().parent.glob(prefix + "*"):
            ref = WorkerRef(self._options.worker, path.name.removeprefix(prefix))
            if ref == self._own:
                continue
            if is_free(path):
                await self._buried(ref, path)
                continue
            self._scheduler.leaving(ref)
            if ref in attached and ref not in self._asked:
                self._asked.add(ref)
                self._hub.leave(ref, FORMER_GRACE_MS, "another server started")

    def _silent_ones(self) -> None:
        """A worker that says nothing for L of this process's own time is stopped or stuck: it is ended, so that its work is free."""
        heard = self._scheduler.heard()
        refs = [WorkerRef(self._options.worker, path.name.rsplit(".", 1)[1]) for path in self._locks()]
        for ref in refs:
            last, silent = self._silent.get(ref, (0, 0.0))
            now = heard.get(ref, 0)
            silent = 0.0 if now != last else silent + LOOK_S
            self._silent[ref] = (now, silent)
            if silent * 1000 > self._lease_ms:
                log.warning("worker %s said nothing for %d s: it is ended", ref.incarnation, silent)
                kill(life_lock(self._database, ref.incarnation))
                self._silent[ref] = (now, 0.0)

    def _locks(self) -> list[Path]:
        prefix = lock.worker_lock_path(self._database).name + "."
        return list(self._database.absolute().parent.glob(prefix + "*"))


def stop_signals(on_signal: Callable[[], None]) -> None:
    """TERM and INT ask for a clean stop; asked again, it hurries."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
