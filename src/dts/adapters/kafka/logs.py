"""What the Kafka clients say: the same thing of the same broker once in a while, not each second for as long as it is away."""

from __future__ import annotations

import logging
import re
import time

CLIENT = "dts.kafka.client"
AGAIN_S = 30.0
KNOWN = 1_000  # different messages remembered

_CHANGING = re.compile(r"\[[^\]]*\]|#\w+-\d+|after \d+ms[^)]*")


class Seldom(logging.Filter):
    """Lets a message through that was not let through within AGAIN_S."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is told now."""
        text, now = _CHANGING.sub("", record.getMessage()), time.monotonic()
        if now - self._told.get(text, -AGAIN_S) < AGAIN_S:
            return False
        if len(self._told) >= KNOWN:
            self._told.clear()
        self._told[text] = now
        return True


def client_logger() -> logging.Logger:
    """The logger for all clients."""
    logger = logging.getLogger(CLIENT)
    if not any(isinstance(each, Seldom) for each in logger.filters):
        logger.addFilter(Seldom())
    return logger
