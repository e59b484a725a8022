"""Which shards this process works for: taken over side by side, kept while the ledger gives them, dropped when it does not.

Each shard that is given has one task, its keeper: it takes the shard over, then follows its feed. So a shard that waits for
its brokers, or that another process fights for, stops no other one. A keeper that is cancelled touches nothing any more.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager

from dts import bounds
from dts.core.instance import Desk, Instance
from dts.core.shard import Shard, folded
from dts.errors import OwnershipLost, StoreDamaged, Unavailable
from dts.model import Commit, Instant, ShardId
from dts.ports import Ledger

log = logging.getLogger("dts.scheduler")

FENCED_WITHIN_S = 60.0  # fencings further apart have nothing to do with each other
FENCED_PAUSES_S = (0.2, 1.0, 2.0, 4.0, 6.0)  # the first lets the group say whether it still gives the shard

Spawn = Callable[[Coroutine[None, None, None]], "asyncio.Task[None]"]
Follow = Callable[[ShardId, Desk], Coroutine[None, None, None]]


class Turns:
    """One at a time; of those that wait, the one with the lowest rank is next."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._taken = False
        self._count = 0

    @asynccontextmanager
    async def turn(self, rank: int) -> AsyncIterator[None]:
        """Waits for its turn."""
        if self._taken:
            self._count += 1
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (rank, self._count, mine))
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():
                    self._next()  # it was given the turn, and does not take it
                raise
        self._taken = True
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        while self._waiting:
            _, _, following = heapq.heappop(self._waiting)
            if not following.done():
                following.set_result(None)
                return  # stays taken
        self._taken = False


class Ownership:
    """The keepers. `many`: this is one of many shards and processes, so one that cannot be kept stands alone; else it raises."""

    def __init__(
        self,
        core: Instance,
        ledger: Ledger,
        now: Callable[[], Instant],
        spawn: Spawn,
        follow: Follow,
        *,
        many: bool = False,
    ) -> None:
        self.ready = asyncio.Event()  # the first shards are taken over
        self.given: frozenset[ShardId] = frozenset()
        self._core = core
        self._ledger = ledger
        self._now = now
        self._spawn = spawn
        self._follow = follow
        self._many = many
        self._keepers: dict[ShardId, asyncio.Task[None]] = {}
        self._side_by_side = asyncio.Semaphore(bounds.TAKE_OVERS)
        self._folds = Turns()
        self._damaged: dict[ShardId, str] = {}
        self._fenced: dict[ShardId, list[float]] = {}  # when, within FENCED_WITHIN_S

    async def run(self) -> None:
        """Follows what the ledger gives, until it is closed."""
        async for shards in self._ledger.ownership():
            self.given = shards
            for shard in [each for each in self._keepers if each not in shards]:
                self._let_go(shard)
            for shard in sorted(shards - self._keepers.keys()):
                self._keep(shard)
            self._look_whether_ready()

    def lost(self, shard: ShardId, desk: Desk, why: OwnershipLost) -> None:
        """The ledger says that this ownership is over. It is taken over anew if it is still given, after a pause."""
        if self._core.desks.get(shard) is not desk:
            return  # that is known already
        self._let_go(shard)
        self._count_fenced(shard)
        log.warning("shard %d: fenced: %s", shard, why)
        if shard in self.given:
            self._keep(shard)

    def notes(self) -> list[str]:
        """What a person should know."""
        found = [f"shard {shard} stands: {self._damaged[shard]}" for shard in sorted(self._damaged.keys() & self.given)]
        for shard in sorted(self._fenced):
            times = self._recent(shard)
            if len(times) > 1 and shard in self.given:
                found.append(f"shard {shard} is fought over: fenced {len(times)} times within {FENCED_WITHIN_S:g} s")
        waiting = self.given - self._core.desks.keys() - self._damaged.keys()
        if waiting:
            found.append(f"shards being taken over: {', '.join(map(str, sorted(waiting)))}")
        return found

    def _keep(self, shard: ShardId) -> None:
        self._keepers[shard] = self._spawn(self._keeper(shard))

    def _let_go(self, shard: ShardId) -> None:
        self._core.drop(shard)
        keeper = self._keepers.pop(shard, None)
        if keeper is not None and keeper is not asyncio.current_task():
            keeper.cancel()

    async def _keeper(self, shard: ShardId) -> None:
        desk = await self._taken(shard)
        self._look_whether_ready()
        if desk is not None:
            await self._follow(shard, desk)

    async def _taken(self, shard: ShardId) -> Desk | None:
        """Tries until it is taken over. None: what is stored of it is damaged."""
        while shard not in self._damaged:
            await self._pause(shard)
            try:
                return await self._take_over(shard)
            except OwnershipLost as error:
                self._count_fenced(shard)
                log.warning("shard %d: %s", shard, error)
            except StoreDamaged as error:
                if not self._many:
                    raise
                self._damaged[shard] = str(error)
                log.error("shard %d stands, and is not tried again by this process: %s", shard, error)
        return None

    async def _take_over(self, shard: ShardId) -> Desk:
        async with self._side_by_side:
            epoch, stored = await self._ledger.open(shard)
            commits = [commit async for commit in stored]
        async with self._folds.turn(_rank(commits)):
            state = await self._fold(shard, commits)
        self._core.install(state, epoch, self._now())
        log.info("shard %d: epoch %d, %d jobs, %d open", shard, epoch, len(state.definitions), len(state.open))
        return self._core.desks[shard]

    async def _fold(self, shard: ShardId, commits: Sequence[Commit]) -> Shard:
        """In a thread: 100 000 jobs take longer than the other shards' fires may wait."""
        try:
            return await asyncio.to_thread(folded, shard, commits)
        except Exception as error:
            if not self._many:
                raise
            raise StoreDamaged(f"what is stored of it cannot be folded: {error!r}") from error

    def _look_whether_ready(self) -> None:
        if self.given <= self._core.desks.keys() | self._damaged.keys():
            self.ready.set()

    # --- fenced

    def _recent(self, shard: ShardId) -> list[float]:
        now = asyncio.get_running_loop().time()
        times = [at for at in self._fenced.get(shard, ()) if now - at < FENCED_WITHIN_S]
        self._fenced[shard] = times
        return times

    def _count_fenced(self, shard: ShardId) -> None:
        self._recent(shard).append(asyncio.get_running_loop().time())

    async def _pause(self, shard: ShardId) -> None:
        """Raises Unavailable when the only shard is fought over: then two servers work on one store."""
        times = self._recent(shard) if shard in self._fenced else ()
        if not times:
            return
        if not self._many and len(times) > len(FENCED_PAUSES_S):
            raise Unavailable(f"shard {shard} is fought over: another server works on it. Stop one of the two.")
        pause = FENCED_PAUSES_S[min(len(times), len(FENCED_PAUSES_S)) - 1]
        log.warning(
            "shard %d: fenced %d times within %g s: next try in %g s", shard, len(times), FENCED_WITHIN_S, pause
        )
        await asyncio.sleep(pause)


def _rank(commits: Sequence[Commit]) -> int:
    """0: something is open there, perhaps; such shards go first."""
    return 0 if any(not block.status.terminal for commit in commits for block in commit.blocks) else 1
