"""The entry point: which commands there are, and how every failure becomes one or two lines and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from dts.cli import exits
from dts.errors import DtsError


class Command(NamedTuple):
    """Where a command lives; its module is imported when it is called. `section`: under which heading help lists it."""

    module: str
    attribute: str
    section: str
    help: str


COMMANDS = {
    "up": Command("serve", "up", "Run", "Run the server: all services and a worker, over one file"),
    "job-service": Command("serve", "job_service", "Run", "Run a Job Service of a cluster (Kafka and Cassandra)"),
    "scheduler-service": Command("serve", "scheduler_service", "Run", "Run a Scheduler Service of a cluster"),
    "execution-service": Command("serve", "execution_service", "Run", "Run an Execution Service of a cluster"),
    "worker": Command("workers", "group", "Run", "Run a worker; list: the attached ones"),
    "job": Command("jobs", "group", "Jobs", "Create, read, change, run and delete jobs"),
    "backfill": Command("backfill", "group", "Jobs", "Run the instants of a range; status, list, cancel"),
    "next": Command("next", "next_", "Jobs", "When would a schedule fire? Explained, without a server"),
    "scheduler": Command("scheduler", "scheduler", "Jobs", "The Scheduler Service: schedule, list, get, cancel"),
    "execution": Command("executions", "group", "History", "Executions: get, list, cancel, retry, output"),
    "explain": Command("explain", "explain", "History", "Why did it run, or not? What will become of it?"),
    "logs": Command("executions", "logs", "History", "What a task wrote; -f follows it"),
    "events": Command("events", "events", "History", "Watch transitions as they are committed"),
    "verdicts": Command("audit", "verdicts", "History", "What became of every due instant"),
    "audit": Command("audit", "audit", "History", "Prove that nothing due was forgotten or doubled"),
    "status": Command("scheduler", "status", "System", "How the scheduler is"),
    "migrate": Command("migrate", "group", "System", "Move the cluster's keyspace between versions of its tables"),
    "repair": Command("repair", "group", "System", "Mend a cluster's stores from one another"),
    "export": Command("moving", "export", "System", "Write all jobs and their history to a file"),
    "import": Command("moving", "import_", "System", "Take the jobs and history of such a file in"),
    "config": Command("settings", "config", "System", "The settings in force and where each came from"),
    "completion": Command("completion", "completion", "System", "Completion for bash, zsh or fish"),
    "version": Command("settings", "version", "System", "The versions of dts, Python and the zone rules"),
}
ALIASES = {"jobs": "job", "exec": "execution", "executions": "execution", "workers": "worker", "watch": "events"}


class Root(click.Group):
    """The commands of the table; help reads the table alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        found = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if found is None:
            return None
        command = getattr(import_module(f"dts.cli.{found.module}"), found.attribute)
        assert isinstance(command, click.Command), "the table names a click command"
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names and help of the table: completion imports no command."""
        items = [CompletionItem(name, help=command.help) for name, command in COMMANDS.items()]
        found = [item for item in items if item.value.startswith(incomplete)]
        return found or super(click.Group, self).shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for section in dict.fromkeys(command.section for command in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, command.help) for name, command in COMMANDS.items() if command.section == section]
                )


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 done, 1 findings or a failed run, 2 a wrong request, 3 no answer from the server, 4 not found, 5 conflict.",
)
def cli() -> None:
    """DTS, a distributed task scheduler.

    The server is found by DTS_HOST and the port variables, from the environment or a .env file (see: dts config).
    """


def main() -> NoReturn:
    """Run the command line of this process. No traceback reaches a person, unless DTS_DEBUG=1."""
    try:
        _check_arguments(sys.argv[1:])
        result = cli.main(prog_name="dts", standalone_mode=False)
        code = result if isinstance(result, int) else exits.OK
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = exits.INTERRUPTED
    except BrokenPipeError:
        code = exits.OK  # `dts ... | head`: who listens has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except DtsError as error:
        _debug()
        _complain(str(error), exits.hint(error))
        code = exits.code_of(error)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a person gets a sentence
        _debug()
        _complain(
            f"{type(error).__name__}: {error}", "this is a bug in dts; DTS_DEBUG=1 shows where. Please report it."
        )
        code = exits.BROKEN
    sys.exit(code)


def _check_arguments(arguments: list[str]) -> None:
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"argument {number} is not valid UTF-8.") from None


def _debug() -> None:
    if os.environ.get("DTS_DEBUG", "") not in ("", "0"):
        traceback.print_exc()


def _complain(message: str, hint: str) -> None:
    click.echo(f"Error: {message}", err=True)
    if hint:
        click.echo(hint, err=True)
