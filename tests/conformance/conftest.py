"""Every suite here runs on every adapter: `world` is one fresh store of each kind in the module's KINDS (WORLDS: in one process)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.worlds import CASSANDRA, KAFKA, WORLDS, World, make_world


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`kind`: the name of an adapter, for suites that need many worlds. `deleting_world`: one that deletes what is old when
    it is told to (Cassandra's rows end by themselves: tests/cluster)."""
    marked = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    kinds = getattr(metafunc.module, "KINDS", sorted(WORLDS))
    if "world" in metafunc.fixturenames and "world" not in marked:
        metafunc.parametrize("world", kinds, indirect=True)
    if "deleting_world" in metafunc.fixturenames:
        metafunc.parametrize("deleting_world", [each for each in kinds if each != CASSANDRA], indirect=True)
    if "filled_world" in metafunc.fixturenames:
        metafunc.parametrize("filled_world", kinds, indirect=True)
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", [each for each in kinds if each != KAFKA])  # a world of it takes seconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on real servers needs them started before the first test (tests/conftest.py)."""
    for item in items:
        params = (
            item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        )
        if {KAFKA, CASSANDRA} & {each for each in params if isinstance(each, str)}:
            item.fixturenames.append("servers")


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = make_world(request.param)
    yield made
    made.remove()


@pytest.fixture
def deleting_world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = make_world(request.param)
    yield made
    made.remove()
