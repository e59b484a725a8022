"""`dts up`: the server in the foreground."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dts.config import load


@click.command("up")
def up() -> int:
    """Run the server in the foreground: all three services over one SQLite file, and a worker in a process of its own.

    Ports and file are those of `dts config`. Ctrl-C or TERM stops it cleanly; a second one hurries.
    """
    config = load(os.environ, Path(".env"))
    for note in config.notes:
        click.echo(f"Note: {note}", err=True)
    from dts.server import serve_embedded  # noqa: PLC0415 - help and completion need none of it

    return serve_embedded(config)
