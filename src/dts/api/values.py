"""Between the wire's small values and the domain's: instants, durations, bounded text and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from dts import bounds
from dts.errors import InvalidArgument
from dts.model import Instant

LAST_INSTANT = 7_258_118_400_000 - 1  # the end of 2199, as in schedules
MAX_DURATION_MS = 366 * 86_400_000


class Paged(Protocol):
    """A request for a page."""

    page_size: int


def instant(value: Timestamp, field: str) -> Instant:
    """UTC ms; finer digits are cut. Raises InvalidArgument outside of 1970 to 2199."""
    at = value.seconds * 1000 + value.nanos // 1_000_000
    if not 0 <= at <= LAST_INSTANT or not 0 <= value.nanos < 1_000_000_000:
        raise InvalidArgument(field, "time runs from 1970 to 2199")
    return at


def timestamp(at: Instant) -> Timestamp:
    """The wire's form of an instant."""
    seconds, ms = divmod(at, 1000)
    return Timestamp(seconds=seconds, nanos=ms * 1_000_000)


def duration(value: Duration, field: str, least: int = 0, most: int = MAX_DURATION_MS) -> int:
    """Ms; finer digits are cut. Raises InvalidArgument outside of [least, most]."""
    ms = value.seconds * 1000 + value.nanos // 1_000_000
    if not least <= ms <= most:
        raise InvalidArgument(field, f"must be from {least / 1000:g} s to {most / 1000:g} s")
    return ms


def within(value: int, low: int, high: int, field: str) -> int:
    """The value itself. Raises InvalidArgument outside of [low, high]."""
    if not low <= value <= high:
        raise InvalidArgument(field, f"{value} is not from {low} to {high}")
    return value


def text(value: str, most: int, field: str) -> str:
    """The text itself. Raises InvalidArgument when it is longer than `most` characters."""
    if len(value) > most:
        raise InvalidArgument(field, f"{len(value)} characters; at most {most}")
    return value


def metadata(values: Mapping[str, str]) -> dict[str, str]:
    """A copy. Raises InvalidArgument past the bounds on entries and their lengths."""
    if len(values) > bounds.METADATA_ENTRIES:
        raise InvalidArgument("metadata", f"{len(values)} entries; at most {bounds.METADATA_ENTRIES}")
    for key, value in values.items():
        text(key, bounds.METADATA_KEY_LENGTH, "metadata key")
        text(value, bounds.METADATA_VALUE_LENGTH, f"metadata[{key[:40]}]")
    return dict(values)


def tags(values: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the order given. Raises InvalidArgument past the bounds, and for an empty one."""
    found = tuple(dict.fromkeys(values))
    if len(found) > bounds.TAGS:
        raise InvalidArgument("tags", f"{len(found)} tags; at most {bounds.TAGS}")
    for at, tag in enumerate(found):
        if not 1 <= len(tag) <= bounds.TAG_LENGTH:
            raise InvalidArgument(f"tags[{at}]", f"{len(tag)} characters; from 1 to {bounds.TAG_LENGTH}")
    return found


def page_size(request: Paged, most: int = bounds.PAGE_SIZE) -> int:
    """0 and what is larger than `most` mean `most`. Raises InvalidArgument for a negative one."""
    if request.page_size < 0:
        raise InvalidArgument("page_size", f"{request.page_size} is negative; 0 means {most}")
    return min(request.page_size, most) or most
