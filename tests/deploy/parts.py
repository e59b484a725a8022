"""What the files of deploy/ are held against: the command line, the settings, the versions that the tests run on."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

from dts.config import read
from tests.acceptance.served import BIN

ROOT = Path(__file__).resolve().parents[2]
ALIASES = frozenset({"CASSANDRA_DATA_RETENTION_DAYS", "EXECUTION_SERVICE_GRPC_PORT"})
IMAGE = "dts:0.1.0"


def settings() -> dict[str, str]:
    """Every variable that config.py knows, with its default."""
    return {row.name: row.value for row in read({"HOME": "/home/dts"})[0].rows}


def assert_settings(values: dict[str, str]) -> None:
    """These variables are settings, and their values are right."""
    assert set(values) <= set(settings()) | ALIASES, set(values) - set(settings())
    config, problems = read({"HOME": "/home/dts", **values})
    assert (problems, config.notes) == ((), ())


def assert_command(arguments: list[str]) -> None:
    """`dts ARGUMENTS` is a command: the command line takes all of them."""
    done = subprocess.run(
        [BIN / "dts", *arguments, "--help"], capture_output=True, text=True, timeout=60, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    words = [word for word in arguments if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
    assert done.stdout.startswith(f"Usage: dts {words[0]}"), done.stdout
    assert words[-1] in done.stdout.splitlines()[0], done.stdout


def version_in_use(server: str) -> str:
    """Of Kafka or Cassandra, as the tests run it."""
    return re.findall(r"<version>([^<]+)</version>", (ROOT / f"deploy/local/{server}/pom.xml").read_text())[1]


class Dockerfile:
    """Its instructions, with continued lines put together."""

    def __init__(self) -> None:
        text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
        lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self.instructions = [(name, rest.strip()) for name, rest in lines]

    def all(self, name: str) -> list[str]:
        """What follows each instruction of a name."""
        return [rest for found, rest in self.instructions if found == name]

    def words(self, name: str) -> list[str]:
        """The words of the last instruction of a name, in JSON form."""
        words = json.loads(self.all(name)[-1])
        assert isinstance(words, list)
        return words

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        return dict(pair.split("=", 1) for rest in self.all("ENV") for pair in shlex.split(rest))

    def copied(self) -> list[str]:
        """What is copied from the checkout."""
        sources = [rest.split() for rest in self.all("COPY") if not rest.startswith("--from")]
        return [source for words in sources for source in words[:-1]]
