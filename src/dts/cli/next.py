"""`dts next`: a schedule explained, without a server."""

from __future__ import annotations

import click

from dts.cli import exits, options
from dts.cli.options import now_ms, output_option
from dts.cli.show import caret, distance, print_values
from dts.cli.table import print_table
from dts.errors import InvalidSchedule
from dts.model import ScheduleSpec
from dts.schedule import Explanation, explain, format_instant, rules_version


@click.command("next")
@click.argument("expression", nargs=-1, required=True)
@click.option("--tz", "zone", default="UTC", show_default=True, help="IANA time zone, such as Europe/Paris.")
@click.option(
    "--after", type=options.instant, help="Instants after this one: RFC 3339, now, -1h, 'in 2d'. Default: now."
)
@click.option("-n", "--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many instants.")
@click.option("--start", type=options.instant, help="No instant before this one.")
@click.option("--end", type=options.instant, help="No instant after this one.")
@click.option("--gap", type=click.Choice(["shift", "skip"]), default=None, help="A wall time that does not exist.")
@click.option("--fold", type=click.Choice(["first", "second", "both"]), default=None, help="One that occurs twice.")
@click.option("--server", is_flag=True, help="Ask the server, whose zone rules are those that count.")
@output_option
def next_(
    expression: tuple[str, ...],
    zone: str,
    after: int | None,
    count: int,
    start: int | None,
    end: int | None,
    gap: str | None,
    fold: str | None,
    server: bool,
    output: str | None,
) -> int:
    """When would EXPRESSION fire? A cron expression, '@every 90s' or '@at 2027-01-01T09:00'.

    \b
    dts next '*/15 9-17 * * MON-FRI' --tz Europe/Paris
    dts next '30 2 * * *' --tz Europe/Paris --after 2026-03-28T12:00:00Z -n 3
    """
    spec = ScheduleSpec(" ".join(expression), zone, start, end, gap or "", fold or "")
    if server:
        from dts.cli.preview import preview  # noqa: PLC0415 - gRPC takes as long to load as all of this to run

        if start is not None or end is not None:
            raise click.UsageError("--start and --end are not for --server.")
        return preview(spec, after, count, output)
    since = now_ms() if after is None else after
    try:
        found = explain(spec, since, count)
    except InvalidSchedule as error:
        return refuse(spec.text, error)
    if not print_values(_values(spec, since, found), output):
        _draw(spec, found)
    return exits.OK


def refuse(text: str, error: InvalidSchedule) -> int:
    """Why a schedule is refused, with a caret under the place."""
    click.echo(f"Error: {error}", err=True)
    if error.column and "\n" not in text:
        click.echo(caret(text, error.column), err=True)
    return exits.WRONG


def _draw(spec: ScheduleSpec, found: Explanation) -> None:
    click.echo(found.sentence)
    if found.next:
        click.echo()
        notes = any(each.note for each in found.next)
        heads = ["LOCAL TIME", "UTC", "FROM NOW", *(["NOTE"] if notes else [])]
        print_table(
            heads,
            [
                [each.local, format_instant(each.instant), distance(each.instant), *([each.note] if notes else [])]
                for each in found.next
            ],
            cuttable=["NOTE"],
        )
    last = found.next[-1].instant if found.next else 0
    shown = [change for change in found.transitions if change.instant <= last]
    if shown and spec.zone != "UTC":
        click.echo()
        for change in shown:
            click.echo(f"Clock: {change.before} -> {change.after}: {change.note}")
    for hint in found.hints:
        click.echo(f"Hint: {hint}")


def _values(spec: ScheduleSpec, after: int, found: Explanation) -> dict[str, object]:
    return {
        "next": [format_instant(each.instant) for each in found.next],
        "expression": spec.text,
        "timeZone": spec.zone,
        "after": format_instant(after),
        "sentence": found.sentence,
        "hints": list(found.hints),
        "occurrences": [
            {"instant": format_instant(each.instant), "local": each.local, "note": each.note} for each in found.next
        ],
        "transitions": [
            {
                "instant": format_instant(each.instant),
                "before": each.before,
                "after": each.after,
                "note": each.note,
            }
            for each in found.transitions
        ],
        "zoneRules": rules_version(),
    }
