"""What to run, as options, and as words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, TypeVar

import click
from google.protobuf.json_format import MessageToDict, ParseDict

from dts import client
from dts.cli import options
from dts.cli.options import read_text
from dts.gen.job.v1 import job_pb2 as job

F = TypeVar("F", bound=Callable[..., object])


class TaskOptions(TypedDict):
    """The values of the options, as click hands them over."""

    shell: str | None
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    workdir: str | None
    url: str | None
    method: str | None
    header: tuple[str, ...]
    body: str | None
    success: str | None
    function: str | None
    args: list[client.tasks.Value] | None
    kwargs: dict[str, client.tasks.Value] | None
    task_type: str | None
    task_config: dict[str, client.tasks.Value] | None


_OPTIONS = [
    click.option("--shell", metavar="CMD", help="Run this command line with /bin/sh."),
    click.option("--env", type=options.pair, multiple=True, help="Shell: a variable of its environment. Repeatable."),
    click.option("--workdir", metavar="DIR", help="Shell: its working directory."),
    click.option("--http", "url", metavar="URL", help="Send this HTTP request."),
    click.option("--method", help="HTTP: GET without a body, POST with one, unless named."),
    click.option("--header", multiple=True, metavar="'NAME: VALUE'", help="HTTP: a header. Repeatable."),
    click.option("--body", metavar="TEXT", help="HTTP: the body; @FILE reads it from a file."),
    click.option("--success", metavar="200,204", help="HTTP: the statuses that are a success."),
    click.option(
        "--python", "function", metavar="MODULE:FUNCTION", help="Call this in a Python process of the worker."
    ),
    click.option("--args", type=options.json_list, metavar="JSON", help="Python: positional arguments, a JSON list."),
    click.option("--kwargs", type=options.json_object, metavar="JSON", help="Python: named arguments, a JSON object."),
    click.option("--task-type", metavar="TYPE", help="A task type of an installed package."),
    click.option("--task-config", type=options.json_object, metavar="JSON", help="Its configuration, a JSON object."),
    click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[-- PROGRAM ARG...]"),
]
_BELONGS = {
    "shell": ("env", "workdir"),
    "url": ("method", "header", "body", "success"),
    "function": ("args", "kwargs"),
    "task_type": ("task_config",),
}
_FLAGS = {"url": "--http", "function": "--python", "argv": "-- PROGRAM"}


def task_options(function: F) -> F:
    """The options of a task, and a program with its arguments after `--`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def task_of(given: TaskOptions) -> job.Task | None:
    """The task that the options name; None: none. Raises click.UsageError for two, or for options of another kind."""
    named = {name for name, value in given.items() if value not in (None, (), [])}
    kinds = [name for name in ("shell", "argv", "url", "function", "task_type") if name in named]
    if len(kinds) > 1:
        raise click.UsageError(f"{' and '.join(_flag(kind) for kind in kinds)}: a job runs one thing.")
    kind = {"argv": "shell"}.get(kinds[0], kinds[0]) if kinds else ""
    for owner, names in _BELONGS.items():
        stray = [name for name in names if name in named and owner != kind]
        if stray:
            raise click.UsageError(f"{_flag(stray[0])} belongs to {_flag(owner)}.")
    if kind == "shell":
        return client.shell(
            given["shell"] or given["argv"], env=dict(given["env"]), working_directory=given["workdir"] or ""
        )
    if kind == "url":
        return _http(given)
    if kind == "function":
        return client.python(given["function"] or "", given["args"] or (), given["kwargs"])
    if kind == "task_type":
        custom = {"type": given["task_type"], "config": given["task_config"] or {}}
        return job.Task(custom=ParseDict(custom, job.CustomTask()))
    return None


def changed_task(job_of: Callable[[], job.JobResponse], given: TaskOptions) -> job.Task | None:
    """The task that the options name, or the job's own one as they change it; None: its own. Raises click.UsageError."""
    named = [
        name for name, value in given.items() if name in TaskOptions.__annotations__ and value not in (None, (), [])
    ]
    if any(name in named for name in ("shell", "argv", "url", "function", "task_type")) or not named:
        return task_of(given)
    found = job.Task()
    found.CopyFrom(job_of().task)
    kind = {"shell": "shell", "http": "url", "python": "function", "custom": "task_type"}.get(
        found.WhichOneof("kind") or "", ""
    )
    for name in named:
        if name not in _BELONGS.get(kind, ()):
            owner = next(owner for owner, names in _BELONGS.items() if name in names)
            raise click.UsageError(f"{_flag(name)} belongs to {_flag(owner)}, and the job's task is of another kind.")
    _change(found, given)
    return found


def _change(task: job.Task, given: TaskOptions) -> None:
    """Puts what is given over the task's own: variables, headers, named arguments and settings one by one, the rest whole."""
    match task.WhichOneof("kind"):
        case "shell":
            task.shell.env.update(dict(given["env"]))
            task.shell.working_directory = given["workdir"] or task.shell.working_directory
        case "http":
            new = _http({**given, "url": task.http.url}).http
            task.http.headers.update(new.headers)
            task.http.method = new.method or task.http.method
            task.http.body = new.body or task.http.body
            if new.success_statuses:
                del task.http.success_statuses[:]
                task.http.success_statuses.extend(new.success_statuses)
        case "python":
            new_call = client.python(task.python.function, given["args"] or (), given["kwargs"]).python
            if given["args"] is not None:
                task.python.args.CopyFrom(new_call.args)
            task.python.kwargs.MergeFrom(new_call.kwargs)
        case "custom":
            config = {"config": given["task_config"] or {}}
            task.custom.config.MergeFrom(ParseDict(config, job.CustomTask()).config)


def _flag(name: str) -> str:
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def _http(given: TaskOptions) -> job.Task:
    headers: dict[str, str] = {}
    for header in given["header"]:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"{header!r} is no 'NAME: VALUE'.", param_hint="--header")
        headers[name.strip()] = value.strip()
    body = given["body"] or ""
    if body.startswith("@"):
        body = read_text(body[1:])
    parts = [part.strip() for part in (given["success"] or "").split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter("write statuses such as 200,204.", param_hint="--success")
    return client.http(
        given["url"] or "",
        method=given["method"] or "",
        headers=headers,
        body=body,
        success_statuses=[int(part) for part in parts],
    )


def task_words(task: job.Task, metadata: Mapping[str, str]) -> str:
    """The task on one line, as a person would type it."""
    kind = task.WhichOneof("kind")
    if kind == "shell":
        return task.shell.command or shlex.join(task.shell.argv)
    if kind == "http":
        return f"{task.http.method or ('POST' if task.http.body else 'GET')} {task.http.url}"
    if kind == "python":
        return f"{task.python.function}({_arguments(task.python)})"
    if kind == "custom":
        return f"{task.custom.type} {json.dumps(MessageToDict(task.custom.config), ensure_ascii=False)}"
    if metadata.get("dts.command"):
        return f"{metadata['dts.command']} (dts.command)"
    if metadata.get("dts.url"):
        return f"{metadata['dts.url']} (dts.url)"
    return "nothing: completes at once"


def _arguments(task: job.PythonTask) -> str:
    values: Sequence[client.tasks.Value] = MessageToDict(task.args)  # type: ignore[assignment] # a list, of a ListValue
    named: Mapping[str, client.tasks.Value] = MessageToDict(task.kwargs)
    return ", ".join([*(_value(each) for each in values), *(f"{name}={_value(each)}" for name, each in named.items())])


def _value(value: client.tasks.Value) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole and isinstance(value, float) else value, ensure_ascii=False)
