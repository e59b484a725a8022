"""The interpreter's settings of a server's process."""

from __future__ import annotations

import gc
import sys

GC_THRESHOLD = (50_000, 20, 100)  # a full collection over 100 000 jobs takes longer than a fire may wait
SWITCH_INTERVAL_S = (
    0.001  # who writes gets the interpreter so soon: at the default 5 ms a small commit takes 11 ms and more
)


def tune() -> None:
    """Once, when all is loaded."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
