"""One session with Cassandra: prepared statements, a bounded number of requests in flight, errors as ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import acsylla
from acsylla import Consistency, errors

from dts import bounds
from dts.errors import Bug, ConfigError, FailedPrecondition, OutcomeUnknown, Unavailable

T = TypeVar("T")
R = TypeVar("R")

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = bounds.STORE_WRITE_MS / 1_000
RECONNECT_MS = 500  # between two tries to reach a node that is down
AGAIN_S = 1.0  # ... and to reach any of them, at the start
IN_FLIGHT = 256  # requests of one session at a time; the driver's own queue has room for 8 192
PAGE = 1_000  # rows a page

Value = int | str | bytes | bool | list[str] | list[int] | None
Row = tuple[Any, ...]  # as the statement's columns are

# A request that failed so has certainly changed nothing.
REFUSED = (
    errors.CassErrorServerUnavailable,
    errors.CassErrorServerOverloaded,
    errors.CassErrorServerIsBootstrapping,
    errors.CassErrorLibNoStreams,
    errors.CassErrorLibRequestQueueFull,
    errors.CassErrorLibNoAvailableIoThread,
)
# The keyspace, its rights or its tables are not what they should be.
UNFIT = (
    errors.CassErrorServerInvalidQuery,
    errors.CassErrorServerAlreadyExists,
    errors.CassErrorServerUnauthorized,
    errors.CassErrorServerBadCredentials,
    errors.CassErrorServerConfigError,
)
WRONG = (
    errors.CassErrorServerSyntaxError,
    errors.CassErrorLibInvalidValueType,
    errors.CassErrorLibIndexOutOfBounds,
    errors.CassErrorLibInvalidItemCount,
)


class Session:
    """Statements as text; each is prepared once. Everything that fails raises Unavailable, or what `_explain` says."""

    def __init__(self, session: Any, keyspace: str, where: str) -> None:
        self._session = session  # None: not reached yet
        self._reaching: asyncio.Task[None] | None = None
        self._problem = "it has not been reached yet"
        self._prepared: dict[str, Any] = {}
        self._free = asyncio.Semaphore(IN_FLIGHT)
        self.keyspace = keyspace
        self.where = where

    @classmethod
    async def connect(
        cls, hosts: Sequence[str], port: int, keyspace: str, request_timeout_s: float = REQUEST_TIMEOUT_S
    ) -> Session:
        """A session with its keyspace chosen ('': none). Raises Unavailable; FailedPrecondition when it has no such keyspace."""
        where = f"Cassandra at {','.join(hosts)}, port {port}"
        cluster = _cluster(hosts, port, request_timeout_s)
        try:
            return cls(await cluster.create_session(keyspace=keyspace or None), keyspace, where)
        except errors.CassErrorLibUnableToSetKeyspace as error:
            raise FailedPrecondition(f"{where} has no keyspace {keyspace!r}: run `dts migrate up`") from error
        except errors.CassException as error:
            raise Unavailable(f"{where} cannot be reached: {error}") from error

    @classmethod
    def later(
        cls, hosts: Sequence[str], port: int, keyspace: str, request_timeout_s: float = REQUEST_TIMEOUT_S
    ) -> Session:
        """A session that is Unavailable until the servers are reached, which is tried again and again: for who can do
        without. Made on the event loop."""
        self = cls(None, keyspace, f"Cassandra at {','.join(hosts)}, port {port}")

        async def reach() -> None:
            while self._session is None:
                try:
                    self._session = (await cls.connect(hosts, port, keyspace, request_timeout_s))._session
                except (Unavailable, FailedPrecondition) as error:
                    self._problem = str(error)
                    await asyncio.sleep(AGAIN_S)

        self._reaching = asyncio.get_running_loop().create_task(reach())
        return self

    async def close(self) -> None:
        """Ends it; what is in flight ends first."""
        if self._reaching is not None:
            self._reaching.cancel()
            await asyncio.wait([self._reaching])
        if self._session is not None:
            await self._session.close()

    async def bind(
        self, cql: str, values: Sequence[Value], page_size: int | None = None, page_state: bytes | None = None
    ) -> Any:
        """A statement with its values, for `execute` and `batch`."""
        prepared = self._prepared.get(cql)
        if prepared is None:
            prepared = self._prepared[cql] = await self._asked(lambda: self._session.create_prepared(cql))
        statement = prepared.bind(page_size=page_size, page_state=page_state)
        statement.bind_list(list(values))
        return statement

    async def execute(self, statement: Any) -> Any:
        """Its result. Raises Unavailable or OutcomeUnknown."""
        async with self._free:
            return await self._asked(lambda: self._session.execute(statement))

    async def write(self, cql: str, values: Sequence[Value] = ()) -> None:
        """One idempotent write."""
        await self.execute(await self.bind(cql, values))

    async def rows(self, cql: str, values: Sequence[Value] = (), serial: bool = False) -> list[Row]:
        """All rows (few; see `pages`). `serial`: what a change left whose outcome is unknown is settled first."""
        statement = await self.bind(cql, values)
        if serial:
            statement.set_consistency(Consistency.SERIAL)
        return [row.as_tuple() for row in (await self.execute(statement)).all()]

    async def pages(self, cql: str, values: Sequence[Value] = (), size: int = PAGE) -> AsyncIterator[list[Row]]:
        """All rows, page by page; no page is empty."""
        state: bytes | None = None
        while True:
            result = await self.execute(await self.bind(cql, values, size, state))
            page = [row.as_tuple() for row in result.all()]
            if page:
                yield page
            if not result.has_more_pages():
                return
            state = result.page_state()

    async def batch(self, statements: Iterable[Any], atomic: bool) -> Any:
        """Statements of one partition as one; `atomic`: with a condition, or to be seen at once."""
        made = acsylla.create_batch_logged() if atomic else acsylla.create_batch_unlogged()
        if atomic:
            made.set_serial_consistency(Consistency.SERIAL)
        for each in statements:
            made.add_statement(each)
        async with self._free:
            return await self._asked(lambda: self._session.execute_batch(made))

    async def run(self, cql: str) -> None:
        """A statement that is not prepared (it changes the schema); returns when the nodes agree on it."""
        statement = acsylla.create_statement(cql, timeout=60.0)
        statement.set_consistency(Consistency.QUORUM)
        await self._asked(lambda: self._session.execute(statement))

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        if self._session is None:
            raise Unavailable(self._problem)
        try:
            return await ask()
        except errors.CassException as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, UNFIT):
            return FailedPrecondition(
                f"{self.where}, keyspace {self.keyspace!r}: {error} (is it migrated? dts migrate up)"
            )
        if isinstance(error, WRONG):
            return Bug(f"{self.where}: {error}")
        if isinstance(error, REFUSED):
            return Unavailable(f"{self.where}: {error}")
        return OutcomeUnknown(f"{self.where}: {error}")


def _cluster(hosts: Sequence[str], port: int, request_timeout_s: float) -> Any:
    return acsylla.create_cluster(
        list(hosts),
        port=port,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=request_timeout_s,
        consistency=Consistency.LOCAL_QUORUM,
        serial_consistency=Consistency.SERIAL,
        constant_reconnect_delay_ms=RECONNECT_MS,
        retry_policy="fallthrough",  # who asked decides: a change that timed out is looked up, not repeated
        log_level="critical",  # it says of Apache's servers that they are not ScyllaDB; errors reach us as exceptions
        application_name="dts",
        monitor_reporting_interval_sec=0,
    )


async def in_flight(work: Iterable[T], do: Callable[[T], Awaitable[R]], width: int = IN_FLIGHT) -> list[R]:
    """Does all of it, `width` at a time; the results in order. The first failure is raised when none is under way."""
    items = list(work)
    results: dict[int, R] = {}
    places = iter(range(len(items)))
    failed: list[BaseException] = []

    async def serve() -> None:
        for place in places:
            if failed:
                return
            try:
                results[place] = await do(items[place])
            except Exception as error:  # noqa: BLE001 - raised below
                failed.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(width, len(items))):
            group.create_task(serve())
    if failed:
        raise failed[0]
    return [results[place] for place in range(len(items))]


def contacts(hosts: Sequence[str], port: int) -> tuple[list[str], int]:
    """Hosts without ports, and their port: the one that they name themselves, else `port`. Raises ConfigError."""
    names, ports = [], set()
    for each in hosts:
        host, colon, own = each.rpartition(":")
        named = bool(colon) and (":" not in host or host.startswith("["))
        names.append((host if named else each).strip("[]"))
        ports.add(int(own) if named else port)
    if len(ports) > 1:
        raise ConfigError("CASSANDRA_HOSTS names different ports: the driver asks all hosts at the same one")
    return names, ports.pop()
