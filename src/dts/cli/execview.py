"""Executions as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dts.cli.session import instant_of
from dts.cli.show import distance, moment, span
from dts.cli.table import clean, print_facts, print_table
from dts.gen.execution.v1 import execution_pb2 as execution

TERMINAL = frozenset({"COMPLETED", "FAILED", "SKIPPED", "CANCELLED", "LOST"})
OUTPUT_LINES = 20  # of the tail, in `execution get`


def print_executions(executions: Sequence[execution.ExecutionResponse]) -> None:
    """One line an execution."""
    rows = [
        [
            each.id,
            each.status,
            distance(instant_of(each.scheduled_time)),
            took(each),
            str(each.attempt or ""),
            why(each),
        ]
        for each in executions
    ]
    print_table(["ID", "STATUS", "SCHEDULED", "TOOK", "TRY", "WHY"], rows, cuttable=["WHY"])


def took(each: execution.ExecutionResponse | execution.Attempt) -> str:
    """How long the last attempt ran."""
    start, end = instant_of(each.start_time), instant_of(each.end_time)
    return span(end - start) if start and end >= start else ""


def why(each: execution.ExecutionResponse) -> str:
    """The first line of what went wrong, or why it waits."""
    if each.error:
        return each.error.strip().partition("\n")[0]
    if each.reason:
        return each.reason
    return f"exit code {each.exit_code}" if each.exit_code and each.status != "COMPLETED" else ""


def print_execution(shown: execution.ExecutionResponse, output: execution.GetOutputResponse | None) -> None:
    """Everything about an execution: why, its attempts, the end of its output."""
    late = instant_of(shown.start_time) - instant_of(shown.scheduled_time)
    print_facts(
        [
            ("ID", shown.id),
            ("Job", shown.job_id),
            ("Status", shown.status),
            ("Why", shown.reason or _last_failure(shown)),
            ("Error", shown.error.strip()),
            ("Kind", shown.error_kind),
            ("Exit code", str(shown.exit_code) if shown.exit_code or shown.status == "FAILED" else ""),
            ("Result", shown.result.strip()),
            ("Cause", shown.cause),
            ("Retry of", shown.retry_of),
            ("Scheduled", moment(instant_of(shown.scheduled_time))),
            ("Started", moment(instant_of(shown.start_time))),
            ("Late by", span(late) if instant_of(shown.start_time) and late > 0 and shown.cause == "schedule" else ""),
            ("Ended", moment(instant_of(shown.end_time))),
            ("Took", took(shown)),
            ("Tries again", moment(instant_of(shown.retry_time))),
            ("Attempt", str(shown.attempt or "")),
            ("Worker", shown.worker_id),
            ("Held", ", ".join(f"{name}: {way}" for name, way in sorted(shown.enforced.items()))),
            ("Revision", str(shown.revision or "")),
        ]
    )
    if shown.attempts:
        click.echo("\nEarlier attempts:")
        rows = [
            [str(each.attempt), each.status, took(each), str(each.exit_code), each.worker_id, each.error.strip()]
            for each in shown.attempts
        ]
        print_table(["TRY", "STATUS", "TOOK", "EXIT", "WORKER", "ERROR"], rows, cuttable=["ERROR"])
    if output is not None:
        _print_tail(shown.id, output)


def _last_failure(shown: execution.ExecutionResponse) -> str:
    """Why an open execution is at its second attempt or a later one."""
    if shown.status in TERMINAL or not shown.attempts:
        return ""
    last = shown.attempts[-1]
    error = last.error.strip().partition("\n")[0] or (f"exit code {last.exit_code}" if last.exit_code else "")
    return f"attempt {last.attempt} {last.status}{f': {error}' if error else ''}"


def _print_tail(id: str, output: execution.GetOutputResponse) -> None:
    text = (output.head + output.tail if not output.cut_bytes else output.tail).decode(errors="replace")
    lines = text.splitlines()
    if lines:
        more = len(lines) > OUTPUT_LINES or output.cut_bytes
        click.echo(f"\nOutput of attempt {output.attempt}{f' (the end; all of it: dts logs {id})' if more else ''}:")
        for line in lines[-OUTPUT_LINES:]:
            click.echo(f"  {clean(line)}")
