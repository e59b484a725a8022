"""The worker's streams: one to each live Scheduler instance, and the way that output goes.

Given one address, the worker learns the others from whoever welcomes it. What it was given is where it begins, and begins again when
it has no stream; while it has one, the instances' own list says to whom to attach. Two addresses of one instance are one stream.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Sequence

import grpc

from dts.bounds import LEASE_MS
from dts.gen.worker.v1 import worker_pb2 as pb
from dts.gen.worker.v1 import worker_pb2_grpc
from dts.worker.agent import Agent
from dts.worker.link import CHANNEL, Link, Standing
from dts.worker.options import WorkerOptions

log = logging.getLogger(__name__)

LOOK_S = 0.2  # how often streams are compared with who is there
GONE_S = 10.0  # a stream to an instance that no list names any more is ended after
MAX_LINKS = 256  # instances that a worker serves; more are not attached to


class Links:
    """All links (link.Owner), and output.Store."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._links: dict[str, tuple[Link, asyncio.Task[None]]] = {}  # by the address that is called
        self._lists: dict[str, tuple[str, ...]] = {}  # by link: the instances that it names
        self._outputs: dict[str, tuple[str, ...]] = {}  # by link: where it says that output goes
        self._known: tuple[str, ...] = ()  # the last list of anybody
        self._unnamed: dict[str, float] = {}  # attached, but named by nobody, since
        self._streams = 0
        self._news = asyncio.Event()
        self._channels: dict[str, grpc.aio.Channel] = {}  # to where output goes
        self._turn = zlib.crc32(options.worker.encode())  # not all workers to one
        self.attached_once = False
        self._since = time.monotonic()
        self._was = Standing.AWAY

    # ---- for the process

    @property
    def standing(self) -> Standing:
        """ATTACHED: to one at least; REFUSED: by all."""
        every = {link.standing for link, _ in self._links.values()}
        if Standing.ATTACHED in every:
            return Standing.ATTACHED
        return Standing.REFUSED if every == {Standing.REFUSED} else Standing.AWAY

    @property
    def since(self) -> float:
        """When `standing` last changed."""
        return self._since

    @property
    def lease_ms(self) -> int:
        return max((link.lease_ms for link, _ in self._links.values()), default=LEASE_MS)

    async def run(self, agent: Agent) -> None:
        """Keeps the streams, for ever."""
        try:
            while True:
                self._news.clear()
                await self._look(agent)
                try:
                    async with asyncio.timeout(LOOK_S if len(self._links) > 1 or self._known else None):
                        await self._news.wait()
                except TimeoutError:
                    pass
        finally:
            tasks = [task for _, task in self._links.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            for channel in self._channels.values():
                await channel.close()

    # ---- link.Owner

    def next_stream(self) -> int:
        """A number for one more stream."""
        self._streams += 1
        return self._streams

    def welcomed(self, link: Link, welcome: pb.Welcome) -> None:
        """A stream was welcomed."""
        self.attached_once = True
        self.told(link, welcome.schedulers, welcome.outputs)

    def told(self, link: Link, schedulers: Sequence[str], outputs: Sequence[str]) -> None:
        """An instance says who is there."""
        self._lists[link.target], self._outputs[link.target] = tuple(schedulers), tuple(outputs)
        self._known = tuple(schedulers) or self._known
        self._news.set()

    def moved(self) -> None:
        """A link's standing changed."""
        standing = self.standing
        if standing is not self._was:
            self._was, self._since = standing, time.monotonic()
        self._news.set()

    # ---- output.Store

    @property
    def token(self) -> str:
        return self._options.token

    async def stub(self) -> worker_pb2_grpc.WorkerServiceAsyncStub:
        """Where output goes now: another one each time that it did not work (output.Outputs asks for each batch)."""
        while True:
            addresses = sorted({each for known in self._outputs.values() for each in known})
            if addresses:
                return self._output_at(addresses[self._turn % len(addresses)])
            for link, _ in self._links.values():
                if link.stub is not None:
                    return link.stub
            await asyncio.sleep(LOOK_S)

    def failed(self) -> None:
        """The last batch was not taken: the next goes elsewhere."""
        self._turn += 1

    def _output_at(self, address: str) -> worker_pb2_grpc.WorkerServiceAsyncStub:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.insecure_channel(address, options=CHANNEL)
        stub: worker_pb2_grpc.WorkerServiceAsyncStub = worker_pb2_grpc.WorkerServiceStub(channel)
        return stub

    # ---- who is to have a stream

    async def _look(self, agent: Agent) -> None:
        for _, task in self._links.values():
            if task.done():
                task.result()
        self._silent(agent)
        wanted = self._wanted()
        for target in [each for each in self._links if each not in wanted]:
            await self._end(target)
        for target in wanted[: max(MAX_LINKS - len(self._links), 0)]:
            if target not in self._links:
                link = Link(target, self._options, self)
                task = asyncio.create_task(link.run(agent), name=f"stream to {target}")
                task.add_done_callback(lambda _: self._news.set())
                self._links[target] = link, task

    def _wanted(self) -> list[str]:
        """The addresses to be called: of each instance one."""
        attached = {link.address: target for target, (link, _) in self._links.items() if link.stub is not None}
        if not attached:
            return list(dict.fromkeys((*self._options.targets, *self._known)))
        named = dict.fromkeys(each for target in attached.values() for each in self._lists.get(target, ()))
        if not named:  # an instance that is alone names nobody
            return list(dict.fromkeys((*attached.values(), *self._options.targets)))
        now = time.monotonic()
        for address in attached:
            if address in named:
                self._unnamed.pop(address, None)
            elif now < self._unnamed.setdefault(address, now) + GONE_S:
                named[address] = None
        return [attached.get(address, address) for address in named]

    def _silent(self, agent: Agent) -> None:
        """An instance that does not answer holds credit that others may want."""
        for link, _ in self._links.values():
            if link.stub is not None and link.stream in agent.silent(link.lease_ms):
                link.hang_up("it does not answer what is credited to it")

    async def _end(self, target: str) -> None:
        link, task = self._links.pop(target)
        self._lists.pop(target, None)
        self._outputs.pop(target, None)
        self._unnamed.pop(link.address, None)
        log.info("no more stream to %s", target)
        task.cancel()
        await asyncio.wait([task])
        self.moved()
