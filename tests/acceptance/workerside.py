"""A scheduler's side for tests of the real worker process: leases what the test says, behind the real servicer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from dts.api.workers import WorkerServicer
from dts.gen.job.v1 import job_pb2
from dts.gen.worker.v1 import worker_pb2, worker_pb2_grpc
from dts.model import (
    Block,
    Demand,
    Effects,
    End,
    Held,
    Key,
    Lease,
    Output,
    Report,
    Status,
    WorkerInfo,
    WorkerRef,
)
from dts.services.workers import Reception, WorkerHub
from dts.worker.launch import launch
from dts.worker.options import WorkerOptions

AT = 1_774_746_000_000
TOKEN = "the token"
PATIENCE_S = 20.0


class Outputs:
    """ports.OutputStore as far as a worker needs it: pieces in memory."""

    def __init__(self) -> None:
        self.pieces: dict[Held, dict[int, bytes]] = {}
        self.complete: set[Held] = set()

    async def put(self, key: Key, attempt: int, offset: int, data: bytes, last: bool) -> None:
        held = Held(key, attempt)
        self.pieces.setdefault(held, {}).setdefault(offset, data)
        if last:
            self.complete.add(held)

    async def get(self, key: Key, attempt: int) -> Output | None:
        raise NotImplementedError

    async def wait(self, key: Key, attempt: int, size: int, timeout_s: float) -> Output | None:
        raise NotImplementedError

    async def forget(self, before: int, limit: int) -> int:
        raise NotImplementedError

    def text(self, job: str, attempt: int = 1) -> bytes:
        """All of a job's output that came, in order."""
        pieces = self.pieces.get(Held(Key(job, AT), attempt), {})
        return b"".join(data for _, data in sorted(pieces.items()))


class Scheduler:
    """ports.WorkerInbox: shard 0 (or what `owned` says), one epoch. Ends are acknowledged unless `acking` is off. One of several
    instances: `address` is what it is called, `peers` who is there; `outputs_at` is where output goes."""

    def __init__(
        self,
        path: str,
        epoch: int = 1,
        lease_ms: int = 60_000,
        database: str = "db",
        *,
        address: str = "",
        peers: Callable[[], Sequence[str]] | None = None,
        outputs_at: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.hub = WorkerHub()
        self.owned = {0: epoch}
        self.reports: dict[int, Report] = {}  # the last full one of each shard
        self.gone: list[WorkerRef] = []
        self.outputs = Outputs()
        self.epoch = epoch
        self.acking = True
        self.echoing = True
        self.numbers: dict[WorkerRef, int] = {}
        self.workers: dict[WorkerRef, WorkerInfo] = {}
        self.full: list[Report] = []
        self.beats = 0
        self.left: list[WorkerRef] = []
        self.cordoned: dict[WorkerRef, bool] = {}
        self.credits: list[tuple[int, tuple[int, ...], int]] = []
        self.ends: dict[Held, tuple[Status, End]] = {}
        self.times = 0  # ends that came, repeated ones too
        self.running: dict[Held, int] = {}
        self.fencing = 0
        self._changed = asyncio.Event()
        self._server = grpc.aio.server()
        servicer = WorkerServicer(
            Reception(self.hub, self, self.outputs),
            token=TOKEN,
            database=database,
            instance=address or "test",
            lease_ms=lease_ms,
            address=address,
            schedulers=peers,
            outputs=outputs_at,
        )
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, self._server)
        self._server.add_insecure_port(path)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        """As if killed: streams break, nothing is said."""
        self.hub.close()
        await self._server.stop(None)

    # ---- WorkerInbox ---------------------------------------------------------------------------------------------

    def attached(self, worker: WorkerInfo) -> dict[int, int]:
        self.workers[worker.ref] = worker
        self._changed.set()
        return dict(self.owned)

    def detached(self, worker: WorkerRef) -> None:
        self.workers.pop(worker, None)
        self.gone.append(worker)
        self._changed.set()

    def leaving(self, worker: WorkerRef) -> None:
        self.left.append(worker)

    def standing(self, worker: WorkerRef, cordoned: bool) -> None:
        self.cordoned[worker] = cordoned
        self._changed.set()

    def credit(self, worker: WorkerRef, number: int, share: tuple[int, ...], returns: int) -> None:
        self.credits.append((number, share, returns))
        self._changed.set()

    async def report(self, shard: int, report: Report) -> None:
        if report.full:
            self.full.append(report)
            self.reports[shard] = report
            self.numbers[report.worker] = report.number
        if report.beat:
            self.beats += 1
            if self.echoing:
                self.hub.send(shard, report.epoch, Effects(beats={report.worker: report.beat}))
        acks = []
        for block in report.ended:
            self.times += len(block.keys)
            for key, end in zip(block.keys, block.ends, strict=True):
                self.ends[Held(key, block.attempt)] = (block.status, end)
                acks.append(Held(key, block.attempt))
        if acks and self.acking:
            self.hub.send(shard, report.epoch, Effects(acks={report.worker: acks}))
        self._changed.set()

    def started(self, shard: int, worker: WorkerRef, held: Sequence[Held], at: Sequence[int]) -> None:
        self.running.update(zip(held, at, strict=True))
        self._changed.set()

    # ---- for the test --------------------------------------------------------------------------------------------

    @property
    def worker(self) -> WorkerRef:
        """The one that reported last."""
        return list(self.numbers)[-1]

    def lease(
        self,
        jobs: Sequence[str],
        body: bytes | Sequence[bytes],
        *,
        attempt: int = 1,
        demand: Demand | None = None,
        report: tuple[int, int] | None = None,
        at: int = AT,
        shard: int = 0,
    ) -> list[Held]:
        """Leases these to the worker."""
        last = self.reports.get(shard)
        self.fencing += 1
        keys = [Key(job, at) for job in jobs]
        block = Block(
            keys,
            [1] * len(keys),
            demand or Demand(),
            Status.PLACED,
            attempt,
            worker=self.worker,
            report=report or ((last.epoch, last.number) if last else (self.epoch, self.numbers[self.worker])),
            fencing=self.fencing,
        )
        bodies = [body] * len(keys) if isinstance(body, bytes) else body
        self.hub.send(shard, self.owned.get(shard, 0), Effects(leases={self.worker: [Lease(block, bodies)]}))
        return [Held(key, attempt) for key in keys]

    def cancel(self, *held: Held, reason: str = "asked") -> None:
        self.hub.send(0, self.epoch, Effects(cancels={self.worker: [(each, reason) for each in held]}))

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Waits for a condition that only news from workers can change."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def ended(self, *held: Held) -> list[tuple[Status, End]]:
        """Waits for the ends of these."""
        await self.until(lambda: all(each in self.ends for each in held))
        return [self.ends[each] for each in held]


async def poll(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Waits for what nothing tells about: files, processes."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.005)


def shell(command: str, *, timeout_ms: int = 0, grace_ms: int = 500, directory: str = "", **env: str) -> bytes:
    """A body."""
    task = job_pb2.Task(shell=job_pb2.ShellTask(command=command, env=env, working_directory=directory))
    return worker_pb2.Body(task=task, timeout_ms=timeout_ms, kill_grace_ms=grace_ms).SerializeToString()


def python(function: str, *args: object, timeout_ms: int = 0, grace_ms: int = 500, **kwargs: object) -> bytes:
    """A body."""
    task = job_pb2.Task(python=job_pb2.PythonTask(function=function))
    task.python.args.extend(args)
    task.python.kwargs.update(kwargs)
    return worker_pb2.Body(task=task, timeout_ms=timeout_ms, kill_grace_ms=grace_ms).SerializeToString()


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def options(folder: Path, **changes: object) -> WorkerOptions:
    """Of a local worker that finds its scheduler in the folder."""
    values: dict[str, object] = {
        "target": f"unix:{folder}/s",
        "token": TOKEN,
        "database": "db",
        "life_lock": str(folder / "lock"),
        "log": str(folder / "worker.log"),
    }
    return WorkerOptions(**{**values, **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def working(folder: Path, lease_ms: int = 60_000, **changes: object) -> AsyncIterator[tuple[Scheduler, int]]:
    """A scheduler and a worker attached to it: (scheduler, the worker's pid). Nothing is left of either."""
    scheduler = Scheduler(f"unix:{folder}/s", lease_ms=lease_ms)
    await scheduler.start()
    process = await launch(options(folder, **changes))
    try:
        await scheduler.until(lambda: scheduler.full)
        yield scheduler, process.pid
    finally:
        await scheduler.stop()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
