"""`dts config` and `dts version`."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import click

from dts import __version__
from dts.cli import exits
from dts.cli.options import output_option
from dts.cli.show import print_values
from dts.cli.table import print_table
from dts.config import read
from dts.schedule import rules_version


@click.command("config")
@output_option
def config(output: str | None) -> int:
    """The settings in force and where each came from: the environment, the .env file here, or the default.

    The exit code is 2 if any is wrong.
    """
    found, problems = read(os.environ, Path(".env"))
    values = {
        "settings": [
            {"name": row.name, "value": row.value, "source": row.source, "meaning": row.meaning} for row in found.rows
        ],
        "notes": list(found.notes),
        "problems": list(problems),
    }
    if not print_values(values, output):
        heads = ["NAME", "VALUE", "FROM", "MEANING"]
        print_table(heads, [[row.name, row.value, row.source, row.meaning] for row in found.rows], ["VALUE", "MEANING"])
        for note in found.notes:
            click.echo(f"Note: {note}", err=True)
    for problem in problems:
        click.echo(f"Error: {problem}", err=True)
    return exits.WRONG if problems else exits.OK


@click.command("version")
@output_option
def version(output: str | None) -> int:
    """The versions of dts, Python and the zone rules."""
    values = {"dts": __version__, "python": platform.python_version(), "zoneRules": rules_version()}
    if not print_values(values, output):
        click.echo(f"dts {values['dts']} (Python {values['python']}, zone rules {values['zoneRules']})")
    return exits.OK
