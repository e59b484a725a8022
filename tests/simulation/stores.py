"""The stores of a run: a ledger whose commits are refused or in doubt, a feed that repeats, a history that lags, a job
service that dies between its two writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dts.adapters.memory import Fate, MemoryFeed, MemoryHistory, MemoryLedger, MemoryStore
from dts.model import Change, Command, Commit, Definition, JobState, Outcome
from tests.simulation.world import run_now

if TYPE_CHECKING:
    from tests.simulation.site import Site

HISTORY_DOWN_MS = 120_000


class Ledger(MemoryLedger):
    """MemoryLedger, whose accepted commits are shown to the checkers and told to the history."""

    def __init__(self, site: Site) -> None:
        super().__init__(MemoryStore(self._fate))
        self.site = site

    def _fate(self, commit: Commit) -> Fate:
        world, options = self.site.world, self.site.options
        if world.healed or not world.chance(options.trouble):
            return Fate.COMMITTED
        return world.rng.choice([Fate.REFUSED, Fate.UNKNOWN_COMMITTED, Fate.UNKNOWN_REFUSED])

    def take(self, shard: int) -> tuple[int, list[Commit]]:  # type: ignore[override]
        epoch, commits = super().take(shard)
        self.site.checkers.taken(epoch, commits)
        return epoch, list(commits)

    def decide(self, commit: Commit) -> Outcome:
        log = self.logs[commit.shard]
        before = log.commits[-1] if log.commits else None
        outcome = super().decide(commit)
        self.site.world.note("ledger", commit.epoch, commit.seq, outcome.name)
        if log.commits and log.commits[-1] is not before:
            self.accepted(commit)
        return outcome

    def accepted(self, commit: Commit) -> None:
        self.site.feed.applied(commit.commands)
        self.site.checkers.accepted(commit)
        self.site.history.put(commit)


class Feed(MemoryFeed):
    """MemoryFeed that may say a thing twice."""

    def again(self, value: Definition | Command) -> None:
        """The same once more, at a position of its own: an at-least-once producer."""
        if isinstance(value, Definition):
            self.put(value._replace(first=False))
        else:
            self._last = (self._last[0], self._last[1] + 1)
            self._add(Change((0, self._last[1]), value))


class History:
    """The projection: takes commits in order, later, and not at all while its store is down."""

    def __init__(self, site: Site) -> None:
        self.rows = MemoryHistory()
        self._site = site
        self._queue: list[Commit] = []
        self._down_until = 0

    def put(self, commit: Commit) -> None:
        self._queue.append(commit)
        self._site.world.after(self._site.world.delay(), self.write)

    def fail(self, ms: int) -> None:
        """Its store is down so long."""
        self._down_until = self._site.world.t + ms

    def write(self) -> None:
        """What it can."""
        if self._site.world.t >= self._down_until:
            while self._queue:
                self.record(self._queue.pop(0))

    def record(self, commit: Commit) -> None:
        self.rows.record(commit)

    def catch_up(self) -> None:
        """Its store is back for good."""
        self._down_until = 0
        self.write()


class JobService:
    """Stores a revision with an intent, publishes it, acknowledges it; an intent that was left is published later."""

    def __init__(self, site: Site) -> None:
        self.jobs: dict[str, list[Definition]] = {}  # the book of record
        self.acknowledged: list[Definition] = []
        self.commands: list[Command] = []
        self.told: dict[str, int] = {}  # when a job's last revision was published
        self._site = site
        self._intents: list[Definition] = []

    def last(self, job: str) -> Definition | None:
        revisions = self.jobs.get(job)
        return revisions[-1] if revisions else None

    def exists(self, job: str) -> bool:
        last = self.last(job)
        return last is not None and last.state is not JobState.DELETED

    def change(self, definition: Definition, *, dies: bool) -> None:
        """`dies`: between the two writes, so nothing is acknowledged, but the intent is there."""
        self.store(definition)
        if dies:
            self._intents.append(definition)
        else:
            self.publish(definition)
            self.acknowledge(definition)

    def store(self, definition: Definition) -> None:
        self.jobs.setdefault(definition.job, []).append(definition)
        self._site.checkers.book.published(definition)
        self._site.checkers.rules.published(definition)

    def publish(self, definition: Definition) -> None:
        self.sweep(definition.job)  # order within a job is kept
        self._put(definition)
        self._site.fed()

    def _put(self, definition: Definition) -> None:
        self.told[definition.job] = self._site.world.t
        self._site.feed.put(definition)

    def acknowledge(self, definition: Definition) -> None:
        self.acknowledged.append(definition)

    def sweep(self, job: str = "") -> None:
        """Publishes what intents name: of one job, or all."""
        mine = [each for each in self._intents if not job or each.job == job]
        self._intents = [each for each in self._intents if each not in mine]
        for each in mine:
            self._put(each)
        self._site.fed()

    def command(self, command: Command) -> None:
        """Durable when it returns: acknowledged."""
        run_now(self._site.feed.publish([command]))
        self.commands.append(command)
        self._site.fed()
