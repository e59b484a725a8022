"""Processes on one file: the second server is told who has it, a former owner is fenced, kill -9 loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dts.adapters.sqlite import SqliteStore, lock
from dts.errors import OwnershipLost, StoreBusy, Unavailable
from dts.model import ExecutionQuery, Outcome
from tests.conformance.values import commit

ROOT = Path(__file__).parents[2]
ROUNDS = 6

HOLD = """
import sys
from dts.adapters.sqlite.lock import ServerLock
held = ServerLock(sys.argv[1])
held.acquire("2026-11-25T00:00:00Z", {"job-grpc": 50054})
print("held", flush=True)
sys.stdin.read()
"""

WRITE = """
import asyncio, sys
from dts.adapters.sqlite import SqliteStore
from dts.model import Key, Status, Outcome
from tests.conformance.values import block, commit, revision

async def main():
    store = await SqliteStore.open(sys.argv[1])
    epoch, commits = await store.ledger.open(0)
    seq = [each async for each in commits][-1].seq

    async def create():
        for n in range(1_000_000):
            await store.jobs.create([revision(f"job-{epoch}-{n}")])
            print("job", f"job-{epoch}-{n}", flush=True)

    async def work():
        for n in range(seq + 1, 1_000_000):
            done = [block([Key(f"k{i}", n) for i in range(20)], Status.COMPLETED, 1)]
            assert await store.ledger.commit(commit(epoch, n, blocks=done)) is Outcome.COMMITTED
            print("seq", n, flush=True)

    await asyncio.gather(create(), work())

asyncio.run(main())
"""


@contextmanager
def process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def test_a_second_server_is_told_who_has_the_file(tmp_path: Path) -> None:
    path = tmp_path / "dts.db"
    with process(HOLD, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreBusy) as caught:
            lock.ServerLock(path).acquire("now", {})
        assert str(caught.value) == (
            f"another server (pid {holder.pid}, started 2026-11-25T00:00:00Z, ports job-grpc 50054) owns {path}:"
            " use that one, stop it, or name another file (DTS_DATABASE)"
        )
        holder.kill()
        holder.wait()
        mine = lock.ServerLock(path)
        mine.acquire("now", {})  # the lock ends with its process
        mine.release()
    third = lock.ServerLock(path)
    third.acquire("then", {"job-http": 1})
    third.tell("then", {"job-http": 2})
    assert json.loads(lock.lock_path(path).read_text())["ports"] == {"job-http": 2}
    third.release()


async def test_a_former_owner_in_another_store_is_fenced(tmp_path: Path) -> None:
    path = tmp_path / "dts.db"
    old = await SqliteStore.open(path)
    epoch, _ = await old.ledger.open(0)
    assert await old.ledger.commit(commit(epoch, 1)) is Outcome.COMMITTED
    new = await SqliteStore.open(path)
    assert new.file_id == old.file_id
    later, _ = await new.ledger.open(0)
    with pytest.raises(OwnershipLost, match="another server took over"):
        await old.ledger.commit(commit(epoch, 2))
    assert await new.ledger.commit(commit(later, 2)) is Outcome.COMMITTED
    await old.close()
    await new.close()


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "dts.db"
    chance = random.Random(7)
    jobs: list[str] = []
    seq = 0
    for _ in range(ROUNDS):
        with process(WRITE, path) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(chance.randrange(2, 200))]
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
        for line in lines:
            word = re.fullmatch(r"(job|seq) (\S+)\n", line)
            if word and word[1] == "job":
                jobs.append(word[2])
            elif word:
                seq = max(seq, int(word[2]))

        async def look(seq: int = seq) -> None:
            store = await SqliteStore.open(path)
            assert set(await store.jobs.get(jobs)) == set(jobs)
            assert await store.jobs.count() in range(len(jobs), len(jobs) + ROUNDS + 1)
            _, commits = await store.ledger.open(0)
            stored = [each async for each in commits][-1].seq
            assert stored in (seq, seq + 1)
            assert await store.history.count(ExecutionQuery(), 10**9) == 20 * stored
            await store.close()

        asyncio.run(look())
    assert len(jobs) > ROUNDS
    assert seq > ROUNDS


def test_what_lies_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dts.db"
    assert lock.worker_lock_path(path) == tmp_path / "dts.db.worker-lock"
    token = lock.create_token(path)
    assert lock.read_token(path) == token
    assert len(token) > 40
    assert lock.token_path(path).stat().st_mode & 0o777 == 0o600
    assert lock.create_token(path) != token
    short = Path("/run/dts.db")
    assert lock.socket_path(short) == Path("/run/dts.db.sock")
    runtime = tmp_path / "r"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    deep = tmp_path / ("d" * 100) / "dts.db"
    deep.parent.mkdir()
    found = lock.socket_path(deep)
    assert found.parent.parent == runtime
    assert found.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "elsewhere"))
    assert lock.socket_path(deep) == found  # a process with another environment finds the same
    found.parent.chmod(0o777)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"dts-{os.getuid()}").write_text("")
    with pytest.raises((Unavailable, FileExistsError)):
        lock.socket_path(deep)
