"""What several acceptance tests share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import golang
from tests.acceptance.served import ROOT

PROTO = ROOT / "api/proto"
MODULE = "dts.local/goclient"


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Go client made from our protos by Go's own plugins; the built program. Modules and builds are in Go's own caches."""
    folder = tmp_path_factory.mktemp("goclient")
    source, plugins = folder / "goclient", folder / "bin"
    shutil.copytree(ROOT / "tests/goclient", source)
    golang.run("install", "tool", folder=source, gobin=plugins)
    protos = sorted(PROTO.rglob("*.proto"))
    # They name no Go package, as the original's did not need to for us: each is given one here.
    names = [f"M{path.relative_to(PROTO)}={MODULE}/gen/{path.relative_to(PROTO).parent}" for path in protos]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{ROOT / 'third_party/googleapis'}"]
    for plugin in ("go", "go-grpc"):
        command += [f"--plugin=protoc-gen-{plugin}={plugins / f'protoc-gen-{plugin}'}", f"--{plugin}_out={source}"]
        command += [f"--{plugin}_opt={option}" for option in (f"module={MODULE}", *names)]
    done = subprocess.run([*command, *map(str, protos)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    golang.run("build", "./...", folder=source)
    golang.run("build", "-o", str(folder / "client"), ".", folder=source)
    return folder / "client"
