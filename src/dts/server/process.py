"""The life of a service's process: it waits for its servers, opens its ports, works, says whether it is well, ends cleanly."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import uvloop

from dts.config import Config
from dts.errors import DtsError
from dts.server.listeners import Listeners, address
from dts.server.local import stop_signals
from dts.server.tuning import tune
from dts.server.waiting import Starting

log = logging.getLogger("dts.server")

CHECK_S = 2.0  # between two looks at whether the service can do its work
STOP_S = 5.0  # calls that are under way may end within


async def _nothing() -> None:
    return


async def _well() -> str:
    return ""


@dataclass
class Service:
    """What a process is made of. `works`: each must go on; one that ends or fails ends the process. `check`: why it cannot do
    its work now, or empty. `leave`: the clean end, while its ports are still open; `close`: the last of it."""

    listeners: Listeners
    works: Sequence[tuple[str, Coroutine[None, None, None]]] = ()
    check: Callable[[], Awaitable[str]] = _well
    leave: Callable[[], Awaitable[None]] = _nothing
    close: Callable[[], Awaitable[None]] = _nothing


@dataclass
class Process:
    """One service's process. `name` for people; the ports are its own."""

    name: str
    config: Config
    grpc_port: int
    http_port: int
    build: Callable[[Starting], Awaitable[Service]]
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: int = 0

    def serve(self) -> int:
        """Runs until it is told to stop; the exit code. Raises DtsError when it cannot start."""
        form = "%(asctime)s %(levelname)s %(name)s %(message)s"
        logging.basicConfig(level="INFO", format=form, stream=sys.stderr)
        return uvloop.run(self._run())

    async def _run(self) -> int:
        stop_signals(self._on_signal)
        async with Starting(self.config.listen, self.http_port) as starting:
            building = asyncio.ensure_future(self.build(starting))
            told = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait([building, told], return_when=asyncio.FIRST_COMPLETED)
            if not building.done():
                building.cancel()
                await asyncio.wait([building])
                return 0
            service = building.result()
        try:
            return await self._serve(service)
        finally:
            await service.close()

    async def _serve(self, service: Service) -> int:
        loop = asyncio.get_running_loop()
        listeners = service.listeners
        await listeners.open(self.config.listen, [self.grpc_port], [self.http_port])
        works = [loop.create_task(work, name=name) for name, work in service.works]
        checking = loop.create_task(self._check(service), name="readiness")
        told = loop.create_task(self._stop.wait())
        await listeners.ready()
        tune()
        self._greet()
        try:
            await asyncio.wait([*works, checking, told], return_when=asyncio.FIRST_COMPLETED)
            failed = [task for task in (*works, checking) if task.done()]
            if not failed:
                await self._leave(service)
        finally:
            for task in (*works, checking, told):
                task.cancel()
            await listeners.close(0)
            await asyncio.wait([*works, checking])
        for task in failed:
            log.error("%s ended", task.get_name())
            task.result()
        return 1 if failed else 0

    async def _leave(self, service: Service) -> None:
        await service.listeners.ready("it is stopping")
        leaving = asyncio.ensure_future(service.leave())
        await service.listeners.close_http()
        await leaving
        await service.listeners.close(STOP_S if self._asked == 1 else 0)

    def _on_signal(self) -> None:
        self._asked += 1
        log.info("stopping%s", "" if self._asked == 1 else " at once")
        self._stop.set()

    async def _check(self, service: Service) -> None:
        """Readiness tells the truth of the last CHECK_S; it closes no door: what can be answered is answered."""
        before = ""
        while True:
            try:
                async with asyncio.timeout(CHECK_S):
                    why = await service.check()
            except DtsError as error:
                why = str(error)
            except TimeoutError:
                why = f"its servers did not answer within {CHECK_S:g} s"
            if why != before:
                log.log(logging.WARNING if why else logging.INFO, "not ready: %s", why) if why else log.info("ready")
            before = why
            await service.listeners.fit(why)
            await asyncio.sleep(CHECK_S)

    def _greet(self) -> None:
        host = self.config.listen
        print(
            f"DTS {self.name} is up: gRPC {address(host, self.grpc_port)}, HTTP http://{address(host, self.http_port)}",
            flush=True,
        )
