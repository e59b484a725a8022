"""The fold of a shard's log: right logs give their commits back, every wrong one is refused with what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dts.adapters.commitcodec import commit_out
from dts.adapters.kafka import settings as bounds
from dts.adapters.kafka.fold import Assembly, Folded
from dts.adapters.kafka.ledger import _records
from dts.errors import StoreDamaged
from dts.gen.log.v1 import log_pb2 as log
from dts.model import Commit, Key, Status
from tests.conformance.values import block, commit


def encoded(one: Commit, piece: int = 0, pieces: int = 0) -> list[bytes]:
    return list(_records(one, commit_out(one), piece, pieces))


def plain(epoch: int, seq: int, executions: int = 1) -> Commit:
    return commit(epoch, seq, blocks=[block([Key(f"j{n}", seq) for n in range(executions)], Status.SKIPPED)])


def snapshot(epoch: int, seq: int, pieces: int) -> list[bytes]:
    """Of the state after commit `seq`."""
    found: list[bytes] = []
    for piece in range(pieces):
        found += encoded(plain(epoch, seq - pieces + 1 + piece, 3), piece, pieces)
    return found


def fold(records: Sequence[bytes]) -> Folded:
    assembly = Assembly(0)
    for offset, each in enumerate(records):
        assembly.add(offset, each, 1_000 + offset)
    return assembly.finish()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records so small that every commit has several."""
    monkeypatch.setattr(bounds, "RECORD_BYTES", 40)


def test_commits_come_back_as_they_were() -> None:
    made = [plain(1, 1), plain(1, 2, 30), plain(4, 3)]
    found = fold([record for one in made for record in encoded(one)])
    assert [(each.epoch, each.seq, len(each.blocks[0].keys)) for each in found.commits] == [
        (1, 1, 1),
        (1, 2, 30),
        (4, 3, 1),
    ]
    assert (found.epoch, found.seq, found.snapshot) == (4, 3, 0)
    assert found.tail == sum(len(commit_out(one)) for one in made)


def test_what_a_snapshot_replaces_is_left_out() -> None:
    records = encoded(plain(1, 1)) + encoded(plain(2, 2)) + snapshot(2, 2, 3) + encoded(plain(3, 3))
    found = fold(records)
    assert [each.seq for each in found.commits] == [0, 1, 2, 3]
    assert found.tail == len(commit_out(plain(3, 3)))
    assert found.snapshot == sum(len(log.Record.FromString(each).slice) for each in snapshot(2, 2, 3))
    assert 1_000 + len(encoded(plain(1, 1)) + encoded(plain(2, 2))) < found.since < found.last


def test_a_log_may_begin_with_a_snapshot() -> None:
    found = fold(snapshot(7, 100, 2) + encoded(plain(8, 101)))
    assert [each.seq for each in found.commits] == [99, 100, 101]


def test_an_empty_log_is_a_new_shard() -> None:
    assert fold([]) == Folded([], 0, 0, 0, 0, 0, 0)


def parts(count: int) -> list[bytes]:
    """A commit in so many records."""
    return [log.Record(format=1, epoch=1, seq=1, part=n, parts=count).SerializeToString() for n in range(count)]


ONE, TWO, THREE = encoded(plain(1, 1)), encoded(plain(2, 2)), encoded(plain(2, 3))
WRONG = {
    "a repeat": ([*ONE, *ONE], "is commit 1 where 2 follows"),
    "a gap": ([*ONE, *THREE], "is commit 3 where 2 follows"),
    "a falling epoch": ([*ONE, *TWO, *encoded(plain(1, 3))], "is of epoch 1, after 2"),
    "no beginning": (TWO, "is commit 2 where 1 follows"),
    "cut at its end": (snapshot(1, 5, 2)[:-1], "more were to follow"),
    "a snapshot of another commit": ([*ONE, *snapshot(1, 2, 1)], "is a snapshot of commit 2, after 1"),
    "a commit inside a snapshot": ([*ONE, *encoded(plain(1, 0), 0, 2), *TWO], "is piece 0 of a snapshot, after 1"),
    "a part that is missing": ([parts(3)[0], parts(3)[2]], "is part 2 after 0"),
    "a part that is there twice": ([parts(3)[0], parts(3)[0]], "is part 0 after 0"),
    "another commit in between": ([parts(3)[0], *TWO], "interrupts commit 1/1"),
    "not ours": ([b"\xff\xff\xff"], "is none of ours"),
    "of a later version": ([log.Record(format=2).SerializeToString()], "was written by a later version"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_log_is_refused(name: str) -> None:
    records, told = WRONG[name]
    with pytest.raises(StoreDamaged, match=told):
        fold(records)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_loss_or_repeat_or_exchange_of_a_record_goes_unseen(data: st.DataObject) -> None:
    """Anything but cutting off whole commits at the end."""
    made = [plain(1, 1, 4), plain(1, 2, 4), plain(2, 3, 4)]
    records = [record for one in made for record in encoded(one)]
    at = data.draw(st.integers(0, len(records) - 1))
    other = data.draw(st.integers(0, len(records) - 1).filter(lambda n: n != at))
    match data.draw(st.sampled_from(["loss", "repeat", "exchange"])):
        case "loss":
            wrong = records[:at] + records[at + 1 :]
        case "repeat":
            wrong = records[: at + 1] + records[at:]
        case _:
            wrong = list(records)
            wrong[at], wrong[other] = wrong[other], wrong[at]
    with pytest.raises(StoreDamaged):
        fold(wrong)
