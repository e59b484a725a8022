"""Adapters implement the ports (dts.ports); each room alone knows its client library."""
