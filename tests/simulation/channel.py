"""A worker's stream to an owner: delays, keeps order, and drops only by breaking; each end notices that when it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dts.model import WorkerInfo
from dts.services.workers import Down, Session
from dts.worker.attempts import Up

if TYPE_CHECKING:
    from tests.simulation.owner import Owner
    from tests.simulation.workers import Worker

NOTICE_MS = 40_000  # an end that nobody told of notices within keep-alive's time


class Stream:
    """One attached stream. `number` names it at the worker."""

    def __init__(self, number: int, worker: Worker, owner: Owner) -> None:
        self.number = number
        self.worker = worker
        self.owner = owner
        self.session: Session | None = None  # at the owner: None before Hello arrived
        self.broken = False
        self._last = {True: 0, False: 0}  # when the last message of each direction arrives

    def open(self, info: WorkerInfo) -> None:
        """Hello is on its way."""
        self._send(True, lambda: self.owner.run(lambda: self.owner.arrived(self, info)))

    def up(self, message: Up) -> None:
        self._send(True, lambda: self.owner.run(lambda: self.owner.heard(self, message)))

    def down(self, item: Down | None) -> None:
        """None: Welcome."""
        self._send(False, lambda: self.worker.run(lambda: self.worker.told(self, item)))

    def _send(self, up: bool, act) -> None:  # type: ignore[no-untyped-def]
        world = self.worker.world
        when = max(world.t + world.delay(), self._last[up])
        self._last[up] = when
        world.at(when, lambda: None if self.broken else act())

    def break_(self, *, silent: bool = False) -> None:
        """Nothing arrives any more. Each end notices soon; `silent`: after the time that it takes to notice silence."""
        if self.broken:
            return
        self.broken = True
        world = self.worker.world
        for end, act in ((self.owner, self._departed), (self.worker, self._lost)):
            wait = world.rng.randrange(NOTICE_MS) if silent and not world.healed else world.delay()
            end.later(wait, act)

    def _departed(self) -> None:
        self.owner.departed(self)

    def _lost(self) -> None:
        self.worker.detached(self)
