"""Commands of `dts job` that take many at once: JSON lines from a file or the standard input."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TextIO, TypeVar

import click
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import ParseDict, ParseError

from dts.bounds import REQUEST_BYTES
from dts.cli import exits
from dts.cli.options import output_option
from dts.cli.session import client, print_message
from dts.client import ApiError
from dts.gen.job.v1 import job_pb2 as job

_ITEM = re.compile(r"jobs\[(\d+)\](?:\.|: )")

Request = TypeVar("Request", job.CreateJobRequest, job.UpdateJobRequest)


@click.command("create-many")
@click.argument("file", type=click.File(encoding="utf-8"), default="-")
@output_option
def create_many(file: TextIO, output: str | None) -> int:
    """Create a job for each line of FILE (default: the standard input), in bulk calls that are all or none.

    A line is a JSON object with the fields of CreateJobRequest, such as
    {"name": "a", "cronExpression": "@every 1h", "task": {"shell": {"command": "echo a"}}}
    """
    requests = Lines(file, job.CreateJobRequest)
    with client() as dts, requests.named():
        ids = dts.batch_create_jobs(requests)
    if not print_message(job.BatchCreateJobsResponse(job_ids=ids, existing=ids.existing), output):
        for each in ids:
            click.echo(each)
        there = f" ({ids.existing} were there already)" if ids.existing else ""
        click.echo(f"Jobs created: {len(ids) - ids.existing}{there}", err=True)
    return exits.OK


@click.command("update-many")
@click.argument("file", type=click.File(encoding="utf-8"), default="-")
@output_option
def update_many(file: TextIO, output: str | None) -> int:
    """Update a job for each line of FILE (default: the standard input), 10 000 at a time, all or none.

    A line is a JSON object with the fields of UpdateJobRequest, such as
    {"id": "...", "priority": 5}
    """
    requests = Lines(file, job.UpdateJobRequest)
    with client() as dts, requests.named():
        revisions = dts.batch_update_jobs(requests)
    if not print_message(job.BatchUpdateJobsResponse(revisions=revisions), output):
        click.echo(f"Jobs updated: {len(revisions)}")
    return exits.OK


class Lines(Generic[Request]):
    """A request for each line that is not empty, once. Raises click.UsageError that names the line, from 1 as editors do."""

    def __init__(self, lines: TextIO, kind: type[Request]) -> None:
        self._lines = lines
        self._kind: type[Request] = kind
        self._numbers: list[int] = []  # of the requests given so far

    def __iter__(self) -> Iterator[Request]:
        name, number = self._lines.name, 0
        while line := _line(name, self._lines, number + 1):
            number += 1
            if not line.strip():
                continue
            try:
                parsed = json.loads(line)
                if not isinstance(parsed, dict):
                    raise TypeError("write a JSON object")
                _check_names(parsed, self._kind.DESCRIPTOR)
                request = ParseDict(parsed, self._kind())
            except (ValueError, ParseError, RecursionError, AttributeError, TypeError) as error:
                raise click.UsageError(f"{name}, line {number}: {error}") from None
            self._numbers.append(number)
            yield request

    @contextmanager
    def named(self) -> Iterator[None]:
        """What the server says of jobs[N] is said of its line."""
        try:
            yield
        except ApiError as error:
            found = _ITEM.match(error.message)
            if error.code != "INVALID_ARGUMENT" or found is None or int(found[1]) >= len(self._numbers):
                raise
            line = self._numbers[int(found[1])]
            message = f"{self._lines.name}, line {line}: {error.message[found.end() :]}"
            raise ApiError(error.code, message, error.address) from None


def _check_names(parsed: dict[str, object], descriptor: Descriptor) -> None:
    """Raises ValueError for a name that is no field, with the one that was meant."""
    spelling = [field.json_name for field in descriptor.fields]
    for name in parsed:
        if name not in spelling and name not in descriptor.fields_by_name:
            close = difflib.get_close_matches(name[:80], spelling, 1)
            meant = f"did you mean {close[0]}?" if close else f"valid: {', '.join(spelling)}"
            raise ValueError(f"{name[:80]}: there is no such field; {meant}")


def _line(name: str, lines: TextIO, number: int) -> str:
    try:
        line = lines.readline(REQUEST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{name}, line {number}: {error}") from None
    if len(line) > REQUEST_BYTES:
        raise click.UsageError(f"{name}, line {number}: longer than {REQUEST_BYTES} bytes")
    return line


COMMANDS = (create_many, update_many)
