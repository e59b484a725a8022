"""Texts that leave the worker: bounded in bytes, always valid UTF-8."""

from __future__ import annotations


def cut(text: str, size: int) -> str:
    """At most `size` bytes of UTF-8; what cannot be encoded is escaped."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= size:
        return encoded.decode()
    return encoded[: size - 3].decode("utf-8", "ignore") + "..."
