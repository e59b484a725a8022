"""`dts worker`: run one; list those that are attached; cordon, uncordon and drain them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import click

from dts.cli import exits, options
from dts.cli.options import output_option, watch_option
from dts.cli.session import client, instant_of, print_message
from dts.cli.show import distance, redraw
from dts.cli.table import print_table
from dts.client import DtsClient
from dts.config import Config, load
from dts.gen.scheduler.v1 import scheduler_pb2 as scheduler

DRAIN_LOOK_S = 0.5

# Each option of a worker is the variable beside it, for this process.
_VARIABLES = {
    "worker_id": "DTS_WORKER_ID",
    "cpu": "DTS_CPU",
    "memory": "DTS_MEMORY",
    "storage": "DTS_STORAGE",
    "slots": "DTS_SLOTS",
    "label": "DTS_LABELS",
    "resource": "DTS_RESOURCES",
}


@click.group("worker", invoke_without_command=True)
@click.option("--scheduler", "schedulers", metavar="HOST:PORT[,...]", help="Scheduler instances; one finds the rest.")
@click.option("--id", "worker_id", metavar="ID", help="The worker's name.")
@click.option("--cpu", type=options.amount, help="Millicores it offers. Default: what the machine has.")
@click.option("--memory", type=options.amount, help="MiB of memory it offers. Default: what the machine has.")
@click.option("--storage", type=options.amount, help="MiB of disk it offers. Default: what is free.")
@click.option("--slots", type=options.amount, help="Tasks it runs at once. Default: 64.")
@click.option("--label", type=options.pair, multiple=True, help="A label, such as zone=a. Repeatable.")
@click.option("--resource", type=options.pair, multiple=True, help="A custom resource, such as gpu=2. Repeatable.")
@click.pass_context
def group(context: click.Context, /, schedulers: str | None, **given: object) -> int:
    """Run a worker on this machine that attaches to a scheduler; with a subcommand, look after those that are attached.

    It needs the scheduler's token in DTS_WORKER_TOKEN: the file beside its database that ends in .token.

    \b
    dts worker --scheduler scheduler.example.com:50052 --slots 50 --label zone=a
    dts worker list
    """
    if context.invoked_subcommand is not None:
        return exits.OK
    from dts.server import serve_worker  # noqa: PLC0415 - `worker list` needs none of it

    config = _config(given)
    host = f"[{config.host}]" if ":" in config.host else config.host
    addresses = (schedulers or f"{host}:{config.ports.scheduler_grpc}").split(",")
    return serve_worker(config, [address.strip() for address in addresses if address.strip()])


def _config(given: Mapping[str, object]) -> Config:
    """The settings, with the options in the place of their variables: both are checked alike."""
    changed = dict(os.environ)
    for option, variable in _VARIABLES.items():
        value = given[option]
        if isinstance(value, tuple) and value:
            changed[variable] = ",".join(f"{name}={what}" for name, what in value)
        elif isinstance(value, str | int):
            changed[variable] = str(value)
    return load(changed, Path(".env"))


@group.command("list")
@watch_option
@output_option
def list_(watch: bool, output: str | None) -> int:
    """The attached workers, what they offer and what is taken of it."""
    with client() as dts:
        redraw(lambda: _list(dts, output), watch)
    return exits.OK


def _list(dts: DtsClient, output: str | None) -> None:
    found = dts.list_workers()
    if print_message(found, output):
        return
    rows = [_row(each) for each in found.workers]
    heads = ["ID", "HOST", "PID", "STATE", "TASKS", "SLOTS", "CPU", "MEMORY", "HEARD", "LABELS"]
    print_table(heads, rows, cuttable=["LABELS", "HOST"])


@group.command("cordon")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def cordon(ids: tuple[str, ...]) -> int:
    """Give a worker nothing new; what it has, it runs."""
    with client() as dts:
        for id in ids:
            dts.cordon_worker(id)
            click.echo(f"Worker cordoned: {id}")
    return exits.OK


@group.command("uncordon")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def uncordon(ids: tuple[str, ...]) -> int:
    """Give a worker new work again."""
    with client() as dts:
        for id in ids:
            dts.uncordon_worker(id)
            click.echo(f"Worker uncordoned: {id}")
    return exits.OK


@group.command("drain")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--grace", type=options.duration, help="End what still runs after it. Default: it may finish.")
@click.option("--wait", is_flag=True, help="Wait until nothing runs there.")
def drain(ids: tuple[str, ...], grace: int | None, wait: bool) -> int:
    """Cordon a worker and hand back what waits there; what runs may finish.

    \b
    dts worker drain builder-1 --grace 10m --wait
    """
    with client() as dts:
        for id in ids:
            dts.drain_worker(id, -(-(grace or 0) // 1000))
            click.echo(f"Worker drains: {id}")
        while wait and any(each.id in ids and each.attempts for each in dts.list_workers().workers):
            time.sleep(DRAIN_LOOK_S)
    return exits.OK


def _state(each: scheduler.Worker) -> str:
    if not each.attached:
        return "gone"
    return "leaving" if each.leaving else "cordoned" if each.cordoned else "attached"


def _row(each: scheduler.Worker) -> list[str]:
    has, taken = each.capacity, each.taken
    return [
        each.id,
        each.host,
        str(each.pid),
        _state(each),
        str(each.attempts),
        f"{taken.slots}/{has.slots}",
        f"{taken.cpu}/{has.cpu}",
        f"{taken.memory}/{has.memory}",
        distance(instant_of(each.last_heard)),
        ",".join(f"{name}={value}" for name, value in sorted(each.labels.items())),
    ]
