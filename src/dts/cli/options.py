"""Kinds of values on the command line: instants, durations, JSON, NAME=VALUE; and the options that many commands share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from dts.errors import InvalidSchedule
from dts.schedule import parse_duration, parse_instant

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
F = TypeVar("F", bound=Callable[..., object])

TABLE, JSON, YAML = "table", "json", "yaml"
MAX_TEXT_BYTES = 64 * 1024 * 1024  # of a file that is read whole


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# ---- kinds of values: click calls them with the text and shows their name in capitals -----------------------------


def instant(value: str) -> int:
    """RFC 3339, 'now', a signed duration from now (-1h, +30m), '2h ago' or 'in 5m'. UTC milliseconds."""
    text = value.strip()
    try:
        return parse_when(text, now_ms())
    except InvalidSchedule:
        raise click.BadParameter(
            f"{text!r} is no time; write 2026-03-29T01:00:00Z, 2026-03-29, now, -1h, '2h ago' or 'in 5m'."
        ) from None


def parse_when(text: str, now: int) -> int:
    """UTC milliseconds. Without an offset or zone a time is UTC. Raises InvalidSchedule."""
    lowered = text.lower()
    if lowered == "now":
        return now
    if lowered.endswith(" ago"):
        return now - parse_duration(text[:-4])
    if lowered.startswith("in "):
        return now + parse_duration(text[3:])
    if text.startswith("-"):
        return now - parse_duration(text[1:])
    if text.startswith("+"):
        return now + parse_duration(text[1:])
    return parse_instant(text)


def duration(value: str) -> int:
    """A duration such as 90s, 1h30m, PT15M; a bare number is seconds. Milliseconds."""
    text = value.strip()
    try:
        return parse_duration(f"{text}s" if text.isdecimal() else text)
    except InvalidSchedule as error:
        raise click.BadParameter(str(error)) from None


def pair(value: str) -> tuple[str, str]:
    """NAME=VALUE."""
    key, equals, rest = value.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{value!r} is no NAME=VALUE.")
    return key, rest


def amount(value: str) -> int:
    """A whole number that is not negative, as the API has them (32 bits)."""
    return _whole(value, 0, 2**31 - 1)


def integer(value: str) -> int:
    """A whole number as the API has them (32 bits)."""
    return _whole(value, -(2**31), 2**31 - 1)


def revision(value: str) -> int:
    """A revision of a job."""
    return _whole(value, 0, 2**63 - 1)


def _whole(value: str, least: int, most: int) -> int:
    try:
        number = int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no whole number.") from None
    if not least <= number <= most:
        raise click.BadParameter(f"{value} is not from {least} to {most}.")
    return number


def json_object(value: str) -> dict[str, Json]:
    """A JSON object."""
    found = _json(value, """'{"key": "value"}'""")
    if not isinstance(found, dict):
        raise click.BadParameter("""write a JSON object like '{"key": "value"}'.""")
    return found


def json_list(value: str) -> list[Json]:
    """A JSON list."""
    found = _json(value, """'[1, "two"]'""")
    if not isinstance(found, list):
        raise click.BadParameter("""write a JSON list like '[1, "two"]'.""")
    return found


def _json(value: str, example: str) -> Json:
    try:
        found: Json = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"this is no JSON ({error}); write it like {example}.") from None
    return found


def output_option(function: F) -> F:
    """-o: how the answer is printed. None: as the command finds best for who reads it."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice([TABLE, JSON, YAML]),
        help="A table for people (the default), or the API's own JSON or YAML.",
    )(function)


def watch_option(function: F) -> F:
    return click.option("-w", "--watch", is_flag=True, help="Draw it anew every 2 seconds.")(function)


def read_text(path: str) -> str:
    """A file's text, '-' for the standard input. Raises click.UsageError."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MAX_TEXT_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from None
    if len(data) > MAX_TEXT_BYTES:
        raise click.UsageError(f"{path} is larger than {MAX_TEXT_BYTES} bytes")
    return text
