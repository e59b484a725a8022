"""A TCP proxy whose connections can be cut, or held so that nothing passes and nobody is told."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

MARK = b"WorkerService/Attach"  # in the first bytes of a worker's stream
READ_BYTES = 65_536


class Connection:
    """One client's connection and ours to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ends = [(reader, writer)]
        self.open = asyncio.Event()  # cleared: held
        self.open.set()
        self.worker = False

    def close(self) -> None:
        for _, writer in self.ends:
            writer.transport.abort()


class Proxy:
    """From (host, port) to the same port of `to`. Runs in a thread of its own; its methods may be called from any other."""

    def __init__(self, host: str, port: int, to: str, to_port: int) -> None:
        self._listen, self._to = (host, port), (to, to_port)
        self._loop = asyncio.new_event_loop()
        self._connections: set[Connection] = set()
        self._refusing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # ---- what a test does

    def cut(self, chance: random.Random | None = None) -> int:
        """Ends all workers' connections, or some of them; how many."""
        return self._call(self._cut(chance))

    def hold(self, chance: random.Random | None = None) -> int:
        """Lets nothing pass on all workers' connections, or some of them; new ones do pass. How many."""
        return self._call(self._hold(chance))

    def refuse(self, refusing: bool) -> None:
        """Accepts no new connection, or does again."""
        self._refusing = refusing

    def let_go(self) -> None:
        """What was held passes again."""
        self._call(self._let_go())

    # ---- inside

    def _call(self, work: Coroutine[Any, Any, int]) -> int:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _some(self, chance: random.Random | None) -> list[Connection]:
        workers = [each for each in self._connections if each.worker]
        return [each for each in workers if chance is None or chance.random() < 0.4]

    async def _cut(self, chance: random.Random | None) -> int:
        some = self._some(chance)
        for each in some:
            each.close()
        return len(some)

    async def _hold(self, chance: random.Random | None) -> int:
        some = self._some(chance)
        for each in some:
            each.open.clear()
        return len(some)

    async def _let_go(self) -> int:
        for each in self._connections:
            each.open.set()
        return 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made = Connection(reader, writer)
        if self._refusing:
            made.close()
            return
        try:
            made.ends.append(await asyncio.open_connection(*self._to))
        except OSError:
            made.close()
            return
        self._connections.add(made)
        (_, client), (server_reader, server) = made.ends
        tasks = [
            self._loop.create_task(self._pipe(made, reader, server, look=True)),
            self._loop.create_task(self._pipe(made, server_reader, client, look=False)),
        ]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._connections.discard(made)
        made.close()
        for task in tasks:
            task.cancel()
            self._tasks.discard(task)

    async def _pipe(
        self, made: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, look: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                made.worker = made.worker or (look and MARK in data)
                await made.open.wait()
                writer.write(data)
                await writer.drain()

    async def _start(self) -> int:
        self._server = await asyncio.start_server(self._serve, *self._listen)
        return 0

    async def _stop(self) -> int:
        assert self._server is not None
        self._server.close()
        for each in list(self._connections):
            each.close()
        for task in list(self._tasks):
            task.cancel()
        return 0

    def start(self) -> None:
        self._thread.start()
        self._call(self._start())

    def stop(self) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def proxy(host: str, port: int, to: str, to_port: int) -> Iterator[Proxy]:
    """Listens until the end of the block."""
    made = Proxy(host, port, to, to_port)
    made.start()
    try:
        yield made
    finally:
        made.stop()
