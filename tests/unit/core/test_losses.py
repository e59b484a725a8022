"""Who is to blame when a worker dies: what ran there five times is LOST, what only waited goes on."""

from __future__ import annotations

from dataclasses import replace

from dts import bounds
from dts.core.draft import Draft
from dts.core.reports import decide_reports, lost_workers
from dts.core.shard import Shard
from dts.model import Block, Commit, Demand, End, Held, Key, Report, Status, WorkerRef

WORKER = WorkerRef("local", "one")
RAN, WAITED = Key("a", 1_000), Key("b", 1_000)
DEMAND = Demand()
PLACED = Block((RAN, WAITED), (1, 1), DEMAND, Status.PLACED, 1, worker=WORKER, report=(1, 1), fencing=1, life=True)


class World:
    """A shard with two placed executions whose worker dies again and again."""

    def __init__(self) -> None:
        self.shard = Shard(0)
        self.seq = 0
        self._apply((PLACED,))

    def _apply(self, blocks: tuple[Block, ...]) -> None:
        self.seq += 1
        fenced = tuple(replace(each, fencing=self.seq) for each in blocks)
        self.shard.apply(Commit(0, 1, self.seq, 1_000, (1_000, "~"), (0, 0), blocks=fenced))

    def draft(self) -> Draft:
        shard = self.shard
        return Draft(0, 1, self.seq + 1, 1_000, shard.watermark, shard.applied, shard.gaps, shard.held_commands)

    def decide(self, draft: Draft) -> dict[Key, Block]:
        """The outcome; what was put back is placed again."""
        found = {key: block for block in draft.decided for key in block.keys}
        again = tuple(
            replace(block, status=Status.PLACED, attempt=block.attempt + 1, worker=WORKER)
            for block in draft.decided
            if block.status is Status.QUEUED
        )
        ended = tuple(block for block in draft.decided if block.status.terminal)
        self._apply(ended + again)
        return found

    def dies(self, *running: Key) -> dict[Key, Block]:
        draft = self.draft()
        held = [Held(key, self.shard.open[key][0].attempt) for key in running]
        decide_reports(self.shard, draft, [Report(WORKER, 1, 0, timed=False, held=held, gone=True)])
        return self.decide(draft)


def test_what_ran_is_lost_the_fifth_time_and_what_waited_is_not() -> None:
    world = World()
    for _ in range(4):
        found = world.dies(RAN)
        assert {found[RAN].status, found[WAITED].status} == {Status.QUEUED}
    found = world.dies(RAN)
    assert found[RAN].status is Status.LOST
    assert found[RAN].reason == "worker local was lost; too often"
    assert found[WAITED].status is Status.QUEUED


def test_an_earlier_attempt_that_ran_is_no_blame_of_this_one() -> None:
    world = World()
    world.dies(RAN)
    draft = world.draft()
    decide_reports(world.shard, draft, [Report(WORKER, 1, 0, timed=False, held=[Held(RAN, 1)], gone=True)])
    assert {block.losses for block in draft.decided} == {bounds.LOSS_RUNNING + 1, 2}


def test_nothing_is_put_back_for_ever() -> None:
    world, deaths = World(), 0
    while world.shard.open:
        deaths += 1
        assert deaths <= bounds.MAX_LOSSES
        world.dies()
    assert deaths == bounds.MAX_LOSSES


def test_a_worker_elsewhere_that_vanished_may_have_run_all_it_held() -> None:
    world = World()
    draft = world.draft()
    lost_workers(world.shard, draft, [WORKER])
    assert {block.losses for block in draft.decided} == {bounds.LOSS_RUNNING}


def test_what_is_handed_back_unstarted_weighs_little() -> None:
    world = World()
    draft = world.draft()
    back = Block((RAN, WAITED), (), DEMAND, Status.QUEUED, 1, ends=(End(started=5, error="the worker leaves"), End()))
    decide_reports(world.shard, draft, [Report(WORKER, 1, 1, timed=False, ended=[back])])
    found = {key: block.losses for block in draft.decided for key in block.keys}
    assert found == {RAN: bounds.LOSS_RUNNING, WAITED: bounds.LOSS_WAITING}
