"""The values of the lease protocol at the worker: attempts, their groups, what runners are told and what goes up."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple, Protocol

from dts.model import Demand, Held, Instant, Key, Report, ShardId


class State(Enum):
    """Of an attempt at this worker."""

    WAITING = 1  # in the backlog
    HANDED = 2  # a runner has it; not known to have started
    RUNNING = 3
    ENDED = 4


class Why(StrEnum):
    """Why an attempt was told to stop: decides what its stopped end is called."""

    CANCEL = "cancel"  # CANCELLED
    LEASE = "lease"  # LOST
    LEAVE = "leave"  # QUEUED: handed back


class Group:
    """Attempts handed over together; they run one after the other, so they hold one demand until the last has ended."""

    __slots__ = ("demand", "left")

    def __init__(self, demand: Demand, left: int) -> None:
        self.demand = demand
        self.left = left


class Attempt:
    """One leased attempt. Runners read it; only `Leases` changes it."""

    __slots__ = (
        "body",
        "demand",
        "fencing",
        "group",
        "id",
        "kind",
        "reason",
        "reserved",
        "shard",
        "started",
        "state",
        "why",
    )

    def __init__(self, id: Held, shard: ShardId, fencing: int, body: bytes, kind: str, demand: Demand) -> None:
        self.id = id
        self.shard = shard
        self.fencing = fencing
        self.body = body
        self.kind = kind
        self.demand = demand
        self.state = State.WAITING
        self.group: Group | None = None
        self.started: Instant = 0
        self.why: Why | None = None
        self.reason = ""
        self.reserved = False  # more than slots is set aside for it

    @property
    def key(self) -> Key:
        return self.id.key

    @property
    def number(self) -> int:
        return self.id.attempt


class Rooms(Protocol):
    """What the runners tell about their room."""

    def kind(self, body: bytes, demand: Demand) -> str:
        """Attempts of one kind may share a group."""
        ...

    def claim(self, kind: str) -> int:
        """How many attempts may be handed over now as one group, 0: none until `poke`. The caller hands over at least one."""
        ...


class OneEach:
    """The simplest room: every attempt at once, by itself."""

    def kind(self, body: bytes, demand: Demand) -> str:
        del body, demand
        return ""

    def claim(self, kind: str) -> int:
        del kind
        return 1


class Start(NamedTuple):
    """Action: run these, one after the other; answer with started(), ended() or returned() for each. May be empty: the
    room that was claimed for this kind is free again."""

    attempts: list[Attempt]
    kind: str


class Stop(NamedTuple):
    """Action: end it (TERM, then KILL after `within` ms; None: its own kill grace; 0: KILL). May come again, more urgent."""

    attempt: Attempt
    within: int | None


class Skip(NamedTuple):
    """Action: give it back with returned() if it has not started; else let it run."""

    attempt: Attempt


class Started(NamedTuple):
    """Message: these run now, since these instants (wall clock)."""

    held: list[Held]
    at: list[Instant]


class Up(NamedTuple):
    """A message for the owner of a shard. `Report.full`, `.ended` and `.beat` tell its kind."""

    stream: int
    shard: ShardId
    message: Report | Started


Action = Start | Stop | Skip


class Capacity:
    """What is free of the worker's total."""

    __slots__ = ("cpu", "custom", "memory", "slots", "storage")

    def __init__(self, total: Demand) -> None:
        self.cpu = total.cpu
        self.memory = total.memory
        self.storage = total.storage
        self.slots = total.slots
        self.custom = dict(total.custom)

    def fits(self, demand: Demand) -> bool:
        if demand.slots > self.slots:
            return False
        if demand.slots_only:
            return True
        if demand.cpu > self.cpu or demand.memory > self.memory or demand.storage > self.storage:
            return False
        return all(self.custom.get(name, 0) >= amount for name, amount in demand.custom)

    def take(self, demand: Demand, sign: int) -> None:
        """Takes (1) or gives back (-1)."""
        self.slots -= sign * demand.slots
        if demand.slots_only:
            return
        self.cpu -= sign * demand.cpu
        self.memory -= sign * demand.memory
        self.storage -= sign * demand.storage
        for name, amount in demand.custom:
            self.custom[name] -= sign * amount
