"""Cancel and retry of all executions that fit a filter: a bounded number at a time, the newest first, each under its own command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from dts.errors import DtsError
from dts.model import Execution, Key
from dts.services.executions import ExecutionService, Wanted

AT_ONCE = 100  # commands on their way at one moment


class Asked(NamedTuple):
    """Which executions: a page of at most `limit`, strictly before a key."""

    wanted: Wanted
    before: Key | None
    limit: int
    dry_run: bool


class Batch(NamedTuple):
    """What became of a page. `made`: of retries the new executions, in the order of `done`. `next`: go on before it."""

    done: Sequence[Key]
    made: Sequence[str]
    refused: Sequence[tuple[Key, str]]
    next: Key | None


class Batches:
    """Over ExecutionService, whose rules for one execution are those for many."""

    def __init__(self, executions: ExecutionService) -> None:
        self._executions = executions

    async def cancel(self, asked: Asked, reason: str, request_id: str) -> Batch:
        """Ends open executions as CANCELLED; one that ended meanwhile is refused."""

        async def one(found: Execution) -> str:
            await self._executions.cancel_found(found, reason, request_id)
            return ""

        return await self._all(asked, one)

    async def retry(self, asked: Asked, arguments: bytes, request_id: str) -> Batch:
        """A new execution for each ended one; those of deleted jobs are refused."""

        async def one(found: Execution) -> str:
            return await self._executions.retry_found(found, arguments, request_id)

        return await self._all(asked, one)

    async def _all(self, asked: Asked, act: Callable[[Execution], Awaitable[str]]) -> Batch:
        found, following = await self._executions.found(asked.wanted, asked.before, asked.limit)
        if asked.dry_run:
            return Batch([each.key for each in found], [], [], following)
        done: list[Key] = []
        made: list[str] = []
        refused: list[tuple[Key, str]] = []
        for at in range(0, len(found), AT_ONCE):
            some = found[at : at + AT_ONCE]
            answers = await asyncio.gather(*(act(each) for each in some), return_exceptions=True)
            for each, answer in zip(some, answers, strict=True):
                if isinstance(answer, DtsError) and answer.status in ("FAILED_PRECONDITION", "NOT_FOUND"):
                    refused.append((each.key, str(answer)))
                elif isinstance(answer, BaseException):
                    raise answer  # the world's: what was done is done, and a repeat with the same request id goes on
                else:
                    done.append(each.key)
                    made.append(answer)
        return Batch(done, made, refused, following)
