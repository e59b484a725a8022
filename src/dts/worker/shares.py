"""How a worker's capacity is divided among the Scheduler instances that it serves. Pure: no I/O, no clock.

Rules (core/credits.py is the other end):
- `granted` is the most that an instance can believe it may use: raised when a Credit is sent, lowered only by what it gives back.
  So the sum over all instances, with what runs for none of them, never exceeds the worker in any dimension.
- At first all get equal shares, in whole units, the rest to the lowest names. Nothing moves until somebody wants.
- Who wants gets what the others do not use; several that want share alike (max-min in each dimension).
- A single demand above an equal share is gathered at one instance, lowest name first: the others get nothing new meanwhile. When it
  was there for GATHERED_MS the turn passes to the next that wants one.
- What runs counts at the instance that owns its shard now, also beyond its share; without an owner it is nobody's, and not free.
- An instance that does not answer a lowered credit within L is no use: its stream is ended, and its credit with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dts.amounts import BACKLOG, SLOTS, Vector, in_use, least, minus, most, plus, total_of, within, zero

LOOK_MS = 100  # how often what is wanted, and not there yet, is looked at
GATHERED_MS = 1_000  # so long a gathered demand's room is kept for its instance
SENT_KEPT = 1_000  # credits of one stream without an answer; more: it is ended


class Use(NamedTuple):
    """What is held for an instance: slots and backlog together in slots; `pinned` of them do not wait in the backlog."""

    taken: Vector
    pinned: int


class Grant(NamedTuple):
    """A Credit to be sent."""

    stream: int
    number: int
    share: Vector
    returns: int  # how many have come on the stream


class _Party:
    """One instance's stream."""

    __slots__ = (
        "granted",
        "more",
        "name",
        "number",
        "one",
        "returns",
        "sent",
        "share",
        "stream",
        "target",
        "unanswered",
    )

    def __init__(self, stream: int, name: str, nothing: Vector) -> None:
        self.stream = stream
        self.name = name
        self.number = self.returns = 0
        self.share = self.granted = self.target = self.more = self.one = nothing
        self.sent: deque[tuple[int, Vector]] = deque()  # whose arrival is not known
        self.unanswered: int | None = None  # since when a lowered credit is

    @property
    def wants(self) -> bool:
        return any(self.more) or any(self.one)


class Shares:
    """The worker's end of credits."""

    def __init__(self, whole: Vector) -> None:
        self.whole = whole
        self._nothing = zero(whole)
        self._parties: dict[int, _Party] = {}
        self._stale = False  # somebody came, went or wants something else
        self._looked = 0
        self._gathering: str | None = None  # by name; `_goal`: what it is to have
        self._goal = self._nothing
        self._gathered: int | None = None  # since when it has it
        self._turn = ""  # the name that gathered last

    # ---- inputs

    def join(self, stream: int, name: str) -> None:
        """An instance's stream was welcomed."""
        self._parties[stream] = _Party(stream, name, self._nothing)
        self._stale = True

    def part(self, stream: int) -> None:
        """A stream ended, and with it what was credited on it."""
        if self._parties.pop(stream, None) is not None:
            self._stale = True

    def moved(self) -> None:
        """What is held counts at another instance now."""
        self._stale = True

    def want(self, stream: int, more: Vector, one: Vector) -> None:
        """What an instance would use besides what it uses."""
        party = self._parties.get(stream)
        if party is not None:
            party.more, party.one = more or self._nothing, one or self._nothing
            self._stale = self._stale or party.wants

    def returned(self, stream: int, number: int, kept: Vector, *, moved: bool = False) -> None:
        """With credit `number` known, an instance uses no more than this. `moved`: shards went away with their part of it, and
        no credit that is under way now raises anything."""
        party = self._parties.get(stream)
        if party is None:
            return
        party.returns += 1
        while party.sent and (moved or party.sent[0][0] <= number):
            party.sent.popleft()
        for _, share in party.sent:
            kept = most(kept, share)
        party.granted = least(party.granted, kept)
        party.share = least(party.share, party.granted)
        if number >= party.number:
            party.unanswered = None

    # ---- outputs

    def divide(self, uses: Mapping[int, Use], orphans: Vector, now: int) -> list[Grant]:
        """The credits to send. `uses`: what is held by stream; `orphans`: what is held for nobody."""
        self._looked = now
        if not self._parties:
            return []
        parties = sorted(self._parties.values(), key=lambda each: (each.name, each.stream))
        used = {}
        for party in parties:
            use = uses.get(party.stream)
            used[party.stream] = in_use(*use, party.granted) if use is not None else self._nothing
        if self._stale or any(party.wants for party in parties):
            self._aim(parties, used, minus(self.whole, orphans), now)
            self._stale = any(orphans)  # what becomes free of them is to be divided, too
        held = {party.stream: most(party.granted, used[party.stream]) for party in parties}
        grants = []
        for party in parties:
            others = [amount for stream, amount in held.items() if stream != party.stream]
            left = self._left(total_of([*others, orphans], self.whole), held[party.stream])
            share = least(party.target, most(party.granted, left))
            if share != party.share:
                grants.append(self._grant(party, share, now))
                held[party.stream] = most(party.granted, used[party.stream])
        return grants

    def wake_at(self) -> int | None:
        """When `divide` is worth a call although nobody said anything."""
        parties = self._parties.values()
        waits = self._stale or any(each.share != each.target or (each.wants and len(parties) > 1) for each in parties)
        return self._looked + LOOK_MS if waits and parties else None

    def silent(self, now: int, lease_ms: int) -> list[int]:
        """Streams of instances that do not answer."""
        return [
            party.stream
            for party in self._parties.values()
            if len(party.sent) > SENT_KEPT or (party.unanswered is not None and now >= party.unanswered + lease_ms)
        ]

    def granted(self) -> dict[int, Vector]:
        """The most that each instance can believe it may use, by stream."""
        return {stream: party.granted for stream, party in self._parties.items()}

    # ---- inside

    def _grant(self, party: _Party, share: Vector, now: int) -> Grant:
        party.number += 1
        party.share = share
        party.sent.append((party.number, share))
        if not within(party.granted, share) and party.unanswered is None:
            party.unanswered = now
        party.granted = most(party.granted, share)
        return Grant(party.stream, party.number, share, party.returns)

    def _left(self, others: Vector, own: Vector) -> Vector:
        """What is left of the worker for one that has so much. What may wait runs in slots that nobody uses, and what may run
        waits: where there are more of the one than there can be, they count as the other."""
        running = max(others[SLOTS] + own[SLOTS] - self.whole[SLOTS], 0)
        waiting = max(others[BACKLOG] + own[BACKLOG] - self.whole[BACKLOG], 0)
        counted = (*others[:SLOTS], others[SLOTS] + waiting, others[BACKLOG] + running, *others[BACKLOG + 1 :])
        return minus(self.whole, counted)

    def _aim(self, parties: Sequence[_Party], used: Mapping[int, Vector], whole: Vector, now: int) -> None:
        """What each is to have in the end."""
        if len(parties) == 1:
            parties[0].target = self.whole
            return
        claims = [
            least(self.whole, plus(used[party.stream], party.more)) if party.wants else used[party.stream]
            for party in parties
        ]
        columns = [divided(list(column), room) for column, room in zip(zip(*claims, strict=True), whole, strict=True)]
        for party, target in zip(parties, zip(*columns, strict=True), strict=True):
            party.target = tuple(target)
        self._gather(parties, used, now)

    def _gather(self, parties: Sequence[_Party], used: Mapping[int, Vector], now: int) -> None:
        """Adds to one party's target what its single large demand lacks: what the others do not use, then what they do, as it
        becomes free (a share below what is used says: place nothing new)."""
        chosen = self._chosen(parties, used, now)
        if chosen is None:
            return
        others = [party for party in parties if party is not chosen]
        for dimension, goal in enumerate(self._goal):
            for floor in (used, None):
                for party in others:
                    kept = floor[party.stream][dimension] if floor is not None else 0
                    moved = min(goal - chosen.target[dimension], party.target[dimension] - kept)
                    if moved > 0:
                        party.target = _changed(party.target, dimension, -moved)
                        chosen.target = _changed(chosen.target, dimension, moved)

    def _chosen(self, parties: Sequence[_Party], used: Mapping[int, Vector], now: int) -> _Party | None:
        """Whose turn it is to gather."""
        equal = tuple(each // len(parties) for each in self.whole)
        large = {party.name: party for party in parties if any(party.one) and not within(party.one, equal)}
        large = {name: party for name, party in large.items() if within(party.one, self.whole)}
        if self._gathering is not None:
            party = large.get(self._gathering)
            if party is not None and within(self._goal, party.granted) and self._gathered is None:
                self._gathered = now
            if party is None or (self._gathered is not None and now >= self._gathered + GATHERED_MS):
                self._turn, self._gathering, self._gathered = self._gathering, None, None
        if self._gathering is None and large:
            after = [name for name in sorted(large) if name > self._turn]
            self._gathering = after[0] if after else min(large)
        if self._gathering is None:
            return None
        party = large[self._gathering]
        if self._gathered is None:
            self._goal = least(self.whole, plus(used[party.stream], party.one))
        return party


def divided(claims: Sequence[int], room: int) -> list[int]:
    """Room by claims: nobody gets more than he claims while another lacks (max-min); what nobody claims goes to those that
    have least, up to a common level. What cannot be divided goes to the first."""
    count, left = len(claims), max(room, 0)
    shares = [0] * count
    for place, index in enumerate(sorted(range(count), key=lambda each: (claims[each], -each))):
        shares[index] = min(claims[index], left // (count - place))
        left -= shares[index]
    order = sorted(range(count), key=lambda each: shares[each])
    for number in range(1, count + 1):
        level, extra = divmod(left + sum(shares[index] for index in order[:number]), number)
        if number == count or level < shares[order[number]] or (level == shares[order[number]] and not extra):
            for place, index in enumerate(sorted(order[:number])):
                shares[index] = level + (place < extra)
            break
    return shares


def _changed(vector: Vector, dimension: int, by: int) -> Vector:
    return (*vector[:dimension], vector[dimension] + by, *vector[dimension + 1 :])
