"""Draws a world and what happens in it: a phase under faults, then a healed one in which everything must finish."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType

from dts import bounds
from dts.model import Demand
from tests.simulation.book import Violation
from tests.simulation.owner import Owner
from tests.simulation.people import People
from tests.simulation.site import Build, Kind, Options, Site
from tests.simulation.workers import Worker
from tests.simulation.world import World

MINUTE = 60_000
HOUR = 60 * MINUTE
TOTALS = [
    Demand(cpu=1_000, slots=3, custom=(("gpu", 1),)),
    Demand(cpu=800, slots=2, custom=(("gpu", 1),)),
    Demand(cpu=2_000, slots=5, custom=(("gpu", 2),)),
]
MOODS = (0, 1, 1, 4)  # how much more often something happens in one world
SMALL = ("STEP_CHANGES", "STEP_JOBS_OF_GAP", "MAX_GAPS", "STEP_REPORTS")
HEAL_MS = 3 * HOUR
HEALED_LIMIT = 50
HEAL_EVENTS = 60_000
MORE_ACTIONS = 12
MOST_OWNERS = 2
MOST_WORKERS = 3


def options(world: World) -> Options:
    """The run's own."""
    rng = world.rng
    world.slow = rng.choice([1, 1, 1, 5, 20])
    small = rng.random() < 0.3
    return Options(
        lease_ms=rng.choice([12_000, 30_000, 60_000]),
        limit=rng.choice([1, 2, 5, 40, 2_500]),
        trouble=rng.choice([0.0, 0.02, 0.1, 0.3]),
        slow=world.slow,
        longest_log=rng.choice([3, 20, 1_000]),
        part=rng.choice([1, 2, 50]),
        longest_task_ms=rng.choice([2_000, 20_000, 120_000]),
        failing=rng.choice([0.0, 0.1, 0.5]),
        actions=rng.randint(12, 40),
        bounds=tuple((name, rng.randint(1, 4)) for name in SMALL) if small else (),
        keep_alive_ms=rng.choice([0, 0, 0, 5_000]),
    )


class Generator:
    """One run."""

    def __init__(self, world: World, build: Build) -> None:
        rng = world.rng
        self.world = world
        self.rng = rng
        self.about_leases = rng.random() < 0.3  # a world of its own kind: rare and costly mistakes hide there
        self.options = options(world)
        timed, least = rng.choice([True, False, None]), 1
        if self.about_leases:
            timed, least = True, 2
            longest = rng.choice([30_000, 120_000])
            actions = self.options.actions + MORE_ACTIONS
            small = rng.choice([(), (("STEP_REPORTS", 1),)])
            self.options = replace(
                self.options, lease_ms=12_000, longest_task_ms=longest, actions=actions, bounds=small
            )
        kinds = {
            f"w{number}": Kind(
                rng.choice(TOTALS), rng.choice([0, 2, 20]), rng.random() < 0.5 if timed is None else timed
            )
            for number in range(rng.randint(least, MOST_WORKERS))
        }
        self.kinds = kinds
        self.build = build
        self.site: Site
        self.people: People
        self._down = False  # an outage: no owner is started

    def _acts(self) -> list[tuple[Callable[[], None], int]]:
        """What may happen, and how often."""
        return [
            (self.people.put, 10),
            (self.people.turn, 8),
            (self.people.command, 8),
            (self.people.repeat, 2),
            (self.quiet, 6),
            (self.kill_owner, 3),
            (self.stop_owner, 4),
            (self.outage, 1),
            (self.second_owner, 2),
            (self.move_shard, 1),
            (self.kill_worker, 4),
            (self.stop_worker, 3),
            (self.clone, 1),
            (self.leave, 2),
            (self.start_worker, 3),
            (self.break_stream, 4),
            (self.out_of_reach, 3),
            (self.move_clock, 4),
            (self.history_down, 1),
        ]

    def _lease_acts(self) -> list[tuple[Callable[[], None], int]]:
        """Where answers do not come, tasks run long, and clocks are set a little."""
        return [
            (self.people.put, 2),
            (self.people.turn, 1),
            (self.people.command, 2),
            (self.quiet, 4),
            (self.kill_owner, 2),
            (self.stop_owner, 3),
            (self.second_owner, 1),
            (self.kill_worker, 1),
            (self.stop_worker, 5),
            (self.start_worker, 4),
            (self.break_stream, 4),
            (self.out_of_reach, 12),
            (self.correct_clock, 12),
        ]

    def run(self) -> None:
        """All of it. Raises Violation."""
        small = [(bounds, name, value) for name, value in self.options.bounds]
        with instead([*small, *self.build.patches]):
            self.site = Site(self.world, self.build, self.options, self.kinds)
            self.people = People(self.site)
            self.begin()
            self.faults()
            self.heal()

    def begin(self) -> None:
        self.site.start_owner()
        for id in self.site.kinds:
            self.site.start_worker(id)
        for _ in range(self.rng.randint(2, 5)):
            self.people.put(busy=self.about_leases)

    def faults(self) -> None:
        """In each world some things happen more often than in others, and some not at all."""
        acts = (
            self._lease_acts() if self.about_leases else [(act, n * self.rng.choice(MOODS)) for act, n in self._acts()]
        )
        weights = [weight for _, weight in acts]
        if not any(weights):
            weights = [1] * len(acts)
        for act in self.rng.choices([act for act, _ in acts], weights, k=self.options.actions):
            self.world.run_until(self.world.t + self._gap())
            self.world.note("---", act.__name__)
            act()

    def _gap(self) -> int:
        """Ms to the next thing that happens: often in the midst of what the last one set going."""
        draw = self.rng.random()
        if draw < 0.35:
            return int(draw * 60)
        if draw < 0.75:
            return int((draw - 0.35) * 10_000)
        return int((draw - 0.75) * 100_000)

    # ---- owners

    def _owner(self) -> Owner | None:
        alive = [each for each in self.site.owners if each.alive]
        return self.rng.choice(alive) if alive else None

    def kill_owner(self) -> None:
        """Another comes, at once or in a while."""
        owner = self._owner()
        if owner is not None:
            owner.kill()
        self.world.after(self.rng.randrange(20_000), self._ensure_owner)

    def _ensure_owner(self) -> None:
        if not self._down and not any(each.alive and not each.paused for each in self.site.owners):
            self._one_more()

    def _one_more(self) -> None:
        """Beyond MOST_OWNERS the oldest ends."""
        alive = [each for each in self.site.owners if each.alive]
        for owner in alive[: len(alive) + 1 - MOST_OWNERS]:
            owner.kill()
        self.site.start_owner()

    def stop_owner(self) -> None:
        """SIGSTOP; another may take over meanwhile; it goes on later, or never."""
        owner = self._owner()
        if owner is None or owner.paused:
            return
        self.world.note(owner, "is stopped")
        owner.pause()
        self.world.after(self.rng.randrange(2 * self.options.lease_ms), owner.wake)
        if self.rng.random() < 0.7:
            self.world.after(self.rng.randrange(self.options.lease_ms), self._ensure_owner)

    def second_owner(self) -> None:
        """The group moves the shard while its owner works."""
        self._one_more()

    def move_shard(self) -> None:
        """The group takes the shard away, perhaps with a commit under way, and gives it back, or to another."""
        owner = self._owner()
        if owner is None:
            return
        owner.run(owner.dropped)
        if self.rng.random() < 0.5:
            owner.later(self.rng.randrange(2_000), owner.boot)
        else:
            owner.later(self.rng.randrange(5_000), owner.kill)
            self.world.after(self.rng.randrange(6_000), self._ensure_owner)

    def outage(self) -> None:
        """No owner for long; people go on."""
        self._down = True
        for owner in self.site.owners:
            owner.kill()
        for _ in range(self.rng.randint(1, 3)):
            self.world.run_until(self.world.t + self.rng.randrange(self.rng.choice([MINUTE, 20 * MINUTE, 2 * HOUR])))
            self.rng.choice([self.people.put, self.people.turn, self.people.command])()
        self._down = False
        self.world.after(self.rng.randrange(1_000), self._ensure_owner)

    # ---- workers

    def _worker(self) -> Worker | None:
        """One of them; where leases matter, mostly one that runs something."""
        alive = [each for each in self.site.workers if each.alive]
        if self.about_leases and self.rng.random() < 0.7:
            alive = [each for each in alive if each.runs] or alive
        return self.rng.choice(alive) if alive else None

    def kill_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.kill()
            if self.rng.random() < 0.7:
                id = worker.ref.id
                self.world.after(self.rng.randrange(50, 5_000), lambda: self._ensure_worker(id))

    def _ensure_worker(self, id: str) -> None:
        if not any(each.ref.id == id and each.alive and not each.left for each in self.site.workers):
            self.site.start_worker(id)

    def start_worker(self) -> None:
        self._ensure_worker(self.rng.choice(list(self.site.kinds)))

    def clone(self) -> None:
        """The same id once more."""
        if len(self.site.workers) <= MOST_WORKERS:
            self.site.checkers.seen["cloned"] += 1
            self.site.start_worker(self.rng.choice(list(self.site.kinds)))

    def stop_worker(self) -> None:
        """SIGSTOP; one whose lease is its life is ended when it says nothing for L."""
        worker = self._worker()
        if worker is None or worker.paused:
            return
        self.world.note(worker, "is stopped")
        worker.pause()
        lasts = self.rng.randrange(int(1.5 * self.options.lease_ms))
        ends = not worker.timed and lasts > self.options.lease_ms
        self.world.after(lasts, worker.kill if ends else worker.wake)

    def leave(self) -> None:
        worker, owner = self._worker(), self._owner()
        if worker is not None and owner is not None:
            grace = self.rng.randrange(20_000)
            owner.run(lambda: owner.leave(worker.ref, grace))

    def break_stream(self) -> None:
        worker = self._worker()
        if worker is not None and worker.streams:
            self.rng.choice(list(worker.streams.values())).break_(silent=self.rng.random() < 0.3)

    def out_of_reach(self) -> None:
        """A worker and an owner do not reach each other for a while."""
        worker, owner = self._worker(), self._owner()
        if worker is None or owner is None:
            return
        worker.away.add(owner)
        for stream in list(worker.streams.values()):
            if stream.owner is owner:
                stream.break_(silent=True)

        def back() -> None:
            worker.away.discard(owner)
            worker.connect_soon(owner)

        self.world.after(self.rng.randrange(2 * self.options.lease_ms), back)

    # ---- time, stores

    def quiet(self) -> None:
        """Time passes."""
        self.world.run_until(self.world.t + self.rng.randrange(60_000))

    def correct_clock(self) -> None:
        """The wall clock of the servers is set by so little that it is believed."""
        self._set_clock(self.rng.randint(-1_900, 1_900))

    def move_clock(self) -> None:
        """It is set, perhaps wrong."""
        rng = self.rng
        by = rng.choice([rng.randint(-1_900, 1_900), rng.randint(-MINUTE, MINUTE), rng.randint(0, 2 * HOUR)])
        self._set_clock(by)

    def _set_clock(self, by: int) -> None:
        self.world.note("the clock is set by", by)
        self.site.wall += by
        self.site.checkers.seen["clock set back" if by < 0 else "clock set forward"] += 1

    def history_down(self) -> None:
        self.site.history.fail(self.rng.randrange(3 * MINUTE))

    # ---- healed

    def heal(self) -> None:
        """No faults any more: in bounded time nothing is open, owed or unsaid."""
        world, site = self.world, self.site
        world.note("--- heal")
        world.healed = True
        for worker in list(site.workers):
            worker.wake()
            worker.away.clear()
        for owner in list(site.owners):
            owner.wake()
            owner.core.limit = max(owner.core.limit, HEALED_LIMIT)
        if site.newest() is None:
            site.start_owner()
        for owner in site.owners:
            if owner is not site.newest():
                owner.kill()
        site.service.sweep()
        site.history.catch_up()
        owner = site.newest()
        assert owner is not None
        if owner.desk is not None and owner.desk.shard.epoch != site.checkers.epoch:
            owner.dropped()  # the group had given the shard to another, and gives it back
        owner.boot()
        for worker in site.workers:
            worker.connect_soon(owner)
        until, most = world.t + HEAL_MS, world.events + HEAL_EVENTS
        while self._unrest():
            for id in site.kinds:
                self._ensure_worker(id)
            if site.newest() is None:
                site.start_owner()
            if world.t > until or world.events > most or not world.run_next():
                raise Violation(f"1: it does not come to rest: {self._unrest()}")
        site.checkers.finish()

    def _unrest(self) -> str:
        """What is still to be done, for a person."""
        site, owner = self.site, self.site.newest()
        if owner is None or owner.desk is None or not owner.alive:
            return "no owner"
        desk = owner.desk
        shard = desk.shard
        what = {
            "under way": desk.draft is not None or desk.fresh or shard.seq != site.checkers.mirror.seq,
            "open": bool(shard.open),
            "owed": bool(shard.owed or shard.gaps),
            "commands": bool(shard.held_commands or desk.commands),
            "feed": bool(desk.changes or site.feed.since(owner.told)),
            "reports": desk.urgent > 0,
            "runs": bool(site.checkers.live),
            "unacknowledged": any(worker.leases.unacknowledged for worker in site.workers if worker.alive),
        }
        return ", ".join(name for name, is_so in what.items() if is_so)


@contextmanager
def instead(values: Iterable[tuple[ModuleType, str, object]]) -> Iterator[None]:
    """Names of modules that mean something else meanwhile."""
    before = [(module, name, getattr(module, name)) for module, name, _ in values]
    try:
        for module, name, value in values:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
