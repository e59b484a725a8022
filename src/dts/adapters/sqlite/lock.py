"""What lies beside the database file: the server's lock, the worker's life lock, the worker's socket, the attach token.

The locks are flock locks on open files (close-on-exec): they end with the process that holds them, whatever ends it.
They give friendly messages and tell who lives; what fences a commit is the shard's epoch.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from dts.errors import StoreBusy, Unavailable

SOCKET_PATH_BYTES = 100  # a Unix socket's path may have 107 (Linux) or 103 (macOS)
TOKEN_BYTES = 32
PRIVATE = 0o600
LOCK_BYTES = 4_096  # what a lock file tells of its holder


def lock_path(db: str | Path) -> Path:
    """Locked by the server as long as it lives."""
    return _beside(db, ".lock")


def worker_lock_path(db: str | Path) -> Path:
    """Locked by the embedded worker and its guard as long as they live."""
    return _beside(db, ".worker-lock")


def token_path(db: str | Path) -> Path:
    """The attach token, readable by the owner alone."""
    return _beside(db, ".token")


def socket_path(db: str | Path) -> Path:
    """Where the server listens for its worker. A database whose path is too long for a socket's gets one in a private
    folder of the runtime directory, and a file beside the database names it. Raises Unavailable when that folder is
    another user's."""
    near = _beside(db, ".sock")
    if len(os.fsencode(near)) <= SOCKET_PATH_BYTES:
        return near
    record = _beside(db, ".socket-path")
    digest = hashlib.sha256(os.fsencode(near)).hexdigest()[:24]
    if record.exists():
        told = Path(record.read_text().strip())
        if told.name == f"{digest}.sock" and _private_folder(told.parent):
            return told
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"dts-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _private_folder(folder):
        raise Unavailable(f"{folder} belongs to another user or is open to others: remove it or set XDG_RUNTIME_DIR")
    path = folder / f"{digest}.sock"
    record.write_text(f"{path}\n")
    return path


def create_token(db: str | Path) -> str:
    """A new attach token, written beside the database with mode 0600 in place of the old one."""
    token, path = secrets.token_urlsafe(TOKEN_BYTES), token_path(db)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(fd, "w") as file:
        os.fchmod(fd, PRIVATE)
        file.write(f"{token}\n")
    new.replace(path)
    return token


def read_token(db: str | Path) -> str:
    """The attach token. Raises FileNotFoundError when no server has made one."""
    return token_path(db).read_text().strip()


class ServerLock:
    """Held by the one server of a database file."""

    def __init__(self, db: str | Path) -> None:
        self._db = Path(db).absolute()
        self._file: IO[str] | None = None

    def acquire(self, started: str, ports: Mapping[str, int]) -> None:
        """Takes the lock and says who has it. Raises StoreBusy naming the other server, Unavailable when the lock file
        cannot be written."""
        path = lock_path(self._db)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE), "r+")
        except OSError as error:
            raise Unavailable(
                f"cannot write {path} ({error.strerror}): make its folder writable for this user"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            told = file.read(LOCK_BYTES)
            file.close()
            raise StoreBusy(_busy(self._db, told)) from None
        self._file = file
        self.tell(started, ports)

    def tell(self, started: str, ports: Mapping[str, int]) -> None:
        """Writes what a second server will say of this one (again, once its ports are known)."""
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "started": started, "ports": dict(ports)}, self._file)
        self._file.flush()

    def release(self) -> None:
        """The file stays, empty: to remove it would let two servers lock two files of one name."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def _busy(db: Path, told: str) -> str:
    try:
        holder = json.loads(told)
        ports = ", ".join(f"{name} {port}" for name, port in sorted(holder["ports"].items()))
        who = f"another server (pid {holder['pid']}, started {holder['started']}{f', ports {ports}' if ports else ''})"
    except (ValueError, KeyError, TypeError, AttributeError):
        who = "another server"
    return f"{who} owns {db}: use that one, stop it, or name another file (DTS_DATABASE)"


def _beside(db: str | Path, suffix: str) -> Path:
    path = Path(db).absolute()
    return path.with_name(path.name + suffix)


def _private_folder(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
