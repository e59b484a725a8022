"""Schedulers that are killed and restarted under load; servers that stop: nothing is forgotten, nothing starts twice, all is told."""

from __future__ import annotations

import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.crash.clustersite import ClusterSite, cluster_site, dice, lateness, servers_tool
from tests.acceptance.crash.load import Facts, Load, scheduled
from tests.acceptance.crash.site import until
from tests.servers import Servers

MOVED_LATE_MS = 10_000  # new fires of the shards of a dead instance
OTHERS_LATE_MS = 1_000
MOVED_S = 30.0
SETTLE_S = 3.0
MAIN = str(Path(__file__).parent / "crash" / "scheduler_main.py")


def finish(site: ClusterSite, load: Load) -> Facts:
    """The load ends, history comes to its end, all is checked."""
    load.pause()
    site.recorded(int(time.time() * 1000))
    return load.check(once=False)


def killed(site: ClusterSite, chance: random.Random, seconds: float, *, inside: bool) -> None:
    """One round: a scheduler dies at a random moment and comes back."""
    victim = chance.choice(site.cluster.of("scheduler"))
    if inside:
        assert victim.stop() == 0, victim.tail()
        victim._command = [sys.executable, MAIN]
        victim.again()
        victim.wait()
        until("every shard has an owner", site.all_owned, MOVED_S)
        time.sleep(SETTLE_S)
    time.sleep(chance.uniform(0.2, 1.2))  # the random moment is the point
    moved, begun = site.shards_of(victim), int(time.time() * 1000)
    victim.kill(signal.SIGUSR1 if inside else signal.SIGKILL)
    victim.process.wait(MOVED_S)
    until("its shards have another owner", site.all_owned, MOVED_S)
    back = int(time.time() * 1000)
    time.sleep(max(0.0, seconds - (back - begun) / 1000))
    victim.again()
    victim.wait()
    until("every shard has an owner again", site.all_owned, MOVED_S)
    time.sleep(SETTLE_S)
    print(
        f"{victim.name} with {len(moved)} shards died{' inside a transaction' if inside else ''}: {back - begun} ms until all had owners"
    )
    rejoined = int(time.time() * 1000)
    worst = {True: 0, False: 0}
    for shard, each in lateness(site, Load(site).lines(), scheduled).items():
        late = max((late for at, late in each if begun - 2_000 <= at <= back), default=0)
        worst[shard in moved] = max(worst[shard in moved], late)
    print(f"late at most: moved shards {worst[True]} ms, others {worst[False]} ms; back after {rejoined - begun} ms")
    assert worst[True] <= MOVED_LATE_MS
    assert worst[False] <= OTHERS_LATE_MS


def rounds(folder: Path, servers: Servers, count: int, rate: int, seconds: float) -> None:
    chance = dice()
    with cluster_site(folder, servers) as site:
        load = Load(site)
        load.create(python=rate, function="note")
        until("tasks run", (folder / "lines").exists, MOVED_S)
        time.sleep(SETTLE_S)
        for number in range(count):
            killed(site, chance, seconds, inside=number == count - 1)
        facts = finish(site, load)
        print(
            f"{count} rounds, {facts.due} due, attempts {dict(sorted(facts.attempts.items()))}, {len(site.errors)} hidden errors"
        )


def test_a_scheduler_dies_under_load(tmp_path: Path, servers: Servers) -> None:
    rounds(tmp_path, servers, 1, 100, 4)


@pytest.mark.soak
def test_schedulers_die_under_load_again_and_again(tmp_path: Path, servers: Servers) -> None:
    rounds(tmp_path, servers, 10, 300, 60)


def restarted(folder: Path, servers: Servers, rate: int, pause_s: float) -> None:
    """A rolling restart: TERM for each service, one after the other."""
    with cluster_site(folder, servers, schedulers=2, executions=2, jobs=2) as site:
        load = Load(site)
        load.create(python=rate, function="note")
        until("tasks run", (folder / "lines").exists, MOVED_S)
        time.sleep(SETTLE_S)
        begun = int(time.time() * 1000)
        for member in list(site.cluster.members.values()):
            assert member.stop() == 0, member.tail()
            site.call("GET", "/v1/jobs?page_size=1")
            member.again()
            member.wait()
            until("every shard has an owner", site.all_owned, MOVED_S)
            time.sleep(pause_s)
        ended = int(time.time() * 1000)
        facts = finish(site, load)
        late = sorted(
            late
            for each in lateness(site, facts.lines, scheduled).values()
            for at, late in each
            if begun <= at <= ended
        )
        p99 = late[int(len(late) * 0.99)]
        print(f"rolling restart in {ended - begun} ms: {facts.due} due, p99 lateness {p99} ms, worst {late[-1]} ms")
        assert p99 < 4_000


def test_rolling_restart(tmp_path: Path, servers: Servers) -> None:
    restarted(tmp_path, servers, 50, 0.5)


@pytest.mark.soak
def test_rolling_restart_under_load(tmp_path: Path, servers: Servers) -> None:
    restarted(tmp_path, servers, 300, 5.0)


def without_cassandra(folder: Path, servers: Servers, rate: int, seconds: float, times: int) -> None:
    with cluster_site(folder, servers, schedulers=2, executions=1) as site:
        load = Load(site)
        load.create(python=rate, function="note")
        until("tasks run", (folder / "lines").exists, MOVED_S)
        time.sleep(SETTLE_S)
        begun = int(time.time() * 1000)
        for _ in range(times):
            servers_tool(servers, "down", "cassandra")
            try:
                time.sleep(seconds)
            finally:
                servers_tool(servers, "up", "cassandra")
            time.sleep(SETTLE_S)
        ended = int(time.time() * 1000)
        for member in site.cluster.members.values():
            member.wait()
        facts = finish(site, load)
        late = max(
            late
            for each in lateness(site, facts.lines, scheduled).values()
            for at, late in each
            if begun <= at <= ended
        )
        print(f"Cassandra was away {times} times, {seconds} s: {facts.due} due, the latest {late} ms late")
        assert late <= OTHERS_LATE_MS


@pytest.mark.soak
def test_cassandra_is_away(tmp_path: Path, servers: Servers) -> None:
    without_cassandra(tmp_path, servers, 200, 60, 3)


def without_kafka(folder: Path, servers: Servers, rate: int, seconds: float, times: int) -> None:
    with cluster_site(folder, servers, schedulers=2, executions=1) as site:
        load = Load(site)
        load.create(python=rate, function="note")
        until("tasks run", (folder / "lines").exists, MOVED_S)
        time.sleep(SETTLE_S)
        for _ in range(times):
            servers_tool(servers, "down", "kafka")
            try:
                time.sleep(seconds)
                assert site.call("GET", "/v1/jobs?page_size=1")["jobs"], "reads go on"
                with pytest.raises(AssertionError, match=r"503|failed"):
                    site.call("POST", "/v1/jobs", {"name": "not now"})
            finally:
                servers_tool(servers, "up", "kafka")
            for member in site.cluster.members.values():
                member.wait()
            until("every shard has an owner", site.all_owned, 60.0)
            time.sleep(SETTLE_S)
        facts = finish(site, load)
        print(f"Kafka was away {times} times, {seconds} s: {facts.due} due, attempts {dict(facts.attempts)}")


@pytest.mark.soak
def test_kafka_is_away(tmp_path: Path, servers: Servers) -> None:
    without_kafka(tmp_path, servers, 100, 30, 3)
