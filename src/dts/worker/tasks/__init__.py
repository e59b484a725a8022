"""Task types. One module each; a package adds one with an entry point of the group `dts.tasks` (docs/reference/tasks.md)."""

from dts.worker.context import Context as Context
from dts.worker.tasks.inloop import Result as Result
from dts.worker.tasks.inloop import TaskType as TaskType
from dts.worker.tasks.inloop import Work as Work
