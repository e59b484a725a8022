"""The composition root: reads the settings, builds adapters and services, starts and stops them in order.

The only place where an adapter meets a service.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # read when grpc is imported: we only fork to exec at once

from dts.server.embedded import serve_embedded
from dts.server.remote import serve_worker

__all__ = ["serve_embedded", "serve_worker"]
