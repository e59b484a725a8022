"""What ended a moment ago is found, for a minute and a bounded number."""

from __future__ import annotations

import pytest

from dts.model import START, Block, Commit, Demand, End, Key, Status
from dts.services import recent
from dts.services.recent import KEPT_MS, Recent

KEYS = [Key(f"job-{number}", 1_000) for number in range(5)]


def commit(now: int, *blocks: Block) -> Commit:
    return Commit(0, 1, 1, now, START, (0, 0), blocks)


def block(keys: list[Key], status: Status) -> Block:
    return Block(keys, [1] * len(keys), Demand(), status, ends=[End(code=7)] * len(keys) if status.terminal else ())


def test_finds_what_ended() -> None:
    kept = Recent()
    kept.committed(commit(1_000, block(KEYS[:3], Status.FAILED), block(KEYS[3:], Status.PLACED)))
    found = kept.find(KEYS[1], 1_001)
    assert found is not None
    assert (found.key, found.status, found.end.code) == (KEYS[1], Status.FAILED, 7)
    assert kept.find(KEYS[3], 1_001) is None, "it is still open"


def test_forgets_after_a_minute() -> None:
    kept = Recent()
    kept.committed(commit(1_000, block(KEYS[:1], Status.COMPLETED)))
    assert kept.find(KEYS[0], 1_000 + KEPT_MS) is not None
    assert kept.find(KEYS[0], 1_001 + KEPT_MS) is None
    kept.committed(commit(1_001 + KEPT_MS))
    assert not kept._blocks


def test_keeps_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "KEPT_KEYS", 2)
    kept = Recent()
    for key in KEYS:
        kept.committed(commit(1_000, block([key], Status.COMPLETED)))
    assert [key for key in KEYS if kept.find(key, 1_000)] == KEYS[3:]
