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


# One read of the last table that each migration of ours makes.
NEEDED = (
    "SELECT minute FROM job_intent_parts WHERE day = 0 LIMIT 1",
    "SELECT watermark FROM history_progress WHERE shard = 0",
    "SELECT size FROM outputs WHERE job = '' AND at = 0 AND nonce = '' LIMIT 1",
)


def _wall() -> Instant:
    return time.time_ns() // 1_000_000


class CassandraStore:
    """`jobs`, `intents`, `history` and `outputs` over one session."""

    def __init__(self, session: Session, retention_days: int, output_days: int, clock: Callable[[], Instant]) -> None:
        self._session = session
        self._clock = clock
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

    @classmethod
    def later(
        cls,
        hosts: Sequence[str],
        port: int,
        keyspace: str,
        *,
        retention_days: int = 30,
        output_days: int = 7,
        clock: Callable[[], Instant] = _wall,
    ) -> CassandraStore:
        """The same, Unavailable until it is reached: for a process that does its work without it. Raises ConfigError."""
        names, one_port = contacts(hosts, port)
        return cls(Session.later(names, one_port, keyspace), retention_days, output_days, clock)

    async def check(self) -> None:
        """For readiness. Raises Unavailable or OutcomeUnknown while no quorum answers, FailedPrecondition while the keyspace is
        not migrated to what this version needs."""
        for cql in NEEDED:
            await self._session.rows(cql)

    async def clock_apart(self, clock: Callable[[], Instant] | None = None) -> int:
        """How far a clock (ours, if none is given) is ahead of a node's, in ms; half of what the question took is the error.
        What raises: as `check`."""
        ours = clock or self._clock
        before = ours()
        [(node,)] = await self._session.rows("SELECT cast(toUnixTimestamp(now()) AS bigint) FROM system.local")
        return (before + ours()) // 2 - int(node)

    async def close(self) -> None:
        """Ends the session."""
        await self._session.close()
