"""The one writer: a thread that executes all waiting operations in one transaction (group commit), each under its own
savepoint, and answers them after COMMIT.

Outcome of a transaction: committed; refused (nothing of it is in the file); unknown (COMMIT reported an error that does
not prove either). An unknown one is settled before anything else is written: a small transaction of its own overwrites
what the failed one may have left in the write-ahead log, then the file's batch number tells.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from dts.adapters.sqlite.problems import PROVABLY_REFUSED, code, explain
from dts.errors import Bug, DtsError, OutcomeUnknown, QueueFull, Unavailable

WRITES_WAITING = 10_000  # operations queued; beyond, callers are refused
WRITES_TOGETHER = 512  # operations of one transaction
SETTLE_WAIT_S = (0.05, 2.0)  # first and longest pause between two tries to settle an unknown outcome

T = TypeVar("T")
Faults = Callable[[str], None]  # called at 'begin', 'commit' (before), 'committed' (after), 'settle': may raise


class Op(Generic[T]):
    """One operation. `run` works in the transaction; `kept` follows its COMMIT in the writer's thread, `landed` in the
    event loop before the caller hears; both also follow when an unknown outcome turns out as committed."""

    __slots__ = ("answered", "error", "future", "kept", "landed", "result", "run")

    def __init__(
        self,
        run: Callable[[sqlite3.Connection], T],
        future: asyncio.Future[T],
        kept: Callable[[T], None] | None,
        landed: Callable[[T], None] | None,
    ) -> None:
        self.run = run
        self.future = future
        self.kept = kept
        self.landed = landed
        self.result: T | None = None
        self.error: Exception | None = None
        self.answered = False


AnyOp = Op[Any]  # operations of all result types stand in one queue


class Writer:
    """Owns the writing connection and its thread. `health`: '' or the last error of a transaction."""

    def __init__(self, conn: sqlite3.Connection, path: Path, faults: Faults | None) -> None:
        self._conn = conn
        self._path = path
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[AnyOp | None] = SimpleQueue()  # None: close
        self._waiting = 0
        self._closing = False
        self._batch: int = conn.execute("SELECT batch FROM state").fetchone()[0]
        self._unknown: Sequence[AnyOp] = ()
        self.health = ""
        self._thread = threading.Thread(target=self._serve, name="dts-sqlite-writer", daemon=True)
        self._thread.start()

    async def write(
        self,
        run: Callable[[sqlite3.Connection], T],
        kept: Callable[[T], None] | None = None,
        landed: Callable[[T], None] | None = None,
    ) -> T:
        """Durable on return. Raises what `run` raises, QueueFull, Unavailable (nothing is kept) or OutcomeUnknown."""
        if self._closing:
            raise Unavailable(f"{self._path} is being closed")
        if self._waiting >= WRITES_WAITING:
            raise QueueFull(f"{self._waiting} writes are waiting for {self._path}: try again later")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting += 1
        self._queue.put(Op(run, future, kept, landed))
        return await future

    async def settle(self) -> None:
        """Returns when no transaction's outcome is unknown any more. Raises Unavailable when the store is closed."""
        pause = SETTLE_WAIT_S[0]
        while self._unknown:
            try:
                await self.write(_nothing)
            except (OutcomeUnknown, Unavailable):
                if self._closing:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, SETTLE_WAIT_S[1])

    async def close(self) -> None:
        """Finishes what is queued, marks the file as cleanly closed and closes it."""
        if self._closing:
            return
        self._closing = True
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    # Everything below runs in the writer's thread.

    def _serve(self) -> None:
        while ops := self._take():
            self._transact(ops)
        with suppress(sqlite3.Error):
            if not self._unknown:
                self._conn.execute("UPDATE state SET clean = 1")
        with suppress(sqlite3.Error):
            self._conn.close()

    def _take(self) -> list[AnyOp]:
        """Waits for operations; none: the store is being closed and everything is done."""
        ops: list[AnyOp] = []
        while len(ops) < WRITES_TOGETHER and not (ops and self._queue.empty()):
            op = self._queue.get()
            if op is None:
                if ops:
                    self._queue.put(None)
                break
            ops.append(op)
        return ops

    def _transact(self, ops: Sequence[AnyOp]) -> None:
        try:
            if self._unknown:
                self._settle()
            self._point("begin")
            self._conn.execute("BEGIN IMMEDIATE")
            for op in ops:
                self._run(op, alone=len(ops) == 1)
            self._conn.execute("UPDATE state SET batch = ?", (self._batch + 1,))
        except Exception as error:  # noqa: BLE001  # whatever it is, its callers must hear of it
            self._rollback()
            self._refuse(ops, error)
            return
        try:
            self._point("commit")
            self._conn.execute("COMMIT")
            self._point("committed")
        except Exception as error:  # noqa: BLE001
            self._failed_commit(ops, error)
            return
        self._batch += 1
        self.health = ""
        self._keep(ops)
        self._answer(ops)

    def _run(self, op: AnyOp, alone: bool) -> None:
        if op.future.cancelled():
            op.error = Unavailable("the caller is gone")
            return
        if not alone:
            self._conn.execute("SAVEPOINT op")
        try:
            op.result = op.run(self._conn)
        except Exception as error:
            if alone or not self._conn.in_transaction:
                raise
            self._conn.execute("ROLLBACK TO op")
            op.error = explain(error, self._path)
            self._note(op.error)
        if not alone:
            self._conn.execute("RELEASE op")

    def _failed_commit(self, ops: Sequence[AnyOp], error: Exception) -> None:
        if self._rollback() and code(error) in PROVABLY_REFUSED:
            self._refuse(ops, error)
            return
        self._unknown = ops
        try:
            committed = self._settle()
        except Exception:  # noqa: BLE001
            self.health = str(explain(error, self._path))
            unknown = OutcomeUnknown(
                f"it is not known whether the change was stored ({self.health}): read before you repeat it"
            )
            self._loop.call_soon_threadsafe(self._deliver, [(op, op.error or unknown) for op in ops])
            return
        if not committed:
            self._refuse(ops, error)

    def _settle(self) -> bool:
        """Makes an unknown outcome known: True if it was committed. Raises what keeps it unknown."""
        self._rollback()
        self._point("settle")
        self._conn.execute("UPDATE state SET settled = settled + 1")
        batch = self._conn.execute("SELECT batch FROM state").fetchone()[0]
        ops, self._unknown = self._unknown, ()
        if batch == self._batch:
            return False
        if batch != self._batch + 1:
            raise Bug(f"transaction {self._batch + 1} was under way and the file says {batch}")
        self._batch = batch
        self._keep(ops)
        self._answer(ops)
        return True

    def _keep(self, ops: Sequence[AnyOp]) -> None:
        for op in ops:
            if op.error is None and op.kept is not None:
                op.kept(op.result)

    def _answer(self, ops: Sequence[AnyOp]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver, [(op, op.error) for op in ops])

    def _refuse(self, ops: Sequence[AnyOp], error: Exception) -> None:
        why = explain(error, self._path)
        self._note(why)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver, [(op, op.error or why) for op in ops])

    def _note(self, error: Exception) -> None:
        if not isinstance(error, DtsError) or error.status in ("UNAVAILABLE", "DATA_LOSS"):
            self.health = str(error)

    def _rollback(self) -> bool:
        try:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def _point(self, name: str) -> None:
        if self._faults is not None:
            self._faults(name)

    # In the event loop.

    def _deliver(self, answers: Sequence[tuple[AnyOp, Exception | None]]) -> None:
        for op, error in answers:
            if error is None and op.landed is not None:
                op.landed(op.result)
            if op.answered:
                continue
            op.answered = True
            self._waiting -= 1
            if op.future.done():  # the caller is gone
                continue
            if error is None:
                op.future.set_result(op.result)
            else:
                op.future.set_exception(error)


def _nothing(conn: sqlite3.Connection) -> None:
    """An operation without effect: it waits for what is unsettled."""
    del conn
