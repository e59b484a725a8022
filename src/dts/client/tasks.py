"""Tasks, made briefly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.json_format import ParseDict

from dts.gen.job.v1 import job_pb2 as job

Value = None | bool | int | float | str | Sequence["Value"] | Mapping[str, "Value"]


def shell(
    command: str | Sequence[str], *, env: Mapping[str, str] | None = None, working_directory: str = ""
) -> job.Task:
    """A command line for /bin/sh, or a list: a program with its arguments, without a shell."""
    task = job.ShellTask(env=dict(env or {}), working_directory=working_directory)
    if isinstance(command, str):
        task.command = command
    else:
        task.argv.extend(command)
    return job.Task(shell=task)


def http(
    url: str,
    *,
    method: str = "",
    headers: Mapping[str, str] | None = None,
    body: str = "",
    success_statuses: Sequence[int] = (),
) -> job.Task:
    """One HTTP request. The method is GET without a body and POST with one; success is 200 to 299, unless named."""
    return job.Task(
        http=job.HttpTask(
            url=url, method=method, headers=dict(headers or {}), body=body, success_statuses=success_statuses
        )
    )


def python(function: str, args: Sequence[Value] = (), kwargs: Mapping[str, Value] | None = None) -> job.Task:
    """A callable `module:function` that the worker can import. Arguments are values of JSON; whole numbers up to 2**53."""
    task: dict[str, Value] = {"function": function}
    if args:
        task["args"] = list(args)
    if kwargs:
        task["kwargs"] = dict(kwargs)
    return job.Task(python=ParseDict(task, job.PythonTask()))
