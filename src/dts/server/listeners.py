"""Where a process listens: gRPC and HTTP, one application behind all of its ports."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from socket import AF_INET, AF_INET6, create_server

import grpc
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from dts.api.http import http_app
from dts.api.live import LiveServicer
from dts.api.methods import Service
from dts.api.rpc import SERVER_OPTIONS, add_grpc_services
from dts.api.workers import OutputServicer
from dts.errors import Unavailable
from dts.gen.live.v1 import live_pb2_grpc
from dts.gen.worker.v1 import worker_pb2_grpc

HTTP_CLOSE_S = 1.0  # what is under way on an HTTP connection may end within
BACKLOG = 1_024


def address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ours(record: logging.LogRecord) -> bool:
    """Not what is no HTTP/1.1 (TLS, HTTP/2, noise): its sender is told, and the log is not his to fill."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class Listeners:
    """gRPC and HTTP of one process. Raises Unavailable naming the port that is taken."""

    def __init__(
        self,
        served: Sequence[Service],
        workers: OutputServicer,
        version: str,
        origins: Sequence[str],
        live: LiveServicer | None = None,
    ) -> None:
        self._why = "it is starting"  # closes the doors
        self._unfit = ""  # is only told to probes
        self.grpc = grpc.aio.server(options=SERVER_OPTIONS)
        self._health = add_grpc_services(self.grpc, served, self.why)
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(workers, self.grpc)
        if live is not None:
            live_pb2_grpc.add_LiveServiceServicer_to_server(live, self.grpc)
        app = http_app(served, version=version, origins=origins, ready=lambda: self._why or self._unfit)
        log = logging.getLogger("dts.http")
        log.addFilter(_ours)
        self._http = web.AppRunner(
            app, access_log=None, logger=log, handle_signals=False, shutdown_timeout=HTTP_CLOSE_S
        )

    def why(self) -> str:
        """Why it is not ready; empty: it is."""
        return self._why

    async def open(
        self, host: str, grpc_ports: Sequence[int], http_ports: Sequence[int], socket: Path | None = None
    ) -> None:
        """Binds all of them; the socket is this user's alone."""
        for port in grpc_ports:
            _check_free(host, port)
            self._bind(address(host, port), f"port {port}")
        if socket is not None:
            self._bind_socket(socket)
        await self._http.setup()
        for port in http_ports:
            try:
                await web.TCPSite(self._http, host, port, backlog=BACKLOG).start()
            except OSError as error:
                raise Unavailable(f"port {port} of {host} is not free ({error.strerror}): {HINT}") from error
        await self.grpc.start()

    def _bind_socket(self, socket: Path) -> None:
        socket.unlink(missing_ok=True)
        mask = os.umask(stat.S_IRWXG | stat.S_IRWXO)
        try:
            self._bind(f"unix:{socket}", f"socket {socket}")
        finally:
            os.umask(mask)

    def _bind(self, where: str, name: str) -> None:
        try:
            self.grpc.add_insecure_port(where)
        except RuntimeError as error:
            raise Unavailable(f"{name} is not free: {HINT}") from error

    async def ready(self, why_not: str = "") -> None:
        """Opens the doors, or says why calls are not answered."""
        self._why = why_not
        await self._tell()

    async def fit(self, why_not: str) -> None:
        """What readiness and gRPC health say beside that: calls are answered as well as they can be."""
        self._unfit = why_not
        await self._tell()

    async def _tell(self) -> None:
        why_not = self._why or self._unfit
        from grpc_health.v1 import health_pb2  # noqa: PLC0415

        serving = health_pb2.HealthCheckResponse
        await self._health.set("", serving.NOT_SERVING if why_not else serving.SERVING)

    async def close_http(self) -> None:
        """Nothing new over HTTP."""
        await self._http.cleanup()

    async def close(self, grace_s: float) -> None:
        """Nothing new over gRPC; what is under way may end within the grace time."""
        await self.grpc.stop(grace_s)


def _check_free(host: str, port: int) -> None:
    """Raises Unavailable for a port that is taken: gRPC would say so as well, but also write lines of its own about it."""
    family = AF_INET6 if ":" in host else AF_INET
    try:
        create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(f"port {port} is not free: {HINT}") from error


HINT = "another server may be running; choose other ports (dts config shows their variables)"
