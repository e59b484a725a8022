"""What attempts write: the first and the last of it is kept until the store has it, sent in batches while it grows.

Offsets count all that was written, so what is cut between head and tail is known to the store. Nothing here ever makes a task
wait: while the server is away or slow, the middle is cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import grpc

from dts.bounds import OUTPUT_CHUNK_BYTES, OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES
from dts.gen.worker.v1 import worker_pb2 as pb
from dts.gen.worker.v1 import worker_pb2_grpc
from dts.model import Held
from dts.worker.attempts import Attempt

log = logging.getLogger(__name__)

BATCH_S = 0.05  # output is sent at most so often
BATCH_BYTES = 2 * 1024 * 1024  # in one call
KEPT_BYTES = 64 * 1024 * 1024  # of all attempts while the server is away; beyond, what comes is cut
SEND_TIMEOUT_S = 30.0
RETRY_S = (0.1, 5.0)  # first and longest wait after a failed call

assert OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES <= BATCH_BYTES
assert max(OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES) <= OUTPUT_CHUNK_BYTES


class Piece:
    """One attempt's output that the store does not have yet: of the head all, of the rest the tail."""

    __slots__ = ("closed", "head", "head_at", "head_taken", "id", "size", "tail", "taken_to")

    def __init__(self, id: Held) -> None:
        self.id = id
        self.size = 0
        self.closed = False
        self.head = bytearray()
        self.head_at = 0
        self.head_taken = 0
        self.tail = bytearray()  # always the last bytes written
        self.taken_to = 0

    @property
    def kept(self) -> int:
        return len(self.head) + len(self.tail)

    @property
    def tail_at(self) -> int:
        return self.size - len(self.tail)

    def write(self, data: bytes, keep: bool) -> None:
        """Adds what was written; `keep` False: only counts it."""
        if not keep:
            self.tail.clear()
            self.size += len(data)
            return
        room = OUTPUT_HEAD_BYTES - self.size
        if room > 0 and self.head_at + len(self.head) == self.size:
            self.head += data[:room]
            self.size += min(len(data), room)
            data = data[room:]
        if data:
            self.tail += data[-OUTPUT_TAIL_BYTES:]
            self.size += len(data)
            if len(self.tail) > OUTPUT_TAIL_BYTES:
                del self.tail[:-OUTPUT_TAIL_BYTES]

    def take(self) -> Iterator[tuple[int, bytes, bool]]:
        """What to send: (offset, bytes, is it the last). Stays until `confirm`."""
        self.head_taken, self.taken_to = len(self.head), self.size
        if self.head:
            yield self.head_at, bytes(self.head), self.closed and not self.tail
        if self.tail:
            yield self.tail_at, bytes(self.tail), self.closed
        if self.closed and not self.kept:
            yield self.size, b"", True

    def confirm(self) -> None:
        """What was taken is stored."""
        del self.head[: self.head_taken]
        self.head_at += self.head_taken
        self.head_taken = 0
        stored = self.taken_to - self.tail_at
        if stored > 0:
            del self.tail[:stored]


class Store(Protocol):
    """Where it goes while there is a server."""

    async def stub(self) -> worker_pb2_grpc.WorkerServiceAsyncStub:
        """Waits until a server is there."""
        ...

    def failed(self) -> None:
        """The last batch was not taken."""
        ...

    @property
    def token(self) -> str: ...


class Outputs:
    """All pieces, and the task that sends them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pieces: dict[Held, Piece] = {}
        self._dirty: dict[Held, Piece] = {}
        self._kept = 0
        self._news = asyncio.Event()
        self._sending = False

    @property
    def idle(self) -> bool:
        """All is stored."""
        return not self._pieces

    def write(self, attempt: Attempt, data: bytes) -> None:
        """Adds to an attempt's output."""
        piece = self._pieces.get(attempt.id)
        if piece is None:
            piece = self._pieces[attempt.id] = Piece(attempt.id)
        before = piece.kept
        piece.write(data, self._kept < KEPT_BYTES)
        self._kept += piece.kept - before
        self._dirty[attempt.id] = piece
        self._news.set()

    def close(self, attempt: Attempt) -> None:
        """No more output comes. Nothing is sent of an attempt that wrote nothing."""
        if self._pieces and (piece := self._pieces.get(attempt.id)):
            piece.closed = True
            self._dirty[attempt.id] = piece
            self._news.set()

    async def run(self) -> None:
        """Sends, for ever."""
        wait = RETRY_S[0]
        while True:
            await self._news.wait()
            await asyncio.sleep(BATCH_S)
            stub = await self._store.stub()
            batch = self._take()
            try:
                requests = self._requests(batch)
                metadata = (("dts-token", self._store.token),)
                await stub.PutOutput(requests, metadata=metadata, timeout=SEND_TIMEOUT_S)
            except grpc.aio.AioRpcError as problem:
                log.debug("output not stored: %s", problem.details())
                self._store.failed()
                for piece in batch:
                    self._dirty[piece.id] = piece
                await asyncio.sleep(wait)
                wait = min(2 * wait, RETRY_S[1])
                continue
            wait = RETRY_S[0]
            self._confirm(batch)
            if not self._dirty:
                self._news.clear()

    def _take(self) -> list[Piece]:
        batch: list[Piece] = []
        size = 0
        while self._dirty and size < BATCH_BYTES:
            _, piece = self._dirty.popitem()
            batch.append(piece)
            size += piece.kept
        return batch

    async def _requests(self, batch: list[Piece]) -> AsyncIterator[pb.PutOutputRequest]:
        for piece in batch:
            (job, at, nonce), attempt = piece.id
            for offset, data, last in list(piece.take()):
                yield pb.PutOutputRequest(
                    job=job, instant=at, nonce=nonce, attempt=attempt, offset=offset, data=data, last=last
                )

    def _confirm(self, batch: list[Piece]) -> None:
        for piece in batch:
            before = piece.kept
            piece.confirm()
            self._kept += piece.kept - before
            if piece.closed and piece.id not in self._dirty:
                del self._pieces[piece.id]
