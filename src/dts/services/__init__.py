"""The use cases: domain values and ports, no protocol and no client library."""
