"""A cluster under the load of the crash tests: its schedulers are killed and stopped, its servers too."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from dts.adapters.kafka.settings import shard_of
from tests.acceptance.clustered import Cluster, Member, cluster
from tests.acceptance.crash.site import TASKS, until
from tests.acceptance.served import Served
from tests.servers import ROOT, Servers

REQUEST_S = 30.0
CLIENT_TRIES, CLIENT_PAUSE_S = 6, 0.5  # a client asks again, and other copies of the service
SHARDS = 16
RECORDED_S = 60.0


class ClusterSite:
    """What `Load` needs of a site, and the members."""

    def __init__(self, of: Cluster) -> None:
        self.cluster = of
        self.folder = of.folder
        self.errors: list[str] = []  # that a client saw and a repeat hid

    @property
    def served(self) -> Served:
        return self.cluster.served

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """One request over HTTP, repeated at another Job Service as a client would while it is UNAVAILABLE."""
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(CLIENT_TRIES):
            members = self.cluster.of("job") or list(self.cluster.members.values())
            member = members[attempt % len(members)]
            url = f"http://localhost:{member.http}{path}"
            request = Request(url, data, {"Content-Type": "application/json"}, method=method)
            try:
                with urlopen(request, timeout=REQUEST_S) as got:
                    answer: dict[str, Any] = json.loads(got.read())
                return answer
            except HTTPError as error:
                text = error.read().decode(errors="replace")
                if error.code != 503:
                    raise AssertionError(f"{method} {path}: {error.code} {text}") from error
                self.errors.append(f"{member.name}: {text}")
            except (URLError, ConnectionError, TimeoutError) as error:
                self.errors.append(f"{member.name}: {error}")
            time.sleep(CLIENT_PAUSE_S)
        raise AssertionError(f"{method} {path} failed {CLIENT_TRIES} times: {self.errors[-CLIENT_TRIES:]}")

    def shards_of(self, member: Member) -> set[int]:
        """What a scheduler owns now, by its own word."""
        import grpc

        from dts.gen.live.v1 import live_pb2, live_pb2_grpc

        with grpc.insecure_channel(f"localhost:{member.grpc}") as channel:
            answer = live_pb2_grpc.LiveServiceStub(channel).Describe(live_pb2.DescribeRequest(), timeout=5)
        return {shard.shard for shard in answer.shards}

    def all_owned(self) -> bool:
        """Whether every shard has an owner."""
        owned: set[int] = set()
        for member in self.cluster.of("scheduler"):
            try:
                owned |= self.shards_of(member)
            except Exception:
                return False
        return len(owned) == SHARDS

    def recorded(self, until_ms: int) -> None:
        """Returns when history has come so far."""

        def reached() -> bool:
            found = self.call("GET", f"/v1/audit?from={_stamp(until_ms - 1)}&to={_stamp(until_ms)}")
            text = found.get("completeUntil") or ""
            return bool(text) and text >= _stamp(until_ms)

        until("history has come to the end of the load", reached, RECORDED_S)


def _stamp(at: int) -> str:
    from tests.acceptance.crash.load import stamp

    return stamp(at)


def lateness(site: ClusterSite, lines: list[Any], scheduled: Callable[[str], int]) -> dict[int, list[tuple[int, int]]]:
    """By shard: (scheduled, ms that the first start was late), in order."""
    first: dict[str, int] = {}
    for line in lines:
        if line.at_ns and (line.execution not in first or line.at_ns < first[line.execution]):
            first[line.execution] = line.at_ns
    found: dict[int, list[tuple[int, int]]] = {}
    for execution, at_ns in first.items():
        at = scheduled(execution)
        shard = shard_of(execution.partition("@")[0], SHARDS)
        found.setdefault(shard, []).append((at, at_ns // 1_000_000 - at))
    return {shard: sorted(each) for shard, each in found.items()}


def servers_tool(servers: Servers, what: str, only: str) -> None:
    """Stops or starts one of the servers, its state kept."""
    subprocess.run(
        [sys.executable, str(ROOT / "deploy/local/servers.py"), what, str(servers.folder), "--only", only],
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def cluster_site(
    folder: Path,
    servers: Servers,
    *,
    schedulers: int = 3,
    executions: int = 2,
    jobs: int = 1,
    env: Mapping[str, str] | None = None,
) -> Iterator[ClusterSite]:
    """A cluster whose tasks write what they do into the folder."""
    (folder / "locks").mkdir()
    paths = os.pathsep.join([str(TASKS), str(ROOT)])
    more = {"PYTHONPATH": paths, "CRASH": str(folder), "DTS_SLOTS": "200", **(env or {})}
    with cluster(folder, servers, schedulers=schedulers, executions=executions, jobs=jobs, env=more) as made:
        site = ClusterSite(made)
        until("every shard has an owner", site.all_owned, RECORDED_S)
        yield site


def dice() -> random.Random:
    """Printed with a failure: what the machine does is not repeated by it."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)
