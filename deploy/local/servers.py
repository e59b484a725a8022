#!/usr/bin/env python3
"""One Kafka broker and one Cassandra node on 127.0.0.1, from Maven artifacts; no container engine needed.

servers.py up DIR [--only kafka] [--kafka-port N] [--cql-port N] [--free-ports]   starts what does not run, waits until it answers
servers.py down DIR [--only cassandra]                                           stops exactly what `up` started there
servers.py run DIR [--fresh]      up with free ports; down when its standard input ends and no other `run` of DIR is left

All state lies under DIR: NAME.pid, NAME.log and NAME/ for each server, ports.json. It survives down and up again. The jars
(110 MB) are resolved once into DTS_JARS, by default dts/jars in the user's cache folder. Needs Java 17 and Maven.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
NAMES = ("kafka", "cassandra")
PORTS = {"kafka": 9092, "controller": 9093, "cassandra": 9042, "storage": 7000}
START_S = 120.0  # until a server answers
STOP_S = 30.0  # until a server that was asked to end is killed
POLL_S = 0.1
NEEDS = "Kafka and Cassandra need Java 17 and Maven: apt-get install -y openjdk-17-jre-headless maven"


def fail(message: str) -> None:
    """Ends the process with a message for a person."""
    sys.exit(f"servers: {message}")


@contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Holds an exclusive lock on a file; the system drops it with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


# ---- Java and jars ----------------------------------------------------------------------------------------------


def java() -> str:
    """The first Java 17 of JAVA_HOME, PATH and the usual folder (Cassandra 5.0 runs on no newer one)."""
    home = os.environ.get("JAVA_HOME")
    found = [f"{home}/bin/java"] if home else []
    found += ["java", *sorted(map(str, Path("/usr/lib/jvm").glob("*17*/bin/java")))]
    for each in found:
        path = shutil.which(each)
        if path:
            version = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
            if re.search(r'version "17[."]', version):
                return path
    fail(NEEDS)
    raise AssertionError


def jars(name: str) -> Path:
    """The folder with a server's jars, resolved by Maven when its pom has none yet."""
    pom = HERE / name / "pom.xml"
    version = re.findall(r"<version>([^<]+)</version>", pom.read_text())[1]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dts" / "jars"
    folder = Path(os.environ.get("DTS_JARS") or cache).resolve() / f"{name}-{version}"
    with locked(folder.parent / f"{name}.lock"):
        if not folder.is_dir():
            if not shutil.which("mvn"):
                fail(NEEDS)
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={part}"]
            done = subprocess.run(
                ["mvn", "-q", "-B", "-f", str(pom), *goal], check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr
            )
            if done.returncode or not part.is_dir():
                fail(f"Maven could not resolve {name} {version}; its messages are above")
            part.rename(folder)
    return folder


# ---- the two servers --------------------------------------------------------------------------------------------


def kafka_command(folder: Path, ports: dict[str, int]) -> list[str]:
    """Writes the broker's settings, formats its storage if it is new; the command that starts it."""
    lib, settings = jars("kafka"), folder / "server.properties"
    settings.write_text(
        f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{ports["controller"]}
listeners=PLAINTEXT://127.0.0.1:{ports["kafka"]},CONTROLLER://127.0.0.1:{ports["controller"]}
advertised.listeners=PLAINTEXT://127.0.0.1:{ports["kafka"]}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder / "data"}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""
    )
    run = [java(), "-cp", f"{lib}/*", f"-Dlog4j2.configurationFile={HERE / 'kafka' / 'log4j2.yaml'}"]
    if not (folder / "data" / "meta.properties").exists():
        # An "A" in front: an id that began with a dash would be read as an option.
        cluster = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        tool = [*run, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(settings)]
        done = subprocess.run(tool, capture_output=True, text=True, check=False)
        if done.returncode:
            fail(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")
    return [run[0], "-Xms256m", "-Xmx512m", *run[1:], "kafka.Kafka", str(settings)]


def cassandra_command(folder: Path, ports: dict[str, int]) -> list[str]:
    """Writes the node's settings; the command that starts it."""
    lib, data, settings = jars("cassandra"), folder / "data", folder / "cassandra.yaml"
    data.mkdir(exist_ok=True)
    settings.write_text(
        f"""\
cluster_name: Turquoise
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
commitlog_sync: periodic
commitlog_sync_period: 10000ms
data_file_directories: ["{data}/data"]
commitlog_directory: "{data}/commitlog"
saved_caches_directory: "{data}/saved_caches"
hints_directory: "{data}/hints"
cdc_raw_directory: "{data}/cdc_raw"
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
native_transport_port: {ports["cassandra"]}
storage_port: {ports["storage"]}
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "127.0.0.1:{ports["storage"]}"}}]
auto_snapshot: false
"""
    )
    return [
        java(),
        f"-javaagent:{next(lib.glob('jamm-*.jar'))}",
        f"@{HERE / 'cassandra' / 'jvm.options'}",
        "-Xms1g",
        "-Xmx1g",
        f"-Dcassandra.config=file://{settings}",
        f"-Dlogback.configurationFile={HERE / 'cassandra' / 'logback.xml'}",
        f"-Dcassandra.storagedir={data}",
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        "-Dcassandra.ring_delay_ms=100",
        "-Dcassandra.initial_token=0",
        "-Dcassandra.test.flush_local_schema_changes=false",  # the commit log has them: a table is made in 20 ms, not in 150
        "-Dcassandra-foreground=yes",
        "-cp",
        f"{lib}/*",
        "org.apache.cassandra.service.CassandraDaemon",
    ]


COMMANDS = {"kafka": kafka_command, "cassandra": cassandra_command}


def ask(port: int, request: bytes, least: int) -> bytes:
    """Sends a request and reads at least so many bytes of the answer; empty when nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as conn:
            conn.sendall(request)
            answer = b""
            while len(answer) < least and (chunk := conn.recv(4096)):
                answer += chunk
            return answer if len(answer) >= least else b""
    except OSError:
        return b""


def answers(name: str, port: int) -> bool:
    """Whether a server does its work: Kafka names a broker in its metadata, Cassandra answers OPTIONS."""
    if name == "kafka":
        body = struct.pack(">hhi", 3, 1, 1) + struct.pack(">h", 3) + b"dts" + struct.pack(">i", 0)
        answer = ask(port, struct.pack(">i", len(body)) + body, 12)
        return bool(answer) and struct.unpack(">i", answer[8:12])[0] > 0
    answer = ask(port, bytes([4, 0, 0, 0, 5, 0, 0, 0, 0]), 9)
    return bool(answer) and answer[4] == 6


# ---- processes --------------------------------------------------------------------------------------------------


def running(folder: Path, name: str) -> int:
    """The server's process id, 0 if it does not run; an id that went to another process meanwhile does not count."""
    try:
        pid = int((folder / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return 0
    found = subprocess.run(
        ["ps", "-ww", "-o", "stat=,command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    alive = str(folder / name) in found.stdout and not found.stdout.startswith("Z")
    return pid if alive else 0


def choose_ports(folder: Path, options: argparse.Namespace) -> dict[str, int]:
    """The ports of this folder: as they were, else as told, else free ones or the usual ones."""
    file = folder / "ports.json"
    kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    told = {"kafka": options.kafka_port, "cassandra": options.cql_port}
    sockets, ports = [], {}
    for name, usual in PORTS.items():
        port = told.get(name) or kept.get(name) or (0 if options.free_ports else usual)
        if not port:
            sockets.append(socket.create_server(("127.0.0.1", 0)))
            port = sockets[-1].getsockname()[1]
        ports[name] = port
    for each in sockets:
        each.close()
    file.write_text(json.dumps(ports))
    return ports


def start(folder: Path, name: str, ports: dict[str, int]) -> subprocess.Popen[bytes] | None:
    """Starts a server that does not run yet."""
    if running(folder, name):
        return None
    (folder / name).mkdir(exist_ok=True)
    command = COMMANDS[name](folder / name, ports)
    with (folder / f"{name}.log").open("ab") as log:
        made = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (folder / f"{name}.pid").write_text(str(made.pid))
    return made


def wait(folder: Path, name: str, port: int, made: subprocess.Popen[bytes] | None) -> None:
    """Returns when the server answers."""
    deadline = time.monotonic() + START_S
    while not answers(name, port):
        ended = made.poll() is not None if made else not running(folder, name)
        if ended or time.monotonic() > deadline:
            tail = (folder / f"{name}.log").read_text(errors="replace").splitlines()[-20:]
            fail(f"{name} {'ended' if ended else 'does not answer'}; the end of its log:\n" + "\n".join(tail))
        time.sleep(POLL_S)


def up(folder: Path, options: argparse.Namespace) -> dict[str, int]:
    """Both servers answer on return."""
    ports = choose_ports(folder, options)
    names = [options.only] if options.only else NAMES
    made = {name: start(folder, name, ports) for name in names}
    for name in names:
        wait(folder, name, ports[name], made[name])
    return ports


def down(folder: Path, only: str | None) -> None:
    """No server of this folder runs on return."""
    pids = {name: running(folder, name) for name in NAMES if not only or name == only}
    for pid in filter(None, pids.values()):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    for name, pid in pids.items():
        while pid and running(folder, name):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                deadline = time.monotonic() + STOP_S
            reap(pid)
            time.sleep(POLL_S)
        (folder / f"{name}.pid").unlink(missing_ok=True)


def reap(pid: int) -> None:
    """Takes the exit status of a child, which would stay a zombie; others are not ours to reap."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def show(ports: dict[str, int]) -> None:
    """Where they are, as environment variables."""
    print(f"KAFKA_BROKERS=127.0.0.1:{ports['kafka']}")
    print("CASSANDRA_HOSTS=127.0.0.1")
    print(f"CASSANDRA_PORT={ports['cassandra']}", flush=True)


def run(folder: Path, options: argparse.Namespace) -> None:
    """Up, then wait for the end of standard input; the last one to leave takes the servers down."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The end of our input is the one sign, so that nothing is left running. (Ignored, they would be so in the servers too.)
        signal.signal(each, lambda *_: None)
    options.free_ports = True
    with (folder / "users").open("a") as users:
        with locked(folder / "lock"):
            fcntl.flock(users, fcntl.LOCK_SH)
            if options.fresh and not any(running(folder, name) for name in NAMES):
                for name in NAMES:
                    shutil.rmtree(folder / name, ignore_errors=True)
                    (folder / f"{name}.log").unlink(missing_ok=True)
                (folder / "ports.json").unlink(missing_ok=True)
            try:
                show(up(folder, options))
            except SystemExit:
                down(folder, None)
                raise
        sys.stdin.buffer.read()
        with locked(folder / "lock"):
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # others use them still
            down(folder, None)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["up", "down", "run"])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--kafka-port", type=int)
    parser.add_argument("--cql-port", type=int)
    parser.add_argument("--free-ports", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    folder = options.dir.resolve()
    if options.what == "run":
        run(folder, options)
        return
    with locked(folder / "lock"):
        if options.what == "up":
            show(up(folder, options))
        else:
            down(folder, options.only)


if __name__ == "__main__":
    main()
