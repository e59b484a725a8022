"""Gathers what core/explain.py needs to say why: revisions, the term, the verdict, and the owner's outlook."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from dts.core.explain import Explained, Facts, explain, governing
from dts.errors import InvalidArgument, InvalidSchedule, NotFound, Unavailable
from dts.model import (
    Cause,
    Definition,
    Demand,
    Execution,
    ExecutionQuery,
    Instant,
    JobView,
    Key,
    Outlook,
    Range,
    Revision,
    ShardId,
    Status,
    Term,
)
from dts.ports import History, JobStore, Live
from dts.schedule import WallTime, wall_time
from dts.services.executions import OPEN

__all__ = ["ExplainService", "Explained"]

REVISIONS = 250  # read at once
MAX_REVISIONS = 5_000  # looked at for one instant
MAX_RANGES = 1_000  # looked at for one instant
SHOWN_OPEN = 20

Words = Callable[[Revision], str]  # who paused a job, and why: '' for no pause, or nothing told


class ExplainService:
    """Over the job store, history and the owners' live view. `words` reads a revision's document."""

    def __init__(
        self,
        store: JobStore,
        live: Live,
        history: History,
        clock: Callable[[], Instant],
        words: Words,
        shards: Sequence[ShardId] = (),
    ) -> None:
        """`shards`: those whose history comes after the fact (the cluster); none: it is there with the commit."""
        self._store = store
        self._live = live
        self._history = history
        self._now = clock
        self._words = words
        self._shards = shards

    async def execution(self, key: Key) -> Explained:
        """Why an execution is as it is. One by schedule that is not there is explained by its instant. Raises NotFound."""
        revisions = await self._revisions(key.job, key.at)
        found, earlier = await self._find(key)
        if found is None:
            if key.nonce:
                raise NotFound("execution", str(key))
            return await self._at(key.job, revisions, key.at, None)
        return explain(await self._about(revisions, found, earlier))

    async def job(self, job: str, at: Instant | None, wall: str) -> Explained:
        """Why a job does what it does: now, at an instant, or at a wall time in its zone. Raises NotFound, InvalidArgument."""
        revisions = await self._revisions(job, at if at is not None else self._now())
        seen: WallTime | None = None
        if wall:
            seen = _wall(wall, revisions)
            at = seen.instants[0] if seen.instants else seen.after
        if at is not None:
            return await self._at(job, revisions, at, seen)
        opened = await self._live.executions(ExecutionQuery(job, OPEN), None, SHOWN_OPEN)
        last = (await self._history.last_ended([job])).get(job)
        current, now = revisions[0], self._now()
        queued = min((each.queued for each in opened if each.status is Status.QUEUED), default=now)
        view = await self._view(job)
        facts = Facts(
            job,
            now,
            [each.definition for each in revisions],
            open=opened,
            last=last,
            outlook=await self._outlook(job, current.definition.demand, queued),
            pause=self._words(current),
            suspended=view.suspended,
            suspension=view.suspension,
        )
        return explain(facts)

    async def _at(self, job: str, revisions: Sequence[Revision], at: Instant, wall: WallTime | None) -> Explained:
        found, earlier = await self._find(Key(job, at))
        if found is not None:
            return explain(replace(await self._about(revisions, found, earlier), wall=wall))
        definitions = [each.definition for each in revisions]
        governs = governing(definitions, at)
        own = next((each for each in revisions if each.definition is governs), None)
        now, view = self._now(), await self._view(job)
        facts = Facts(
            job,
            now,
            definitions,
            {each.definition.revision: each.change for each in revisions},
            at,
            wall,
            range=await self._range(job, at) if at <= now else None,
            term=await self._term(job, governs, at),
            outlook=await self._outlook(job, governs.demand, now) if governs is not None and at > now else None,
            complete=await self._complete(),
            pause=self._words(own) if own is not None else "",
            suspended=view.suspended,
            suspension=view.suspension,
        )
        return explain(facts)

    async def _about(self, revisions: Sequence[Revision], found: Execution, earlier: Sequence[Execution]) -> Facts:
        """The facts about one execution."""
        job, definitions = found.key.job, [each.definition for each in revisions]
        own = next((each for each in definitions if each.revision == found.revision), None)
        outlook = None
        if found.status is Status.QUEUED and own is not None:
            outlook = await self._outlook(job, own.demand, found.queued)
        term = await self._term(job, own, found.key.at) if found.cause is Cause.SCHEDULE else None
        return Facts(
            job,
            self._now(),
            definitions,
            at=found.key.at if found.cause is Cause.SCHEDULE else None,
            execution=found,
            earlier=earlier,
            term=term,
            outlook=outlook,
        )

    # ---- facts

    async def _revisions(self, job: str, at: Instant) -> list[Revision]:
        """Newest first, back to the one that owes the instant. Raises NotFound."""
        found: list[Revision] = []
        before = 0
        while len(found) < MAX_REVISIONS:
            some = await self._store.revisions(job, before, REVISIONS)
            found += some
            if len(some) < REVISIONS or some[-1].definition.since < at:
                break
            before = some[-1].definition.revision
        if not found:
            raise NotFound("job", job)
        return found

    async def _find(self, key: Key) -> tuple[Execution | None, Sequence[Execution]]:
        live = await self._live.execution(key)
        ended = await self._history.execution(key)  # asked last: it may have ended between the two questions
        if ended is not None:
            return ended
        return (None, ()) if live is None else (live, await self._history.attempts(key))

    async def _range(self, job: str, at: Instant) -> Range | None:
        ranges = await self._history.ranges(job, at, at + 1, None, MAX_RANGES)
        return next((each for each in ranges if each.after < at <= each.until), None)

    async def _term(self, job: str, definition: Definition | None, at: Instant) -> Term | None:
        if definition is None:
            return None
        terms = cast(AsyncGenerator[Sequence[Term], None], self._history.terms(job, at - 1, at))
        async with aclosing(terms) as pages:
            async for page in pages:
                for term in page:
                    if term.revision == definition.revision:
                        return term
        return None

    async def _outlook(self, job: str, demand: Demand, queued: Instant) -> Outlook | None:
        """None also when no owner answers: everything else is told all the same."""
        try:
            return await self._live.outlook(job, demand, queued)
        except Unavailable:
            return None

    async def _view(self, job: str) -> JobView:
        """What the job is doing; nothing where no owner knows it."""
        return (await self._live.views([job])).get(job, JobView())

    async def _complete(self) -> Instant:
        """How far the record has come."""
        try:
            shards, _, _ = await self._live.status()
            recorded = [await self._history.complete_until(shard) for shard in self._shards]
        except Unavailable:
            return 0  # nobody can say
        return min([*recorded, *(shard.accounted for shard in shards)], default=0)


def _wall(text: str, revisions: Sequence[Revision]) -> WallTime:
    """A wall time in the zone of the job's first schedule. Raises InvalidArgument."""
    zone = next((spec.zone for each in revisions for spec in each.definition.schedules), "UTC")
    try:
        return wall_time(text, zone)
    except InvalidSchedule as error:
        raise InvalidArgument("local", str(error)) from None
