"""Before a service can do anything: waits for its servers, says so in its log, and answers probes meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

from aiohttp import web

from dts.errors import Unavailable

log = logging.getLogger("dts.server")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
SAY_EVERY_S = 5.0

T = TypeVar("T")


class Starting:
    """The HTTP port while the service starts: it lives (/healthz), it has not started (/startupz, /readyz: 503 and why)."""

    def __init__(self, host: str, port: int) -> None:
        self._where = host, port
        self.why = "it is starting"
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Starting:
        app = web.Application()
        app.router.add_get("/healthz", _alive)
        app.router.add_get("/{rest:.*}", self._not_yet)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *self._where).start()
        except OSError as error:
            await self._runner.cleanup()
            host, port = self._where
            raise Unavailable(f"port {port} of {host} is not free ({error.strerror}): choose another one") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, value, trace
        if self._runner is not None:
            await self._runner.cleanup()

    async def _not_yet(self, _: web.Request) -> web.Response:
        return web.json_response({"code": 14, "message": self.why, "details": []}, status=503)

    async def wait_for(self, what: str, reach: Callable[[], Awaitable[T]]) -> T:
        """Tries until it is there. Only Unavailable is waited out: what is wrong with it ends the start."""
        begun, said, pause = time.monotonic(), 0.0, FIRST_PAUSE_S
        while True:
            try:
                found = await reach()
            except Unavailable as error:
                now = time.monotonic()
                self.why = f"waiting for {what}: {error}"
                if not said or now - said > SAY_EVERY_S:
                    said = now
                    log.info("waiting for %s, for %d s so far: %s", what, now - begun, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                log.info("%s is there", what)
                return found


async def _alive(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})
