"""Live over the Scheduler instances of a cluster: each is asked for its part."""

from dts.adapters.live.remote import RemoteLive

__all__ = ["RemoteLive"]
