"""A worker and several instances with nothing between them but messages that take their time: both real ends of credits."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from dts.amounts import CUSTOM, Vector, in_use, most, need, offer, plus, within, zero
from dts.core.credits import WANT_EVERY_MS, Returned
from dts.core.fleet import Fleet
from dts.model import Demand, WorkerInfo, WorkerRef
from dts.worker.shares import Grant, Shares, Use

L = 60_000
NAMES = ("gpu",)
REF = WorkerRef("w", "1")


@dataclass(eq=False)
class Task:
    """A placed attempt. `where`: placed (at its owner only), held (the worker has it), ended (the owner does not know yet)."""

    shard: int
    demand: Demand
    stream: int
    where: str = "placed"
    runs: bool = False


@dataclass(eq=False)
class Node:
    """A Scheduler instance."""

    name: str
    fleet: Fleet = field(default_factory=Fleet)
    alive: bool = True
    stream: int | None = None
    shards: set[int] = field(default_factory=set)
    waiting: list[tuple[int, Demand, int]] = field(default_factory=list)  # shard, demand, since


class World:
    """`run(until)`; invariants are checked after each event."""

    def __init__(self, rng: Random, total: Demand, backlog: int, nodes: int, shards: int) -> None:
        self.rng, self.now, self.total = rng, 0, total
        self.info = WorkerInfo(REF, total, backlog, credited=True)
        self.whole = offer(total, backlog)
        self.shares = Shares(self.whole)
        self.nodes = [Node(f"n{each}") for each in range(nodes)]
        self.owner: dict[int, Node] = {}
        self.promised: dict[int, int | None] = {}  # at the worker: shard -> the stream of its owner
        self.tasks: list[Task] = []
        self.streams: dict[int, Node] = {}  # as the worker knows them
        self._last: dict[tuple[int, bool], int] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._numbers = count(1)
        self.longest = 0  # a task that could have been placed waited so long
        for shard in range(shards):
            node = self.nodes[shard % nodes]
            node.shards.add(shard)
            self.owner[shard] = node
        for node in self.nodes:
            self.later(rng.randrange(100), lambda node=node: self.connect(node))
            self.every(WANT_EVERY_MS, lambda node=node: self.step(node))
        self.every(100, self.divide)

    # ---- time

    def later(self, ms: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + ms, next(self._order), act))

    def every(self, ms: int, act: Callable[[], None]) -> None:
        def again() -> None:
            act()
            self.later(ms, again)

        self.later(ms, again)

    def run(self, until: int) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
            self.check()
        self.now = until

    def send(self, stream: int, up: bool, act: Callable[[], None]) -> None:
        """Keeps order on a stream; lost when it ends."""
        when = max(self.now + self.rng.randrange(1, 40), self._last.get((stream, up), 0))
        self._last[stream, up] = when

        def arrive() -> None:
            if stream in self.streams and self.streams[stream].stream == stream:
                act()

        heapq.heappush(self._events, (when, next(self._order), arrive))

    # ---- streams and shards

    def connect(self, node: Node) -> None:
        if not node.alive or node.stream is not None:
            return
        stream = node.stream = next(self._numbers)
        self.streams[stream] = node
        node.fleet.attach(self.info)
        self.shares.join(stream, node.name)
        self.divide()
        for shard in node.shards:
            self.ask(node, shard)

    def lose(self, node: Node) -> None:
        """The stream breaks: both ends know."""
        if node.stream is None:
            return
        stream, node.stream = node.stream, None
        del self.streams[stream]
        node.fleet.detach(REF)
        for shard, at in self.promised.items():
            if at == stream:
                self.promised[shard] = None
        self.shares.part(stream)
        self.divide()
        self.later(self.rng.randrange(300), lambda: self.connect(node))

    def ask(self, node: Node, shard: int) -> None:
        """Ask down, the report up."""
        stream = node.stream
        if stream is None:
            return

        def asked() -> None:
            if self.owner[shard] is not node:
                return  # a lower epoch
            self.promised[shard] = stream
            listed = {id(task) for task in self.tasks if task.shard == shard and task.where != "placed"}
            before = {id(task) for task in self.tasks if task.shard == shard and task.where == "placed"}
            self.shares.moved()
            self.divide()
            self.send(stream, True, lambda: self.reported(node, shard, before - listed))

        self.send(stream, False, asked)

    def reported(self, node: Node, shard: int, missing: set[int]) -> None:
        if self.owner[shard] is not node:
            return
        for task in [each for each in self.tasks if each.shard == shard]:
            if id(task) in missing and task.where == "placed":
                self.forget(node, task)
                node.waiting.append((shard, task.demand, self.now))
            elif task.where == "ended":
                self.forget(node, task)
        self.step(node)

    def move(self, shard: int, to: Node) -> None:
        """A planned move: the one drops it, the other takes it over a moment later."""
        old = self.owner[shard]
        if old is to or not to.alive:
            return
        old.shards.discard(shard)
        mine = [task for task in self.tasks if task.shard == shard]
        if old.alive:
            for task in mine:
                old.fleet.hand_over(shard, REF, task.demand, 1)
            self.step(old)
        self.owner[shard] = to
        to.shards.add(shard)
        to.waiting += [each for each in old.waiting if each[0] == shard]
        old.waiting = [each for each in old.waiting if each[0] != shard]
        for task in mine:
            to.fleet.take(REF, task.demand, 1)
        self.ask(to, shard)
        self.step(to)

    def die(self, node: Node) -> None:
        """Its shards are taken over a moment later."""
        others = [each for each in self.nodes if each.alive and each is not node]
        if not others or not node.alive:
            return
        node.alive = False
        self.lose(node)
        for shard in list(node.shards):
            self.later(self.rng.randrange(500), lambda shard=shard: self.move(shard, self.rng.choice(others)))

    def revive(self, node: Node) -> None:
        if not node.alive and not node.shards:
            node.alive, node.fleet = True, Fleet()
            self.connect(node)

    # ---- work

    def submit(self, shard: int, demand: Demand) -> None:
        node = self.owner[shard]
        node.waiting.append((shard, demand, self.now))
        if node.alive:
            self.step(node)

    def step(self, node: Node) -> None:
        """What a Scheduler does: gives back, places, wants."""
        if not node.alive:
            return
        for back in node.fleet.returns():
            assert node.stream is not None
            self.send(node.stream, True, lambda back=back, stream=node.stream: self.returned(stream, back))
        member = node.fleet.members.get("w")
        if node.stream is not None and member is not None:
            left = []
            for shard, demand, since in node.waiting:
                reported = self.promised.get(shard) == node.stream
                if reported and shard in node.shards and member.fits(demand):
                    member.add(demand, 1)
                    task = Task(shard, demand, node.stream)
                    self.tasks.append(task)
                    self.send(node.stream, False, lambda task=task, stream=node.stream: self.leased(task, stream))
                else:
                    left.append((shard, demand, since))
            node.waiting = left
        waiting: dict[Demand, int] = {}
        for _, demand, _ in node.waiting:
            waiting[demand] = waiting.get(demand, 0) + 1
        for want in node.fleet.wants(waiting, self.now):
            assert node.stream is not None
            self.send(
                node.stream, False, lambda want=want, stream=node.stream: self.wanted(stream, want.more, want.one)
            )

    def leased(self, task: Task, stream: int) -> None:
        if self.promised.get(task.shard) != stream or task not in self.tasks:
            return  # refused: an older owner's
        task.where = "held"
        held = self.held()
        assert within((*held[:3], *held[CUSTOM:]), (*self.whole[:3], *self.whole[CUSTOM:])), f"too much: {held}"
        self.start()

    def start(self) -> None:
        """Starts what is held, as far as there are slots; what needs more than slots first."""
        held = [task for task in self.tasks if task.where == "held"]
        free = self.total.slots - sum(task.demand.slots for task in held if task.runs)
        for task in sorted(held, key=lambda each: each.demand.slots_only):
            if not task.runs and task.demand.slots <= free:
                free -= task.demand.slots
                task.runs = True
                self.later(self.rng.randrange(10, 3_000), lambda task=task: self.end(task))

    def end(self, task: Task) -> None:
        task.where = "ended"
        self.start()
        stream = self.promised.get(task.shard)
        if stream is not None and stream in self.streams:
            node = self.streams[stream]
            self.send(stream, True, lambda: self.ended(node, task))
        self.divide()

    def ended(self, node: Node, task: Task) -> None:
        if self.owner[task.shard] is node and task in self.tasks:
            self.forget(node, task)
            self.step(node)

    def forget(self, node: Node, task: Task) -> None:
        self.tasks.remove(task)
        node.fleet.release(REF, task.demand, 1)

    def returned(self, stream: int, back: Returned) -> None:
        for shard in back.shards:
            if self.promised.get(shard) == stream:
                self.promised[shard] = None
        self.shares.returned(stream, back.number, back.kept, moved=bool(back.shards))
        self.divide()

    def wanted(self, stream: int, more: Vector, one: Vector) -> None:
        self.shares.want(stream, more, one)
        self.divide()

    def divide(self) -> None:
        """The worker's agent."""
        uses: dict[int, list[Task]] = {}
        loose: list[Task] = []
        for task in self.tasks:
            if task.where == "held":
                stream = self.promised.get(task.shard)
                (loose if stream is None else uses.setdefault(stream, [])).append(task)
        held = {stream: Use(self._sum(tasks), self._pinned(tasks)) for stream, tasks in uses.items()}
        orphans = in_use(self._sum(loose), self._pinned(loose), zero(self.whole))
        for grant in self.shares.divide(held, orphans, self.now):
            node = self.streams[grant.stream]
            self.send(grant.stream, True, lambda node=node, grant=grant: self.credited(node, grant))

    def credited(self, node: Node, grant: Grant) -> None:
        node.fleet.credit(REF, grant.number, grant.share, grant.returns)
        self.step(node)

    # ---- what must hold

    def _sum(self, tasks: list[Task]) -> Vector:
        total = zero(self.whole)
        for task in tasks:
            total = plus(total, need(task.demand, NAMES))
        return total

    def _pinned(self, tasks: list[Task]) -> int:
        return sum(task.demand.slots for task in tasks if task.runs or not task.demand.slots_only)

    def held(self) -> Vector:
        return self._sum([task for task in self.tasks if task.where == "held"])

    def check(self) -> None:
        """What instances may use and use, with what runs for none of them, is never more than the worker has."""
        total = zero(self.whole)
        mine: set[int] = set()
        for node in self.nodes:
            member = node.fleet.members.get("w") if node.alive else None
            if member is None:
                continue
            own = [task for task in self.tasks if task.shard in node.shards and self._real(task)]
            mine |= {id(task) for task in own}
            limit = member.credit.limit if member.credit is not None else zero(self.whole)
            total = plus(total, most(self._joined(limit), self._joined(self._sum(own))))
        loose = [task for task in self.tasks if self._real(task) and id(task) not in mine]
        total = plus(total, self._joined(self._sum(loose)))
        assert within(total, self._joined(self.whole)), f"at {self.now}: {total} of {self.whole}"

    def _real(self, task: Task) -> bool:
        """It runs, or may still: not one whose dispatch was lost or will be refused, nor one that has ended."""
        return task.where == "held" or (task.where == "placed" and self.promised.get(task.shard) == task.stream)

    @staticmethod
    def _joined(vector: Vector) -> Vector:
        """Slots and backlog together: which of the two a waiting execution is in, only the worker knows."""
        return (*vector[:3], vector[3] + vector[4], *vector[CUSTOM:])
