"""Task types of installed packages, found by their entry points when first needed; and the type of what cannot be run."""

from __future__ import annotations

from importlib.metadata import entry_points

from dts.worker.bodies import Broken, Custom
from dts.worker.tasks.inloop import Result, TaskType, Work

GROUP = "dts.tasks"


class Unrunnable:
    """inloop.TaskType: every attempt fails with the reason."""

    def __init__(self, reason: str = "") -> None:
        self._reason = reason

    async def run(self, work: Work) -> Result:
        reason = self._reason
        match work.task:
            case Broken(problem):
                reason = problem
            case Custom(type) if not reason:
                reason = f"no task type {type!r} is installed on this worker (entry point group {GROUP})"
        return Result(False, 0, reason)

    async def close(self) -> None:
        """Holds nothing."""


def load(type: str) -> TaskType | None:
    """A new object of a package's task type, Unrunnable if it cannot be loaded. None: no package has it."""
    found = [entry for entry in entry_points(group=GROUP) if entry.name == type]
    if not found:
        return None
    try:
        made: TaskType = found[0].load()()
    except Exception as problem:  # noqa: BLE001  # a package that does not load must not end the worker
        return Unrunnable(f"task type {type!r} cannot be loaded: {problem.__class__.__name__}: {problem}")
    return made
