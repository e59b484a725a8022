"""`dts export` and `dts import`: the file on one side, an installation on the other."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple

from dts import __version__
from dts.adapters.archive import ArchiveReader, ArchiveWriter, Header
from dts.config import Config
from dts.server import movingfile
from dts.server.movingfile import Source, Target, now
from dts.services.moving import Export, Import

Told = Callable[[Counter[str]], None]


class Exported(NamedTuple):
    """What an export wrote, by kind of record, and what a person should know."""

    counts: Counter[str]
    notes: list[str]


class Imported(NamedTuple):
    """What an import took, by kind of record; `known`: jobs that were there already."""

    header: Header
    counts: Counter[str]
    known: int


async def export_all(config: Config, path: Path, *, cluster: bool, outputs: bool, told: Told) -> Exported:
    """Writes a new file. Raises Unavailable, StoreDamaged (the database), FailedPrecondition (history lags behind), ConfigError."""
    header = Header(now(), "cluster" if cluster else "embedded", uuid.uuid4().hex, __version__)
    async with _source(config, path, cluster) as source:
        writer = ArchiveWriter(path, header)
        try:
            export = Export(source.state, source.jobs, source.history, source.outputs if outputs else None)
            async for record in export.records():
                writer.write(record)
                if sum(writer.counts.values()) % 10_000 == 0:
                    told(writer.counts)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        return Exported(writer.counts, export.notes)


async def import_all(config: Config, path: Path, *, cluster: bool, check: bool, told: Told) -> Imported:
    """Reads a whole file, and if it is whole and fits, stores it (`check`: does not). May be repeated.

    Raises StoreDamaged or ConfigError for the file, AlreadyExists (a job is there and is another one), StoreBusy (a server uses
    the database), Unavailable, OutcomeUnknown.
    """
    reader = ArchiveReader(path)
    header = reader.header()
    async with _target(config, cluster) as target:
        importing = Import(target.jobs, target.moving, target.publication)
        counts = await importing.check(reader.records())
        if not check:
            await importing.take(reader.records(), told)
        return Imported(header, counts, importing.known)


def _source(config: Config, path: Path, cluster: bool) -> AbstractAsyncContextManager[Source]:
    if not cluster:
        return movingfile.source(config.database, path)
    from dts.server import movingcluster  # noqa: PLC0415 - a file needs none of its packages

    return movingcluster.source(config)


def _target(config: Config, cluster: bool) -> AbstractAsyncContextManager[Target]:
    if not cluster:
        return movingfile.target(config.database)
    from dts.server import movingcluster  # noqa: PLC0415 - a file needs none of its packages

    return movingcluster.target(config)
