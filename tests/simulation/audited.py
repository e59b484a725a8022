"""The audit that people get, over the recorded history: clean, and of one mind with the account from outside."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dts.core.audit import Facts, Tally, Window, audit_job
from dts.core.shard import Shard
from dts.model import Cause, Key, Status
from tests.simulation.book import Book, Violation
from tests.simulation.world import NEVER, all_of, run_now

if TYPE_CHECKING:
    from tests.simulation.site import Site


def audited(site: Site, book: Book, shard: Shard) -> None:
    """Raises Violation: 7 for what the record lacks, 1 for what does not add up."""
    site.history.catch_up()
    _recorded(site, book)
    rows = site.history.rows
    complete = shard.watermark[0] if shard.watermark[1] == "~" else shard.watermark[0] - 1
    window = Window(0, complete, min(complete, run_now(rows.complete_until(0))), "r")
    total = Tally()
    for job, revisions in sorted(site.service.jobs.items()):
        facts = Facts(
            job,
            revisions,
            all_of(rows.terms(job, 0, NEVER)),
            [each for each in all_of(rows.scheduled(job, 0, complete)) if each.cause is Cause.SCHEDULE],
            run_now(rows.ranges(job, 0, NEVER, None, 1_000_000)),
            shard.streaks[job].since if job in shard.guises else 0,
        )
        total.add(audit_job(facts, window))
    if not total.clean:
        raise Violation(f"1: the audit finds {dict(total.kinds)}: {total.findings[:3]}")
    _agrees(site, book, total, complete)


def _recorded(site: Site, book: Book) -> None:
    for key, status in book.status.items():
        found = run_now(site.history.rows.execution(key))
        if found is None or found[0].status is not status:
            raise Violation(f"7: {key} is {status.name}, and the history has {found and found[0].status.name}")


def _agrees(site: Site, book: Book, total: Tally, complete: int) -> None:
    """The same instants are due, and the same statuses came of them."""
    due = 0
    statuses: Counter[str] = Counter()
    for job, account in book.accounts.items():
        some = account.due_until(complete)
        due += len(some)
        found = (book.status.get(Key(job, at)) for at in some)
        statuses.update(status.name for status in found if status is not None)
    said = {name: count for name, count in total.verdicts.items() if name in Status.__members__}
    if total.due != due or said != dict(statuses):
        raise Violation(f"1: audit has {total.due} due, {said}; the book {due}, {dict(statuses)}")
