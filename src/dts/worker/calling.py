"""Calls a python task's function: how it is found, how it is told to stop, what its end is called."""

from __future__ import annotations

import contextvars
import importlib
import inspect
import traceback
from collections.abc import Callable
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING, Any

from dts.bounds import ERROR_BYTES, RESULT_BYTES
from dts.worker.frames import decode
from dts.worker.shared import COMPLETED, FAILED, STOPPED
from dts.worker.texts import cut

if TYPE_CHECKING:
    import asyncio

Function = Callable[..., Any]


class Stopped(BaseException):
    """Raised in user code that was told to stop, so that it may clean up; the process ends after it."""


@lru_cache(maxsize=10_000)
def resolve(name: str) -> tuple[Function, bool]:
    """`module:function` (dots allowed after the colon) and whether it is async. Raises ImportError, AttributeError, ValueError."""
    module, colon, path = name.partition(":")
    if not colon or not module or not path:
        raise ValueError(f"{name!r} is not of the form module:function")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{name!r} is not callable")
    return found, inspect.iscoroutinefunction(found)


class Caller:
    """One call at a time. `write` takes tracebacks, `meant` tells whether a TERM is for the call that runs."""

    def __init__(self, write: Callable[[str], object], meant: Callable[[], bool]) -> None:
        self._write = write
        self._meant = meant
        self._runner: asyncio.Runner | None = None
        self._in_user_code = False

    def on_term(self, number: int, frame: FrameType | None) -> None:
        """The handler of TERM."""
        del number, frame
        if self._in_user_code and self._meant():
            self._in_user_code = False
            raise Stopped

    def call(self, name: str, arguments: bytes) -> tuple[int, str, str]:
        """Runs it: (status as shared.py has it, error, result)."""
        self._in_user_code = True
        try:
            function, is_async = resolve(name)
            args, kwargs = decode(arguments) if arguments else ((), {})
            value = function(*args, **kwargs)
            if is_async or inspect.isawaitable(value):
                value = self._run_async(value)
            result = "" if value is None else cut(repr(value), RESULT_BYTES)
            self._in_user_code = False
        except Stopped:
            return STOPPED, "", ""
        except SystemExit as leaving:
            self._in_user_code = False
            if leaving.code in (None, 0):
                return COMPLETED, "", ""
            return FAILED, cut(f"exit code {leaving.code}", ERROR_BYTES), ""
        except BaseException as problem:  # noqa: BLE001  # whatever user code raises is its attempt's failure
            self._in_user_code = False
            return FAILED, self._explain(problem), ""
        return COMPLETED, "", result

    def _run_async(self, value: Any) -> Any:
        # The zygote has it; to a process of one call that does without, it would cost a third of its start.
        import asyncio  # noqa: PLC0415

        if self._runner is None:
            self._runner = asyncio.Runner()
        context = contextvars.copy_context()
        if inspect.iscoroutine(value):
            return self._runner.run(value, context=context)

        async def wait() -> Any:
            return await value

        return self._runner.run(wait(), context=context)

    def _explain(self, problem: BaseException) -> str:
        """The traceback, without our own frames, goes to the output; its last line is the error."""
        trace = problem.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        try:
            lines = traceback.format_exception(type(problem), problem, trace)
            self._write("".join(lines))
            return cut(traceback.format_exception_only(problem)[-1].strip(), ERROR_BYTES)
        except Exception:  # noqa: BLE001  # an exception whose own __str__ raises
            return cut(type(problem).__name__, ERROR_BYTES)
