"""The worker process: `run(options)`, or `python -m dts.worker` with the options as JSON on standard input.

Exit codes: 0 it left, or its server stayed away and nothing was left to hand over; 1 its guard ended; 2 the server refused it;
3 it had to end with results that nobody acknowledged; 4 another process holds its lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from dts.bounds import KILL_GRACE_S
from dts.worker import clock, processes
from dts.worker.agent import Agent
from dts.worker.guard import Options
from dts.worker.guarding import GuardProcess
from dts.worker.link import Standing
from dts.worker.links import Links
from dts.worker.options import WorkerOptions

log = logging.getLogger(__name__)

ACK_WAIT_S = 10.0  # a worker that leaves waits so long, after the grace times, for acknowledgements
UNCLAIMED_S = 3_600.0  # so long a worker without a server keeps results for the next one
LOOK_S = 1.0  # how often it asks itself whether it should end; more often while it leaves
LOOK_LEAVING_S = 0.02
FILES = 65_536  # open files that are enough


def run(options: WorkerOptions) -> int:
    """Runs a worker until it has left; its exit code. Blocks; takes over the process's signals."""
    _log_to(options)
    _raise_limit()
    processes.become_subreaper()  # if the guard dies, what it watched is ours to end
    lock = None
    if options.life_lock:
        lock = _lock(options)
        if lock is None:
            log.error("%s is locked: this worker runs already", options.life_lock)
            return 4
    guard = GuardProcess(lock, Options(options.cgroup, options.scratch, options.capacity.cpu))
    try:
        return uvloop.run(_main(options, guard))
    finally:
        guard.socket.close()  # the guard ends with it, whatever happened here
        guard.process.wait()
        _end_descendants()
        guard.tidy()


async def _main(options: WorkerOptions, process: GuardProcess) -> int:
    loop = asyncio.get_running_loop()
    link = Links(options)
    agent = Agent(loop, options, process, link)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, agent, number)
    tasks = [asyncio.create_task(link.run(agent)), asyncio.create_task(agent.outputs.run())]
    try:
        code = await _live(options, agent, link, tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await agent.close()
    log.info("ended with code %d", code)
    return code


def _on_signal(agent: Agent, number: int) -> None:
    """The first lets running tasks finish within the grace time, the second hurries."""
    grace = 0 if agent.leaving.is_set() else agent.options.stop_grace_ms
    agent.leave(grace, signal.Signals(number).name)


async def _live(options: WorkerOptions, agent: Agent, link: Links, tasks: Sequence[asyncio.Task[None]]) -> int:
    """Until there is a reason to end: the exit code."""
    guarded = True
    while True:
        if agent.lost_guard.is_set() and guarded:
            guarded = False
            _end_descendants()  # what the guard started came to us, the next subreaper
            agent.tell(lambda leases, _: leases.lose())
            agent.leave(0, "the guard is gone")
        if options.parent and os.getppid() != options.parent and not agent.leaving.is_set():
            agent.leave(options.stop_grace_ms, "its service is gone")
        code = _reason_to_end(options, agent, link)
        if code is not None:
            return code if guarded else 1
        for task in tasks:
            if task.done():
                task.result()
        if agent.leaving.is_set():
            await asyncio.sleep(LOOK_LEAVING_S)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await agent.leaving.wait()


def _reason_to_end(options: WorkerOptions, agent: Agent, link: Links) -> int | None:
    leases = agent.leases
    away = time.monotonic() - link.since if link.standing is not Standing.ATTACHED else 0.0
    if leases.leaving is not None:
        if leases.idle and (agent.outputs.idle or away):
            return 0
        late = clock.boottime_ms() - leases.leaving - agent.longest_grace()
        return 3 if late > ACK_WAIT_S * 1000 else None
    if options.timed or not away:
        return 2 if link.standing is Standing.REFUSED and not link.attached_once else None
    if link.standing is Standing.REFUSED and not link.attached_once:
        return 2
    if any(True for _ in leases.held()):
        return None
    if options.life_lock and not Path(options.life_lock).exists():
        return 0 if leases.idle else 3
    if leases.idle:
        return 0 if away * 1000 > link.lease_ms else None
    return 3 if away > UNCLAIMED_S else None


def _end_descendants() -> None:
    """KILL for all below this process, until there is none."""
    end = time.monotonic() + KILL_GRACE_S
    while time.monotonic() < end and (pids := processes.descendants(os.getpid())):
        for pid in pids:
            processes.signal_one(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.005)


def _lock(options: WorkerOptions) -> int | None:
    """The locked file's descriptor, not inherited by what is executed; None: somebody else has it."""
    fd = os.open(options.life_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if os.fstat(fd).st_nlink == 0:  # between the two it was taken for a dead worker's, and removed
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()} {options.incarnation}\n".encode(), 0)
    return fd


def _raise_limit() -> None:
    """Each shell task has a pipe: as many open files as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _log_to(options: WorkerOptions) -> None:
    handler = logging.FileHandler(options.log) if options.log else logging.StreamHandler()
    form = f"%(asctime)s %(levelname)s worker {options.worker} %(message)s"
    logging.basicConfig(level=options.log_level, format=form, handlers=[handler])
