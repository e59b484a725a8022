"""`dts next --server`: the same answer by the server, whose zone rules are those that count."""

from __future__ import annotations

import click

from dts.cli import exits
from dts.cli.session import client, instant_of, print_message, timestamp
from dts.cli.show import distance
from dts.cli.table import clean, print_table
from dts.gen.job.v1 import job_pb2 as job
from dts.model import ScheduleSpec


def preview(spec: ScheduleSpec, after: int | None, count: int, output: str | None) -> int:
    """Ask the Job Service and print its answer. Raises ApiError."""
    request = job.PreviewScheduleRequest(
        expression=spec.text,
        time_zone=spec.zone,
        after=timestamp(after),
        count=count,
        gap=spec.gap,
        fold=spec.fold,
    )
    with client() as dts:
        found = dts.preview_schedule(request)
    if print_message(found, output):
        return exits.OK
    click.echo(clean(found.sentence))
    rows = [[each.local, distance(instant_of(each.instant)), each.note] for each in found.occurrences]
    if rows:
        print_table(["LOCAL TIME", "FROM NOW", "NOTE"], rows, cuttable=["NOTE"])
    last = instant_of(found.occurrences[-1].instant) if found.occurrences else 0
    for change in (each for each in found.transitions if instant_of(each.instant) <= last):
        click.echo(f"Clock: {clean(change.note)}")
    for hint in found.hints:
        click.echo(f"Hint: {clean(hint)}")
    return exits.OK
