"""Deliberately broken parts, some for each law: what shows that the checkers would see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from dts.core import decide, instance, reports, shard
from dts.core.fires import Fires
from dts.core.groups import Groups
from dts.core.instance import Desk, Instance
from dts.core.shard import Applied, Shard
from dts.core.turns import Turns
from dts.model import (
    Commit,
    Definition,
    Effects,
    Held,
    Instant,
    Key,
    Lease,
    Outcome,
    Owed,
    ShardId,
    Status,
    Streak,
    Watermark,
    WorkerRef,
)
from dts.worker.attempts import Capacity
from dts.worker.leases import Leases
from tests.simulation import checkers, states
from tests.simulation.site import Build
from tests.simulation.stores import History, JobService, Ledger


class Variant(NamedTuple):
    """`seeds`: within so many, from 1 on, the checkers see that law `law` is broken."""

    law: int
    build: Build
    seeds: int


# ---- law 1


class ForgetfulFires(Fires):
    """Each fiftieth due instant is overlooked."""

    def due(self, instant: Instant, definitions: Iterable[Definition]) -> None:
        super().due(instant, [each for each in definitions if instant // 5_000 % 50 or each.job == "a"])


class ForgivingShard(Shard):
    """What is owed behind the watermark is forgotten."""

    def _owe(self, job: str, pieces: Sequence[Owed]) -> None:
        super()._owe(job, pieces[:-1])


class HopelessShard(Shard):
    """What failed is never tried again."""

    def apply(self, commit: Commit) -> Applied:
        applied = super().apply(commit)
        self.retries.clear()
        return applied


# ---- law 2


class OpenLedger(Ledger):
    """It does not fence: who comes commits."""

    def decide(self, commit: Commit) -> Outcome:
        self.logs[commit.shard].commits.append(commit)
        self.accepted(commit)
        return Outcome.COMMITTED


class HastyInstance(Instance):
    """What is refused is applied all the same."""

    def settle(self, commit: Commit, outcome: Outcome, now: Instant) -> Effects | None:
        if outcome is Outcome.REFUSED:
            super().settle(commit, Outcome.COMMITTED, now)
            return None
        return super().settle(commit, outcome, now)


class SureInstance(Instance):
    """In doubt, it takes a commit for refused and goes on."""

    def settle(self, commit: Commit, outcome: Outcome, now: Instant) -> Effects | None:
        if outcome is Outcome.UNKNOWN:
            outcome = Outcome.REFUSED
        return super().settle(commit, outcome, now)


# ---- law 5


class ActingInstance(Instance):
    """It acts on a commit that was refused: leases leave, the state stays."""

    def settle(self, commit: Commit, outcome: Outcome, now: Instant) -> Effects | None:
        effects = super().settle(commit, outcome, now)
        if outcome is not Outcome.REFUSED:
            return effects
        leases: dict[WorkerRef, list[Lease]] = {}
        for block in commit.blocks:
            if block.worker is not None and block.status is Status.PLACED and block.fencing == commit.seq:
                bodies = [f"{key.job}/{each}".encode() for key, each in zip(block.keys, block.revisions, strict=True)]
                leases.setdefault(block.worker, []).append(
                    Lease(block, (block.arguments and [block.arguments]) or bodies)
                )
        return Effects(leases=leases)


class ImpatientInstance(Instance):
    """It takes timed leases for over when half their time is."""

    def _over_at(self, answered: Instant) -> Instant:
        return answered + self.lease_ms // 2


class TrustingInstance(Instance):
    """It acknowledges what a worker said also if that was not committed."""

    def settle(self, commit: Commit, outcome: Outcome, now: Instant) -> Effects | None:
        draft = self.desks[commit.shard].draft
        effects = super().settle(commit, outcome, now)
        if outcome is Outcome.REFUSED and draft is not None:
            return Effects(acks=draft.acks)
        return effects


class ObedientLeases(Leases):
    """It takes leases whatever report they echo."""

    def lease(self, shard_id: ShardId, lease: Lease, now: int) -> None:
        shard = self._shards.get(shard_id)
        if shard is not None:
            echoed = lease.block
            block = replace(echoed, report=(shard.epoch, shard.number), fencing=max(echoed.fencing, shard.fence))
            super().lease(shard_id, Lease(block, lease.bodies), now)
            for attempt in self.held():
                if attempt.id.key in echoed.keys and attempt.number == echoed.attempt:
                    attempt.fencing = echoed.fencing


class EndlessLeases(Leases):
    """Its timed leases have no end, and its guard knows none."""

    def deadlines(self) -> dict[ShardId, int]:
        return dict.fromkeys(super().deadlines(), 1 << 40)

    def _run_out(self, shard, now: int) -> None:  # type: ignore[no-untyped-def]
        del now
        shard.stage = 2


def _held_by_all(shard: Shard, draft, report) -> None:  # type: ignore[no-untyped-def]
    """What a report does not list is free, also what was placed after it."""
    held = set(report.held)
    missing = [
        key
        for key in shard.placed.get(report.worker, ())
        if key not in draft.touched and Held(key, shard.open[key][0].attempt) not in held
    ]
    reports._lost(shard, draft, missing, "not held", 1)


# ---- law 6


class LeakyInstance(Instance):
    """Of a refused commit the places stay held."""

    def _release_places(self, desk: Desk) -> None:
        desk.places = ()


class Boundless(Capacity):
    """Everything fits."""

    def fits(self, demand) -> bool:  # type: ignore[no-untyped-def]
        del demand
        return True


class GreedyLeases(Leases):
    """It starts more than it has room for."""

    def __init__(self, *arguments) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*arguments)
        self._free = Boundless(self.total)


# ---- laws 7 and 8


class LossyHistory(History):
    """It loses a row now and then."""

    def record(self, commit: Commit) -> None:
        blocks = [each for each in commit.blocks if not (each.status.terminal and commit.seq % 20 == 0)]
        super().record(replace(commit, blocks=blocks))


class HastyService(JobService):
    """It acknowledges before it stores: what it dies over is gone."""

    def change(self, definition: Definition, *, dies: bool) -> None:
        if dies:
            self.acknowledge(definition)
        else:
            super().change(definition, dies=False)


# ---- the jobs' policies


class NoTurns(Turns):
    """Nobody waits for a turn."""

    def due(self, definition: Definition, key: Key) -> str:
        del definition, key
        return ""


class LongLines(Turns):
    """Who should be skipped waits."""

    def due(self, definition: Definition, key: Key) -> str:
        return "waits" if super().due(definition, key) else ""


class GenerousGroups(Groups):
    """Each group lets one more be placed."""

    def limit(self, group: str) -> int:
        return super().limit(group) + 1


def _always(policies: object, end: object) -> bool:
    """What failed may be tried again."""
    del policies, end
    return True


class LiveShard(Shard):
    """A suspended job goes on firing."""

    def _suspend(self, streak: Streak) -> None:
        super()._suspend(streak)
        if streak.job in self.guises and streak.job not in self.timetable:
            self.timetable.put(self.guises[streak.job])


class ForgivingStreaks(Shard):
    """A job's failures in a row are not kept."""

    def _streak(self, streak: Streak, watermark: Watermark) -> None:
        if streak.since or streak == Streak(streak.job):
            super()._streak(streak, watermark)


class PatientShard(Shard):
    """Nobody waits for too long."""

    def apply(self, commit: Commit) -> Applied:
        applied = super().apply(commit)
        self.deadlines.clear()
        return applied


class StuckShard(Shard):
    """It does not see when someone's turn has come."""

    def _turn(self, job: str) -> bool:
        del job
        return False


def _core(kind: type[Shard]) -> Build:
    """A shard that is broken wherever its state is folded."""
    return Build(patches=tuple((module, "Shard", kind) for module in (shard, instance, checkers, states)))


VARIANTS: dict[str, Variant] = {
    "a due instant is overlooked": Variant(1, Build(patches=((decide, "Fires", ForgetfulFires),)), 20),
    "debt is forgotten": Variant(1, _core(ForgivingShard), 20),
    "retries are forgotten": Variant(1, _core(HopelessShard), 20),
    "the ledger does not fence": Variant(2, Build(ledger=OpenLedger), 20),
    "a refused commit is applied": Variant(2, Build(instance=HastyInstance), 20),
    "a commit in doubt is taken for refused": Variant(2, Build(instance=SureInstance), 20),
    "a refused commit is acted on": Variant(5, Build(instance=ActingInstance), 20),
    "timed leases end too early for the owner": Variant(5, Build(instance=ImpatientInstance), 200),
    "ends are acknowledged too early": Variant(5, Build(instance=TrustingInstance), 50),
    "leases echo nothing": Variant(5, Build(leases=ObedientLeases), 200),
    # Where it shows first: more of a group run at once than may, since a task runs on beside the one that took its place.
    "timed leases do not end for the worker": Variant(9, Build(leases=EndlessLeases), 400),
    "reports free what was placed after them": Variant(5, Build(patches=((reports, "_held", _held_by_all),)), 200),
    "places of refused commits stay held": Variant(6, Build(instance=LeakyInstance), 20),
    "a worker starts more than fits": Variant(6, Build(leases=GreedyLeases), 20),
    "nobody waits for a turn": Variant(9, Build(patches=((decide, "Turns", NoTurns),)), 20),
    "who should be skipped waits": Variant(9, Build(patches=((decide, "Turns", LongLines),)), 60),
    "a group is too generous": Variant(9, Build(patches=((shard, "Groups", GenerousGroups),)), 40),
    "whose turn has come does not start": Variant(1, _core(StuckShard), 40),
    "any failure is tried again": Variant(9, Build(patches=((reports, "tried_again", _always),)), 120),
    "a suspended job goes on": Variant(9, _core(LiveShard), 200),
    "failures in a row are forgotten": Variant(9, _core(ForgivingStreaks), 100),
    "nobody is too late": Variant(9, _core(PatientShard), 60),
    "the history loses a row": Variant(7, Build(history=LossyHistory), 20),
    "a change is acknowledged before it is stored": Variant(8, Build(service=HastyService), 20),
}
