"""The composition root: reads the settings, builds adapters and services, starts and stops them in order.

The only place where an adapter meets a service.
"""

import os
from collections.abc import Callable, Mapping
from importlib import import_module

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # read when grpc is imported: we only fork to exec at once

from dts.config import Config
from dts.errors import ConfigError
from dts.server.embedded import serve_embedded
from dts.server.remote import serve_worker

CLUSTER_PACKAGES = ("acsylla", "confluent_kafka")


def _serve(module: str, name: str) -> Callable[[Config], int]:
    """A service of the cluster: its drivers are imported when it is run, since the embedded server is installed without."""

    def serve(config: Config) -> int:
        try:
            found: Callable[[Config], int] = getattr(import_module(f"dts.server.{module}"), name)
        except ModuleNotFoundError as error:
            if error.name not in CLUSTER_PACKAGES:
                raise
            raise ConfigError("a cluster needs packages that are not installed: pip install 'dts[cluster]'") from error
        return found(config)

    return serve


SERVICES: Mapping[str, Callable[[Config], int]] = {
    "job": _serve("jobservice", "serve_jobs"),
    "scheduler": _serve("schedulerservice", "serve_scheduler"),
    "execution": _serve("executionservice", "serve_executions"),
}

__all__ = ["SERVICES", "serve_embedded", "serve_worker"]
