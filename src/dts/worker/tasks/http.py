"""HTTP tasks: one request, with the attempt's values as headers. The head of the response's body is the output."""

from __future__ import annotations

import aiohttp

from dts import __version__
from dts.bounds import OUTPUT_HEAD_BYTES
from dts.worker.bodies import Http
from dts.worker.tasks.inloop import Result, Work

READ_BYTES = 64 * 1024
BODY_BYTES = 1024 * 1024  # of a response; more is not read
CONNECT_TIMEOUT_S = 30.0
CONNECTIONS = 1_000
USER_AGENT = f"dts/{__version__}"

assert OUTPUT_HEAD_BYTES <= BODY_BYTES


class HttpType:
    """inloop.TaskType; one client session for all requests. Redirects are followed, cookies are not kept."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def run(self, work: Work) -> Result:
        task = work.task
        assert isinstance(task, Http)
        headers = {"User-Agent": USER_AGENT, **work.context.headers(), **task.headers}
        try:
            request = self._client().request(
                task.method, task.url, headers=headers, data=task.body.encode() if task.body else None
            )
            async with request as response:
                await _copy(response, work)
                status = response.status
                reason = response.reason or ""
        except aiohttp.InvalidURL:
            return Result(False, 0, f"not a URL: {task.url!r}")
        except (aiohttp.ClientError, OSError) as problem:
            return Result(False, 0, f"{task.method} {task.url}: {str(problem) or type(problem).__name__}")
        if status in task.statuses if task.statuses else 200 <= status < 300:
            return Result(True, status)
        return Result(False, status, f"{task.method} {task.url}: status {status} {reason}".rstrip())

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _copy(response: aiohttp.ClientResponse, work: Work) -> None:
    size = 0
    async for data in response.content.iter_chunked(READ_BYTES):
        work.write(data)
        size += len(data)
        if size >= BODY_BYTES:
            return
