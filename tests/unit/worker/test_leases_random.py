"""The worker's leases under random inputs: capacity, one end for each attempt, nothing kept when all is over."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from dts.model import Block, Demand, End, Held, Key, Lease, Report, Status, WorkerRef
from dts.worker.attempts import Attempt, Skip, Start, State, Stop
from dts.worker.leases import Leases

REF = WorkerRef("w", "i")
TOTAL = Demand(cpu=1_000, slots=5, custom=(("gpu", 2),))
DEMANDS = [Demand(), Demand(slots=2), Demand(cpu=400), Demand(cpu=700, custom=(("gpu", 1),)), Demand(slots=5)]
L = 12_000


class Room:
    """Rooms that sometimes have no place, and take groups of one kind."""

    def __init__(self) -> None:
        self.sizes = {"one": 1, "many": 3}
        self.claimed = 0

    def kind(self, body: bytes, demand: Demand) -> str:
        return "many" if body == b"many" else "one"

    def claim(self, kind: str) -> int:
        size = self.sizes[kind]
        self.claimed += bool(size)
        return size


class Machine(RuleBasedStateMachine):
    """Runs what the leases say, as a runner that forgets nothing."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.room = Room()
        self.leases = Leases(REF, TOTAL, 20, True, self.room)
        self.leased: set[Held] = set()
        self.ended: dict[Held, Status] = {}
        self.stopped: set[Held] = set()
        self.report = (0, 0)
        self.fencing = 0
        self.beats: list[int] = []
        self.stream = 0
        self.attach()

    # ---- the scheduler -------------------------------------------------------------------------------------------

    def attach(self) -> None:
        self.stream += 1
        self.leases.attach(self.stream, L)
        self.leases.ask(self.stream, 0, 1, self.now)
        self.hear()

    def hear(self) -> list[Attempt]:
        """Takes what comes out; the attempts that start."""
        started = []
        for action in self.leases.take_actions():
            match action:
                case Start(attempts, _):
                    assert self.room.claimed > 0
                    self.room.claimed -= 1
                    assert len({each.kind for each in attempts}) <= 1
                    started += attempts
                case Stop(attempt, _):
                    self.stopped.add(attempt.id)
                case Skip(attempt):
                    assert attempt.state is State.HANDED
        for up in self.leases.take_messages():
            if isinstance(up.message, Report):
                self.take(up.message)
        return started

    def take(self, report: Report) -> None:
        if report.full:
            self.report = (report.epoch, report.number)
            told = {Held(key, block.attempt) for block in report.ended for key in block.keys} | set(report.held)
            assert self.leased - set(self.ended) <= told
        if report.beat:
            self.beats.append(report.beat)
        for block in report.ended:
            for key in block.keys:
                held = Held(key, block.attempt)
                assert self.ended.setdefault(held, block.status) is block.status, "an end changed"

    @rule(target=running, count=st.integers(1, 8), demand=st.sampled_from(DEMANDS), many=st.booleans())
    def lease(self, count: int, demand: Demand, many: bool) -> object:
        if self.leases.leaving is not None:
            return multiple()
        self.fencing += 1
        keys = [Key(f"j{self.fencing}-{each}", 1) for each in range(count)]
        self.leased |= {Held(key, 1) for key in keys}
        block = Block(keys, [1] * count, demand, Status.PLACED, 1, report=self.report, fencing=self.fencing)
        body = b"many" if many and demand.slots_only else b"one"
        before = self.leases.refused
        self.leases.lease(0, Lease(block, [body] * count), self.now)
        self.leases.lease(0, Lease(block, [body] * count), self.now)  # a doubled message changes nothing
        assert self.leases.refused == before
        return multiple(*self.hear())

    @rule(target=running, attempt=consumes(running), status=st.sampled_from([Status.COMPLETED, Status.FAILED]))
    def end(self, attempt: Attempt, status: Status) -> object:
        done = Status.CANCELLED if attempt.id in self.stopped else status
        self.leases.ended([(attempt, done, End(1, 2))], self.now)
        return multiple(*self.hear())

    @rule(target=running, attempt=consumes(running))
    def give_back(self, attempt: Attempt) -> object:
        if attempt.state is not State.HANDED:
            return attempt
        self.leases.returned([attempt], self.now)
        return multiple(*self.hear())

    @rule(attempt=running)
    def start(self, attempt: Attempt) -> None:
        self.leases.started(attempt, 1)

    @rule(target=running, pick=st.integers(0, 1_000))
    def cancel(self, pick: int) -> object:
        if not self.leased:
            return multiple()
        self.leases.cancel(0, 1, [(sorted(self.leased)[pick % len(self.leased)], "why")], self.now)
        return multiple(*self.hear())

    @rule(target=running, wait=st.integers(1, L // 2), answered=st.booleans())
    def pass_time(self, wait: int, answered: bool) -> object:
        self.now += wait
        self.leases.tick(self.now)
        started = self.hear()
        if answered and self.beats:
            self.leases.echo(0, 1, self.beats.pop())
        return multiple(*started)

    @rule(target=running, one=st.integers(0, 1), many=st.sampled_from([0, 1, 3]))
    def make_room(self, one: int, many: int) -> object:
        self.room.sizes = {"one": one, "many": many}
        self.leases.poke(self.now)
        return multiple(*self.hear())

    @rule()
    def attach_again(self) -> None:
        self.leases.detach(self.stream)
        self.attach()

    @rule()
    def acknowledge(self) -> None:
        self.leases.ack(0, list(self.ended))

    @rule(target=running, grace=st.integers(0, L))
    def leave(self, grace: int) -> object:
        self.leases.leave(grace, self.now)
        return multiple(*self.hear())

    # ---- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def capacity_is_kept(self) -> None:
        alive = [group.demand for group in {each.group for each in self.leases.held()} if group is not None]
        assert sum(demand.slots for demand in alive) <= TOTAL.slots
        assert sum(demand.cpu for demand in alive) <= TOTAL.cpu
        assert sum(dict(demand.custom).get("gpu", 0) for demand in alive) <= 2

    @invariant()
    def nothing_is_forgotten(self) -> None:
        held = {attempt.id for attempt in self.leases.held()}
        assert held | set(self.ended) == self.leased
        assert not held & set(self.ended)

    def teardown(self) -> None:
        self.room.sizes = {"one": 1, "many": 3}
        for _ in range(len(self.leased) + 1):
            self.leases.poke(self.now)
            self.hear()
            handed = [attempt for attempt in self.leases.held() if attempt.group is not None]
            self.leases.ended([(attempt, Status.COMPLETED, End(1, 2)) for attempt in handed], self.now)
        self.hear()
        assert set(self.ended) == self.leased
        self.leases.ack(0, list(self.leased))
        assert self.leases.idle
        assert self.room.claimed == 0


TestLeases = Machine.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
