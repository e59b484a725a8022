"""The worker: a process that runs attempts. `current()` tells a python task which attempt it is.

Nothing heavy is imported here: the guard and the pool's processes must stay small.
"""

from dts.worker.context import Context as Context
from dts.worker.context import current as current
