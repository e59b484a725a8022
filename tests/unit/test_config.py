"""Settings: where they come from, what is refused, and that the page about them is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from dts.config import MASK, Config, load
from dts.errors import ConfigError

HOME = {"HOME": "/home/somebody"}
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def row(config: Config, name: str) -> tuple[str, str]:
    return next((each.value, each.source) for each in config.rows if each.name == name)


def test_defaults_are_those_of_the_wire() -> None:
    config = load(HOME)
    ports = config.ports
    assert (ports.job_grpc, ports.job_http) == (50054, 8080)
    assert (ports.scheduler_grpc, ports.scheduler_http) == (50052, 8081)
    assert (ports.execution_grpc, ports.execution_http) == (50053, 8082)
    assert (config.host, config.advertise, config.cluster) == ("localhost", "", "dts")
    assert (config.lease_ms, config.retention_days, config.output_days) == (60_000, 30, 7)
    assert config.kafka.brokers == ("localhost:9092",)
    topics = config.kafka
    assert (topics.job_topic, topics.scheduler_topic) == ("jobs", "scheduled-jobs")
    assert (topics.execution_topic, topics.command_topic) == ("job-executions", "job-commands")
    assert config.cassandra.hosts == ("localhost",)
    assert config.cassandra.keyspace == "task_scheduler"
    assert config.worker.slots is None
    assert config.notes == ()
    assert {each.source for each in config.rows} == {"default"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/h"}, "/h/.local/share/dts/dts.db"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/data"}, "/data/dts/dts.db"),
        ({"HOME": "/h", "XDG_DATA_HOME": "relative"}, "/h/.local/share/dts/dts.db"),
        ({}, "dts.db"),
        ({"HOME": "/h", "DTS_DATABASE": "/x/y.db"}, "/x/y.db"),
    ],
)
def test_database(environ: dict[str, str], expected: str) -> None:
    assert load(environ).database == Path(expected)


def test_everything_wrong_is_said_at_once() -> None:
    wrong = {
        **HOME,
        "JOB_SERVICE_GRPC_PORT": "http",
        "JOB_SERVICE_HTTP_PORT": "70000",
        "DTS_HOST": "no host",
        "DTS_LEASE_SECONDS": "soon",
        "DTS_RETENTION_DAYS": "-1",
        "DTS_LABELS": "zone",
        "DTS_RESOURCES": "gpu=two",
        "DTS_CGROUP": "on",
        "KAFKA_BROKERS": "kafka:port",
        "CASSANDRA_KEYSPACE": "1st",
        "DTS_CLUSTER": "a b",
        "DTS_ALLOWED_ORIGINS": "example.com",
        "DTS_ADVERTISE": "x y",
    }
    with pytest.raises(ConfigError) as caught:
        load(wrong)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(wrong) - 1
    for name in set(wrong) - set(HOME):
        assert any(line.startswith(name) for line in lines), name


def test_ports_must_differ() -> None:
    with pytest.raises(ConfigError, match="JOB_SERVICE_HTTP_PORT and EXECUTION_SERVICE_HTTP_PORT are both 8082"):
        load({**HOME, "JOB_SERVICE_HTTP_PORT": "8082"})


@pytest.mark.parametrize("name", ["DTS_LEASE_SECONDS", "DTS_HOST", "KAFKA_BROKERS", "DTS_SLOTS", "DTS_LABELS"])
def test_an_empty_variable_is_unset(name: str) -> None:
    assert load({**HOME, name: "  "}) == load(HOME)


def test_aliases() -> None:
    assert load({**HOME, "EXECUTION_SERVICE_GRPC_PORT": "6000"}).ports.execution_grpc == 6000
    both = load({**HOME, "EXECUTION_SERVICE_GRPC_PORT": "6000", "EXECUTION_SERVICE_PORT": "6001"})
    assert both.ports.execution_grpc == 6001
    assert both.notes == ("EXECUTION_SERVICE_PORT wins over EXECUTION_SERVICE_GRPC_PORT (environment)",)
    days = load({**HOME, "CASSANDRA_DATA_RETENTION_DAYS": "3"})
    assert days.retention_days == 3
    assert row(days, "DTS_RETENTION_DAYS") == ("3", "environment (as CASSANDRA_DATA_RETENTION_DAYS)")


def test_lists_and_pairs() -> None:
    config = load(
        {
            **HOME,
            "KAFKA_BROKERS": "a:1, b:2,[::1]:3",
            "CASSANDRA_HOSTS": "10.0.0.1,fe80::1",
            "DTS_LABELS": "zone=a, disk=ssd",
            "DTS_RESOURCES": "gpu=2",
            "DTS_CGROUP": "/sys/fs/cgroup/tasks",
            "DTS_SCRATCH_ROOT": "/fast",
            "DTS_ALLOWED_ORIGINS": "https://a.example, http://b.example:3000",
        }
    )
    assert config.kafka.brokers == ("a:1", "b:2", "[::1]:3")
    assert config.cassandra.hosts == ("10.0.0.1", "fe80::1")
    assert config.worker.labels == {"zone": "a", "disk": "ssd"}
    assert config.worker.resources == {"gpu": 2}
    assert (config.worker.cgroup, config.worker.scratch) == ("/sys/fs/cgroup/tasks", "/fast")
    assert config.allowed_origins == ("https://a.example", "http://b.example:3000")


@pytest.mark.parametrize(("text", "ms"), [("1", 1000), ("2.5", 2500), ("0.0625e1", None), ("0", None), ("3601", None)])
def test_lease(text: str, ms: int | None) -> None:
    if ms is None:
        with pytest.raises(ConfigError, match="DTS_LEASE_SECONDS"):
            load({**HOME, "DTS_LEASE_SECONDS": text})
    else:
        assert load({**HOME, "DTS_LEASE_SECONDS": text}).lease_ms == ms


def test_dotenv(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\n"
        "\n"
        "export DTS_HOST=from-file\n"
        "IP=10.0.0.7  # of the machine\n"
        'KAFKA_BROKERS="${IP}:9092"\n'
        "CASSANDRA_HOSTS=${NOWHERE:-c1},c2\n"
        "DTS_CLUSTER='one'\n"
        "JOB_SERVICE_HTTP_PORT = 9000\n"
        "this is no assignment\n"
        "DTS_SLOTS=\n"
    )
    config = load({**HOME, "DTS_CLUSTER": "two"}, file)
    assert config.host == "from-file"
    assert config.kafka.brokers == ("10.0.0.7:9092",)
    assert config.cassandra.hosts == ("c1", "c2")
    assert config.cluster == "two"
    assert config.ports.job_http == 9000
    assert config.worker.slots is None
    assert row(config, "DTS_HOST") == ("from-file", str(file))
    assert row(config, "DTS_CLUSTER") == ("two", "environment")
    assert config.notes == (f"{file}, line 9 is no NAME=value and is ignored",)


def test_dotenv_that_is_missing_or_broken(tmp_path: Path) -> None:
    assert load(HOME, tmp_path / "none") == load(HOME)
    broken = tmp_path / ".env"
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(HOME, broken)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(HOME, tmp_path)


def test_secrets_are_masked() -> None:
    config = load({**HOME, "DTS_WORKER_TOKEN": "hunter2"})
    assert config.worker.token == "hunter2"
    assert row(config, "DTS_WORKER_TOKEN") == (MASK, "environment")
    assert "hunter2" not in str(config.rows)


def test_notes() -> None:
    config = load({**HOME, "DTS_DATABSE": "x", "KAFKA_ZOOKEEPER_CONNECT": "zk:2181", "DTS_JOB_ID": "of a task"})
    assert config.notes == (
        "DTS_DATABSE is no setting; did you mean DTS_DATABASE?",
        "KAFKA_ZOOKEEPER_CONNECT is ignored: Kafka runs without ZooKeeper (KRaft)",
    )


def test_the_page_tells_every_variable_and_its_default() -> None:
    page = PAGE.read_text()
    for each in load({}).rows:
        default = "`dts/dts.db`" if each.name == "DTS_DATABASE" else f"`{each.value}`" if each.value else "none"
        assert any(f"`{each.name}`" in line and default in line for line in page.splitlines()), each.name
