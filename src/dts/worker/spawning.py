"""How the guard starts a process: in a session of its own, with nothing of the guard's open but what is handed to it."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path
from typing import NoReturn

from dts.worker import processes

DEFAULTS = [signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]  # handled or ignored here, not in tasks
CONTROL_FD = 3  # where a process finds its private socket
HIGH_FD = 16  # above what is put in its place
SACRIFICE = 500  # oom_score_adj: when the machine is out of memory, the kernel takes a task before the worker
PROBLEM_BYTES = 1_024


def plain(argv: list[str], env: dict[str, str], directory: str, fds: list[int], home: Path) -> int:
    """The cheap way. `fds` become 0, 1, 2 and so on. Raises OSError, ValueError."""
    actions = [(os.POSIX_SPAWN_DUP2, fd, place) for place, fd in enumerate(fds)]
    if directory:
        os.chdir(directory)
    try:
        return os.posix_spawnp(argv[0], argv, env, file_actions=actions, setsid=True, setsigdef=DEFAULTS)
    finally:
        if directory:
            os.chdir(home)


def confined(argv: list[str], env: dict[str, str], directory: str, fds: list[int], cgroup: Path | None) -> int:
    """Within a cgroup from its first instruction on, and first in line when the machine is out of memory.

    Raises OSError, ValueError.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _become(argv, env, directory, fds, cgroup, write)
    finally:
        os.close(write)
    with os.fdopen(read, "rb") as pipe:
        problem = pipe.read()  # until it executes
    if problem:
        os.waitpid(pid, 0)
        number, _, text = problem.decode(errors="replace").partition(" ")
        raise OSError(int(number), text)
    return pid


def _become(
    argv: list[str], env: dict[str, str], directory: str, fds: list[int], cgroup: Path | None, problems: int
) -> NoReturn:
    """The child: never returns."""
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text("0")
        try:
            (processes.PROC / "self/oom_score_adj").write_text(str(SACRIFICE))
        except OSError:
            pass  # no Linux, or not allowed: then it is as likely as others
        problems = fcntl.fcntl(problems, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD) for fd in fds]
        for place, fd in enumerate(high):
            os.dup2(fd, place)
        if directory:
            os.chdir(directory)
        for number in (*DEFAULTS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], argv, env)
    except OSError as problem:
        name = f": {problem.filename!r}" if problem.filename else f": {argv[0]!r}"
        os.write(problems, f"{problem.errno or 0} {problem.strerror}{name}".encode()[:PROBLEM_BYTES])
    except BaseException as problem:  # noqa: BLE001  # this is a copy of the guard: it must end, whatever happened
        os.write(problems, f"0 {problem}".encode()[:PROBLEM_BYTES])
    finally:
        os._exit(127)
