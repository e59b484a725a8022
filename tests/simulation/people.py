"""What people do: they create, edit, pause, resume, cancel, delete and re-create jobs, and run, cancel and retry executions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dts.model import (
    Cancel,
    CatchUp,
    Command,
    Definition,
    Delivery,
    Demand,
    Instant,
    JobState,
    Misfire,
    Overlap,
    Policies,
    Resume,
    Retry,
    Run,
    ScheduleSpec,
    StartBackfill,
    StopBackfill,
    nonce_of,
)
from tests.simulation.world import T0

if TYPE_CHECKING:
    from tests.simulation.site import Site

MINUTE = 60_000
KNOWN_MS = 50 * MINUTE  # a deleted job's revision is known for an hour: a repeat comes sooner
COMMAND_EXPIRY_MS = MINUTE
JOBS = ("a", "b", "c", "d", "e", "f", "g", "h")
SCHEDULES = [
    (ScheduleSpec("@every 5s"),),
    (ScheduleSpec("@every 10s"),),
    (ScheduleSpec("@every 20s"),),
    (ScheduleSpec("@every 45s"),),
    (ScheduleSpec("*/2 * * * *"),),
    (ScheduleSpec("*/5 * * * *"), ScheduleSpec("@every 120s")),
    (ScheduleSpec("30 2 * * *", "Europe/Paris"),),
    (ScheduleSpec("@every 1m", start=T0 + 5_000, end=T0 + 10 * MINUTE),),
    (),
]
BUSY = 2  # the first of the schedules and demands
POLICIES = [
    Policies(),
    Policies(misfire=Misfire.SKIP, max_retries=1),
    Policies(misfire=Misfire.RUN_ALL, misfire_limit=5, max_retries=2),
    Policies(delivery=Delivery.AT_MOST_ONCE, misfire=Misfire.RUN_ALL, misfire_limit=0),
    Policies(delivery=Delivery.AT_MOST_ONCE),
    Policies(misfire=Misfire.RUN_ALL, misfire_limit=30, late_window=10 * MINUTE),
    Policies(grace=10 * MINUTE, max_retries=3, retry_initial=5_000, retry_cap=MINUTE),
]
RULED = [
    Policies(overlap=Overlap.SKIP),
    Policies(overlap=Overlap.SKIP, misfire=Misfire.RUN_ALL, misfire_limit=5, max_retries=2),
    Policies(overlap=Overlap.BUFFER_ONE, max_retries=1),
    Policies(overlap=Overlap.BUFFER_ALL, overlap_limit=3, misfire=Misfire.RUN_ALL, misfire_limit=8),
    Policies(overlap=Overlap.BUFFER_ALL, start_within=20_000),
    Policies(overlap=Overlap.CANCEL_OTHER, max_retries=1),
    Policies(overlap=Overlap.CANCEL_OTHER, misfire=Misfire.RUN_ALL, misfire_limit=4, jitter=3_000),
    Policies(jitter=20_000),
    Policies(jitter=8_000, start_within=5_000, max_retries=1),
    Policies(start_within=2_000, max_retries=2, retry_only=("75", "timeout")),
    Policies(max_retries=3, retry_initial=2_000, retry_factor=1.0, retry_jitter=0.0, retry_never=("70-79",)),
    Policies(delivery=Delivery.AT_MOST_ONCE, overlap=Overlap.BUFFER_ONE, start_within=30_000),
    Policies(pause_after=1),
    Policies(pause_after=2, misfire=Misfire.RUN_ALL, misfire_limit=20),
    Policies(pause_after=3, max_retries=1, overlap=Overlap.SKIP),
]
DEMANDS = [
    Demand(),
    Demand(),
    Demand(priority=1),
    Demand(cpu=400),
    Demand(cpu=700, custom=(("gpu", 1),)),
    Demand(slots=2),
]


class People:
    """They talk to the job service, whose clock is its own."""

    def __init__(self, site: Site) -> None:
        rng = site.world.rng
        self._site = site
        self._rng = rng
        self._jobs = JOBS[: rng.randint(1, len(JOBS))]
        self._skew = rng.choice([0, 0, rng.randint(-2_000, 2_000)])
        self._ids = 0
        self._backfills: dict[str, str] = {}  # the last one of each job
        self._ruled = rng.choice([0.0, 0.3, 1.0])  # how many of the revisions have policies of turns and waits
        self._strict = rng.random() < 0.15  # all jobs pause after failures
        self._groups = {job: rng.choice(["", "g1", "g1", "g2"]) for job in self._jobs} if rng.random() < 0.3 else {}

    def put(self, *, busy: bool = False) -> None:
        """Creates, edits, or creates anew what was deleted. `busy`: one that runs often, on any worker."""
        rng = self._rng
        state = rng.choice([JobState.ACTIVE] * 6 + [JobState.PAUSED])
        until = self._until(state)
        self._publish(
            Definition(
                rng.choice(self._jobs),
                0,
                0,
                state,
                until,
                rng.choice(SCHEDULES[:BUSY] if busy else SCHEDULES),
                rng.choice(DEMANDS[:BUSY] if busy else DEMANDS),
                self._policies(),
                b"",
            )
        )

    def _policies(self) -> Policies:
        rng = self._rng
        policies = rng.choice(RULED if rng.random() < self._ruled else POLICIES)
        if self._strict:
            policies = policies._replace(pause_after=rng.randint(1, 3))
        return policies._replace(group_limit=rng.randint(1, 3)) if self._groups else policies

    def turn(self) -> None:
        """Pauses, resumes, cancels or deletes."""
        rng, job = self._rng, self._rng.choice(self._jobs)
        last = self._site.service.last(job)
        if last is None or not self._site.service.exists(job):
            return
        state = rng.choice([JobState.PAUSED, JobState.ACTIVE, JobState.ACTIVE, JobState.CANCELLED, JobState.DELETED])
        until = self._until(state)
        catch_up = rng.choice([CatchUp.SKIP, CatchUp.NEWEST, CatchUp.ALL])
        self._publish(last._replace(state=state, until=until, catch_up=catch_up))

    def _wall(self) -> int:
        """What the job service's clock shows, after T0: it is not the owner's."""
        return self._site.world.t + self._site.wall + self._skew

    def _publish(self, definition: Definition) -> None:
        last = self._site.service.last(definition.job)
        since = T0 + self._wall()
        revision = 1
        if last is not None:
            revision, since = last.revision + 1, max(since, last.since)
        body = self._site.body(definition.job, revision)
        group = self._groups.get(definition.job, "")
        definition = definition._replace(revision=revision, since=since, body=body, group=group)
        dies = self._rng.random() < 0.1
        self._site.service.change(definition, dies=dies)
        if dies:
            self._site.world.after(self._rng.randrange(2 * MINUTE), self._site.service.sweep)

    def command(self) -> None:
        """Run now, cancel or retry; now and then a backfill, or the end of one."""
        rng = self._rng
        jobs = [job for job in self._jobs if self._site.service.exists(job)]
        if not jobs:
            return
        self._ids += 1
        id_, now = self._ids.to_bytes(4, "big") + bytes(12), T0 + self._wall()
        expires = now + COMMAND_EXPIRY_MS
        keys = sorted(key for key in self._site.checkers.book.status if self._site.service.exists(key.job))[-40:]
        kind = rng.choice(["run", "run", "cancel", "cancel", "retry", "retry", "backfill", "resume"])
        command: Command
        suspended = sorted(job for job in jobs if job in self._site.checkers.mirror.guises)
        if kind == "resume" or (suspended and rng.random() < 0.5):
            job = rng.choice(suspended or jobs)
            how = rng.choice([CatchUp.SKIP, CatchUp.NEWEST, CatchUp.ALL])
            command = Resume(id_, job, now, expires, self._needs(job), how, self._groups.get(job, ""))
        elif kind == "backfill":
            command = self._backfill(rng.choice(jobs), id_, now)
        elif kind == "run" or not keys:
            job = rng.choice(jobs)
            command = Run(
                id_, job, now, expires, self._needs(job), rng.choice([b"", b"", b"changed"]), self._groups.get(job, "")
            )
        elif kind == "cancel":
            command = Cancel(id_, rng.choice(keys), now, expires)
        else:
            key = rng.choice(keys)
            command = Retry(id_, key, now, expires, self._needs(key.job))
        self._site.service.command(command)

    def _backfill(self, job: str, id: bytes, now: Instant) -> Command:
        """Of a stretch of the past; or a running one's end."""
        rng, expires, group = self._rng, now + COMMAND_EXPIRY_MS, self._groups.get(job, "")
        if job in self._backfills and rng.random() < 0.5:
            return StopBackfill(id, job, now, expires, self._backfills.pop(job), "not needed", group)
        self._backfills[job] = nonce_of(id)
        after = now - rng.randrange(1, 20 * MINUTE)
        until = rng.randint(after, now)
        return StartBackfill(id, job, now, expires, self._needs(job), after, until, rng.choice([1, 3, 20]), group)

    def _needs(self, job: str) -> int:
        """The revision that a command waits for: sometimes one that will not come."""
        last = self._site.service.last(job)
        assert last is not None
        return last.revision + (self._rng.random() < 0.05)

    def repeat(self) -> None:
        """The feed says something twice."""
        service, account = self._site.service, self._site.checkers.book.accounts
        values: list[Definition | Command] = [
            each for each in service.commands if each.id in self._site.checkers.applied
        ]
        for job, revisions in sorted(service.jobs.items()):
            last = account[job].last
            if last is not None and self._site.world.t - service.told.get(job, 0) < KNOWN_MS:
                values += [each for each in revisions if each.revision <= last.definition.revision]
        if values:
            self._site.checkers.seen["told twice"] += 1
            self._site.feed.again(self._rng.choice(values))
            self._site.fed()

    def _until(self, state: JobState) -> Instant | None:
        """When a pause ends by itself."""
        if state is not JobState.PAUSED or self._rng.random() < 0.4:
            return None
        return T0 + self._wall() + self._rng.randrange(1, 5 * MINUTE)
