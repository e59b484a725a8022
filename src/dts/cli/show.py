"""Values as a person reads them, and answers as JSON or YAML."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping

import click

from dts.cli.options import JSON, YAML, now_ms
from dts.schedule import format_duration, format_instant

REDRAW_S = 2.0
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def print_values(values: Mapping[str, object], output: str | None) -> bool:
    """Print as JSON or YAML if that is asked for; False: it is not."""
    if output == JSON:
        click.echo(json.dumps(values, indent=2, ensure_ascii=False))
    elif output == YAML:
        import yaml  # noqa: PLC0415 - 20 ms that only -o yaml needs

        click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)
    else:
        return False
    return True


def moment(instant: int) -> str:
    """An instant with its distance from now: '2026-03-29T01:00:00Z (in 4m)'. '' for 0, which is none."""
    return f"{format_instant(instant)} ({distance(instant)})" if instant else ""


def distance(instant: int) -> str:
    """How far an instant is from now, in one or two units: 'in 4m', '2h 5m ago', 'now'. '' for 0, which is none."""
    if not instant:
        return ""
    seconds = round((instant - now_ms()) / 1000)
    if seconds == 0:
        return "now"
    text = span(abs(seconds) * 1000)
    return f"in {text}" if seconds > 0 else f"{text} ago"


def span(ms: int) -> str:
    """A duration in its two largest units: '2d 4h', '3m 20s', '1.25s'."""
    if ms < 10_000:
        return f"{ms / 1000:.3g}s"
    seconds, parts = round(ms / 1000), []
    for size, unit in _UNITS:
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number}{unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def exact(ms: int) -> str:
    """A setting's duration, exactly: '1h30m'."""
    return format_duration(ms)


def redraw(draw: Callable[[], None], watch: bool) -> None:
    """Draw once, or every 2 seconds until Ctrl-C."""
    if not watch:
        draw()
        return
    while True:
        if sys.stdout.isatty():
            click.clear()
        draw()
        sys.stdout.flush()
        time.sleep(REDRAW_S)


def caret(text: str, column: int) -> str:
    """The text with a caret under a column (from 1), indented by two."""
    return f"  {text}\n  {' ' * (column - 1)}^" if column else ""
