"""`dts events`: transitions as they are committed."""

from __future__ import annotations

import json

import click

from dts.cli import exits, options
from dts.cli.execview import took, why
from dts.cli.options import JSON, now_ms
from dts.cli.session import client, instant_of
from dts.cli.table import clean, paint
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.schedule import format_instant
from dts.wirejson import to_json


@click.command("events")
@click.argument("job_id", metavar="[JOB]", default="")
@click.option("-n", "--count", type=options.amount, default=0, help="End after so many; 0: never.")
@click.option("-o", "--output", type=click.Choice(["table", JSON]), help="json: the API's own, one object a line.")
def events(job_id: str, count: int, output: str | None) -> int:
    """Watch what happens, of one job or of all, from now on, until Ctrl-C."""
    with client() as dts:
        for seen, event in enumerate(dts.watch_events(job_id), start=1):
            click.echo(json.dumps(to_json(event), ensure_ascii=False) if output == JSON else _line(event))
            if seen == count:
                break
    return exits.OK


def _line(event: execution.WatchEventsResponse) -> str:
    at = format_instant(now_ms())
    match event.WhichOneof("event"):
        case "execution":
            shown = event.execution
            words = [shown.id, f"attempt {shown.attempt}" if shown.attempt else "", took(shown), clean(why(shown))]
            status = paint(shown.status) + " " * max(0, 9 - len(shown.status))
            return f"{at:<24}  {status}  {'  '.join(word for word in words if word)}"
        case "range":
            return f"{at:<24}  RANGE      {range_words(event.range)}"
        case "missed_events":
            return f"{at:<24}  MISSED     {event.missed_events} events: this watcher was too slow"
    return f"{at:<24}  an event of a later version"


def range_words(found: execution.Range) -> str:
    """One verdict over many instants, on one line."""
    span = f"{format_instant(instant_of(found.after))} .. {format_instant(instant_of(found.until))}"
    return f"{found.job_id}  {found.count} instant{'' if found.count == 1 else 's'} in {span}: {clean(found.reason)}"
