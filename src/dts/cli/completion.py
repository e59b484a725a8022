"""`dts completion`: the script that makes a shell complete `dts`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dts.cli import exits


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print the completion script of a shell.

    \b
    bash: eval "$(dts completion bash)"          in ~/.bashrc
    zsh:  eval "$(dts completion zsh)"           in ~/.zshrc
    fish: dts completion fish | source           in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells of the choice"
    click.echo(kind(context.find_root().command, {}, "dts", "_DTS_COMPLETE").source())
    return exits.OK
