"""Use cases of backfills: what one would run, start, progress, cancel. They are commands to the job's owner, whose state they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from dts import bounds
from dts.errors import FailedPrecondition, InvalidArgument, NotFound, OutcomeUnknown
from dts.model import (
    Backfill,
    BackfillState,
    Definition,
    Instant,
    JobState,
    StartBackfill,
    StopBackfill,
    backfill_id,
    nonce_of,
)
from dts.ports import JobStore, Live
from dts.schedule import compile_all
from dts.services.ids import command_id

PLANNED = 10  # instants that a plan names


class Plan(NamedTuple):
    """What a backfill would run. `first`: its first instants, PLANNED at most."""

    size: int
    first: Sequence[Instant]
    last: Instant


class Span(NamedTuple):
    """Which instants, in `(after, until]`, and how many executions open at once."""

    after: Instant
    until: Instant
    parallel: int


class Backfills:
    """Over the job store and the owners' live view."""

    def __init__(self, store: JobStore, live: Live, clock: Callable[[], Instant]) -> None:
        self._store = store
        self._live = live
        self._now = clock

    async def plan(self, job: str, span: Span) -> Plan:
        """What `start` would run by the job's schedule as it is. Raises NotFound, FailedPrecondition, InvalidArgument."""
        return _plan(await self._definition(job), span)

    async def start(self, job: str, span: Span, request_id: str = "") -> Backfill:
        """Begins; a repeat with the same request id gives the first one. Raises NotFound, FailedPrecondition, InvalidArgument."""
        definition = await self._definition(job)
        plan = _plan(definition, span)
        now = self._now()
        command = StartBackfill(
            command_id(request_id, f"backfill\0{job}"),
            job,
            now,
            now + bounds.COMMAND_EXPIRY_MS,
            definition.revision,
            *span,
            definition.group,
        )
        with suppress(OutcomeUnknown):  # it is durable and its id is known: the owner will come to it
            await self._live.submit(command)
        found = await self._find(job, nonce_of(command.id))
        return found or Backfill(command.id, job, now, *span[:2], definition.schedules, span.parallel, plan.size, 0)

    async def get(self, job: str, nonce: str) -> Backfill:
        """How far it is. Raises NotFound for one that never was or is forgotten."""
        found = await self._find(job, nonce)
        if found is None:
            raise NotFound("backfill", backfill_id(job, nonce), "the owner of a job knows the latest ones")
        return found

    async def list(self, job: str, after: str, limit: int) -> tuple[Sequence[Backfill], str]:
        """Of one job or of all (''), the latest first, those behind the one named `after`; and the name to go on after."""
        found = [*await self._live.backfills(job)]
        names = [str(each) for each in found]
        start = names.index(after) + 1 if after in names else 0
        page = found[start : start + limit]
        return page, str(page[-1]) if len(found) > start + limit else ""

    async def cancel(self, job: str, nonce: str, reason: str) -> Backfill:
        """Starts nothing more of it and ends what is open; how it is then. Raises NotFound, FailedPrecondition."""
        found = await self.get(job, nonce)
        if found.state is not BackfillState.RUNNING:
            raise FailedPrecondition(f"backfill {str(found)!r} is {found.state.name}: there is nothing to cancel")
        row = (await self._store.get([job])).get(job)
        now = self._now()
        stop = StopBackfill(
            command_id("", str(found)),
            job,
            now,
            now + bounds.COMMAND_EXPIRY_MS,
            nonce,
            reason,
            row.group if row is not None else "",
        )
        with suppress(OutcomeUnknown):  # it is durable: the owner will come to it
            await self._live.submit(stop)
        return await self.get(job, nonce)

    async def _find(self, job: str, nonce: str) -> Backfill | None:
        return next((each for each in await self._live.backfills(job) if each.nonce == nonce), None)

    async def _definition(self, job: str) -> Definition:
        found = await self._store.revisions(job, 0, 1)
        if not found or found[0].definition.state is JobState.DELETED:
            raise NotFound("job", job)
        return found[0].definition


def _plan(definition: Definition, span: Span) -> Plan:
    job = repr(definition.job)
    if definition.state is JobState.CANCELLED:
        raise FailedPrecondition(f"job {job} is cancelled: resume it first")
    if not definition.schedules:
        raise FailedPrecondition(f"job {job} has no schedule: there are no instants to run")
    times = compile_all(definition.schedules)
    size = times.count(span.after, span.until)
    if not size:
        raise FailedPrecondition(f"job {job} has no instant in that range")
    if size > bounds.BACKFILL_INSTANTS:
        raise InvalidArgument("from", f"{size} instants; at most {bounds.BACKFILL_INSTANTS} in one backfill")
    last = times.previous_before(span.until + 1)
    assert last is not None, "there are instants in the range"
    return Plan(size, times.between(span.after, span.until, PLANNED), last)
