"""Between the lease protocol's values and worker.v1, at the worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dts import codec
from dts.gen.worker.v1 import worker_pb2 as pb
from dts.model import Block, Held, Key, Lease, Report, Status
from dts.worker.attempts import Started, Up

MAX_DISTINCT_BODIES = 20_000

_bodies: dict[bytes, bytes] = {}


def up(item: Up) -> Iterator[pb.AttachRequest]:
    """A message for the scheduler."""
    shard, message = item.shard, item.message
    if isinstance(message, Started):
        for attempts, started in _by_number(message.held, message.at):
            yield pb.AttachRequest(started=pb.Started(shard=shard, attempts=attempts, started=started))
    elif message.full:
        yield pb.AttachRequest(report=_report(shard, message))
    elif message.beat:
        yield pb.AttachRequest(beat=pb.Beat(shard=shard, epoch=message.epoch, beat=message.beat))
    else:
        for block in message.ended:
            yield pb.AttachRequest(ended=_ended(shard, block))


def lease(got: pb.Lease) -> Lease:
    """Placed attempts. Raises ValueError when its columns do not agree."""
    keys = codec.keys(got.attempts.jobs, got.attempts.instants, got.attempts.nonces)
    distinct = [_one(body) for body in got.bodies]
    bodies = [distinct[index] for index in got.body] if got.body else distinct[:1] * len(keys)
    block = Block(
        keys,
        (),
        codec.demand_in(got.demand),
        Status.PLACED,
        got.attempts.attempt,
        report=(got.epoch, got.number),
        fencing=got.fencing,
    )
    return Lease(block, bodies)


def held(groups: Iterable[pb.Attempts]) -> Iterator[Held]:
    """The attempts that a message names."""
    for group in groups:
        for key in codec.keys(group.jobs, group.instants, group.nonces):
            yield Held(key, group.attempt)


def _one(body: bytes) -> bytes:
    """The one object for equal bodies."""
    if len(_bodies) >= MAX_DISTINCT_BODIES:
        _bodies.clear()
    return _bodies.setdefault(body, body)


def _attempts(keys: Sequence[Key], number: int) -> pb.Attempts:
    jobs, instants, nonces = codec.columns(keys)
    return pb.Attempts(jobs=jobs, instants=instants, nonces=nonces, attempt=number)


def _by_number(held: Sequence[Held], at: Sequence[int]) -> Iterator[tuple[pb.Attempts, list[int]]]:
    groups: dict[int, tuple[list[Key], list[int]]] = {}
    for (key, number), instant in zip(held, at, strict=True):
        keys, instants = groups.setdefault(number, ([], []))
        keys.append(key)
        instants.append(instant)
    for number, (keys, instants) in groups.items():
        yield _attempts(keys, number), instants


def _report(shard: int, report: Report) -> pb.Report:
    groups: dict[int, list[Key]] = {}
    for key, number in report.held:
        groups.setdefault(number, []).append(key)
    return pb.Report(
        shard=shard,
        epoch=report.epoch,
        number=report.number,
        held=[_attempts(keys, number) for number, keys in groups.items()],
        ended=[_ended(shard, block) for block in report.ended],
    )


def _ended(shard: int, block: Block) -> pb.Ended:
    return pb.Ended(
        shard=shard,
        attempts=_attempts(block.keys, block.attempt),
        status=block.status,
        ends=[codec.end_out(end) for end in block.ends],
    )
