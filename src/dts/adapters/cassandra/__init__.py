"""The ports over a Cassandra keyspace: the book of record for jobs, and for history a projection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dts.adapters.cassandra.history import CassandraHistory
from dts.adapters.cassandra.intents import CassandraIntents
from dts.adapters.cassandra.jobs import CassandraJobs
from dts.adapters.cassandra.outputs import CassandraOutputs
from dts.adapters.cassandra.session import REQUEST_TIMEOUT_S, Session, contacts
from dts.model import Instant

__all__ = ["CassandraStore"]


def _wall() -> Instant:
    return time.time_ns() // 1_000_000


class CassandraStore:
    """`jobs`, `intents`, `history` and `outputs` over one session."""

    def __init__(self, session: Session, retention_days: int, output_days: int, clock: Callable[[], Instant]) -> None:
        self._session = session
        self.jobs = CassandraJobs(session)
        self.intents = CassandraIntents(session)
        self.history = CassandraHistory(session, retention_days, clock)
        self.outputs = CassandraOutputs(session, output_days)

    @classmethod
    async def open(
        cls,
        hosts: Sequence[str],
        port: int,
        keyspace: str,
        *,
        retention_days: int = 30,
        output_days: int = 7,
        clock: Callable[[], Instant] = _wall,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> CassandraStore:
        """Over a migrated keyspace; days 0: for ever. Raises Unavailable, FailedPrecondition or ConfigError."""
        names, one_port = contacts(hosts, port)
        session = await Session.connect(names, one_port, keyspace, request_timeout_s)
        return cls(session, retention_days, output_days, clock)

    async def close(self) -> None:
        """Ends the session."""
        await self._session.close()
