"""Ids on the command line: as an argument, or with --id as the original has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])


def one_id(function: F) -> F:
    """ID or --id ID."""
    function = click.option("--id", "id_option", metavar="ID", help="The same as the argument.")(function)
    return click.argument("id_argument", metavar="ID", required=False)(function)


def many_ids(function: F) -> F:
    """ID... or --id ID."""
    function = click.option("--id", "id_option", metavar="ID", help="The same as an argument.")(function)
    return click.argument("id_arguments", metavar="ID...", nargs=-1)(function)


def the_id(argument: str | None, option: str | None) -> str:
    """The one that was given. Raises click.UsageError for none and for two."""
    if argument and option and argument != option:
        raise click.UsageError(f"two ids: {argument} and {option}.")
    found = argument or option
    if not found:
        raise click.UsageError("which one? Give its ID.")
    return found


def the_ids(arguments: tuple[str, ...], option: str | None) -> list[str]:
    """Those that were given, each once. Raises click.UsageError for none."""
    found = list(dict.fromkeys([*arguments, *([option] if option else [])]))
    if not found:
        raise click.UsageError("which ones? Give one or more IDs.")
    return found
