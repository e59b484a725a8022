"""What a leased attempt is to run: worker.v1.Body, read once for equal ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from dts.bounds import KILL_GRACE_S
from dts.gen.job.v1 import job_pb2
from dts.gen.worker.v1 import worker_pb2 as pb
from dts.worker.frames import encode

DISTINCT_BODIES = 20_000
PACKAGED = "custom "  # before a package's type: it cannot take the place of a built-in one
ALONE = "alone"  # the kind of python tasks with requests: each runs in a process of its own, where they are held
PYTHON = "python "  # before the function in the kind of python tasks

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Shell:
    """`env` goes on top of the worker's own environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    directory: str


@dataclass(frozen=True, slots=True)
class Http:
    """`statuses` empty: 200 to 299 are success."""

    url: str
    method: str
    headers: Mapping[str, str]
    body: str
    statuses: frozenset[int]


@dataclass(frozen=True, slots=True)
class Call:
    """A python function with its arguments as the pool's children take them."""

    function: str
    arguments: bytes


@dataclass(frozen=True, slots=True)
class Custom:
    """A task of a type that a package adds."""

    type: str
    config: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Nothing:
    """Completes at once."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Cannot be read: a later version's, or damaged."""

    problem: str


Task = Shell | Http | Call | Custom | Nothing | Broken


@dataclass(frozen=True, slots=True)
class Work:
    """`type` finds the runner (a package's: `custom NAME`), `kind` is what may share a group; 0: no timeout."""

    type: str
    kind: str
    task: Task
    timeout_ms: int
    kill_grace_ms: int


@lru_cache(maxsize=DISTINCT_BODIES)
def read(body: bytes) -> Work:
    """A body's work; one that cannot be read is Broken, whose attempts fail."""
    try:
        got = pb.Body.FromString(body)
    except DecodeError:
        return Work("broken", "broken", Broken("the task cannot be read: not a worker.v1.Body"), 0, 0)
    type, task = _task(got.task)
    kind = f"{PYTHON}{task.function}" if isinstance(task, Call) else type
    return Work(type, kind, task, got.timeout_ms, got.kill_grace_ms or int(KILL_GRACE_S * 1000))


def type_of(kind: str) -> str:
    """The type of a kind."""
    return "python" if kind.startswith(PYTHON) else kind


def _task(got: job_pb2.Task) -> tuple[str, Task]:
    match got.WhichOneof("kind"):
        case None:
            return "none", Nothing()
        case "shell":
            shell = got.shell
            argv = tuple(shell.argv) or ("/bin/sh", "-c", shell.command)
            return "shell", Shell(argv, dict(shell.env), shell.working_directory)
        case "http":
            http = got.http
            method = http.method.upper() or ("POST" if http.body else "GET")
            return "http", Http(http.url, method, dict(http.headers), http.body, frozenset(http.success_statuses))
        case "python":
            python = got.python
            args, kwargs = _json(python.args), _json(python.kwargs)
            return "python", Call(python.function, encode([args, kwargs]) if args or kwargs else b"")
        case "custom":
            config = _json(got.custom.config)
            return PACKAGED + got.custom.type, Custom(got.custom.type, config if isinstance(config, dict) else {})


def _json(message: Message) -> Json:
    """A Struct or ListValue as Python has it; whole numbers, which it can only hold as floats, as int."""
    return _whole(MessageToDict(message))


def _whole(value: Json) -> Json:
    match value:
        case dict():
            return {key: _whole(each) for key, each in value.items()}
        case list():
            return [_whole(each) for each in value]
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
    return value
