"""`dts audit` and `dts verdicts`."""

from __future__ import annotations

import click

from dts.cli import exits, options
from dts.cli.events import range_words
from dts.cli.execview import took, why
from dts.cli.options import output_option
from dts.cli.session import client, instant_of, print_message, print_token, timestamp
from dts.cli.show import moment
from dts.cli.table import clean, print_facts, print_table
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.schedule import format_instant

DAY_MS = 86_400_000


@click.command("audit")
@click.option("--from", "start", type=options.instant, help="After this instant: -1h, 2026-03-29, ... Default: -1d.")
@click.option("--to", "end", type=options.instant, help="Up to and with this one. Default: now.")
@click.option("--job", "job_id", default="", help="Of this job alone.")
@output_option
def audit(start: int | None, end: int | None, job_id: str, output: str | None) -> int:
    """Recompute what was due and compare it with the verdicts. The exit code is 1 if anything is missing or doubled.

    \b
    dts audit --from -1h
    dts audit --from 2026-03-29T00:00:00Z --to 2026-03-30T00:00:00Z -o json
    """
    request = execution.AuditRequest(to=timestamp(end), job_id=job_id)
    since = timestamp((end or options.now_ms()) - DAY_MS if start is None else start)
    if since is not None:
        getattr(request, "from").CopyFrom(since)
    with client() as dts:
        found = dts.audit(request)
    if not print_message(found, output):
        _print_audit(found)
    return exits.OK if found.clean else exits.FINDINGS


def _print_audit(found: execution.AuditResponse) -> None:
    click.echo("Nothing missing, nothing doubled." if found.clean else "NOT CLEAN.")
    counts = sorted(found.verdicts.items())
    print_facts(
        [
            ("Due", str(found.due)),
            ("Jobs", str(found.jobs)),
            *((f"  {verdict}", str(count)) for verdict, count in counts),
            ("Missing", str(found.missing)),
            ("Doubled", str(found.doubled)),
            ("Unexplained", str(found.unexplained)),
            ("Complete until", moment(instant_of(found.complete_until))),
        ]
    )
    if found.findings:
        click.echo()
        rows = [
            [each.kind, each.job_id, format_instant(instant_of(each.instant)), each.detail] for each in found.findings
        ]
        print_table(["KIND", "JOB", "INSTANT", "DETAIL"], rows, cuttable=["DETAIL"])
    for note in found.notes:
        click.echo(f"Note: {clean(note)}")


@click.command("verdicts")
@click.argument("job_id", metavar="[JOB]", default="")
@click.option("--from", "start", type=options.instant, help="From this instant on. Default: -1d.")
@click.option("--to", "end", type=options.instant, help="Up to this one. Default: now.")
@click.option("--verdict", default="", help="An execution status, or 'range'.")
@click.option("--page-size", type=options.integer, default=250, show_default=True, help="1 to 250.")
@click.option("--page-token", default="", metavar="TOKEN", help="What 'Next page token' said.")
@click.option("--all", "everything", is_flag=True, help="All pages.")
@output_option
def verdicts(
    job_id: str,
    start: int | None,
    end: int | None,
    verdict: str,
    page_size: int,
    page_token: str,
    everything: bool,
    output: str | None,
) -> int:
    """What became of every due instant, in order of time: executions, and ranges of instants that did not run."""
    request = execution.ListVerdictsRequest(
        job_id=job_id, to=timestamp(end), verdict=verdict, page_size=page_size, page_token=page_token
    )
    since = timestamp((end or options.now_ms()) - DAY_MS if start is None else start)
    if since is not None:
        getattr(request, "from").CopyFrom(since)
    with client() as dts:
        page = dts.list_verdicts(request)
        if everything and page.next_page_token:
            request.page_token = page.next_page_token
            page.verdicts.extend(dts.iter_verdicts(request))
            page.next_page_token = ""
    if not print_message(page, output):
        for each in page.verdicts:
            click.echo(_line(each))
        print_token(page.next_page_token, output)
    return exits.OK


def _line(each: execution.Verdict) -> str:
    if each.HasField("range"):
        return f"{format_instant(instant_of(each.range.until)):<24}  RANGE      {range_words(each.range)}"
    shown = each.execution
    words = [shown.id, took(shown), clean(why(shown))]
    at = format_instant(instant_of(shown.scheduled_time))
    return f"{at:<24}  {shown.status:<9}  {'  '.join(word for word in words if word)}"
