"""Tasks: checked, and encoded once into the bytes that travel to the worker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from dts import bounds
from dts.errors import InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.gen.worker.v1 import worker_pb2 as worker

COMMAND_KEY, URL_KEY = "dts.command", "dts.url"  # in the metadata of a job without a task
BODIES = 10_000  # recently encoded bodies remembered

_METHOD = re.compile(r"[A-Za-z]{1,20}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_TYPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


def body(task: job.Task | None, timeout_s: int) -> bytes:
    """worker.v1.Body of a checked task; None: no task, the execution completes at once."""
    return _body(task.SerializeToString(deterministic=True) if task is not None else None, timeout_s)


@lru_cache(maxsize=BODIES)
def _body(task: bytes | None, timeout_s: int) -> bytes:
    encoded = worker.Body(timeout_ms=timeout_s * 1000, kill_grace_ms=round(bounds.KILL_GRACE_S * 1000))
    if task is not None:
        encoded.task.MergeFromString(task)
    return encoded.SerializeToString(deterministic=True)


def task_of(task: job.Task | None, metadata: Mapping[str, str]) -> job.Task | None:
    """What runs: the task if it names any, else what the metadata names, checked. Raises InvalidArgument."""
    if task is not None and task.WhichOneof("kind") is not None:
        check(task)
        return task
    command, url = metadata.get(COMMAND_KEY, ""), metadata.get(URL_KEY, "")
    if command and url:
        raise InvalidArgument("metadata", f"names both {COMMAND_KEY} and {URL_KEY}: a job runs one of them")
    if not command and not url:
        return None
    named = job.Task(shell=job.ShellTask(command=command)) if command else job.Task(http=job.HttpTask(url=url))
    check(named, f"metadata[{COMMAND_KEY if command else URL_KEY}]")
    return named


def check(task: job.Task, field: str = "task") -> None:
    """Raises InvalidArgument when no worker could ever run it."""
    match task.WhichOneof("kind"):
        case "shell":
            _shell(task.shell, f"{field}.shell")
        case "http":
            _http(task.http, f"{field}.http")
        case "python":
            if _FUNCTION.fullmatch(task.python.function) is None:
                raise InvalidArgument(
                    f"{field}.python.function", f"{task.python.function[:80]!r} is not module:function"
                )
        case "custom":
            if _TYPE.fullmatch(task.custom.type) is None:
                raise InvalidArgument(f"{field}.custom.type", f"{task.custom.type[:80]!r} is no name of a task type")


def _shell(shell: job.ShellTask, field: str) -> None:
    if bool(shell.command) == bool(shell.argv):
        raise InvalidArgument(field, "give either command (for /bin/sh -c) or argv (without a shell)")
    if shell.argv and not shell.argv[0]:
        raise InvalidArgument(f"{field}.argv[0]", "names no program")
    for key in shell.env:
        if not key or "=" in key:
            raise InvalidArgument(f"{field}.env", f"{key[:80]!r} is no name of a variable")
    pieces = [shell.command, *shell.argv, shell.working_directory, *shell.env.keys(), *shell.env.values()]
    if any("\0" in piece for piece in pieces):
        raise InvalidArgument(field, "holds a NUL, which no program can be given")


def _http(http: job.HttpTask, field: str) -> None:
    try:
        url = urlsplit(http.url)
        known = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        known = False
    if not known or _CONTROL.search(http.url):
        raise InvalidArgument(f"{field}.url", f"{http.url[:120]!r} is no http:// or https:// address")
    if http.method and _METHOD.fullmatch(http.method) is None:
        raise InvalidArgument(f"{field}.method", f"{http.method[:40]!r} is no HTTP method")
    for name, value in http.headers.items():
        if _HEADER.fullmatch(name) is None or any(end in value for end in "\r\n\0"):
            raise InvalidArgument(
                f"{field}.headers", f"{name[:80]!r} is no header's name, or its value has a line's end"
            )
    for status in http.success_statuses:
        if not 100 <= status <= 599:
            raise InvalidArgument(f"{field}.success_statuses", f"{status} is not from 100 to 599")
