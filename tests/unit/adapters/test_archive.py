"""The file of exports: what goes in comes out, and a file that is not whole, or not ours to read, is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dts.adapters.archive import FORMAT, ArchiveReader, ArchiveWriter, Header, Record
from dts.errors import ConfigError, StoreDamaged, Unavailable
from dts.model import (
    Cause,
    Definition,
    Demand,
    End,
    Execution,
    JobState,
    Key,
    Misfire,
    MovedExecution,
    MovedJob,
    Output,
    Policies,
    Range,
    Revision,
    ScheduleSpec,
    Status,
    Term,
)

HEADER = Header(1_700_000_000_000, "embedded", "0" * 32, "0.1.0")

text = st.text(max_size=20)
instants = st.integers(0, 2**45)
counts = st.integers(0, 2**31 - 1)
jobs = st.text("abcXYZ019._-", min_size=1, max_size=12)
ends = st.builds(End, instants, instants, st.integers(-(2**31), 2**31 - 1), text, text)


def executions(ended: bool) -> st.SearchStrategy[Execution]:
    return st.builds(
        Execution,
        st.builds(Key, jobs, instants, st.sampled_from(["", "0123456789ab"])),
        counts,
        st.sampled_from([status for status in Status if status.terminal] if ended else list(Status)),
        counts,
        st.sampled_from(Cause),
        instants,
        instants,
        instants,
        text,
        instants,
        text,
        text,
        ends,
    )


outputs = st.builds(Output, counts, st.binary(max_size=40), st.binary(max_size=40), instants, instants, st.booleans())
moved = st.builds(
    MovedExecution,
    executions(True),
    st.lists(executions(False), max_size=2).map(tuple),
    st.lists(outputs, max_size=2).map(tuple),
)
ranges = st.builds(Range, jobs, counts, instants, instants, counts, text)
terms = st.builds(Term, jobs, counts, instants, instants, st.none() | instants, text)


@st.composite
def moved_jobs(draw: st.DrawFn) -> MovedJob:
    job = draw(jobs)
    numbers = sorted(draw(st.sets(st.integers(1, 1_000), min_size=1, max_size=4)))
    schedule = ScheduleSpec("0 9 * * *", "Europe/Paris", draw(st.none() | instants), None, "skip", "both")
    policies = Policies(misfire=draw(st.sampled_from(Misfire)), max_retries=draw(st.integers(0, 9)))
    demand = Demand(cpu=draw(counts), custom=(("gpu", 1),), selector="zone=a", priority=-3)
    return MovedJob(
        [
            Revision(
                Definition(
                    job,
                    number,
                    draw(instants),
                    draw(st.sampled_from(JobState)),
                    draw(st.none() | instants),
                    (schedule,),
                    demand,
                    policies,
                    draw(st.binary(max_size=20)),
                ),
                "update",
                draw(instants),
                draw(text),
                tuple(draw(st.lists(text, max_size=3))),
                draw(st.binary(max_size=40)),
                draw(text),
            )
            for number in numbers
        ],
        draw(instants),
    )


def write(path: Path, records: Sequence[Record]) -> None:
    writer = ArchiveWriter(path, HEADER)
    for each in records:
        writer.write(each)
    writer.finish()


@given(st.lists(terms | ranges | moved | moved_jobs(), max_size=8))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    path = tmp_path_factory.mktemp("archive") / "x.gz"
    write(path, records)
    reader = ArchiveReader(path)
    assert reader.header() == HEADER
    assert list(reader.records()) == records
    assert list(reader.records()) == records


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.gz"
    write(
        path,
        [
            Term("a", 1, 5, 6, 7, "2026a"),
            MovedExecution(Execution(Key("a", 9), 1, Status.COMPLETED), (), (Output(1, b"out", b"", 0, 3, True),)),
            Range("a", 1, 2, 3, 4, "outage"),
            MovedJob(
                [
                    Revision(
                        Definition("a", 1, 5, JobState.ACTIVE, None, (), Demand(), Policies(), b""),
                        "create",
                        5,
                        "A",
                        (),
                        b"",
                    )
                ],
                9,
            ),
        ],
    )
    return path


def refuse(path: Path, data: bytes, error: type[Exception]) -> str:
    other = path.with_name("other.gz")
    other.write_bytes(data)
    with pytest.raises(error) as caught:
        list(ArchiveReader(other).records())
    return str(caught.value)


def test_a_file_cut_anywhere_is_refused(whole: Path) -> None:
    data = whole.read_bytes()
    for size in range(len(data)):
        refuse(whole, data[:size], StoreDamaged)


def test_a_file_with_any_byte_changed_is_refused_or_says_the_same(whole: Path) -> None:
    data, records = whole.read_bytes(), list(ArchiveReader(whole).records())
    other = whole.with_name("other.gz")
    for place in range(len(data)):
        other.write_bytes(data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :])
        try:
            assert list(ArchiveReader(other).records()) == records  # a byte of gzip's header that means nothing
        except (StoreDamaged, ConfigError):
            pass


def lines(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).splitlines(keepends=True)


def signed(body: list[bytes], counts: dict[str, int]) -> bytes:
    end = {"end": {"counts": counts, "sha256": hashlib.sha256(b"".join(body)).hexdigest()}}
    return gzip.compress(b"".join(body) + json.dumps(end).encode() + b"\n")


def test_lines_that_were_changed_left_out_or_added_are_refused(whole: Path) -> None:
    all_lines = lines(whole)
    for place in range(1, len(all_lines) - 1):
        left_out = all_lines[:place] + all_lines[place + 1 :]
        assert "damaged" in refuse(whole, gzip.compress(b"".join(left_out)), StoreDamaged)
        twice = all_lines[: place + 1] + all_lines[place:]
        assert "damaged" in refuse(whole, gzip.compress(b"".join(twice)), StoreDamaged)
    changed = b"".join(all_lines).replace(b'"outage"', b'"outrage"')
    assert "checksum" in refuse(whole, gzip.compress(changed), StoreDamaged)
    assert "follows the end" in refuse(whole, gzip.compress(b"".join([*all_lines, all_lines[1]])), StoreDamaged)


def test_what_is_no_record_is_refused(whole: Path) -> None:
    header = lines(whole)[0]
    for line in (
        b"{}\n",
        b"[]\n",
        b"nonsense\n",
        b'{"planet": {}}\n',
        b'{"term": {"job": "a"}}\n',
        b'{"range": {"job": "a", "colour": 1}}\n',
        b'{"execution": {"job": "a", "at": 1, "status": "QUEUED"}}\n',
        b'{"execution": {"job": "a", "at": 1, "status": "DONE"}}\n',
        b'{"execution": []}\n',
        b'{"job": {"id": "a", "accounted": 1}}\n',
        b'{"revision": {"definition": "!", "document": "", "tags": []}}\n',
    ):
        kind = next(iter(json.loads(line))) if line.startswith(b'{"') else "x"
        assert "line 2: damaged" in refuse(whole, signed([header, line], {kind: 1}), StoreDamaged)


def test_a_job_needs_its_own_revisions(whole: Path) -> None:
    header, *_, revision, job, _ = lines(whole)
    other = job.replace(b'"id":"a"', b'"id":"b"')
    assert "without its revisions" in refuse(
        whole, signed([header, revision, other], {"revision": 1, "job": 1}), StoreDamaged
    )
    counts = {"revision": 2, "job": 1}
    assert "out of order" in refuse(whole, signed([header, revision, revision, job], counts), StoreDamaged)
    assert "revisions of no job" in refuse(
        whole, signed([header, revision, lines(whole)[1]], {"revision": 1, "term": 1}), StoreDamaged
    )


def test_a_later_version_is_named(whole: Path) -> None:
    header = json.loads(lines(whole)[0])
    later = json.dumps({**header, "dts_export": FORMAT + 1, "colour": "blue"}).encode() + b"\n"
    assert f"format {FORMAT + 1}" in refuse(whole, signed([later], {}), ConfigError)
    assert "no export" in refuse(whole, gzip.compress(b'{"hello": 1}\n'), StoreDamaged)
    assert "no export" in refuse(whole, gzip.compress(b'{"dts_export": "1"}\n'), StoreDamaged)
    refuse(whole, b"SQLite format 3\x00", StoreDamaged)
    refuse(whole, b"", StoreDamaged)


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    writer = ArchiveWriter(path, HEADER)
    writer.write(Range("a", 1, 2, 3, 4, "outage"))
    assert not path.exists()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
    write(path, [])
    with pytest.raises(Unavailable, match="there already"):
        ArchiveWriter(path, HEADER)
    with pytest.raises(Unavailable, match="cannot write"):
        ArchiveWriter(tmp_path / "nowhere" / "x.gz", HEADER)
    with pytest.raises(Unavailable, match="cannot read"):
        list(ArchiveReader(tmp_path / "nowhere.gz").records())
