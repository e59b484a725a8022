"""The Compose files: read as `docker compose config` reads them, and what they start and set exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dts.config import load, read
from tests import golang
from tests.acceptance.served import PORTS, free_ports, served
from tests.deploy.parts import ALIASES, IMAGE, ROOT, assert_command, assert_settings, settings, version_in_use

FILES = ("docker-compose.dev.yml", "docker-compose.yml")
OURS = {"migrations", "job-service", "scheduler-service", "execution-service"}
TOKEN = "0123456789abcdef"
# What the original's .env may hold.
ORIGINAL = """\
KAFKA_BROKER_ID=7
KAFKA_ZOOKEEPER_CONNECT=zookeeper:2181
DOCKER_HOST_IP=127.0.0.1
CASSANDRA_DATA_PATH=./data/cassandra
CASSANDRA_CLUSTER_NAME=Magenta
CASSANDRA_KEYSPACE=other
CASSANDRA_DATA_RETENTION_DAYS=12
JOB_SERVICE_HTTP_PORT=9080
KAFKA_JOB_TOPIC=my-jobs
"""

Project = dict[str, Any]
Configure = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def composeconfig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small program over the library that `docker compose` is made with."""
    binary = tmp_path_factory.mktemp("composeconfig") / "composeconfig"
    golang.run("build", "-o", str(binary), ".", folder=Path(__file__).parent / "composeconfig")
    return binary


@pytest.fixture
def configure(composeconfig: Path, tmp_path: Path) -> Configure:
    """Runs it on a file, with a .env."""
    for name in (*FILES, "Dockerfile"):
        shutil.copy(ROOT / name, tmp_path / name)

    def run(name: str, env: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / ".env").write_text(env)
        clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        return subprocess.run(
            [composeconfig, name], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def example(token: str = TOKEN) -> str:
    return re.sub(
        r"^DTS_WORKER_TOKEN=$", f"DTS_WORKER_TOKEN={token}", (ROOT / ".env.example").read_text(), flags=re.MULTILINE
    )


def project(configure: Configure, name: str, env: str) -> Project:
    done = configure(name, env)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("env", [example(), f"DTS_WORKER_TOKEN={TOKEN}\n", f"{ORIGINAL}DTS_WORKER_TOKEN={TOKEN}\n"])
def test_they_are_valid_and_what_they_name_exists(configure: Configure, name: str, env: str) -> None:
    found = project(configure, name, env)
    services = found["services"]
    assert set(services) >= OURS | {"kafka", "cassandra"}
    for each in OURS:
        assert_command(services[each]["command"])
        assert_settings(services[each]["environment"])
        assert services[each]["environment"]["DTS_WORKER_TOKEN"] == TOKEN
        assert services[each]["build"]["dockerfile"] == "Dockerfile"
    assert services["kafka"]["image"] == f"apache/kafka:{version_in_use('kafka')}"
    assert services["cassandra"]["image"] == f"cassandra:{version_in_use('cassandra')}"
    for service in services.values():
        for dependency in service.get("depends_on", {}):
            assert dependency in services
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1"
            assert port["published"] == str(port["target"])


@pytest.mark.parametrize("name", FILES)
def test_services_start_when_what_they_need_is_there(configure: Configure, name: str) -> None:
    services = project(configure, name, example())["services"]
    for each in OURS - {"migrations"}:
        wanted = {"migrations": "service_completed_successfully", "kafka": "service_healthy"}
        assert {on: how["condition"] for on, how in services[each]["depends_on"].items()} == wanted
        assert services[each]["stop_grace_period"] == "30s"
    assert services["migrations"]["depends_on"]["cassandra"]["condition"] == "service_healthy"
    assert all("test" in services[each]["healthcheck"] for each in ("kafka", "cassandra"))


def test_the_one_that_stays_is_restarted_and_has_several_copies(configure: Configure) -> None:
    found = project(configure, "docker-compose.yml", example())
    services = found["services"]
    assert all("restart" in service for service in services.values())
    copies = {each: services[each]["deploy"]["replicas"] for each in OURS - {"migrations"}}
    assert copies == {"job-service": 2, "scheduler-service": 3, "execution-service": 2}
    assert not any("ports" in services[each] for each in OURS)
    assert all(services[each]["image"] == IMAGE for each in OURS)
    assert {port["published"] for port in services["gateway"]["ports"]} == set(PORTS.values())
    kept = {mount["source"] for each in ("kafka", "cassandra") for mount in services[each]["volumes"]}
    assert kept == set(found["volumes"])


def test_it_does_not_start_without_a_token(configure: Configure) -> None:
    done = configure("docker-compose.yml", example(token=""))
    assert done.returncode == 1
    assert "DTS_WORKER_TOKEN" in done.stderr
    assert "openssl" in done.stderr


def test_the_originals_settings_hold(configure: Configure) -> None:
    services = project(configure, "docker-compose.dev.yml", ORIGINAL)["services"]
    assert services["cassandra"]["environment"]["CASSANDRA_CLUSTER_NAME"] == "Magenta"
    [mount] = services["cassandra"]["volumes"]
    assert (mount["type"], mount["source"].endswith("/data/cassandra")) == ("bind", True)
    assert services["kafka"]["environment"]["KAFKA_NODE_ID"] == "7"
    config = load(services["job-service"]["environment"])
    assert config.cassandra.keyspace == "other"
    assert config.kafka.job_topic == "my-jobs"
    assert config.retention_days == 12
    assert [port["published"] for port in services["job-service"]["ports"]] == ["50054", "9080"]


def test_both_files_have_the_same_settings(configure: Configure) -> None:
    dev, stays = (project(configure, name, example())["services"]["job-service"]["environment"] for name in FILES)
    assert dev == stays
    internal = {"DTS_HOST", "DTS_ADVERTISE", "DTS_DATABASE", "CASSANDRA_PORT"}
    of_services = {name for name in settings() if not _of_worker(name)}
    assert of_services - set(dev) == internal


def _of_worker(name: str) -> bool:
    parts = ("WORKER_ID", "SLOTS", "CPU", "MEMORY", "STORAGE", "LABELS", "RESOURCES", "CGROUP", "SCRATCH_ROOT")
    return name.removeprefix("DTS_") in parts


def test_the_example_of_an_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(example())
    config, problems = read({"HOME": str(tmp_path)}, tmp_path / ".env")
    assert (problems, config.notes) == ((), ())
    (tmp_path / ".env").write_text(ORIGINAL)
    config, problems = read({"HOME": str(tmp_path)}, tmp_path / ".env")
    assert problems == ()
    assert ["KAFKA_ZOOKEEPER_CONNECT is ignored" in note for note in config.notes] == [True]


def test_every_variable_is_in_the_example() -> None:
    used = {name for file in FILES for name in re.findall(r"\$\{(\w+)", (ROOT / file).read_text())}
    told = set(re.findall(r"^(\w+)=", example(), re.MULTILINE))
    assert used - told == ALIASES - {"EXECUTION_SERVICE_GRPC_PORT"}
    assert told <= used | set(settings())


@pytest.fixture(scope="session")
def haproxy() -> str:
    found = shutil.which("haproxy") or "/usr/sbin/haproxy"
    if not Path(found).exists():
        pytest.fail("the gateway of docker-compose.yml is tried with its program: apt-get install -y haproxy")
    return found


def test_the_gateway_passes_calls_on(haproxy: str, tmp_path: Path) -> None:
    text = (ROOT / "deploy/docker/haproxy.cfg").read_text()
    assert set(re.findall(r'"(\w[\w-]*):\$', text)) == OURS - {"migrations"}
    check = [haproxy, "-c", "-f", str(ROOT / "deploy/docker/haproxy.cfg")]
    done = subprocess.run(check, env=PORTS, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with served(tmp_path) as server:
        outside = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        # Names and ports of one machine in the place of Docker's network.
        for name, port in outside.items():
            text = text.replace(f'bind ":${{{name}}}"', f"bind 127.0.0.1:{port}")
        text = re.sub(r'"(?:job|scheduler|execution)-service:', '"localhost:', text)
        text = re.sub(r" resolvers docker init-addr none", "", text)
        (tmp_path / "haproxy.cfg").write_text(text)
        process = subprocess.Popen([haproxy, "-f", str(tmp_path / "haproxy.cfg")], env={**server.env})
        try:
            inside, server.env = server.env, {**server.env, **outside}
            for _ in range(100):
                done = server.dts("job", "create", "--name", "through", "--id", "through", "--cron", "0 0 1 1 *")
                if done.returncode != 3:
                    break
            assert (done.returncode, done.stdout) == (0, "Job created with ID: through\n")
            assert "through" in server.out("scheduler", "list")
            assert server.dts("execution", "list").returncode == 0
            url = f"http://127.0.0.1:{outside['JOB_SERVICE_HTTP_PORT']}/v1/jobs/through"
            body = subprocess.run(["curl", "-sS", url], capture_output=True, text=True, check=True).stdout
            assert json.loads(body)["name"] == "through"
            server.env = inside
        finally:
            process.terminate()
            process.wait(10)
