"""Write the list of commands in docs/reference/cli.md from the commands themselves: `cli_page.py`, or `cli_page.py --check`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dts.cli.main import COMMANDS, cli

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
MARK = "<!-- below: made by tools/cli_page.py -->\n"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    kept, mark, _ = page.partition(MARK)
    made = kept + mark + "".join(commands())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
    elif made != page:
        sys.exit("docs/reference/cli.md is not current: run .venv/bin/python tools/cli_page.py")


def commands() -> Iterator[str]:
    """A section for each command."""
    root = click.Context(cli, info_name="dts")
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None, "the table names commands"
        yield from section(command, click.Context(command, root, info_name=name))


def section(command: click.Command, context: click.Context) -> Iterator[str]:
    """What a command is and takes; then its subcommands."""
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n### {context.command_path}\n\n"
    yield f"`{context.command_path} {usage}`\n\n"
    yield command.get_short_help_str(10_000).replace("\x08", "") + "\n"
    options = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and "--help" not in parameter.opts
        and (record := parameter.get_help_record(context)) is not None
    ]
    if options:
        yield "\n| option | meaning |\n| --- | --- |\n"
        for names, meaning in options:
            yield f"| `{escape(names)}` | {escape(meaning)} |\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, "a group knows its commands"
            yield from section(child, click.Context(child, context, info_name=name))


def escape(text: str) -> str:
    """Text inside a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
