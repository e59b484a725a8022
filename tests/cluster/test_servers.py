"""The servers that the cluster's tests run on: started once, however many test runs share them."""

from __future__ import annotations

import subprocess
import sys

from tests.servers import ROOT, Servers

SCRIPT = str(ROOT / "deploy/local/servers.py")


def test_a_second_run_shares_them_and_leaves_them_running(servers: Servers) -> None:
    command = [sys.executable, SCRIPT, "run", str(servers.folder), "--fresh"]
    pids = {name: (servers.folder / f"{name}.pid").read_text() for name in ("kafka", "cassandra")}
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        f"KAFKA_BROKERS={servers.kafka}",
        f"CASSANDRA_HOSTS={servers.cassandra[0]}",
        f"CASSANDRA_PORT={servers.cassandra[1]}",
    ]
    assert {name: (servers.folder / f"{name}.pid").read_text() for name in pids} == pids


def test_without_java_the_one_line_that_helps() -> None:
    code = "import servers; servers.shutil.which = lambda _: None; servers.java()"
    command = [sys.executable, "-c", code]
    folder = ROOT / "deploy/local"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "servers: Kafka and Cassandra need Java 17 and Maven: apt-get install -y openjdk-17-jre-headless maven"
    ]
