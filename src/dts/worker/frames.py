"""Frames on the private sockets of the guard and the pool: four bytes of length, then msgpack."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]

_LENGTH = struct.Struct("<I")


def encode(value: object) -> bytes:
    """msgpack, without a length."""
    encoded: bytes = msgpack.packb(value)
    return encoded


def decode(encoded: bytes | memoryview) -> Any:
    """The inverse of `encode`; the caller knows its shape, since it wrote both ends."""
    return msgpack.unpackb(encoded, strict_map_key=False)


def decode_all(encoded: bytes | memoryview) -> list[Any]:
    """Values one after the other."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(encoded), 1))
    unpacker.feed(encoded)
    return list(unpacker)


def pack(value: object) -> bytes:
    """One frame."""
    body = encode(value)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Takes bytes as they come, gives the frames that are whole."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[list[Any]]:
        """The values of the frames that `data` completes."""
        rest = self._rest + data if self._rest else data
        start = 0
        while len(rest) - start >= 4:
            end = start + 4 + _LENGTH.unpack_from(rest, start)[0]
            if end > len(rest):
                break
            value = decode(rest[start + 4 : end])
            assert isinstance(value, list)
            start = end
            yield value
        self._rest = rest[start:]
