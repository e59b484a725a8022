"""Scratch folders: one for each attempt that runs in processes of its own, mode 0700, removed when it has ended.

    <root>/dts-scratch-<uid>/<pid>-<any>/<n>

What a guard that was killed left behind, the next one on this machine removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

from dts.worker import holds, processes

SLICE = 1_000  # entries of a folder looked at before others have a turn
GUARD = "_DTS_GUARD"  # the variable that tells all processes of a guard by its home
END_S = 2.0  # how long what was killed may take to be gone
SPARES = 64  # empty folders kept for the next attempts
SPARE_S = 1.0  # ... for so long
BLOCK = 512  # bytes: the unit of st_blocks


class Scratch:
    """One guard's folders."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._spare: list[Path] = []  # empty: removing and making a folder waits for the disk's journal
        self._spare_since = 0.0

    @classmethod
    def open(cls, root: str) -> Scratch | None:
        """Below `root`, empty: below the folder for temporary files. None: nothing can be written there."""
        top = Path(root or tempfile.gettempdir()) / f"dts-scratch-{os.getuid()}"
        try:
            top.mkdir(mode=0o700, exist_ok=True)
            found = top.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
                # Somebody else's, in a folder where everybody may write: nothing of ours goes there.
                top = Path(tempfile.mkdtemp(prefix="dts-scratch-", dir=root or None))
            home = holds.make(lambda: top / f"{os.getpid()}-{token_hex(4)}")
        except OSError:
            return None
        return cls(home)

    def make(self, name: str) -> Path | None:
        """An empty folder for an attempt. None: it cannot be made."""
        if self._spare:
            return self._spare.pop()
        path = self.home / name
        try:
            path.mkdir(mode=0o700)
        except OSError:
            return None
        return path

    def take_back(self, path: Path) -> bool:
        """After its attempt. False: there is something in it, which the caller must `remove`."""
        try:
            found = path.lstat()
            with os.scandir(path) as entries:
                if not stat.S_ISDIR(found.st_mode) or next(entries, None) is not None:
                    return False
            if len(self._spare) >= SPARES or found.st_uid != os.getuid():
                path.rmdir()
                return True
            if stat.S_IMODE(found.st_mode) != 0o700:
                path.chmod(0o700)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        self._spare.append(path)
        self._spare_since = time.monotonic()
        return True

    def wait_s(self) -> float | None:
        """How long until spare folders are too old; None: there are none."""
        return max(self._spare_since + SPARE_S - time.monotonic(), 0.0) if self._spare else None

    def trim(self) -> None:
        """Removes one of the spare folders that nobody needed for a while: others have a turn before the next one."""
        if self.wait_s() == 0:
            remove(self._spare.pop())

    def leftovers(self) -> list[Path]:
        """Folders of guards that are dead."""
        return [path for path in self.home.parent.iterdir() if holds.abandoned(path)]


def remove(path: Path) -> None:
    """Removes a folder with all in it, also folders that their owner made unreadable; what cannot be removed stays."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for at, folders, _ in os.walk(path):
        for each in (Path(at, name) for name in folders):
            if not each.is_symlink():
                with contextlib.suppress(OSError):
                    each.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def end_users(home: Path) -> None:
    """KILL for what a dead guard's tasks left running: all that has its home in the environment."""
    until = time.monotonic() + END_S
    while time.monotonic() < until and (pids := processes.naming(f"{GUARD}={home}".encode())):
        for pid in pids:
            for each in (pid, *processes.descendants(pid)):
                processes.signal_one(each, signal.SIGKILL)
        time.sleep(processes.LOOK_S)


def measure(path: Path) -> Iterator[int]:
    """The bytes that a folder takes, more and more of them: the last value is all. Each step looks at SLICE entries at most."""
    size, looked, folders = 0, 0, [path]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        size += entry.stat(follow_symlinks=False).st_blocks * BLOCK
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(Path(entry.path))
                    except OSError:
                        pass
                    looked += 1
                    if looked % SLICE == 0:
                        yield size
        except OSError:
            pass
    yield size
