"""Task types that are loaded when first needed: HTTP, and those of installed packages; and the type of what cannot be run."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from dts.worker.bodies import PACKAGED, Broken, Custom
from dts.worker.tasks.inloop import Result, TaskType, Work

GROUP = "dts.tasks"
BUILT_IN = {"http": EntryPoint("http", "dts.worker.tasks.http:HttpType", GROUP)}  # its library takes 0.1 s to load


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
    """A new object of a task type, Unrunnable if it cannot be loaded. None: there is none."""
    if type.startswith(PACKAGED):
        type = type.removeprefix(PACKAGED)
        entry = next((each for each in entry_points(group=GROUP) if each.name == type), None)
    else:
        entry = BUILT_IN.get(type)
    if entry is None:
        return None
    try:
        made: TaskType = entry.load()()
    except Exception as problem:  # noqa: BLE001  # a package that does not load must not end the worker
        return Unrunnable(f"task type {type!r} cannot be loaded: {problem.__class__.__name__}: {problem}")
    return made
