"""The house's own rules bite: the import contract, tried with one wrong import after another, and the locks."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from grimp import ImportGraph
from packaging.requirements import Requirement

from tools.contracts import RoomsContract

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OPTIONS = next(c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "rooms")


def breaches(*imports: tuple[str, str]) -> list[Any]:
    graph = ImportGraph()
    for importer, imported in imports:
        for module in (importer, imported):
            if module not in graph.modules:
                graph.add_module(module, is_squashed=not module.startswith("dts"))
        graph.add_import(importer=importer, imported=imported, line_number=1, line_contents="")
    contract = RoomsContract(OPTIONS["name"], {"root_packages": ["dts"]}, OPTIONS)
    check = contract.check(graph, verbose=False)
    assert check.kept == (not check.metadata["breaches"])
    return check.metadata["breaches"]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("dts.core.shard", "dts.schedule.cron"),
        ("dts.core.shard", "dts.core.policies"),
        ("dts.core.shard", "dts.errors"),
        ("dts.core.shard", "heapq"),
        ("dts.services.jobs", "dts.core"),
        ("dts.services.jobs", "asyncio"),
        ("dts.adapters.sqlite.ledger", "sqlite3"),
        ("dts.adapters.sqlite.ledger", "dts.adapters.codec"),
        ("dts.server", "dts.adapters.sqlite"),
        ("dts.cli.jobs", "dts.client"),
    ],
)
def test_the_arrows_may_be_followed(importer: str, imported: str) -> None:
    assert breaches((importer, imported)) == []


@pytest.mark.parametrize(
    ("importer", "imported", "why"),
    [
        ("dts.core.shard", "dts.ports", "dts.core may import"),
        ("dts.core.shard", "time", "dts.core is pure"),
        ("dts.schedule.cron", "random", "dts.schedule is pure"),
        ("dts.model", "dts.schedule", "nothing of ours"),
        ("dts.services.jobs", "dts.api", "dts.services may import"),
        ("dts.services.jobs", "dts.adapters.sqlite", "dts.services may import"),
        ("dts.services.jobs", "sqlite3", "only dts.adapters.sqlite may import"),
        ("dts.adapters.kafka.log", "sqlite3", "only dts.adapters.sqlite may import"),
        ("dts.adapters.kafka.log", "dts.adapters.sqlite", "dts.adapters.kafka may import"),
        ("dts.adapters.sqlite.ledger", "dts.core.shard", "dts.adapters.sqlite may import"),
        ("dts.attic", "dts.model", "in no room"),
        ("dts.api.jobs", "dts.attic", "in no room"),
    ],
)
def test_no_arrow_may_be_turned(importer: str, imported: str, why: str) -> None:
    (breach,) = breaches((importer, imported))
    assert (breach.importer, breach.imported) == (importer, imported)
    assert why in breach.why


RUNTIME = PYPROJECT["project"]["dependencies"]
CLUSTER = PYPROJECT["project"]["optional-dependencies"]["cluster"]
GROUPS = PYPROJECT["dependency-groups"]
DECLARED = [text for text in chain(RUNTIME, CLUSTER, *GROUPS.values()) if isinstance(text, str)]


def locked(name: str) -> dict[str, str]:
    """Versions in a lock, by name in lower case."""
    text = (ROOT / "requirements" / name).read_text()
    assert "http" not in text.replace("aiohttp", ""), f"{name} names a place on the network"
    assert text.count("==") <= text.count("--hash=sha256:")
    return {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


@pytest.mark.parametrize(
    ("lock", "declared"), [("runtime.lock", RUNTIME), ("cluster.lock", RUNTIME + CLUSTER), ("dev.lock", DECLARED)]
)
def test_the_locks_hold_what_is_declared(lock: str, declared: list[str]) -> None:
    versions = locked(lock)
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(versions[requirement.name.lower()]), f"run `make lock`: {requirement}"


@pytest.mark.parametrize("lock", ["runtime.lock", "build.lock", "cluster.lock"])
def test_an_environment_for_development_also_serves_to_run(lock: str) -> None:
    assert locked(lock).items() <= locked("dev.lock").items()


@pytest.mark.parametrize("text", sorted(set(DECLARED)))
def test_each_dependency_has_its_reason(text: str) -> None:
    names = re.findall(r"^\| ([\w, -]+) \|", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE)
    assert Requirement(text).name in {name.strip() for line in names for name in line.split(",")}


def imported(source: Path) -> Iterator[str]:
    """The packages that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_what_the_package_imports_is_declared() -> None:
    declared = {Requirement(text).name.lower() for text in chain(RUNTIME, CLUSTER)}
    names = {name for source in (ROOT / "src").rglob("*.py") for name in imported(source)}
    distributions = packages_distributions()
    for name in names - sys.stdlib_module_names - {"dts"}:
        assert declared & {found.lower() for found in distributions.get(name, [])}, f"{name} is not declared"
