"""The way to workers: a session for each attached one, with an outbox that its stream drains. Sending never blocks.

A worker that attaches anew gets a new session and the old one's outbox is dropped: what was in it and never arrived is not in
the worker's next full report, so the core frees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from dts.amounts import Vector
from dts.bounds import LEASE_MESSAGE_KEYS
from dts.model import Effects, Held, Instant, Key, Lease, Report, ShardId, WorkerInfo, WorkerRef
from dts.ports import OutputStore, WorkerInbox

OUTBOX_KEYS = 200_000  # waiting for one slow worker; beyond, its session is closed and it must attach anew
LEASE_BODY_BYTES = 1024 * 1024  # of bodies in one message


class Ask(NamedTuple):
    """Give a full report."""

    shard: ShardId
    epoch: int


class Leased(NamedTuple):
    """Run these: LEASE_MESSAGE_KEYS keys and LEASE_BODY_BYTES of bodies at most. `lease.block.report` is what it echoes."""

    shard: ShardId
    lease: Lease


class Cancels(NamedTuple):
    """End these, each with its reason."""

    shard: ShardId
    epoch: int
    items: list[tuple[Held, str]]


class Echo(NamedTuple):
    """Beats up to this one are answered."""

    shard: ShardId
    epoch: int
    beat: int


class Acks(NamedTuple):
    """These ends are committed."""

    shard: ShardId
    held: list[Held]


class Leave(NamedTuple):
    """Hand back what waits, finish within the grace time, go."""

    grace_ms: int
    reason: str


class Peers(NamedTuple):
    """The live Scheduler instances, and where output goes."""

    schedulers: tuple[str, ...]
    outputs: tuple[str, ...]


class Want(NamedTuple):
    """What this instance would use besides what it has."""

    more: Vector
    one: Vector


class GiveBack(NamedTuple):
    """With credit `number` known, this instance uses no more than `kept`, and owns these shards no more."""

    number: int
    kept: Vector
    shards: tuple[ShardId, ...]


class Cordon(NamedTuple):
    """Nothing new is to come, or something again; `drain`: what waits is to be handed back."""

    cordoned: bool
    drain: bool
    grace_ms: int


Down = Ask | Leased | Cancels | Echo | Acks | Leave | Peers | Want | GiveBack | Cordon


class Session:
    """One attached stream's outbox. Closed: `drain` gives nothing more."""

    def __init__(self, info: WorkerInfo) -> None:
        self.info = info
        self.closed = False
        self._items: list[Down] = []
        self._keys = 0
        self._news = asyncio.Event()

    def put(self, item: Down, keys: int = 1) -> None:
        """Queues a message; a worker that does not read its stream loses the session at OUTBOX_KEYS."""
        if self.closed:
            return
        self._keys += keys
        if self._keys > OUTBOX_KEYS:
            self.close()
            return
        last = self._items[-1] if self._items else None
        if isinstance(item, Acks) and isinstance(last, Acks) and last.shard == item.shard:
            last.held.extend(item.held)
        else:
            self._items.append(item)
        self._news.set()

    async def drain(self) -> list[Down]:
        """All that is queued, in order; waits for something. Empty: the session is closed."""
        await self._news.wait()
        items, self._items, self._keys = self._items, [], 0
        if not self.closed:
            self._news.clear()
        return items

    def close(self) -> None:
        """Drops what is queued and ends `drain`."""
        self.closed = True
        self._items.clear()
        self._news.set()


class WorkerHub:
    """All attached workers (ports.WorkerChannel)."""

    def __init__(self) -> None:
        self._sessions: dict[WorkerRef, Session] = {}

    def connect(self, info: WorkerInfo) -> Session:
        """A new session, which takes the place of the worker's former one."""
        former = self._sessions.get(info.ref)
        if former is not None:
            former.close()
        session = self._sessions[info.ref] = Session(info)
        return session

    def disconnect(self, session: Session) -> bool:
        """Closes it. True: it was the worker's present one, so that the worker is detached now."""
        session.close()
        if self._sessions.get(session.info.ref) is not session:
            return False
        del self._sessions[session.info.ref]
        return True

    def attached(self) -> Sequence[WorkerInfo]:
        """Who is here."""
        return [session.info for session in self._sessions.values()]

    def send(self, shard: ShardId, epoch: int, effects: Effects) -> None:
        """ports.WorkerChannel: acks, echoes and cancels first, so that what they free is free when leases come."""
        for worker, held in effects.acks.items():
            self._put(worker, Acks(shard, list(held)), len(held))
        for worker, beat in effects.beats.items():
            self._put(worker, Echo(shard, epoch, beat))
        for worker, items in effects.cancels.items():
            self._put(worker, Cancels(shard, epoch, list(items)), len(items))
        for worker, leases in effects.leases.items():
            for lease in leases:
                for part in split(lease):
                    self._put(worker, Leased(shard, part), len(part.bodies))

    def ask(self, worker: WorkerRef, shard: ShardId, epoch: int) -> None:
        """ports.WorkerChannel."""
        self._put(worker, Ask(shard, epoch))

    def leave(self, worker: WorkerRef | None, grace_ms: int, reason: str) -> None:
        """Asks a worker (None: all) to end. A second call hurries."""
        for ref in [worker] if worker else list(self._sessions):
            self._put(ref, Leave(grace_ms, reason))

    def cordon(self, worker: WorkerRef, cordoned: bool, drain: bool, grace_ms: int) -> None:
        """ports.WorkerChannel."""
        self._put(worker, Cordon(cordoned, drain, grace_ms))

    def want(self, worker: WorkerRef, more: Vector, one: Vector) -> None:
        """ports.WorkerChannel."""
        self._put(worker, Want(more, one))

    def give_back(self, worker: WorkerRef, number: int, kept: Vector, shards: Sequence[ShardId]) -> None:
        """ports.WorkerChannel."""
        self._put(worker, GiveBack(number, kept, tuple(shards)))

    def peers(self, schedulers: Sequence[str], outputs: Sequence[str]) -> None:
        """Tells all workers who is there now."""
        for ref in self._sessions:
            self._put(ref, Peers(tuple(schedulers), tuple(outputs)))

    def close(self) -> None:
        """Ends all sessions: their streams end."""
        for session in self._sessions.values():
            session.close()

    def _put(self, worker: WorkerRef, item: Down, keys: int = 1) -> None:
        session = self._sessions.get(worker)
        if session is not None:
            session.put(item, keys)


class Reception:
    """What a worker's stream does: come, report, go; and what its attempts wrote."""

    def __init__(self, hub: WorkerHub, inbox: WorkerInbox, outputs: OutputStore) -> None:
        self._hub = hub
        self._inbox = inbox
        self._outputs = outputs

    def arrive(self, info: WorkerInfo) -> Session:
        """A stream began: full reports are asked for."""
        session = self._hub.connect(info)
        for shard, epoch in self._inbox.attached(info).items():
            session.put(Ask(shard, epoch))
        return session

    def depart(self, session: Session) -> None:
        """The stream ended; told only if the worker has no newer one."""
        if self._hub.disconnect(session):
            self._inbox.detached(session.info.ref)

    async def report(self, session: Session, shard: ShardId, report: Report) -> None:
        """Hands a report on; waits while the inbox is full. What a closed session still says is dropped."""
        if not session.closed:
            await self._inbox.report(shard, report)

    def leaving(self, session: Session) -> None:
        """The worker is about to end."""
        self._inbox.leaving(session.info.ref)

    def standing(self, session: Session, cordoned: bool) -> None:
        """Whether anything new may go there."""
        if not session.closed:
            self._inbox.standing(session.info.ref, cordoned)

    def credit(self, session: Session, number: int, share: Vector, returns: int) -> None:
        """What of the worker this instance may use."""
        if not session.closed:
            self._inbox.credit(session.info.ref, number, share, returns)

    def peers(self, schedulers: Sequence[str], outputs: Sequence[str]) -> None:
        """Tells all workers who is there now."""
        self._hub.peers(schedulers, outputs)

    def started(self, session: Session, shard: ShardId, held: Sequence[Held], at: Sequence[Instant]) -> None:
        """These attempts run now."""
        if not session.closed:
            self._inbox.started(shard, session.info.ref, held, at)

    async def output(self, key: Key, attempt: int, offset: int, data: bytes, last: bool) -> None:
        """Stores a piece of what an attempt wrote."""
        await self._outputs.put(key, attempt, offset, data, last)


def split(lease: Lease) -> Iterator[Lease]:
    """A lease in parts that fit a message each: by keys, and by the bytes of their distinct bodies."""
    block, bodies = lease.block, lease.bodies
    start = size = 0
    seen: set[int] = set()
    for index, body in enumerate(bodies):
        if id(body) not in seen:
            if size + len(body) > LEASE_BODY_BYTES and index > start:
                yield _part(lease, start, index)
                start, size = index, 0
                seen.clear()
            seen.add(id(body))
            size += len(body)
        if index - start == LEASE_MESSAGE_KEYS:
            yield _part(lease, start, index)
            start, size = index, len(body)
            seen = {id(body)}
    if start == 0 and len(block.keys) == len(bodies):
        yield lease
    elif start < len(bodies):
        yield _part(lease, start, len(bodies))


def _part(lease: Lease, start: int, end: int) -> Lease:
    block = replace(lease.block, keys=lease.block.keys[start:end], revisions=lease.block.revisions[start:end])
    return Lease(block, lease.bodies[start:end])
