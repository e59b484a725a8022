"""Random fleets and queues for the allocator, with book-keeping of their own to hold it against."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dts.bounds import BYPASS_MS, FIRST_AFTER_MS
from dts.core.allocator import Allocator
from dts.core.draft import Draft, Placement
from dts.core.fleet import Fleet
from dts.model import START, Block, Demand, Instant, Key, ShardId, Status, WorkerInfo, WorkerRef, intern_demand

LONGEST_MS = 300_000  # no execution runs longer
ZONES = ("a", "b", "c")
RESOURCES = ("gpu", "licence")


@dataclass
class Waiting:
    """One execution that looks for a place."""

    key: Key
    demand: Demand
    queued: Instant
    shard: ShardId


@dataclass
class Machine:
    """A worker as the test counts it."""

    info: WorkerInfo
    running: dict[Key, tuple[Demand, Instant]] = field(default_factory=dict)  # until when
    leaving: bool = False
    cordoned: bool = False

    @property
    def open(self) -> bool:
        return not self.leaving and not self.cordoned

    def free(self) -> dict[str, int]:
        """By resource; `queue` is slots with the backlog."""
        total = self.info.total
        left = {"cpu": total.cpu, "memory": total.memory, "storage": total.storage, "slots": total.slots}
        left |= dict.fromkeys(RESOURCES, 0) | dict(total.custom)
        for demand, _ in self.running.values():
            for name, need in asked(demand):
                left[name] -= need
        return {**left, "queue": left["slots"] + self.info.backlog}

    def could(self, demand: Demand) -> bool:
        """Whether it could run it if nothing else ran."""
        whole = Machine(self.info).free()
        return self.open and suits(demand, self.info) and all(need <= whole[name] for name, need in asked(demand))

    def takes(self, demand: Demand, besides: Iterable[Demand] = ()) -> bool:
        """Whether it has room for it now, besides others that have none yet."""
        free = self.free()
        kept = list(besides)
        for other in kept:
            for name, need in asked(other):
                free[name] -= need
        if not self.could(demand):
            return False
        wanted = dict(asked(demand))
        if not (demand.cpu or demand.memory or demand.storage or demand.custom) and not kept:
            wanted["queue"] = wanted.pop("slots")
        return all(need <= free[name] for name, need in wanted.items())


def asked(demand: Demand) -> list[tuple[str, int]]:
    """What a demand takes, by resource."""
    fixed = [("cpu", demand.cpu), ("memory", demand.memory), ("storage", demand.storage), ("slots", demand.slots)]
    return [*fixed, *demand.custom]


def suits(demand: Demand, info: WorkerInfo) -> bool:
    """Whether the labels are right: only the selectors that `demands` makes."""
    labels = dict(info.labels)
    match demand.selector:
        case "":
            return True
        case "zone=a":
            return labels.get("zone") == "a"
        case "zone in (a, b), !spot":
            return labels.get("zone") in ("a", "b") and "spot" not in labels
        case "spot":
            return "spot" in labels
        case other:
            raise AssertionError(other)


class World:
    """A fleet, its queue, and time. Raises AssertionError when a law is broken."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now = 1_000_000
        self.fleet = Fleet()
        self.allocator = Allocator(self.fleet)
        self.machines: dict[str, Machine] = {}
        self.queue: list[Waiting] = []
        self.shards = range(self.draw.choice([1, 1, 2, 4]))
        self.silent: set[tuple[ShardId, str]] = set()
        self.longest = 0  # wait of what could run
        self._serial = 0
        self.demands = [self._demand() for _ in range(self.draw.randint(1, 8))]
        for _ in range(self.draw.randint(1, 6)):
            self.attach()

    # --- what happens

    def _serials(self) -> int:
        self._serial += 1
        return self._serial

    def _demand(self) -> Demand:
        draw = self.draw
        rich = draw.random() < 0.7
        return intern_demand(
            Demand(
                cpu=draw.choice([0, 100, 500, 1_000, 4_000]) if rich else 0,
                memory=draw.choice([0, 64, 512, 4_096]) if rich else 0,
                storage=draw.choice([0, 0, 10, 100]) if rich else 0,
                slots=draw.choice([1, 1, 1, 2, 4]),
                custom=draw.choice([(), (), (("gpu", 1),), (("gpu", 2), ("licence", 1))]) if rich else (),
                selector=draw.choice(["", "", "", "zone=a", "zone in (a, b), !spot", "spot"]),
                priority=draw.choice([0, 0, 0, 1, 5, 1_000]),
                spread=draw.choice(["", "", "zone"]),
            )
        )

    def attach(self) -> None:
        """One more worker."""
        draw, id = self.draw, f"w{self._serials()}"
        total = Demand(
            cpu=draw.choice([0, 1_000, 4_000, 16_000]),
            memory=draw.choice([0, 512, 8_192]),
            storage=draw.choice([0, 100]),
            slots=draw.choice([1, 2, 4, 8]),
            custom=draw.choice([(), (("gpu", 2),), (("gpu", 4), ("licence", 1))]),
        )
        labels = [("zone", draw.choice(ZONES))] if draw.random() < 0.8 else []
        labels += [("spot", "")] if draw.random() < 0.3 else []
        info = WorkerInfo(WorkerRef(id, "1"), total, draw.choice([0, 0, 2, 20]), tuple(labels))
        self.machines[id] = Machine(info)
        self.fleet.attach(info)

    def disturb(self) -> None:
        """Something happens to the fleet."""
        ids = sorted(self.machines)
        id = self.draw.choice(ids)
        machine = self.machines[id]
        match self.draw.choice(["attach", "leave", "cordon", "uncordon", "bury", "again", "silent"]):
            case "attach":
                self.attach()
            case "leave":
                machine.leaving = True
                self.fleet.leave(machine.info.ref)
            case "cordon" | "uncordon" as what:
                machine.cordoned = what == "cordon"
                self.fleet.cordon(machine.info.ref, machine.cordoned)
            case "bury" if len(ids) > 1:
                self.fleet.bury(machine.info.ref)
                for key in list(machine.running):
                    self.end(machine, key)
                del self.machines[id]
            case "again":  # its stream broke and came back
                self.fleet.detach(machine.info.ref)
                machine.info = machine.info._replace(cordoned=machine.cordoned)
                self.fleet.attach(machine.info)
            case "silent":
                self.silent = {(shard, id) for shard in self.shards if self.draw.random() < 0.5}
            case _:
                pass

    def end(self, machine: Machine, key: Key) -> None:
        """An execution has ended."""
        demand, _ = machine.running.pop(key)
        self.fleet.release(machine.info.ref, demand, 1)

    def arrive(self, most: int) -> None:
        """Executions come."""
        demand = self.draw.choice(self.demands)
        shard = self.draw.choice(self.shards)
        for _ in range(self.draw.randint(1, most)):
            self.queue.append(Waiting(Key(f"j{self._serials()}", self.now), demand, self.now, shard))

    def pass_time(self, ms: int) -> None:
        """What is over by then ends."""
        self.now += ms
        for machine in self.machines.values():
            for key, (_, until) in list(machine.running.items()):
                if until <= self.now:
                    self.end(machine, key)

    # --- a round, and what must hold after it

    def round(self) -> dict[ShardId, list[Placement]]:
        """Everything that waits is offered, in blocks of one age and demand."""
        drafts = [Draft(shard, 1, 1, self.now, START, (0, 0), (), ()) for shard in self.shards]
        blocks: dict[tuple[ShardId, Demand, Instant], list[Waiting]] = {}
        for each in self.queue:
            blocks.setdefault((each.shard, each.demand, each.queued), []).append(each)
        for (shard, demand, queued), some in blocks.items():
            keys = [each.key for each in some]
            drafts[shard].ready.append(Block(keys, [1] * len(keys), demand, Status.QUEUED, queued=queued))
        self.allocator.begin()
        oldest: dict[tuple[ShardId, Demand], Instant] = {}
        for each in self.queue:
            oldest.setdefault((each.shard, each.demand), each.queued)
        waiting = [(shard, demand, queued) for (shard, demand), queued in oldest.items()]
        found = self.allocator.place(drafts, self._number, self.now, waiting)
        for draft in drafts:
            self._carry_out(draft, found[draft.shard])
        self._check()
        return found

    def _number(self, shard: ShardId, worker: WorkerRef) -> int | None:
        return None if (shard, worker.id) in self.silent else 7

    def _carry_out(self, draft: Draft, found: Iterable[Placement]) -> None:
        done = [0] * len(draft.ready)
        placed: set[Key] = set()
        for place in found:
            block, machine = draft.ready[place.ready], self.machines[place.worker.id]
            assert place.size > 0
            assert machine.open, "nothing new goes to a worker that is leaving or cordoned"
            assert self._number(draft.shard, place.worker) == place.report
            assert suits(block.demand, machine.info)
            assert block.demand.slots <= machine.info.total.slots
            some = block.keys[done[place.ready] : done[place.ready] + place.size]
            done[place.ready] += place.size
            assert len(some) == place.size, "no more is placed than is there"
            for key in some:
                machine.running[key] = (block.demand, self.now + self.draw.randint(1, LONGEST_MS))
                placed.add(key)
        for each in self.queue:
            if each.key in placed and any(machine.could(each.demand) for machine in self.machines.values()):
                self.longest = max(self.longest, self.now - each.queued)
        self.queue = [each for each in self.queue if each.key not in placed]

    def _check(self) -> None:
        for id, machine in self.machines.items():
            free, taken, total = machine.free(), self.fleet.taken(id), machine.info.total
            assert free["queue"] >= 0, f"{id}: more slots than there are"
            for name in ("cpu", "memory", "storage"):
                assert free[name] >= 0, f"{id}: more {name} than there is"
                assert getattr(taken, name) == getattr(total, name) - free[name], "released exactly once"
            assert taken.slots == total.slots - free["slots"]
            alone = [demand for demand, _ in machine.running.values() if demand.slots_only]
            pinned = sum(demand.slots for demand, _ in machine.running.values()) - sum(each.slots for each in alone)
            assert pinned <= total.slots, f"{id}: only slots alone may wait in a backlog"
            for name in RESOURCES:
                assert free[name] >= 0, f"{id}: more {name} than there is"
        self._check_nothing_fits()

    def _check_nothing_fits(self) -> None:
        """Brute force: nothing that waits has room anywhere, but where room is kept free for something else."""
        kept = {id: demand for demand, id in self.allocator.kept.items()}
        for demand in kept.values():
            late = [each for each in self.queue if each.demand == demand and self.now - each.queued >= BYPASS_MS]
            assert late, "room is kept free only for what waits long"
        assert len(kept) == len(self.allocator.kept), "a worker keeps room free for one demand"
        for each in {(each.shard, each.demand): each for each in self.queue}.values():
            for id, machine in self.machines.items():
                if (each.shard, id) in self.silent:
                    continue
                others = [kept[id]] if id in kept and kept[id] != each.demand else []
                assert not machine.takes(each.demand, others), f"{each.demand} waits, but {id} has room"

    # --- how it ends

    def heal(self) -> None:
        """Nothing disturbs the fleet any more: all that could run does, though urgent small ones go on coming."""
        self.silent = set()
        base = next((each.demand for each in self.queue), self.demands[0])
        urgent = intern_demand(replace(base, cpu=min(base.cpu, 100), memory=0, storage=0, custom=(), priority=10_000))
        able = [each for each in self.queue if any(machine.could(each.demand) for machine in self.machines.values())]
        bound = FIRST_AFTER_MS + (len(able) + 1) * (LONGEST_MS + 60_000)
        left, end = {each.key for each in able}, self.now + bound
        while left and self.now < end:
            for _ in range(8):
                self.queue.append(Waiting(Key(f"u{self._serials()}", self.now), urgent, self.now, 0))
            self.queue = [each for each in self.queue if each.demand != urgent or each.key in left] + [
                each for each in self.queue if each.demand == urgent and each.key not in left
            ][-40:]
            self.pass_time(self.draw.choice([10_000, 60_000]))
            self.round()
            left &= {each.key for each in self.queue}
        assert not left, f"{len(left)} of {len(able)} that fit waited over {bound} ms"

    def empty(self) -> None:
        """All ends: nothing is taken."""
        for machine in self.machines.values():
            for key in list(machine.running):
                self.end(machine, key)
            taken = self.fleet.taken(machine.info.ref.id)
            assert (taken.cpu, taken.memory, taken.storage, taken.slots) == (0, 0, 0, 0)
            assert not any(have for _, have in taken.custom)
            self.fleet.bury(machine.info.ref)
        assert self.fleet.members == {}, "who has gone and holds nothing is forgotten"
