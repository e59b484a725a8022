"""The pool: warm processes for python tasks, each given a chunk at a time and only while it is idle.

A kind (function) starts with chunks of one, which grow as long as its calls prove short; so long calls spread over members, of
which more are forked when attempts wait and none becomes idle. A member that dies fails the one attempt that it had marked as
running; what it had not begun goes back to the leases and to another one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from functools import partial
from typing import Any

from dts.model import End, Status
from dts.worker.attempts import Attempt
from dts.worker.channel import Channel
from dts.worker.guarding import Guard
from dts.worker.member import Member, Taken
from dts.worker.runners import Ended, Host, how_it_ended, work_of
from dts.worker.shared import CHUNK_MAX

log = logging.getLogger(__name__)

CHUNK_S = 0.004  # how long a chunk should take
SHORT_S = 0.001  # calls shorter than this go in chunks
GROWTH = 4  # a chunk is so many times the last one of its kind, at most
GROW_AFTER_S = 0.01  # attempts that wait so long without an idle member get new ones
STUCK_S = 0.05  # a chunk that takes so long was not of short calls after all
LOOK_S = 0.02  # how often busy members are looked at: starts, time-outs, results not yet told
IDLE_S = 60.0  # members beyond the base end after so long without work
KINDS = 10_000  # functions whose speed is remembered
BARREN = 10  # members that die in a row without having begun anything: then what they were given fails


class Pool:
    """The runner of python tasks (runners.Runner). `base` members are kept, `most` are there at most; `shards`: the guard must
    know which shards' attempts run where, since their leases end by time."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, guard: Guard, host: Host, base: int, most: int, shards: bool
    ) -> None:
        self._loop = loop
        self._guard = guard
        self._host = host
        self._base = min(base, most)
        self._most = most
        self._tell_shards = shards
        self._members: dict[int, Member] = {}
        self._idle: list[Member] = []
        self._reserved: list[Member] = []
        self._busy: dict[Attempt, tuple[Member, int]] = {}
        self._ending: dict[Attempt, tuple[Member, Ended]] = {}  # ends that wait until nothing is left of their member
        self._sizes: dict[str, int] = {}  # by kind: the next chunk's
        self._long: set[str] = set()  # kinds whose calls take longer than SHORT_S
        self._next_id = 0
        self._hungry = False  # attempts wait for a member
        self._barren = 0
        self._look: asyncio.TimerHandle | None = None
        self._grow: asyncio.TimerHandle | None = None
        self._closed = False
        guard.on_member_gone = self._on_member_gone
        self._zygote = self._start_zygote()
        self._replenish()

    # ---- Runner --------------------------------------------------------------------------------------------------

    def claim(self, kind: str) -> int:
        """The size of the next chunk of this kind, and an idle member reserved for it."""
        if not self._idle:
            self._want(kind)
            return 0
        self._reserved.append(self._idle.pop())
        return self._sizes.get(kind, 1)

    def start(self, attempts: list[Attempt]) -> None:
        member = self._reserved.pop()
        if not attempts:
            self._idle.append(member)
            return
        self._busy.update((attempt, (member, index)) for index, attempt in enumerate(attempts))
        member.give(attempts)
        if self._look is None:
            self._look = self._loop.call_later(LOOK_S, self._look_at_all)

    def stop(self, attempt: Attempt, within_ms: int | None) -> None:
        within = work_of(attempt).kill_grace_ms if within_ms is None else within_ms
        if attempt in self._busy:
            member, index = self._busy[attempt]
            member.stop(index, within)
        elif attempt in self._ending:
            self._ending[attempt][0].kill(attempt, within)

    def skip(self, attempt: Attempt) -> None:
        if attempt in self._busy:
            member, index = self._busy[attempt]
            member.skip(index)

    async def close(self) -> None:
        self._closed = True
        for timer in (self._look, self._grow):
            if timer is not None:
                timer.cancel()
        self._zygote.close()
        for member in self._members.values():
            member.dispose()
        self._members.clear()

    # ---- members -------------------------------------------------------------------------------------------------

    def _start_zygote(self) -> Channel:
        ours, theirs = socket.socketpair()
        self._guard.zygote(theirs.detach())
        return Channel(self._loop, ours, self._on_zygote, lambda: None, self._on_zygote_gone)

    def _fork(self) -> None:
        self._next_id += 1
        member = Member(self._loop, self._guard, self._host, self._next_id, self._tell_shards)
        self._members[member.id] = member
        self._zygote.send(["fork", member.id], member.theirs)

    def _replenish(self) -> None:
        while len(self._members) < self._base and not self._closed and self._barren < BARREN:
            self._fork()

    def _on_zygote(self, frame: list[Any]) -> None:
        match frame:
            case ["forked", id, pid] if id in self._members:
                member = self._members[id]
                member.join(pid, partial(self._collect, member))
                self._now_idle(member)
                self._host.poke()
            case ["died", id, status] if id in self._members:
                self._bury(self._members[id], *how_it_ended(status))

    def _on_zygote_gone(self) -> None:
        """Its children died with it. Without a guard nothing is started any more: the worker ends."""
        if self._closed or not self._guard.alive:
            return
        log.error("the pool's zygote is gone: starting another")
        self._zygote = self._start_zygote()
        for member in list(self._members.values()):
            self._bury(member, 0, "the pool's zygote is gone")
        self._replenish()

    def _bury(self, member: Member, code: int, how: str) -> None:
        """A member's process is dead."""
        if member in self._idle:
            self._idle.remove(member)
        taken, begun = member.die(code, how or "exit code 0")
        self._barren = 0 if begun or taken.ended or not taken.returned else self._barren + 1
        self._let_go(member)
        self._replenish()
        if taken.returned and self._barren >= BARREN:
            end = End(error=f"the pool's processes end before they run anything: {how}")
            taken.ended.extend((each, Status.FAILED, end) for each in taken.returned)
            taken.returned.clear()
        self._hand_on(member, taken)

    def _on_member_gone(self, id: int) -> None:
        """Nothing is left of what a member had started."""
        gone = [ended for member, ended in self._ending.values() if member.id == id]
        for attempt, _, _ in gone:
            del self._ending[attempt]
        if gone:
            self._host.ended(gone)

    # ---- growing and shrinking -----------------------------------------------------------------------------------

    def _want(self, kind: str) -> None:
        """Somebody waits for a member: more are forked if none becomes idle soon."""
        self._hungry = True
        if self._grow is None and len(self._members) < self._most:
            self._grow = self._loop.call_later(0 if kind in self._long else GROW_AFTER_S, self._grow_now)

    def _grow_now(self) -> None:
        self._grow = None
        if self._idle or not self._hungry or any(member.pid == 0 for member in self._members.values()):
            return
        stuck = time.monotonic() - STUCK_S
        if any(member.given > stuck and member.kind not in self._long for member in self._members.values()):
            # Short calls are under way: more processes would not help.
            self._grow = self._loop.call_later(GROW_AFTER_S, self._grow_now)
            return
        more = max(1, len(self._members) // 2)
        for _ in range(min(more, self._most - len(self._members))):
            self._fork()
        self._hungry = False

    def _now_idle(self, member: Member) -> None:
        member.idle_since = self._loop.time()
        member.chunk = []
        self._idle.append(member)
        self._hungry = False
        if len(self._members) > self._base:
            self._loop.call_later(IDLE_S, self._shrink)

    def _shrink(self) -> None:
        """Lets members go that were idle long enough; the ones used last are at the end of the list."""
        before = self._loop.time() - IDLE_S
        while self._idle and len(self._members) > self._base and self._idle[0].idle_since <= before:
            self._let_go(self._idle.pop(0))

    def _let_go(self, member: Member) -> None:
        """Its process ends with its socket."""
        if self._members.pop(member.id, None) is not None:
            member.dispose()

    # ---- results -------------------------------------------------------------------------------------------------

    def _collect(self, member: Member, force: bool = False) -> None:
        taken = member.collect(force)
        if member.chunk and not member.left:
            if member.doomed:
                self._let_go(member)
                self._replenish()
            else:
                self._learn(member)
                self._now_idle(member)
        if taken.ended:
            self._barren = 0
        self._hand_on(member, taken)

    def _hand_on(self, member: Member, taken: Taken) -> None:
        for ended in taken.ending:
            del self._busy[ended[0]]
            self._ending[ended[0]] = (member, ended)
        for attempt, _, _ in taken.ended:
            del self._busy[attempt]
        for attempt in taken.returned:
            del self._busy[attempt]
        if taken.ended:
            self._host.ended(taken.ended)
        if taken.returned:
            self._host.returned(taken.returned)

    def _learn(self, member: Member) -> None:
        """The next chunk's size, from the time that this one's calls took by themselves."""
        count = len(member.chunk)
        each = max(member.spent_ns / count / 1e9, 1e-6)
        if each > SHORT_S:
            self._is_long(member.kind)
            return
        self._long.discard(member.kind)
        self._sizes[member.kind] = min(CHUNK_MAX, count * GROWTH, max(1, int(CHUNK_S / each)))
        if len(self._sizes) > KINDS:
            self._sizes.clear()
            self._long.clear()

    def _is_long(self, kind: str) -> None:
        self._sizes[kind] = 1
        self._long.add(kind)

    def _look_at_all(self) -> None:
        self._look = None
        now = time.monotonic()
        for member in [each for each in self._members.values() if each.chunk]:
            if now - member.given > LOOK_S:
                self._collect(member, force=True)
            if member.chunk and (back := member.look()):
                self._is_long(member.kind)
                self._hand_on(member, Taken([], back, []))
        if self._busy and not self._closed and self._look is None:
            self._look = self._loop.call_later(LOOK_S, self._look_at_all)
