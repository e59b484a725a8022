"""A group's assignment as the brokers tell it, and a log that does not drown."""

from __future__ import annotations

import logging
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dts.adapters.kafka import logs
from dts.adapters.kafka.members import partitions


def encoded(topics: dict[str, list[int]], version: int) -> bytes:
    """As Kafka's own clients write it, with user data after it."""
    body = struct.pack(">hi", version, len(topics))
    for name, places in topics.items():
        raw = name.encode()
        body += struct.pack(f">h{len(raw)}si{len(places)}i", len(raw), raw, len(places), *places)
    return body + struct.pack(">i", 3) + b"any"


@given(st.dictionaries(st.text(min_size=1, max_size=9), st.lists(st.integers(0, 99)), max_size=3), st.integers(0, 3))
def test_assignment(topics: dict[str, list[int]], version: int) -> None:
    assert partitions(encoded(topics, version)) == {place for places in topics.values() for place in places}


def test_no_assignment_yet() -> None:
    assert partitions(b"") == frozenset()


def test_the_same_is_said_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    seldom = logs.Seldom()

    def told(text: str) -> bool:
        return seldom.filter(logging.LogRecord("n", logging.ERROR, "f", 1, text, (), None))

    refused = "FAIL [me#producer-{}] [thrd:x]: 127.0.0.1:9092: Connect failed: refused (after {}ms in state CONNECT)"
    assert told(refused.format(1, 0))
    assert not told(refused.format(2, 7)), "another producer, the same broker"
    assert told("something else")
    now[0] += logs.AGAIN_S
    assert told(refused.format(3, 0))
