"""What a worker holds and may run: promises, leases, backlog, capacity and unacknowledged ends. Pure: no I/O, no clock.

Inputs are calls with `now` (ms on a clock that only grows, CLOCK_BOOTTIME in life); outputs are `take_actions()`, what the
runners must do, and `take_messages()`, what goes up. The real worker and the simulator drive this very object. Rules:

- A full report promises to obey no lower epoch. A lease that does not echo the last report's (epoch, number) is refused
  without a word: that report did not list it, so its owner frees it. (A report is the only thing that can raise the pair.)
- A channel keeps order; a lease that comes twice (same or lower fencing number) is taken once.
- An end is kept, and listed in each full report, until its acknowledgement.
- A timed lease runs from when the beat (or report) that was answered was *sent*. Before it is over, what runs gets TERM, then
  KILL; nothing starts on one that is over. An untimed lease (same machine) is the worker's life.
- What has started never exceeds the capacity. Attempts of one group run one after the other and hold the demand of one.
- A lease of more than slots that finds no room (what a former owner of a shard placed counts) is handed back at once, not started.
- Drained: what waits is handed back, what comes too; what runs may finish. Cordoned is only said, the schedulers keep to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from dts.amounts import names_of, need, offer, times, total_of, zero
from dts.bounds import BEATS_PER_LEASE
from dts.model import (
    NO_END,
    Block,
    Demand,
    End,
    Held,
    Instant,
    Lease,
    Report,
    ShardId,
    Status,
    WorkerRef,
)
from dts.worker.attempts import Action, Attempt, Capacity, Group, Rooms, Skip, Start, Started, State, Stop, Up, Why
from dts.worker.holding import BEATS_KEPT, Holding, blocks
from dts.worker.shares import Use

NEVER = 2**62


class Leases:
    """One worker's part of the lease protocol, over all its streams and shards."""

    def __init__(self, ref: WorkerRef, total: Demand, backlog: int, timed: bool, rooms: Rooms) -> None:
        self.ref = ref
        self.total = total
        self.backlog = backlog
        self.timed = timed
        self.leaving: int | None = None  # until when what runs may finish
        self.refused = 0  # leases that were not ours to take
        self.cordoned = False
        self.draining: int | None = None  # what runs may finish until then; NEVER: as long as it takes
        self._rooms = rooms
        self._free = Capacity(total)
        self._unleased = Capacity(total)  # of what cannot wait in the backlog, nothing is leased beyond it
        self._left = False  # the time to leave came, all was told to stop
        self._shards: dict[ShardId, Holding] = {}
        self._lease_ms: dict[int, int] = {}  # by stream
        self._urgent: deque[Attempt] = deque()  # more than slots is reserved for them: they go before the backlog
        self._waiting: dict[str, deque[Attempt]] = {}  # by kind; the kind served last is last
        self._count = 0  # attempts WAITING
        self._begun: list[Attempt] = []
        self._actions: list[Action] = []
        self._messages: dict[int, list[Up]] = {}  # by stream

    # ---- what runs, for the owner of this object -----------------------------------------------------------------

    def held(self) -> Iterator[Attempt]:
        """All attempts that wait or run."""
        for shard in self._shards.values():
            yield from shard.held.values()

    @property
    def unacknowledged(self) -> int:
        return sum(len(shard.ended) for shard in self._shards.values())

    @property
    def idle(self) -> bool:
        """Nothing waits, runs or is unacknowledged."""
        return not any(shard.held or shard.ended for shard in self._shards.values())

    def deadlines(self) -> dict[ShardId, int]:
        """Until when what is held for each shard may run; untimed: none, it may run as long as the worker lives."""
        return {id: shard.deadline for id, shard in self._shards.items() if shard.held} if self.timed else {}

    def take_actions(self) -> list[Action]:
        """What the runners must do, in order; given once."""
        actions, self._actions = self._actions, []
        return actions

    def take_messages(self, stream: int | None = None) -> list[Up]:
        """What goes up (None: on all streams), in order; given once. Ends that came since the last call are one block for
        each status."""
        self._flush(stream)
        if stream is not None:
            return self._messages.pop(stream, [])
        messages, self._messages = self._messages, {}
        return [each for of_stream in messages.values() for each in of_stream]

    def uses(self) -> dict[int | None, Use]:
        """What is held, by the stream of the shard's owner; None: those of shards without one."""
        names = names_of(self.total)
        amounts: dict[int | None, dict[Demand, int]] = {}
        pinned: dict[int | None, int] = {}
        groups: set[int] = set()
        for shard in self._shards.values():
            counts = amounts.setdefault(shard.stream, {}) if shard.held else {}
            for attempt in shard.held.values():
                demand, group = attempt.demand, attempt.group
                counts[demand] = counts.get(demand, 0) + 1
                if not demand.slots_only or (group is not None and id(group) not in groups):
                    groups.add(id(group))
                    pinned[shard.stream] = pinned.get(shard.stream, 0) + demand.slots
        found = {}
        for stream, counts in amounts.items():
            vectors = [times(need(demand, names), count) for demand, count in counts.items()]
            found[stream] = Use(total_of(vectors, zero(offer(self.total, 0))), pinned.get(stream, 0))
        return found

    def _say(self, stream: int, shard: ShardId, message: Report | Started) -> None:
        self._messages.setdefault(stream, []).append(Up(stream, shard, message))

    def wake_at(self) -> int | None:
        """When `tick` has something to do."""
        times = [] if self.leaving is None or self._left else [self.leaving]
        times += [self.draining] if self.draining not in (None, NEVER) else []
        for shard in self._shards.values():
            if shard.stream is not None:
                times.append(shard.beat_at)
            if self.timed and shard.held and shard.stage < 2:
                times.append(shard.term_at if shard.stage == 0 else shard.kill_at)
        return min(times, default=None)

    # ---- from the streams ----------------------------------------------------------------------------------------

    def attach(self, stream: int, lease_ms: int) -> None:
        """A stream was welcomed; its owner's leases last so long."""
        self._lease_ms[stream] = lease_ms

    def detach(self, stream: int) -> None:
        """A stream ended: what runs goes on, ends are kept for the next report."""
        self._lease_ms.pop(stream, None)
        self._messages.pop(stream, None)
        for shard in self._shards.values():
            if shard.stream == stream:
                shard.stream = None

    def ask(self, stream: int, shard_id: ShardId, epoch: int, now: int) -> None:
        """Answers with a full report, which is a promise; a lower epoch than the promised one is not answered."""
        if stream not in self._lease_ms:
            return
        shard = self._shards.setdefault(shard_id, Holding())
        if epoch < shard.epoch:
            return
        shard.epoch, shard.stream, shard.lease_ms = epoch, stream, self._lease_ms[stream]
        shard.number += 1
        shard.reported = now
        shard.beat_at = now + shard.lease_ms // BEATS_PER_LEASE
        shard.fresh.clear()
        parts = list(blocks((held, *end) for held, end in shard.ended.items()))
        first = parts[:1]  # what is listed as held besides follows at once
        held = [*shard.held, *(Held(key, block.attempt) for block in parts[1:] for key in block.keys)]
        report = Report(self.ref, epoch, shard.number, self.timed, True, held, first)
        self._say(stream, shard_id, report)
        for block in parts[1:]:
            self._say(stream, shard_id, self._report(shard, ended=[block]))
        self._begun.extend(each for each in shard.held.values() if each.state is State.RUNNING)

    def disown(self, stream: int, shards: Iterable[ShardId]) -> None:
        """The instance behind a stream owns these no more: what is held of them is told to who asks next."""
        for each in shards:
            shard = self._shards.get(each)
            if shard is not None and shard.stream == stream:
                shard.stream = None

    def lease(self, shard_id: ShardId, lease: Lease, now: int) -> None:
        """Takes placed attempts, unless they echo another report than the last."""
        block, shard = lease.block, self._shards.get(shard_id)
        if shard is None or block.report != (shard.epoch, shard.number) or block.fencing < shard.fence:
            self.refused += len(block.keys)
            return
        if block.fencing > shard.fence:
            shard.fence = block.fencing
            shard.leased.clear()
        self._renew(shard, shard.reported)
        kind_of, held, ended, leased = self._rooms.kind, shard.held, shard.ended, shard.leased
        kinds: dict[int, str] = {}  # by the body's identity: equal ones are the same object
        taken = []
        for key, body in zip(block.keys, lease.bodies, strict=True):
            id = Held(key, block.attempt)
            if id in held or id in ended or id in leased:
                continue
            kind = kinds.get(id_ := _identity(body))
            if kind is None:
                kind = kinds[id_] = kind_of(body, block.demand)
            attempt = Attempt(id, shard_id, block.fencing, body, kind, block.demand)
            held[id] = attempt
            leased.add(id)
            taken.append(attempt)
        self._accept(taken, block.demand)
        self.poke(now)

    def _accept(self, taken: list[Attempt], demand: Demand) -> None:
        """Puts new attempts where they wait; hands back what is too much, or comes while we leave or drain."""
        closed = self.leaving is not None or self.draining is not None
        room = 0 if closed else max(self.backlog + self.total.slots - self._count, 0)
        self._count += len(taken)
        for attempt in taken[room:]:
            self._end(attempt, Status.QUEUED, NO_END)
        for attempt in taken[:room]:
            if demand.slots_only:
                self._waiting.setdefault(attempt.kind, deque()).append(attempt)
            elif self._unleased.fits(demand):
                self._unleased.take(demand, 1)
                attempt.reserved = True
                self._urgent.append(attempt)
            else:
                self._end(attempt, Status.QUEUED, End(error="its worker has no room for it"))

    def cancel(self, shard_id: ShardId, epoch: int, items: Iterable[tuple[Held, str]], now: int) -> None:
        """Ends attempts that an owner no lower than the promised one names."""
        shard = self._shards.get(shard_id)
        if shard is None or epoch < shard.epoch:
            return
        for held, reason in items:
            attempt = shard.held.get(held)
            if attempt is not None:
                self._stop(attempt, Why.CANCEL, reason, None)
        self.poke(now)

    def echo(self, shard_id: ShardId, epoch: int, beat: int) -> None:
        """A beat was answered: timed leases run on from when it was sent."""
        shard = self._shards.get(shard_id)
        if shard is None or epoch != shard.epoch or beat not in shard.sent:
            return
        self._renew(shard, shard.sent[beat])
        for old in [each for each in shard.sent if each <= beat]:
            del shard.sent[old]

    def ack(self, shard_id: ShardId, held: Iterable[Held]) -> None:
        """These ends are committed: forgotten."""
        shard = self._shards.get(shard_id)
        if shard is not None:
            for each in held:
                shard.ended.pop(each, None)

    def leave(self, grace_ms: int, now: int) -> None:
        """Hands back what waits, lets what runs finish until then; a second call can only make it sooner."""
        until = now + grace_ms
        self.leaving = until if self.leaving is None else min(self.leaving, until)
        self._hand_back("the worker leaves")
        self.tick(now)

    def cordon(self, cordoned: bool, drain: bool, grace_ms: int, now: int) -> None:
        """Nothing new is to come, or something again. `drain`: what waits is handed back, what runs may finish within the
        grace time (0: however long it takes), and is then ended and handed back, too."""
        self.cordoned = cordoned
        if not cordoned:
            self.draining = None
        elif drain:
            until = now + grace_ms if grace_ms else NEVER
            self.draining = until if self.draining is None else min(self.draining, until)
            self._hand_back("the worker drains")
        self.tick(now)

    def _hand_back(self, reason: str) -> None:
        """What has not started."""
        for attempt in list(self.held()):
            if attempt.state is State.WAITING:
                self._stop(attempt, Why.LEAVE, reason, None)
            elif attempt.state is State.HANDED:
                self._actions.append(Skip(attempt))

    # ---- from the runners ----------------------------------------------------------------------------------------

    def started(self, attempt: Attempt, at: Instant) -> None:
        """Its first instruction was at `at` (wall clock). Told of only if it still runs when messages are taken."""
        if attempt.state is State.HANDED:
            attempt.state = State.RUNNING
            attempt.started = at
            self._begun.append(attempt)

    def ended(self, results: Iterable[tuple[Attempt, Status, End]], now: int) -> None:
        """COMPLETED or FAILED: by itself; CANCELLED: because it was told to stop."""
        for attempt, status, end in results:
            if attempt.state is State.ENDED:
                continue
            if status is Status.FAILED and self.timed and now >= self._shards[attempt.shard].deadline:
                # Too late to say what it failed of: the guard kills what runs on a lease that is over.
                self._end(attempt, Status.LOST, end)
            elif status is Status.CANCELLED:
                told = end if end.error else end._replace(error=attempt.reason)
                self._end(attempt, _stopped(attempt, end), told)
            else:
                self._end(attempt, status, end)
        self.poke(now)

    def returned(self, attempts: Sequence[Attempt], now: int) -> None:
        """A runner gives back what it has not started: first in line again."""
        for attempt in reversed(attempts):
            if attempt.state is not State.HANDED:
                continue
            self._ungroup(attempt)
            attempt.state = State.WAITING
            self._count += 1
            if attempt.why is not None:
                self._end(attempt, _stopped(attempt, NO_END), End(error=attempt.reason))
            elif self.leaving is not None or self.draining is not None:
                self._end(attempt, Status.QUEUED, End(error="the worker takes nothing new"))
            elif attempt.demand.slots_only:
                self._waiting.setdefault(attempt.kind, deque()).appendleft(attempt)
            else:
                self._urgent.appendleft(attempt)
        self.poke(now)

    def lose(self) -> None:
        """All that ran is dead by no wish of ours: what a runner had is LOST, the others are handed back."""
        for attempt in list(self.held()):
            begun = attempt.state is not State.WAITING  # one that was handed over may have started unseen
            end = End(attempt.started, 0, error="the worker lost its guard process")
            self._end(attempt, Status.LOST if begun else Status.QUEUED, end)

    # ---- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Sends beats that are due, ends what runs on leases that run out, or past the time to leave."""
        for shard_id, shard in self._shards.items():
            if shard.stream is not None and now >= shard.beat_at:
                self._beat(shard_id, shard, now)
            if self.timed and shard.held:
                self._run_out(shard, now)
        if self.leaving is not None and now >= self.leaving and not self._left:
            self._left = True
            self._stop_all("the worker leaves")
        if self.draining is not None and now >= self.draining:
            self.draining = NEVER  # until it is told otherwise
            self._stop_all("the worker drains")
        self.poke(now)

    def _stop_all(self, reason: str) -> None:
        for attempt in list(self.held()):
            if attempt.why is None:
                self._stop(attempt, Why.LEAVE, reason, None)

    def poke(self, now: int) -> None:
        """Hands over what waits, as far as capacity and the runners' rooms go."""
        while self._urgent:
            head = self._urgent[0]
            if head.state is not State.WAITING:
                self._urgent.popleft()
            elif self._free.fits(head.demand) and self._rooms.claim(head.kind):
                self._hand_over(self._urgent, 1, now)
            else:
                return  # nothing may pass: it needs what the backlog would take
        busy = True
        while busy and self._count:
            busy = False
            for kind in list(self._waiting):
                queue = self._waiting.pop(kind)
                while queue and queue[0].state is not State.WAITING:
                    queue.popleft()
                if queue and self._free.fits(queue[0].demand) and (size := self._rooms.claim(kind)):
                    self._hand_over(queue, size, now)
                    busy = True
                if queue:
                    self._waiting[kind] = queue

    # ---- inside --------------------------------------------------------------------------------------------------

    def _hand_over(self, queue: deque[Attempt], size: int, now: int) -> None:
        """One group from the head of a queue: up to `size` attempts of one demand."""
        group: list[Attempt] = []
        demand, kind = queue[0].demand, queue[0].kind
        while queue and len(group) < size and queue[0].demand is demand:
            attempt = queue.popleft()
            if attempt.state is not State.WAITING:
                continue
            if self.timed and now >= self._shards[attempt.shard].term_at:
                self._end(attempt, Status.QUEUED, End(error="its lease ran out before it could start"))
                continue
            group.append(attempt)
        shared = Group(demand, len(group))
        for attempt in group:
            attempt.state = State.HANDED
            attempt.group = shared
        self._count -= len(group)
        if group:
            self._free.take(demand, 1)
        self._actions.append(Start(group, kind))  # an empty one too: the room was claimed

    def _ungroup(self, attempt: Attempt) -> None:
        group = attempt.group
        assert group is not None, f"{attempt.id} was not handed over"
        attempt.group = None
        group.left -= 1
        if group.left == 0:
            self._free.take(group.demand, -1)

    def _stop(self, attempt: Attempt, why: Why, reason: str, within: int | None) -> None:
        if attempt.why is None:
            attempt.why, attempt.reason = why, reason
        if attempt.state is State.WAITING:
            self._end(attempt, _stopped(attempt, NO_END), End(error=reason))
        else:
            self._actions.append(Stop(attempt, within))

    def _end(self, attempt: Attempt, status: Status, end: End) -> None:
        if attempt.state is State.WAITING:
            self._count -= 1
        else:
            self._ungroup(attempt)
        attempt.state = State.ENDED
        if attempt.reserved:
            attempt.reserved = False
            self._unleased.take(attempt.demand, -1)
        shard = self._shards[attempt.shard]
        del shard.held[attempt.id]
        shard.ended[attempt.id] = (status, end)
        shard.fresh.append(attempt.id)

    def _renew(self, shard: Holding, sent: int) -> None:
        if sent + shard.lease_ms > shard.deadline:
            shard.deadline = sent + shard.lease_ms
            shard.stage = 0

    def _run_out(self, shard: Holding, now: int) -> None:
        stage = 2 if now >= shard.kill_at else 1 if now >= shard.term_at else 0
        if stage <= shard.stage:
            return
        shard.stage = stage
        for attempt in list(shard.held.values()):
            within = 0 if stage == 2 else shard.kill_at - now
            self._stop(attempt, Why.LEASE, "the lease ran out: no answer from the scheduler", within)

    def _beat(self, shard_id: ShardId, shard: Holding, now: int) -> None:
        assert shard.stream is not None
        shard.beat += 1
        shard.sent[shard.beat] = now
        shard.beat_at = now + shard.lease_ms // BEATS_PER_LEASE
        while len(shard.sent) > BEATS_KEPT:
            del shard.sent[next(iter(shard.sent))]
        self._say(shard.stream, shard_id, self._report(shard, beat=shard.beat))

    def _report(self, shard: Holding, ended: Sequence[Block] = (), beat: int = 0) -> Report:
        return Report(self.ref, shard.epoch, shard.number, self.timed, ended=ended, beat=beat)

    def _flush(self, stream: int | None) -> None:
        """Makes messages of what ended and what began (of one stream's shards, or of all)."""
        for shard_id, shard in self._shards.items():
            if shard.fresh and shard.stream is not None and stream in (None, shard.stream):
                fresh = [(held, *end) for held in shard.fresh if (end := shard.ended.get(held))]
                shard.fresh.clear()
                for block in blocks(fresh):
                    self._say(shard.stream, shard_id, self._report(shard, ended=[block]))
        if self._begun:
            begun, self._begun = self._begun, []
            by_shard: dict[ShardId, Started] = {}
            for attempt in begun:
                if attempt.state is State.RUNNING:
                    started = by_shard.setdefault(attempt.shard, Started([], []))
                    started.held.append(attempt.id)
                    started.at.append(attempt.started)
            for shard_id, started in by_shard.items():
                to = self._shards[shard_id].stream
                if to is not None:
                    self._say(to, shard_id, started)


_identity = id


def _stopped(attempt: Attempt, end: End) -> Status:
    """What the end of an attempt that was told to stop is called."""
    if attempt.why is Why.CANCEL:
        return Status.CANCELLED
    if attempt.why is Why.LEAVE or not end.started:
        return Status.QUEUED
    return Status.LOST
