"""Python tasks that the worker's tests run in its pool."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dts.worker import current


def nothing() -> None:
    """A no-op."""


def add(left: int, right: int, *, more: int = 0) -> int:
    return left + right + more


def who() -> str:
    context = current()
    return f"{context.job_id} {context.execution_id} {context.attempt} {context.scheduled_time} {context.fencing}"


def environment() -> str:
    return " ".join(f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.startswith("DTS_"))


async def later(value: str) -> str:
    await asyncio.sleep(0.01)
    return f"{value} {current().job_id}"


def fail(text: str) -> None:
    raise ValueError(text)


def leave(code: int) -> None:
    sys.exit(code)


def die(code: int) -> None:
    os._exit(code)


def die_if(path: str) -> None:
    """Ends its process the hard way in the job whose id is in the file."""
    if Path(path).read_text() == current().job_id:
        os._exit(7)


def say(text: str) -> None:
    print(text)
    subprocess.run(["/bin/echo", f"{text} from below"], check=True)
    print(text, "again", file=sys.stderr)


def wait(path: str, seconds: float) -> str:
    """Says that it runs by its pid in a file, then waits."""
    Path(path).write_text(f"{os.getpid()}")
    time.sleep(seconds)
    return "waited"


def wait_together(folder: str, count: int) -> int:
    """Ends when so many of it run at once."""
    Path(folder, current().job_id).touch()
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if len(list(Path(folder).iterdir())) >= count:
            return count
        time.sleep(0.005)
    raise TimeoutError("the others did not come")


def with_a_child(path: str) -> None:
    """Starts a process in a session of its own, then waits."""
    child = subprocess.Popen(["/bin/sleep", "300"], start_new_session=True)
    Path(path).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(300)


def stubborn(path: str) -> None:
    """Ignores TERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).write_text(f"{os.getpid()}")
    time.sleep(300)


def tidy(path: str) -> None:
    """Cleans up when it is told to stop."""
    try:
        Path(path).write_text(f"{os.getpid()}")
        time.sleep(300)
    finally:
        Path(path).unlink()


def slow_if(path: str) -> None:
    """Waits in the job whose id is in the file, as long as it is."""
    while Path(path).exists() and Path(path).read_text() == current().job_id:
        time.sleep(0.01)


def nap(milliseconds: int) -> None:
    time.sleep(milliseconds / 1000)


def wait_for(path: str) -> str:
    """Ends when a file is there."""
    end = time.monotonic() + 30
    while not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.01)
    return "waited"


def die_with_a_child(path: str) -> None:
    """Ends its process the hard way while one that it started lives on."""
    child = subprocess.Popen(["/bin/sleep", "300"], start_new_session=True)
    Path(path).write_text(f"{os.getpid()} {child.pid}")
    os._exit(3)


def take(mib: int) -> None:
    """Takes so much memory, then waits."""
    kept = b"x" * (mib << 20)
    time.sleep(60)
    del kept


def share(mib: int, processes: int) -> int:
    """Takes so much memory and shares it with children for a while."""
    kept = b"x" * (mib << 20)
    children = []
    for _ in range(processes):
        pid = os.fork()
        if pid == 0:
            time.sleep(1)
            os._exit(len(kept) == 0)
        children.append(pid)
    return sum(os.waitpid(pid, 0)[1] == 0 for pid in children)


def process_id() -> int:
    return os.getpid()


def fork_and_return(path: str) -> int:
    """Leaves a child, one in a session of its own, and one that is nobody's child and does not know its task."""
    hide = f"(setsid env -i sh -c 'sleep 300 & echo $! >> {path}' &)"
    for command in (["/bin/sleep", "300"], ["setsid", "/bin/sleep", "300"]):
        child = subprocess.Popen(command)
        with Path(path).open("a") as file:
            file.write(f"{child.pid}\n")
    subprocess.run(hide, shell=True, check=True)
    while len(Path(path).read_text().split()) < 3:
        time.sleep(0.005)
    return os.getpid()


def scratch() -> None:
    """Writes to its scratch folder."""
    folder = Path(os.environ["DTS_SCRATCH"])
    folder.joinpath("f").write_text("x")
    assert os.environ["TMPDIR"] == str(folder)


def lock_and_return() -> int:
    """Uses a lock between processes: Python starts a helper for it, which ignores TERM and means to stay."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Lock():
        return os.getpid()
