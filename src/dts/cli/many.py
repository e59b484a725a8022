"""Cancel and retry of many executions from the command line: page after page, then one account of all."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dts.cli import exits
from dts.cli.session import client, print_message
from dts.cli.table import clean
from dts.gen.execution.v1 import execution_pb2 as execution

NAMED = 20  # refusals that are told one by one


def cancel_many(request: execution.CancelExecutionsRequest, output: str | None) -> int:
    """All pages of a cancel. 1 when some were refused, else 0."""
    done = execution.CancelExecutionsResponse()
    with client() as dts:
        while True:
            page = dts.cancel_executions(request)
            done.ids.extend(page.ids)
            done.refused.extend(page.refused)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    if not print_message(done, output):
        _tell(("cancelled", "cancel"), done.ids, done.refused, dry_run=request.dry_run)
    return exits.FINDINGS if done.refused else exits.OK


def retry_many(request: execution.RetryExecutionsRequest, output: str | None) -> int:
    """All pages of a retry. 1 when some were refused, else 0."""
    done = execution.RetryExecutionsResponse()
    with client() as dts:
        while True:
            page = dts.retry_executions(request)
            done.ids.extend(page.ids)
            done.execution_ids.extend(page.execution_ids)
            done.refused.extend(page.refused)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    if not print_message(done, output):
        _tell(("retried", "retry"), done.execution_ids or done.ids, done.refused, dry_run=request.dry_run)
    return exits.FINDINGS if done.refused else exits.OK


def _tell(words: tuple[str, str], ids: Sequence[str], refused: Sequence[execution.Refusal], *, dry_run: bool) -> None:
    for id in ids:
        click.echo(id)
    for each in refused[:NAMED]:
        click.echo(f"Refused: {each.id}: {clean(each.problem)}", err=True)
    if len(refused) > NAMED:
        click.echo(f"... and {len(refused) - NAMED} more were refused", err=True)
    plural = "execution" if len(ids) == 1 else "executions"
    click.echo(f"Would {words[1]}: {len(ids)} {plural}" if dry_run else f"Executions {words[0]}: {len(ids)}", err=True)
