"""`dts explain`: why did it run, why not, and what will become of it?"""

from __future__ import annotations

import click

from dts.cli import exits, options
from dts.cli.options import output_option
from dts.cli.session import client, instant_of, print_message, timestamp
from dts.cli.show import moment
from dts.cli.table import clean, print_table
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.schedule import is_wall_time

MARKS = {"yes": "+", "no": "-", "info": " "}


@click.command("explain")
@click.argument("id_", metavar="EXECUTION|JOB")
@click.option(
    "--at", "at", metavar="INSTANT", help="Of a job: at this instant; without an offset, at this time in its zone."
)
@output_option
def explain(id_: str, at: str | None, output: str | None) -> int:
    """Say why an execution ran, waits, was skipped or will not run; or what a job does now, or at an instant.

    The first line is the answer; below it is what was looked at: + let it go on, - did not.

    \b
    dts explain report@20260329T010000.000Z
    dts explain report
    dts explain report --at 2026-03-29T02:30
    dts explain report --at '2h ago'
    """
    request = execution.ExplainRequest(id=id_)
    if at is not None and is_wall_time(at):
        request.local = at.strip()
    elif at is not None:
        given = options.instant(at)
        moment_of = timestamp(given if "." in at else given // 1_000 * 1_000)  # "2h ago" means no milliseconds
        assert moment_of is not None, "an instant was given"
        request.at.CopyFrom(moment_of)
    with client() as dts:
        found = dts.explain(request)
    if not print_message(found, output):
        _print(found)
    return exits.OK


def _print(found: execution.ExplainResponse) -> None:
    click.echo(clean(f"{found.execution_id or found.job_id}: {found.answer}"))
    if found.steps:
        click.echo()
        print_table(
            ["", "TOPIC", "WHY"], [[MARKS.get(each.verdict, " "), each.topic, each.text] for each in found.steps]
        )
    if found.HasField("next_run"):
        click.echo(f"\nNext: {moment(instant_of(found.next_run))}")
