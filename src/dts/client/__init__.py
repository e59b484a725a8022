"""The Python SDK over gRPC: `DtsClient`, and `AsyncDtsClient` for asyncio. Requests and answers are the messages of `dts.gen`.

with DtsClient() as dts:
    id = dts.create_job(CreateJobRequest(name="hello", cron_expression="*/5 * * * *", task=shell("echo hello")))
"""

from dts.client.aio import AsyncDtsClient
from dts.client.base import Addresses, ApiError
from dts.client.sync import DtsClient
from dts.client.tasks import http, python, shell

__all__ = ["Addresses", "ApiError", "AsyncDtsClient", "DtsClient", "http", "python", "shell"]
