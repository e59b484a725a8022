"""What a worker is told when it starts."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass, field

from dts.bounds import BACKLOG, STOP_GRACE_S
from dts.model import Demand

SLOTS = 64


def _incarnation() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """`target`: gRPC addresses of Scheduler instances, `host:port[,host:port...]` or `unix:/path`. `database` empty: any.
    `life_lock`: a file of this worker alone that it and its guard keep locked (flock) while they live; its text is 'pid
    incarnation'. `timed`: its leases end by time (another machine); else with its life, and it ends when its server stays away
    and nothing is left to hand over.
    `scratch`: where scratch folders are made, empty: where temporary files are. `cgroup`: the control group that attempts with
    requests get theirs in: auto, off, or its path.
    `children`: processes of the pool that are kept, 0: min(4, cpus). `parent`: it leaves when its parent is not this process
    any more; 0: it outlives it."""

    target: str
    token: str = ""
    database: str = ""
    worker: str = "local"
    incarnation: str = field(default_factory=_incarnation)
    capacity: Demand = field(default_factory=lambda: Demand(slots=SLOTS))
    backlog: int = BACKLOG
    labels: tuple[tuple[str, str], ...] = ()
    timed: bool = False
    life_lock: str = ""
    children: int = 0
    scratch: str = ""
    cgroup: str = "auto"
    parent: int = 0
    stop_grace_ms: int = int(STOP_GRACE_S * 1000)
    log: str = ""  # a file; empty: standard error
    log_level: str = "INFO"

    @property
    def targets(self) -> tuple[str, ...]:
        """The addresses that it was given, `target` taken apart at its commas."""
        if self.target.startswith("unix:"):
            return (self.target,)
        return tuple(each.strip() for each in self.target.split(",") if each.strip())

    @property
    def pool_children(self) -> int:
        return self.children or min(4, os.cpu_count() or 1)

    def to_json(self) -> bytes:
        """For the standard input of `python -m dts.worker`: the token is not to be seen in the list of processes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> WorkerOptions:
        """The inverse of `to_json`."""
        values = json.loads(text)
        capacity = values.pop("capacity")
        capacity["custom"] = tuple((name, amount) for name, amount in capacity["custom"])
        values["labels"] = tuple((name, value) for name, value in values["labels"])
        return cls(capacity=Demand(**capacity), **values)
