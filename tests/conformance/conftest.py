"""Every suite here runs on every adapter: `world` is one fresh store of each kind in the module's KINDS (WORLDS: in one process)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.worlds import KAFKA, WORLDS, World, make_world


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`kind`: the name of an adapter of WORLDS, for suites that need many worlds."""
    marked = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "world" in metafunc.fixturenames and "world" not in marked:
        metafunc.parametrize("world", getattr(metafunc.module, "KINDS", sorted(WORLDS)), indirect=True)
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", sorted(WORLDS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on Kafka needs the servers, which are started before the first test (tests/conftest.py)."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and KAFKA in item.callspec.params.values():
            item.fixturenames.append("servers")


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = make_world(request.param)
    yield made
    made.remove()
