"""The memory that a child of the pool shares with the worker: what it runs now, what it must not run, and its results.

The child marks an attempt's index before user code starts and takes the mark away after its result is written, so that after a
crash exactly the marked one failed, what has a result has it, and the rest never started.
"""

from __future__ import annotations

import mmap
import struct

CHUNK_MAX = 256  # attempts in one chunk
AREA_BYTES = 256 * 1024  # of results; a child whose area is full waits until it is read

RUN, SKIP, STOP = 0, 1, 2  # an attempt's control byte
COMPLETED, FAILED, SKIPPED, STOPPED = 0, 1, 2, 3  # in a result

_RUNNING = struct.Struct("<qq")  # index or -1, started (ns)
_WRITTEN = struct.Struct("<Q")
_WRITTEN_AT = 16
_CONTROL_AT = 64
_AREA_AT = _CONTROL_AT + CHUNK_MAX
SIZE = _AREA_AT + AREA_BYTES

_NOTHING = bytes(CHUNK_MAX)


class Shared:
    """Both sides' view of it."""

    __slots__ = ("_map", "offset")

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SIZE)
        self.offset = 0  # how far results are written (child) or read (worker)

    def reset(self) -> None:
        """For a new chunk."""
        self._map[_CONTROL_AT : _CONTROL_AT + CHUNK_MAX] = _NOTHING
        _RUNNING.pack_into(self._map, 0, -1, 0)
        self.empty()

    def empty(self) -> None:
        """The results are read."""
        _WRITTEN.pack_into(self._map, _WRITTEN_AT, 0)
        self.offset = 0

    def begin(self, index: int, started_ns: int) -> int:
        """Marks an attempt as running; its control byte."""
        _RUNNING.pack_into(self._map, 0, index, started_ns)
        return self._map[_CONTROL_AT + index]

    def finish(self, result: bytes) -> None:
        """Writes a result, then takes the mark away."""
        end = self.offset + len(result)
        self._map[_AREA_AT + self.offset : _AREA_AT + end] = result
        self.offset = end
        _WRITTEN.pack_into(self._map, _WRITTEN_AT, end)
        _RUNNING.pack_into(self._map, 0, -1, 0)

    def fits(self, size: int) -> bool:
        """Whether there is room for a result."""
        return self.offset + size <= AREA_BYTES

    def running(self) -> tuple[int, int]:
        """(index, started in ns); index -1: none."""
        index, started = _RUNNING.unpack_from(self._map, 0)
        return index, started

    def control(self, index: int) -> int:
        """An attempt's control byte."""
        return self._map[_CONTROL_AT + index]

    def set_control(self, index: int, value: int) -> None:
        """What the child must do with an attempt."""
        self._map[_CONTROL_AT + index] = value

    def read(self) -> bytes:
        """The results written since the last call."""
        written: int = _WRITTEN.unpack_from(self._map, _WRITTEN_AT)[0]
        data = self._map[_AREA_AT + self.offset : _AREA_AT + written]
        self.offset = written
        return data

    def close(self) -> None:
        """Unmaps it."""
        self._map.close()
