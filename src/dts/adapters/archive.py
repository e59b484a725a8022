"""The file in which jobs and history move: gzip of JSON lines, written and read line by line. docs/reference/export-format.md

A file is whole when its last line says how many records there are of each kind and the SHA-256 of all lines before it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from google.protobuf.message import DecodeError

from dts.codec import definition_in, definition_out
from dts.errors import ConfigError, StoreDamaged, Unavailable
from dts.gen.log.v1 import log_pb2 as log
from dts.model import (
    NO_END,
    Cause,
    End,
    Execution,
    Key,
    MovedExecution,
    MovedJob,
    Output,
    Range,
    Revision,
    Status,
    Term,
)

FORMAT = 1
LEVEL = 5  # of gzip: close to the smallest, twice as fast
LINE_BYTES = 16 * 1024 * 1024  # an execution with a hundred attempts' output; a longer line is refused
JOB_REVISIONS = 1_000_000  # of one job

Record = Term | Range | MovedExecution | MovedJob
Line = dict[str, Any]


class Header(NamedTuple):
    """The first line. `at`: when the export began, ms; `source`: embedded or cluster; `id`: drawn for this file."""

    at: int
    source: str
    id: str
    version: str


class ArchiveWriter:
    """Writes a file under another name and gives it its own when it is whole and on the disk."""

    def __init__(self, path: Path, header: Header) -> None:
        """Raises Unavailable when the file is there already or cannot be made."""
        self.counts: Counter[str] = Counter()
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._digest = hashlib.sha256()
        try:
            if path.exists():
                raise Unavailable(f"{path} is there already: name a new file")
            self._raw = self._part.open("wb")
        except OSError as error:
            raise _cannot_write(path, error) from error
        self._file = gzip.GzipFile("", "wb", LEVEL, self._raw, mtime=0)
        self._line({"dts_export": FORMAT, **header._asdict()})

    def write(self, record: Record) -> None:
        """Adds a record. Raises Unavailable when the disk takes no more."""
        match record:
            case Term():
                self._add("term", record._asdict())
            case Range():
                self._add("range", record._asdict())
            case MovedExecution():
                self._add("execution", _moved_out(record))
            case MovedJob():
                for revision in record.revisions:
                    self._add("revision", _revision_out(revision))
                self._add("job", {"id": record.revisions[-1].definition.job, "accounted": record.accounted})

    def finish(self) -> None:
        """Writes the last line; the file has its name, and is on the disk. Raises Unavailable."""
        self._line({"end": {"counts": dict(self.counts), "sha256": self._digest.hexdigest()}})
        try:
            self._file.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._raw.close()
            self._part.rename(self._path)
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def abandon(self) -> None:
        """Removes what was written of an unfinished file."""
        self._raw.close()
        self._part.unlink(missing_ok=True)

    def _add(self, kind: str, value: object) -> None:
        self.counts[kind] += 1
        self._line({kind: value})

    def _line(self, value: object) -> None:
        line = orjson.dumps(value) + b"\n"
        self._digest.update(line)
        try:
            self._file.write(line)
        except OSError as error:
            raise _cannot_write(self._path, error) from error


class ArchiveReader:
    """Reads a file as often as asked. Every pass checks all of it, so that the first one can refuse before anything is done."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def header(self) -> Header:
        """Raises as `records`, as far as the first line tells."""
        with self._open() as file:
            return self._header(next(self._lines(file), b""))

    def records(self) -> Iterator[Record]:
        """All records, in order. Raises StoreDamaged (cut short, changed, no export), ConfigError (a later version's),
        Unavailable (it cannot be read)."""
        with self._open() as file:
            yield from self._records(self._lines(file))

    def _records(self, lines: Iterator[bytes]) -> Iterator[Record]:
        first = next(lines, b"")
        self._header(first)
        digest, counts = hashlib.sha256(first), Counter[str]()
        past: list[Revision] = []
        for number, line in enumerate(lines, start=2):
            kind, value = self._parse(number, line)
            if kind == "end":
                self._check_end(number, value, counts, digest.hexdigest())
                if next(lines, None) is not None:
                    raise self._damaged(number + 1, "something follows the end")
                return
            digest.update(line)
            counts[kind] += 1
            try:
                if kind == "revision":
                    past.append(_revision_in(value))
                    if len(past) > JOB_REVISIONS:
                        raise ValueError(f"over {JOB_REVISIONS} revisions of one job")
                elif kind == "job":
                    yield _job_in(value, past)
                    past = []
                elif past:
                    raise ValueError("revisions of no job")
                else:
                    yield _READ[kind](value)
            except (ValueError, TypeError, KeyError, AttributeError, DecodeError) as error:
                raise self._damaged(number, f"{type(error).__name__}: {error}") from error
        raise self._damaged(0, "it ends in the middle: the export was cut short")

    def _open(self) -> gzip.GzipFile:
        try:
            return gzip.open(self.path, "rb")
        except OSError as error:
            raise Unavailable(f"cannot read {self.path} ({error.strerror})") from error

    def _lines(self, file: gzip.GzipFile) -> Iterator[bytes]:
        while True:
            try:
                line = file.readline(LINE_BYTES + 1)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise self._damaged(0, str(error)) from error
            except OSError as error:
                raise Unavailable(f"cannot read {self.path} ({error.strerror})") from error
            if not line:
                return
            if len(line) > LINE_BYTES:
                raise self._damaged(0, f"a line of over {LINE_BYTES} bytes")
            yield line

    def _header(self, line: bytes) -> Header:
        value = self._json(1, line)
        found = value.pop("dts_export", None)
        if not isinstance(found, int):
            raise StoreDamaged(f"{self.path} is no export of DTS")
        if found > FORMAT:
            raise ConfigError(
                f"{self.path} was written by a later version of DTS (format {found}, this one knows {FORMAT}): install that"
            )
        try:
            return Header(**value)
        except TypeError as error:
            raise self._damaged(1, str(error)) from error

    def _json(self, number: int, line: bytes) -> Line:
        try:
            value = orjson.loads(line)
        except ValueError as error:
            raise self._damaged(number, f"no JSON: {error}") from error
        if not isinstance(value, dict):
            raise self._damaged(number, "no JSON object")
        return value

    def _parse(self, number: int, line: bytes) -> tuple[str, Line]:
        parts = list(self._json(number, line).items())
        if len(parts) != 1 or parts[0][0] not in (*_READ, "revision", "job", "end"):
            raise self._damaged(number, f"{parts[0][0]!r} is no kind of record" if parts else "an empty record")
        return parts[0]

    def _check_end(self, number: int, value: Line, counts: Counter[str], digest: str) -> None:
        if value.get("sha256") != digest or value.get("counts") != dict(counts):
            raise self._damaged(number, "its checksum is another one: it was changed after it was written")

    def _damaged(self, number: int, problem: str) -> StoreDamaged:
        where = f", line {number}" if number else ""
        return StoreDamaged(f"{self.path}{where}: damaged: {problem}; nothing is imported from it")


def _cannot_write(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"cannot write {path} ({error.strerror}): name a new file in a writable folder with room")


# ---- how a record is a line -----------------------------------------------------------------------------------------


def _bytes_out(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes_in(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _revision_out(revision: Revision) -> Line:
    definition = definition_out(revision.definition).SerializeToString(deterministic=True)
    return {
        **revision._asdict(),
        "definition": _bytes_out(definition),
        "document": _bytes_out(revision.document),
    }


def _revision_in(line: Line) -> Revision:
    definition = definition_in(log.Definition.FromString(_bytes_in(line.pop("definition"))))
    document, tags = _bytes_in(line.pop("document")), tuple(line.pop("tags"))
    return Revision(definition=definition, document=document, tags=tags, **line)


def _job_in(line: Line, past: list[Revision]) -> MovedJob:
    if not past or {each.definition.job for each in past} != {line["id"]}:
        raise ValueError("a job without its revisions")
    numbers = [each.definition.revision for each in past]
    if numbers != sorted(set(numbers)) or not isinstance(line["accounted"], int):
        raise ValueError("revisions out of order")
    return MovedJob(past, line["accounted"])


_DEFAULTS = Execution(Key("", 0), 0, Status.QUEUED)._asdict()


def _execution_out(of: Execution) -> Line:
    """Fields that have their default are left out."""
    fields = {name: value for name, value in of._asdict().items() if name != "key" and value != _DEFAULTS[name]}
    fields["status"] = of.status.name
    if of.end != NO_END:
        fields["end"] = {name: value for name, value in of.end._asdict().items() if value}
    return {"job": of.key.job, "at": of.key.at, **({"nonce": of.key.nonce} if of.key.nonce else {}), **fields}


def _execution_in(line: Line) -> Execution:
    key = Key(line.pop("job"), line.pop("at"), line.pop("nonce", ""))
    status, cause = Status[line.pop("status")], Cause(line.pop("cause", Cause.SCHEDULE))
    end = End(**line.pop("end", {}))
    return Execution(key, line.pop("revision", 0), status, cause=cause, end=end, **line)


def _moved_out(moved: MovedExecution) -> Line:
    line = _execution_out(moved.execution)
    if moved.earlier:
        line["earlier"] = [_execution_out(each) for each in moved.earlier]
    if moved.outputs:
        line["outputs"] = [
            {**each._asdict(), "head": _bytes_out(each.head), "tail": _bytes_out(each.tail)} for each in moved.outputs
        ]
    return line


def _moved_in(line: Line) -> MovedExecution:
    earlier = tuple(_execution_in(each) for each in line.pop("earlier", ()))
    outputs = tuple(
        Output(**{**each, "head": _bytes_in(each["head"]), "tail": _bytes_in(each["tail"])})
        for each in line.pop("outputs", ())
    )
    execution = _execution_in(line)
    if not execution.status.terminal:
        raise ValueError("an execution that has not ended")
    return MovedExecution(execution, earlier, outputs)


_READ: Mapping[str, Callable[[Line], Record]] = {
    "term": lambda line: Term(**line),
    "range": lambda line: Range(**line),
    "execution": _moved_in,
}
