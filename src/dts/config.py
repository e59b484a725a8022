"""Settings: from the environment, then from a .env file, then the defaults. Read once, at the start of a process.

Everything wrong is reported at once. `Config.rows` says of each variable what is in force and where it came from.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from dts.bounds import LEASE_MS
from dts.errors import ConfigError

ENVIRONMENT = "environment"
DEFAULT = "default"
MASK = "********"
MAX_DOTENV_BYTES = 1024 * 1024
LEASE_MS_RANGE = (1_000, 3_600_000)
MAX_DAYS = 36_500
MAX_AMOUNT = 2**31 - 1
MAX_ENTRIES = 64  # brokers, hosts, origins, labels, custom resources

# DTS_ names that are no settings: what a task is given, and the switch that shows tracebacks.
_OTHER_NAMES = frozenset(
    {"DTS_JOB_ID", "DTS_EXECUTION_ID", "DTS_ATTEMPT", "DTS_SCHEDULED_TIME", "DTS_FENCING_NUMBER", "DTS_DEBUG"}
)
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}(?:%\w+)?|\[[0-9A-Fa-f:.]{2,45}\]")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KEYSPACE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")
_ORIGIN = re.compile(r"\*|https?://[^\s/,]+")

T = TypeVar("T")


class Row(NamedTuple):
    """One variable as it is in force; a secret's `value` is masked. `source`: environment | the .env file's name | default."""

    name: str
    value: str
    source: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the three services listen, and where client and command line look for them."""

    job_grpc: int
    job_http: int
    scheduler_grpc: int
    scheduler_http: int
    execution_grpc: int
    execution_http: int


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker offers; None: it finds out by itself."""

    id: str  # '': one made from host and process
    slots: int | None
    cpu: int | None  # millicores
    memory: int | None  # MiB
    storage: int | None  # MiB
    labels: Mapping[str, str]
    resources: Mapping[str, int]
    token: str  # '': the one beside the database
    scratch: str  # where scratch folders are made; '': where temporary files are
    cgroup: str  # auto, off, or the path of one that is the worker's to divide


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    brokers: tuple[str, ...]
    job_topic: str
    scheduler_topic: str
    execution_topic: str
    command_topic: str


@dataclass(frozen=True, slots=True)
class CassandraConfig:
    hosts: tuple[str, ...]  # a host may name a port of its own
    keyspace: str
    port: int


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. `rows` and `notes` are for people: what is in force and why, and what was odd but not wrong."""

    host: str  # where client and command line find the services
    listen: str  # the address that the services bind
    advertise: str  # what workers on other machines are told; '': the host's name
    cluster: str
    database: Path
    lease_ms: int
    retention_days: int  # 0: for ever
    output_days: int  # 0: for ever
    allowed_origins: tuple[str, ...]  # beside those of this machine
    ports: Ports
    worker: WorkerConfig
    kafka: KafkaConfig
    cassandra: CassandraConfig
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def load(environ: Mapping[str, str], dotenv_path: Path | None = None) -> Config:
    """The settings in force. An empty variable counts as unset; the environment wins over the file, which need not exist.

    Raises ConfigError with a line for every wrong value: what it is, where it came from and what would be right.
    """
    config, problems = read(environ, dotenv_path)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def read(environ: Mapping[str, str], dotenv_path: Path | None = None) -> tuple[Config, tuple[str, ...]]:
    """The settings, and what is wrong with them: where a value is wrong the default stands in its place."""
    reader = _Reader(environ, dotenv_path)
    config = Config(
        host=reader.get("DTS_HOST", "localhost", _host, "host of the services, for client and command line"),
        listen=reader.get("DTS_LISTEN", "localhost", _host, "address the services bind; 0.0.0.0: all, see security"),
        advertise=reader.get("DTS_ADVERTISE", "", _optional(_host), "address told to workers on other machines"),
        cluster=reader.get("DTS_CLUSTER", "dts", _name, "name of the cluster: prefix of groups and transactions"),
        database=reader.get("DTS_DATABASE", str(default_database(environ)), _path, "the embedded server's SQLite file"),
        lease_ms=reader.get("DTS_LEASE_SECONDS", f"{LEASE_MS // 1000}", _lease, "how long a silent worker keeps tasks"),
        retention_days=_days(reader, "DTS_RETENTION_DAYS", "30", "history is kept so long; 0: for ever"),
        output_days=_days(reader, "DTS_OUTPUT_DAYS", "7", "output of tasks is kept so long; 0: for ever"),
        allowed_origins=reader.get("DTS_ALLOWED_ORIGINS", "", _list(_origin), "pages elsewhere that may call the API"),
        ports=_ports(reader),
        worker=_worker(reader),
        kafka=_kafka(reader),
        cassandra=_cassandra(reader),
    )
    reader.look_at_the_rest()
    return replace(config, rows=tuple(reader.rows), notes=tuple(reader.notes)), tuple(reader.problems)


def default_database(environ: Mapping[str, str]) -> Path:
    """`dts/dts.db` in the user's data folder (XDG_DATA_HOME); without a home, `dts.db` in the current one."""
    data, home = environ.get("XDG_DATA_HOME", ""), environ.get("HOME", "")
    if Path(data).is_absolute():
        return Path(data) / "dts" / "dts.db"
    if home:
        return Path(home) / ".local" / "share" / "dts" / "dts.db"
    return Path("dts.db")


def _days(reader: _Reader, name: str, default: str, meaning: str) -> int:
    aliases = ("CASSANDRA_DATA_RETENTION_DAYS",) if name == "DTS_RETENTION_DAYS" else ()
    return reader.get(name, default, _whole(0, MAX_DAYS), meaning, aliases)


def _ports(reader: _Reader) -> Ports:
    def port(name: str, default: int, meaning: str, *aliases: str) -> int:
        return reader.get(name, str(default), _whole(1, 65_535), meaning, aliases)

    ports = Ports(
        job_grpc=port("JOB_SERVICE_GRPC_PORT", 50054, "Job Service, gRPC"),
        job_http=port("JOB_SERVICE_HTTP_PORT", 8080, "Job Service, HTTP and the web pages"),
        scheduler_grpc=port("SCHEDULER_SERVICE_GRPC_PORT", 50052, "Scheduler Service, gRPC; workers attach here"),
        scheduler_http=port("SCHEDULER_SERVICE_HTTP_PORT", 8081, "Scheduler Service, HTTP"),
        execution_grpc=port("EXECUTION_SERVICE_PORT", 50053, "Execution Service, gRPC", "EXECUTION_SERVICE_GRPC_PORT"),
        execution_http=port("EXECUTION_SERVICE_HTTP_PORT", 8082, "Execution Service, HTTP"),
    )
    reader.need_distinct(
        {
            "JOB_SERVICE_GRPC_PORT": ports.job_grpc,
            "JOB_SERVICE_HTTP_PORT": ports.job_http,
            "SCHEDULER_SERVICE_GRPC_PORT": ports.scheduler_grpc,
            "SCHEDULER_SERVICE_HTTP_PORT": ports.scheduler_http,
            "EXECUTION_SERVICE_PORT": ports.execution_grpc,
            "EXECUTION_SERVICE_HTTP_PORT": ports.execution_http,
        }
    )
    return ports


def _worker(reader: _Reader) -> WorkerConfig:
    def amount(name: str, least: int, meaning: str) -> int | None:
        return reader.get(name, "", _optional_whole(least, MAX_AMOUNT), meaning)

    return WorkerConfig(
        id=reader.get("DTS_WORKER_ID", "", _optional(_name), "the worker's name; empty: made from host and process"),
        slots=amount("DTS_SLOTS", 1, "tasks a worker runs at once; empty: 64"),
        cpu=amount("DTS_CPU", 0, "millicores a worker offers; empty: what the machine has"),
        memory=amount("DTS_MEMORY", 0, "MiB of memory a worker offers; empty: what the machine has"),
        storage=amount("DTS_STORAGE", 0, "MiB of disk a worker offers; empty: what is free for scratch folders"),
        labels=reader.get("DTS_LABELS", "", _pairs, "labels of a worker, such as zone=a,disk=ssd"),
        resources=reader.get("DTS_RESOURCES", "", _amounts, "custom resources of a worker, such as gpu=2"),
        token=reader.get("DTS_WORKER_TOKEN", "", str, "token with which a worker attaches", secret=True),
        scratch=reader.get("DTS_SCRATCH_ROOT", "", str, "where a worker makes scratch folders; empty: TMPDIR"),
        cgroup=reader.get("DTS_CGROUP", "auto", _cgroup, "cgroup v2 that a worker divides: auto, off, or a path"),
    )


def _kafka(reader: _Reader) -> KafkaConfig:
    def topic(name: str, default: str, meaning: str) -> str:
        return reader.get(name, default, _name, meaning)

    return KafkaConfig(
        brokers=reader.get("KAFKA_BROKERS", "localhost:9092", _some(_address), "bootstrap brokers of the cluster"),
        job_topic=topic("KAFKA_JOB_TOPIC", "jobs", "topic of job definitions"),
        scheduler_topic=topic("KAFKA_SCHEDULER_TOPIC", "scheduled-jobs", "topic of the shards' logs"),
        execution_topic=topic("KAFKA_EXECUTION_TOPIC", "job-executions", "topic of execution events"),
        command_topic=topic("KAFKA_COMMAND_TOPIC", "job-commands", "topic of commands: run, cancel, retry"),
    )


def _cassandra(reader: _Reader) -> CassandraConfig:
    return CassandraConfig(
        hosts=reader.get("CASSANDRA_HOSTS", "localhost", _some(_address), "contact points of the cluster's store"),
        keyspace=reader.get("CASSANDRA_KEYSPACE", "task_scheduler", _keyspace, "keyspace of the cluster's store"),
        port=reader.get("CASSANDRA_PORT", "9042", _whole(1, 65_535), "port of the contact points"),
    )


class _Reader:
    """Looks variables up, and remembers what it found where, what was wrong and what was odd."""

    def __init__(self, environ: Mapping[str, str], dotenv_path: Path | None) -> None:
        self.rows: list[Row] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._environ = environ
        self._dotenv_name = str(dotenv_path) if dotenv_path else ""
        self._dotenv = self._read_dotenv(dotenv_path) if dotenv_path else {}
        self._known: set[str] = set(_OTHER_NAMES)

    def get(
        self,
        name: str,
        default: str,
        parse: Callable[[str], T],
        meaning: str,
        aliases: tuple[str, ...] = (),
        *,
        secret: bool = False,
    ) -> T:
        """The variable's value; a wrong one is noted and the default stands in until all is read. `parse` raises ValueError."""
        self._known.update((name, *aliases))
        text, source, found = self._find(name, aliases)
        if text is None:
            text, source, found = default, DEFAULT, name
        shown = MASK if secret and text else text
        also = f" (as {found})" if found != name else ""
        self.rows.append(Row(name, shown, source + also, meaning))
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"{found} is {shown!r} ({source}): {error}")
            return parse(default)

    def need_distinct(self, ports: Mapping[str, int]) -> None:
        owners: dict[int, str] = {}
        for name, port in ports.items():
            if port in owners:
                self.problems.append(f"{owners[port]} and {name} are both {port}: each service needs its own")
            owners.setdefault(port, name)

    def look_at_the_rest(self) -> None:
        """Notes on names that look like settings and are none."""
        for name in sorted({*self._environ, *self._dotenv}):
            if name.startswith("DTS_") and name not in self._known:
                near = difflib.get_close_matches(name, self._known, n=1)
                self.notes.append(f"{name} is no setting{f'; did you mean {near[0]}?' if near else ''}")
        if self._environ.get("KAFKA_ZOOKEEPER_CONNECT") or self._dotenv.get("KAFKA_ZOOKEEPER_CONNECT"):
            self.notes.append("KAFKA_ZOOKEEPER_CONNECT is ignored: Kafka runs without ZooKeeper (KRaft)")

    def _find(self, name: str, aliases: tuple[str, ...]) -> tuple[str | None, str, str]:
        for values, source in ((self._environ, ENVIRONMENT), (self._dotenv, self._dotenv_name)):
            given = [each for each in (name, *aliases) if values.get(each, "").strip()]
            if len({values[each].strip() for each in given}) > 1:
                self.notes.append(f"{given[0]} wins over {given[1]} ({source})")
            if given:
                return values[given[0]].strip(), source, given[0]
        return None, DEFAULT, name

    def _read_dotenv(self, path: Path) -> dict[str, str]:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_DOTENV_BYTES + 1)
            text = data.decode("utf-8-sig")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{path} cannot be read: {error}")
            return {}
        if len(data) > MAX_DOTENV_BYTES:
            self.problems.append(f"{path} is larger than {MAX_DOTENV_BYTES} bytes")
            return {}
        return self._assignments(path, text)

    def _assignments(self, path: Path, text: str) -> dict[str, str]:
        values: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = _ASSIGNMENT.fullmatch(line)
            if match is None:
                self.notes.append(f"{path}, line {number} is no NAME=value and is ignored")
                continue
            values[match[1]] = self._unquoted(match[2], values)
        return values

    def _unquoted(self, text: str, values: Mapping[str, str]) -> str:
        """As Docker Compose reads it: quotes, a trailing comment, `${NAME}` and `${NAME:-default}`."""
        if quoted := re.match(r"'([^']*)'", text):
            return quoted[1]
        quoted = re.match(r'"((?:[^"\\]|\\.)*)"', text)
        plain = quoted[1].replace('\\"', '"') if quoted else re.split(r"\s#", text, maxsplit=1)[0].rstrip()

        def value(match: re.Match[str]) -> str:
            return self._environ.get(match[1]) or values.get(match[1]) or match[2] or ""

        return _REFERENCE.sub(value, plain)


# ---- how a text becomes a value; each raises ValueError that says what would be right ------------------------------


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise ValueError(f"write a whole number from {least} to {most}")
        return int(text)

    return parse


def _optional_whole(least: int, most: int) -> Callable[[str], int | None]:
    return lambda text: _whole(least, most)(text) if text else None


def _lease(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text):
        raise ValueError("write seconds, such as 60 or 2.5")
    ms = round(float(text) * 1000)
    if not LEASE_MS_RANGE[0] <= ms <= LEASE_MS_RANGE[1]:
        raise ValueError(f"write {LEASE_MS_RANGE[0] // 1000} to {LEASE_MS_RANGE[1] // 1000} seconds")
    return ms


def _matching(pattern: re.Pattern[str], valid: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"write {valid}")
        return text

    return parse


_host = _matching(_HOST, "a host name or an IP address, without a port")
_name = _matching(_NAME, "1 to 128 letters, digits, dots, dashes and underscores")
_keyspace = _matching(_KEYSPACE, "a letter, then up to 47 letters, digits and underscores")
_origin = _matching(_ORIGIN, "origins such as https://ops.example.com, or * for all")


def _optional(parse: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: parse(text) if text else ""


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError("write the path of a file")
    return Path(text).expanduser()


def _cgroup(text: str) -> str:
    if text in ("auto", "off") or Path(text).is_absolute():
        return text
    raise ValueError("write auto, off, or the path of a cgroup below /sys/fs/cgroup")


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if colon and not (host.startswith("[") or ":" not in host):
        host, colon = text, ""  # an IPv6 address without a port
    if not _HOST.fullmatch(host if colon else text):
        raise ValueError(f"{text!r} is no host or host:port")
    if colon:
        _whole(1, 65_535)(port)
    return text


def _list(parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    def parse_all(text: str) -> tuple[str, ...]:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if len(parts) > MAX_ENTRIES:
            raise ValueError(f"that are {len(parts)}; write {MAX_ENTRIES} at most")
        return tuple(parse(part) for part in parts)

    return parse_all


def _some(parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    def parse_some(text: str) -> tuple[str, ...]:
        found = _list(parse)(text)
        if not found:
            raise ValueError("write one or more, separated by commas")
        return found

    return parse_some


def _pairs(text: str) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for part in _list(str)(text):
        key, equals, value = part.partition("=")
        if not equals or not _NAME.fullmatch(key.strip()) or not _NAME.fullmatch(value.strip()):
            raise ValueError(f"{part!r} is no NAME=VALUE; write zone=a,disk=ssd")
        pairs[key.strip()] = value.strip()
    return pairs


def _amounts(text: str) -> Mapping[str, int]:
    return {key: _whole(0, MAX_AMOUNT)(value) for key, value in _pairs(text).items()}
