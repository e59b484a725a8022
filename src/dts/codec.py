"""Between the domain's values and log.v1: the one encoding of all that leaves a process (blocks in columns)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from dts.gen.log.v1 import log_pb2 as log
from dts.model import (
    Backfill,
    BackfillState,
    Block,
    Cancel,
    CatchUp,
    Cause,
    Command,
    Definition,
    Delivery,
    Demand,
    End,
    Gap,
    JobState,
    Key,
    Misfire,
    Overlap,
    Owed,
    Policies,
    Resume,
    Retry,
    Run,
    ScheduleSpec,
    StartBackfill,
    Status,
    StopBackfill,
    Streak,
    WorkerRef,
    intern_demand,
)

DEFAULT_POLICIES = Policies()


def columns(keys: Sequence[Key]) -> tuple[list[str], list[int], list[str]]:
    """Keys as (jobs, instants, nonces); instants of one value are given once, nonces not at all when all are empty."""
    jobs, instants, nonces = zip(*keys, strict=True) if keys else ((), (), ())
    first = instants[0] if instants else 0
    same = instants.count(first) == len(instants)
    return list(jobs), [first] if same and instants else list(instants), list(nonces) if any(nonces) else []


def keys(jobs: Sequence[str], instants: Sequence[int], nonces: Sequence[str]) -> list[Key]:
    """The inverse of `columns`. Raises ValueError when the columns' lengths do not agree."""
    count = len(jobs)
    ats: Iterable[int] = [instants[0]] * count if len(instants) == 1 else instants
    tails: Iterable[str] = nonces or [""] * count
    return [Key(job, at, nonce) for job, at, nonce in zip(jobs, ats, tails, strict=True)]


def demand_out(demand: Demand) -> log.Demand:
    """To log.v1."""
    return log.Demand(
        cpu=demand.cpu,
        memory=demand.memory,
        storage=demand.storage,
        slots=demand.slots,
        custom=dict(demand.custom),
        selector=demand.selector,
        priority=demand.priority,
        spread=demand.spread,
    )


@lru_cache(maxsize=10_000)
def _demand_of(encoded: bytes) -> Demand:
    got = log.Demand.FromString(encoded)
    custom = tuple(sorted(got.custom.items()))
    return intern_demand(
        Demand(got.cpu, got.memory, got.storage, got.slots, custom, got.selector, got.priority, got.spread)
    )


def demand_in(demand: log.Demand) -> Demand:
    """From log.v1, interned."""
    return _demand_of(demand.SerializeToString(deterministic=True))


def end_out(end: End) -> log.End:
    """To log.v1."""
    return log.End(
        started=end.started,
        ended=end.ended,
        code=end.code,
        error=end.error,
        result=end.result,
        kind=end.kind,
        enforced=end.enforced,
    )


def end_in(end: log.End) -> End:
    """From log.v1."""
    return End(end.started, end.ended, end.code, end.error, end.result, end.kind, end.enforced)


@lru_cache(maxsize=10_000)
def _group(group: str) -> str:
    return group  # equal names are one object


def block_out(block: Block) -> log.Block:
    """To log.v1."""
    jobs, instants, nonces = columns(block.keys)
    revisions = block.revisions
    one = revisions.count(revisions[0]) == len(revisions) if revisions else False
    return log.Block(
        jobs=jobs,
        instants=instants,
        nonces=nonces,
        revisions=[revisions[0]] if one else revisions,
        demand=demand_out(block.demand),
        status=block.status,
        attempt=block.attempt,
        cause=block.cause,
        queued=block.queued,
        not_before=block.not_before,
        failures=block.failures,
        losses=block.losses,
        worker=block.worker.id if block.worker else "",
        incarnation=block.worker.incarnation if block.worker else "",
        report_epoch=block.report[0],
        report_number=block.report[1],
        fencing=block.fencing,
        life=block.life,
        placed=block.placed,
        cancel=block.cancel,
        reason=block.reason,
        retry_of=block.retry_of,
        arguments=block.arguments,
        ends=[end_out(end) for end in block.ends],
        group=block.group,
        held=block.held,
        jitter=block.jitter,
        start_by=block.start_by,
    )


def block_in(got: log.Block) -> Block:
    """From log.v1."""
    count = len(got.jobs)
    revisions = list(got.revisions) * count if len(got.revisions) == 1 else list(got.revisions)
    return Block(
        keys=keys(got.jobs, got.instants, got.nonces),
        revisions=revisions,
        demand=demand_in(got.demand),
        status=Status(got.status),
        attempt=got.attempt,
        cause=Cause(got.cause),
        queued=got.queued,
        not_before=got.not_before,
        failures=got.failures,
        losses=got.losses,
        worker=WorkerRef(got.worker, got.incarnation) if got.worker else None,
        report=(got.report_epoch, got.report_number),
        fencing=got.fencing,
        life=got.life,
        placed=got.placed,
        cancel=got.cancel,
        reason=got.reason,
        retry_of=got.retry_of,
        arguments=got.arguments,
        ends=[end_in(end) for end in got.ends],
        group=_group(got.group),
        held=got.held,
        jitter=got.jitter,
        start_by=got.start_by,
    )


def _schedule_out(spec: ScheduleSpec) -> log.Schedule:
    return log.Schedule(text=spec.text, zone=spec.zone, start=spec.start, end=spec.end, gap=spec.gap, fold=spec.fold)


@lru_cache(maxsize=100_000)
def _spec_of(text: str, zone: str, start: int | None, end: int | None, gap: str, fold: str) -> ScheduleSpec:
    return ScheduleSpec(text, zone, start, end, gap, fold)


@lru_cache(maxsize=100_000)
def _specs_of(specs: tuple[ScheduleSpec, ...]) -> tuple[ScheduleSpec, ...]:
    return specs


def _schedule_in(got: log.Schedule) -> ScheduleSpec:
    start = got.start if got.HasField("start") else None
    end = got.end if got.HasField("end") else None
    return _spec_of(got.text, got.zone, start, end, got.gap, got.fold)


def _policies_out(policies: Policies) -> log.Policies | None:
    if policies == DEFAULT_POLICIES:
        return None
    return log.Policies(**policies._asdict())


@lru_cache(maxsize=10_000)
def _policies_of(encoded: bytes) -> Policies:
    got = log.Policies.FromString(encoded)
    return Policies(
        Misfire(got.misfire),
        got.misfire_limit,
        got.late_window,
        got.grace,
        got.max_retries,
        got.retry_initial,
        got.retry_cap,
        got.retry_factor,
        got.retry_jitter,
        Delivery(got.delivery),
        Overlap(got.overlap or Overlap.ALLOW_ALL),
        got.overlap_limit,
        got.group_limit,
        got.jitter,
        got.start_within,
        tuple(got.retry_only),
        tuple(got.retry_never),
        got.pause_after,
    )


@lru_cache(maxsize=10_000)
def _body(body: bytes) -> bytes:
    return body  # equal bodies are one object: 100 000 jobs of one command cost one


def definition_out(definition: Definition) -> log.Definition:
    """To log.v1."""
    return log.Definition(
        job=definition.job,
        revision=definition.revision,
        since=definition.since,
        state=definition.state,
        until=definition.until,
        schedules=[_schedule_out(spec) for spec in definition.schedules],
        demand=demand_out(definition.demand),
        policies=_policies_out(definition.policies),
        body=definition.body,
        republished=not definition.first,
        group=definition.group,
        catch_up=definition.catch_up if definition.catch_up is not CatchUp.SKIP else "",
    )


def definition_in(got: log.Definition) -> Definition:
    """From log.v1; demands, policies, schedules and bodies that are equal become one object."""
    policies = DEFAULT_POLICIES
    if got.HasField("policies"):
        policies = _policies_of(got.policies.SerializeToString(deterministic=True))
    return Definition(
        got.job,
        got.revision,
        got.since,
        JobState(got.state),
        got.until if got.HasField("until") else None,
        _specs_of(tuple(_schedule_in(each) for each in got.schedules)),
        demand_in(got.demand),
        policies,
        _body(got.body),
        not got.republished,
        _group(got.group),
        CatchUp(got.catch_up or CatchUp.SKIP),
    )


def debt_out(job: str, owed: Sequence[Owed]) -> log.Debt:
    """To log.v1."""
    pieces = [
        log.Owed(
            definition=definition_out(each.definition),
            after=each.after,
            until=each.until,
            skip=each.skip,
            reason=each.reason,
            catch_up=each.catch_up,
        )
        for each in owed
    ]
    return log.Debt(job=job, owed=pieces)


def debt_in(got: log.Debt) -> tuple[str, tuple[Owed, ...]]:
    """From log.v1."""
    pieces = (
        Owed(
            definition_in(each.definition),
            each.after,
            each.until,
            tuple(each.skip),
            each.reason,
            CatchUp(each.catch_up or CatchUp.SKIP),
        )
        for each in got.owed
    )
    return got.job, tuple(pieces)


def streak_out(streak: Streak) -> log.Streak:
    """To log.v1."""
    return log.Streak(**streak._asdict())


def streak_in(got: log.Streak) -> Streak:
    """From log.v1."""
    return Streak(got.job, got.failures, got.since, got.at, got.reason)


def gaps_out(gaps: Sequence[Gap]) -> log.Gaps:
    """To log.v1."""
    return log.Gaps(
        gaps=[
            log.Gap(after=gap.after[0], after_job=gap.after[1], until=gap.until, done=gap.done, skip=sorted(gap.skip))
            for gap in gaps
        ]
    )


def gaps_in(got: log.Gaps) -> tuple[Gap, ...]:
    """From log.v1."""
    return tuple(Gap((gap.after, gap.after_job), gap.until, gap.done, frozenset(gap.skip)) for gap in got.gaps)


def command_out(command: Command) -> log.Command:
    """To log.v1."""
    out = log.Command(id=command.id, issued=command.issued, expires=command.expires, group=command.group)
    match command:
        case Run():
            out.kind, out.job, out.revision, out.arguments = "run", command.job, command.revision, command.arguments
        case Cancel():
            out.kind, out.reason = "cancel", command.reason
            out.job, out.instant, out.nonce = command.key
        case Retry():
            out.kind, out.revision, out.arguments = "retry", command.revision, command.arguments
            out.job, out.instant, out.nonce = command.key
        case StartBackfill():
            out.kind, out.job, out.revision = "start_backfill", command.job, command.revision
            out.after, out.until, out.parallel = command.after, command.until, command.parallel
        case StopBackfill():
            out.kind, out.job, out.nonce = "stop_backfill", command.job, command.backfill
            out.reason = command.reason
        case Resume():
            out.kind, out.job, out.revision = "resume", command.job, command.revision
            out.catch_up = command.catch_up
    return out


def command_in(got: log.Command) -> Command:
    """From log.v1. Raises ValueError for a kind of a later version."""
    key = Key(got.job, got.instant, got.nonce)
    match got.kind:
        case "run":
            return Run(got.id, got.job, got.issued, got.expires, got.revision, got.arguments, got.group)
        case "cancel":
            return Cancel(got.id, key, got.issued, got.expires, got.reason, got.group)
        case "retry":
            return Retry(got.id, key, got.issued, got.expires, got.revision, got.arguments, got.group)
        case "start_backfill":
            span = (got.after, got.until)
            return StartBackfill(got.id, got.job, got.issued, got.expires, got.revision, *span, got.parallel, got.group)
        case "stop_backfill":
            return StopBackfill(got.id, got.job, got.issued, got.expires, got.nonce, got.reason, got.group)
        case "resume":
            how = CatchUp(got.catch_up or CatchUp.SKIP)
            return Resume(got.id, got.job, got.issued, got.expires, got.revision, how, got.group)
    raise ValueError(f"command of an unknown kind {got.kind!r}")


def backfill_out(backfill: Backfill) -> log.Backfill:
    """To log.v1."""
    return log.Backfill(
        id=backfill.id,
        job=backfill.job,
        began=backfill.began,
        after=backfill.after,
        until=backfill.until,
        schedules=[_schedule_out(spec) for spec in backfill.schedules],
        parallel=backfill.parallel,
        size=backfill.size,
        cursor=backfill.cursor,
        started=backfill.started,
        tally=backfill.tally,
        state=backfill.state,
        ended=backfill.ended,
        reason=backfill.reason,
    )


def backfill_in(got: log.Backfill) -> Backfill:
    """From log.v1."""
    return Backfill(
        got.id,
        got.job,
        got.began,
        got.after,
        got.until,
        _specs_of(tuple(_schedule_in(each) for each in got.schedules)),
        got.parallel,
        got.size,
        got.cursor,
        got.started,
        tuple(got.tally),
        BackfillState(got.state),
        got.ended,
        got.reason,
    )
