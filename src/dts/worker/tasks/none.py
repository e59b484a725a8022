"""No task: completes at once, leaving its record and its event."""

from __future__ import annotations

from dts.bounds import LEASE_MESSAGE_KEYS
from dts.model import End, Status
from dts.worker import clock
from dts.worker.attempts import Attempt
from dts.worker.runners import Host, not_held


class NoneRunner:
    """runners.Runner."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def claim(self, kind: str) -> int:
        del kind
        return LEASE_MESSAGE_KEYS

    def start(self, attempts: list[Attempt]) -> None:
        now = clock.wall_ms()
        end = End(
            started=now, ended=now, enforced=not_held(attempts[0].demand) if attempts else ""
        )  # a group has one demand
        self._host.ended([(attempt, Status.COMPLETED, end) for attempt in attempts])

    def stop(self, attempt: Attempt, within_ms: int | None) -> None:
        """It has ended."""

    def skip(self, attempt: Attempt) -> None:
        """It has ended."""

    async def close(self) -> None:
        """Holds nothing."""
