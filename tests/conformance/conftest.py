"""Every suite here runs on every adapter: `world` is one fresh store of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.worlds import WORLDS, World


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = WORLDS[request.param]()
    yield made
    made.remove()


@pytest.fixture(params=sorted(WORLDS))
def kind(request: pytest.FixtureRequest) -> str:
    """The name of an adapter, for suites that need many worlds."""
    return str(request.param)
