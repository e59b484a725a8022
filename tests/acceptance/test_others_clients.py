"""Clients of the original system against the embedded server, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.othersclients import Curl, by_go, five_commands, from_a_page, over_http, refused
from tests.acceptance.served import Served, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("others")) as running:
        yield running


@pytest.mark.timeout(600)  # the first time Go's modules are fetched and built
def test_a_go_client_runs_the_guides_commands(go_client: Path, server: Served) -> None:
    call = by_go(go_client, f"localhost:{server.env['JOB_SERVICE_GRPC_PORT']}")
    five_commands(call)
    refused(call)


def test_the_same_over_http(server: Served) -> None:
    over_http(Curl(server.env["JOB_SERVICE_HTTP_PORT"]))


def test_pages_of_this_machine_may_call(server: Served) -> None:
    from_a_page(Curl(server.env["JOB_SERVICE_HTTP_PORT"]))
