"""The laws, watched from outside: from what the ledger accepted, what left a process, and what ran where and when.

`mirror` is the fold of what was accepted, each commit as another process would read it. Nothing here asks the generator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dts.core.fleet import amounts
from dts.core.shard import Shard
from dts.core.snapshot import snapshot
from dts.model import (
    CatchUp,
    Commit,
    Delivery,
    Demand,
    Held,
    JobState,
    Key,
    Outcome,
    Report,
    Resume,
    Retry,
    Run,
    Status,
    WorkerRef,
    new_key,
)
from dts.services.workers import Acks, Cancels, Down, Echo, Leased
from tests.simulation import backfills, workers
from tests.simulation.audited import audited
from tests.simulation.book import Book, Violation
from tests.simulation.rules import Broken, Rules
from tests.simulation.states import Canon, canon, difference, folded, recoded

if TYPE_CHECKING:
    from tests.simulation.owner import Owner
    from tests.simulation.site import Site

THOROUGH = 8  # each so many-th step the whole state is compared, and the fold of its snapshot
SMALL = 12  # open executions: a state of no more is compared after each commit


class Placed(NamedTuple):
    """What a commit named: an attempt may run there, as this."""

    worker: WorkerRef
    fencing: int
    body: bytes


@dataclass
class Checkers:
    """Each method watches one point; all raise Violation."""

    site: Site
    book: Book = field(default_factory=Book)
    rules: Rules = field(default_factory=Rules)
    mirror: Shard = field(default_factory=lambda: Shard(0))
    epoch: int = 0  # of the last to open the ledger
    commits: int = 0
    steps: int = 0
    starts: int = 0
    placed: dict[Held, Placed] = field(default_factory=dict)
    fencing: dict[Key, int] = field(default_factory=dict)
    began_: set[Held] = field(default_factory=set)
    live: dict[Key, workers.Run] = field(default_factory=dict)
    applied: Counter[bytes] = field(default_factory=Counter)
    answers: dict[bytes, str] = field(default_factory=dict)
    arrived: dict[tuple[str, WorkerRef, int], int] = field(default_factory=dict)  # beats: the step they came before
    answered: dict[str, int] = field(default_factory=dict)  # by owner: the step of its last commit that was committed
    delivered: dict[tuple[str, int], Delivery] = field(default_factory=dict)
    runs: Counter[Key] = field(default_factory=Counter)
    made: dict[tuple[int, int], int] = field(default_factory=dict)  # the step that made a commit
    seen: Counter[str] = field(default_factory=Counter)  # what happened: that the worlds are wild enough
    _canon: tuple[int, Canon] | None = None

    def broken(self, text: str) -> None:
        """A law is."""
        raise Violation(text)

    # ---- the ledger

    def taken(self, epoch: int, commits: list[Commit]) -> None:
        """An owner opened the ledger: what it is given is what was accepted."""
        if epoch <= self.epoch:
            raise Violation(f"2: epoch {epoch} was given after {self.epoch}")
        self.epoch = epoch
        found = difference(self.state() | {"epoch": 0}, canon(folded(commits)) | {"epoch": 0})
        if found:
            raise Violation(f"2: what is folded is not what was committed: {found}")

    def state(self) -> Canon:
        """The mirror's, to be compared."""
        if self._canon is None or self._canon[0] != self.mirror.seq:
            self._canon = (self.mirror.seq, canon(self.mirror))
        return self._canon[1]

    def accepted(self, commit: Commit) -> None:
        """The ledger took it."""
        if commit.epoch != self.epoch:
            raise Violation(f"2: epoch {commit.epoch} committed {commit.seq} when {self.epoch} owned the shard")
        if commit.seq != self.mirror.seq + 1:
            raise Violation(f"2: commit {commit.seq} follows {self.mirror.seq}")
        self.commits += 1
        self._resumes(commit)
        self._notice(commit)
        self.book.committed(commit)
        self._obeyed(lambda: self.rules.committed(commit))
        self._placements(commit)
        for definition in commit.definitions:
            self.delivered[definition.job, definition.revision] = definition.policies.delivery
        for command in commit.commands:
            self.applied[command] += 1
            if self.applied[command] > 1:
                raise Violation(f"5: command {command.hex()} was applied twice")
        for id, text in commit.answers:
            if id in self.applied:
                self.answers.setdefault(id, text)
        self.mirror.apply(recoded(commit))
        self.book.check(self.mirror)

    @staticmethod
    def _obeyed(look: Callable[[], None]) -> None:
        try:
            look()
        except Broken as broken:
            raise Violation(str(broken)) from broken

    def _resumes(self, commit: Commit) -> None:
        for command in self.site.service.commands:
            if isinstance(command, Resume) and command.id in commit.commands and command.catch_up is not CatchUp.SKIP:
                self.book.resumed.add(command.job)

    def _notice(self, commit: Commit) -> None:
        seen = self.seen
        for block in commit.blocks:
            seen[block.status.name] += len(block.keys)
            again = block.status is Status.QUEUED and block.attempt > 0
            for why in ("does not hold it", "was lost", "handed back", "lost by its worker"):
                if why in block.reason and (again or block.status.terminal):
                    seen[why] += len(block.keys)
            if block.status is Status.PLACED and block.attempt > 1:
                seen["placed again"] += len(block.keys)
            if block.status is Status.PLACED and block.cancel:
                seen["cancelled while placed"] += 1
        seen["gap"] += bool(commit.gaps)
        seen["owed"] += bool(commit.owed)
        seen["range"] += len(commit.ranges)
        seen["commands held"] += bool(commit.waiting)
        seen["a job again"] += sum(
            self.book.accounts[each.job].last is not None and each.job not in self.mirror.definitions
            for each in commit.definitions
        )

    def _placements(self, commit: Commit) -> None:
        for block in commit.blocks:
            if block.status is not Status.PLACED or block.fencing != commit.seq:
                continue
            if block.worker is None:
                raise Violation(f"5: {block.keys[0]} is placed nowhere")
            for key, revision in zip(block.keys, block.revisions, strict=True):
                if self.fencing.get(key, 0) >= block.fencing:
                    raise Violation(f"5: {key} has fencing number {block.fencing} after {self.fencing[key]}")
                self.fencing[key] = block.fencing
                body = block.arguments or self.site.body(key.job, revision)
                self.placed[Held(key, block.attempt)] = Placed(block.worker, block.fencing, body)

    # ---- an owner

    def adopted(self, owner: Owner) -> None:
        """It folded the ledger's commits: unless another was faster, it stands where the ledger stands."""
        assert owner.desk is not None
        self._same(owner, "at the take-over")
        self._fleet(owner)

    def _same(self, owner: Owner, when: str) -> None:
        assert owner.desk is not None
        shard = owner.desk.shard
        if shard.seq == self.mirror.seq:
            found = difference(self.state() | {"epoch": 0}, canon(shard) | {"epoch": 0})
            if found:
                raise Violation(f"2: {owner} is not the fold of the commits {when}: {found}")

    def before_step(self, owner: Owner) -> object:
        self.steps += 1
        return self._print(owner, thorough=self.steps % THOROUGH == 0)

    def _print(self, owner: Owner, *, thorough: bool) -> object:
        if owner.desk is None:
            return None
        shard = owner.desk.shard
        if thorough:
            return canon(shard)
        return shard.seq, shard.epoch, shard.watermark, shard.applied, tuple(shard.counts.values()), len(shard.owed)

    def stepped(self, owner: Owner, before: object, commits: Sequence[Commit]) -> None:
        """Deciding writes nothing."""
        if before != self._print(owner, thorough=isinstance(before, dict)):
            raise Violation(f"2: {owner} changed its state before it committed")
        for commit in commits:
            self.made[commit.epoch, commit.seq] = self.steps
        if commits:
            self._fleet(owner)

    def undecided(self, owner: Owner) -> None:
        """Its commit is in doubt: it decides nothing."""
        if owner.desk is not None and owner.desk.draft is None:
            raise Violation(f"2: {owner} went on while a commit was in doubt")

    def before_settle(self, owner: Owner, outcome: Outcome) -> object:
        return self._print(owner, thorough=True) if outcome is Outcome.REFUSED else None

    def settled(self, owner: Owner, commit: Commit, outcome: Outcome, before: object) -> None:
        """Of a refused commit nothing is kept; a committed one is what the ledger has."""
        if outcome is Outcome.REFUSED:
            if before != self._print(owner, thorough=True):
                raise Violation(f"2: {owner} kept something of refused commit {commit.seq}")
        else:
            self.answered[owner.name] = self.made[commit.epoch, commit.seq]
            assert owner.desk is not None
            if len(owner.desk.shard.open) <= SMALL or commit.seq % THOROUGH == 0:
                self._same(owner, f"after {commit.seq}")
        if self.commits % THOROUGH == 0:
            found = difference(self.state(), canon(folded(snapshot(self.mirror, self.site.options.part))))
            if found:
                raise Violation(f"2: the snapshot's fold is another state: {found}")
        self._fleet(owner)

    def _fleet(self, owner: Owner) -> None:
        desk, fleet = owner.desk, owner.core.fleet
        if desk is None:
            return
        taken: dict[str, Counter[str]] = {id: Counter() for id in fleet.members}
        for worker, keys in desk.shard.placed.items():
            for key in keys:
                _add(taken.setdefault(worker.id, Counter()), desk.shard.open[key][0].demand, 1)
        if desk.draft is not None:
            for place in desk.places:
                demand = desk.draft.ready[place.ready].demand
                _add(taken.setdefault(place.worker.id, Counter()), demand, place.size)
        for id, expected in taken.items():
            found: Counter[str] = Counter()
            _add(found, fleet.taken(id), 1)
            if +found != +expected:
                raise Violation(f"6: at {owner}, {id} has {+found} taken, but {+expected} is placed or held there")
            total, backlog = self.site.capacity(id)
            if found["slots"] > total.slots + backlog or found["cpu"] > total.cpu:
                raise Violation(f"6: {owner} placed {+found} at {id}")

    # ---- what leaves an owner, and what it hears

    def reported(self, owner: Owner, report: Report) -> None:
        """A worker's report arrived."""
        if report.beat:
            self.arrived[owner.name, report.worker, report.beat] = self.steps

    def dispatched(self, owner: Owner, worker: WorkerRef, item: Down) -> None:
        """It leaves: a commit must have said so before."""
        match item:
            case Leased(_, lease):
                for key in lease.block.keys:
                    self._named(Held(key, lease.block.attempt), worker, lease.block.fencing, f"{owner} leased")
            case Acks(_, held):
                for each in held:
                    if self._holds(worker, each):
                        raise Violation(f"5: {owner} acknowledged the end of {each}, which no commit has")
            case Cancels(_, _, items):
                for each, reason in items:
                    if self._holds(worker, each) and not self.mirror.open[each.key][0].cancel:
                        raise Violation(f"5: {owner} cancelled {each} ({reason}), which no commit has")
            case Echo(_, _, beat):
                if self.answered.get(owner.name, -1) <= self.arrived[owner.name, worker, beat]:
                    raise Violation(f"5: {owner} answered beat {beat} of {worker} before a commit")
            case _:
                pass

    def _holds(self, worker: WorkerRef, held: Held) -> bool:
        entry = self.mirror.open.get(held.key)
        if entry is None:
            return False
        block = entry[0]
        return block.status is Status.PLACED and block.worker == worker and block.attempt == held.attempt

    def _named(self, held: Held, worker: WorkerRef, fencing: int, what: str) -> Placed:
        placed = self.placed.get(held)
        if placed is None:
            raise Violation(f"5: {what} {held}, which no commit names")
        if placed.worker != worker or placed.fencing != fencing:
            raise Violation(f"5: {what} {held} at {worker} with {fencing}, but commits say {placed}")
        return placed

    # ---- workers

    def began(self, worker: workers.Worker, run: workers.Run) -> None:
        """A task's first instruction."""
        attempt = run.attempt
        key = attempt.id.key
        self.site.world.note(worker, "starts", key, attempt.number)
        placed = self._named(attempt.id, worker.ref, attempt.fencing, f"{worker} started")
        if placed.body != attempt.body:
            raise Violation(f"5: {worker} runs {attempt.body!r} as {key}, which is {placed.body!r}")
        if attempt.id in self.began_:
            raise Violation(f"5: {attempt.id} started twice")
        self.began_.add(attempt.id)
        if key in self.live:
            raise Violation(f"5: {key} runs twice at once: attempts {self.live[key].attempt.number}, {attempt.number}")
        self.runs[key] += 1
        self.starts += 1
        if self.runs[key] > 1 and self.site.at_most_once(key, attempt.body):
            raise Violation(f"5: {key} was to start at most once")
        self._obeyed(lambda: self.rules.running(key, self.live))
        self.live[key] = run
        self.worker(worker)

    def ended(self, worker: workers.Worker, run: workers.Run) -> None:
        """It is no more."""
        self.site.world.note(worker, "ends", run.attempt.id.key, run.attempt.number)
        if self.live.pop(run.attempt.id.key, None) is not run:
            raise Violation(f"5: {run.attempt.id} ended and did not run")

    def worker(self, worker: workers.Worker) -> None:
        """What runs fits."""
        used: Counter[str] = Counter()
        for run in worker.runs.values():
            if run.began >= 0 and not run.ended:
                _add(used, run.attempt.demand, 1)
        total = worker.info.total
        if used["slots"] > total.slots or used["cpu"] > total.cpu or used["gpu"] > dict(total.custom).get("gpu", 0):
            raise Violation(f"6: {worker} runs {used}")

    # ---- the end

    def finish(self) -> None:
        """All has healed and come to rest."""
        site = self.site
        self.seen.update(self.rules.seen)
        if self.live:
            raise Violation(f"5: {next(iter(self.live))} still runs")
        self.book.finished(self.mirror)
        backfills.check(self.mirror, self.book)
        backfills.finished(self.mirror)
        self._acknowledged()
        for owner in site.owners:
            if owner.alive and owner.desk is not None:
                self._same(owner, "at the end")
        audited(site, self.book, self.mirror)

    def _acknowledged(self) -> None:
        service = self.site.service
        latest = {each.job: each for each in service.acknowledged}
        for job, definition in latest.items():
            found = self.mirror.guises.get(job) or self.mirror.definitions.get(job)
            stored = service.jobs.get(job, [])
            if definition not in stored:
                raise Violation(f"8: revision {definition.revision} of {job} was acknowledged and is not stored")
            known = self.book.accounts[job].last
            if known is None or known.definition.revision < definition.revision:
                raise Violation(f"8: revision {definition.revision} of {job} was acknowledged and never applied")
            if definition.state is not JobState.DELETED and definition is stored[-1]:
                same = found is not None and found._replace(since=0, first=True) == definition._replace(since=0)
                if not same:
                    raise Violation(f"8: {job} is {found}, acknowledged was {definition}")
        for command in service.commands:
            if not self.applied[command.id]:
                raise Violation(f"8: command {command} was acknowledged and never applied")
            answer = self.answers.get(command.id, "")
            if (
                isinstance(command, Run | Retry)
                and not answer.startswith("!")
                and new_key(command) not in self.book.status
            ):
                raise Violation(f"8: command {command} was applied, but nothing came of it")


def _add(to: Counter[str], demand: Demand, times: int) -> None:
    for name, amount in zip(("cpu", "memory", "storage", "slots"), amounts(demand), strict=True):
        to[name] += amount * times
    for name, amount in demand.custom:
        to[name] += amount * times
