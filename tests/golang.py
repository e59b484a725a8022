"""Go programs that tests need, built from their modules: once, into Go's own cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NEEDS = "this test builds Go programs: apt-get install -y golang-go, or https://go.dev/dl (1.21 or newer, which fetches newer ones)"
BUILD_S = 300.0


def go() -> str:
    """The `go` command; fails the test with the line that installs it."""
    found = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(found).exists():
        pytest.fail(NEEDS)
    return found


def run(*arguments: str, folder: Path, gobin: Path | None = None) -> None:
    """`go ARGUMENTS` in a folder; two processes at most, so that others get on too."""
    env = {**os.environ, "GOFLAGS": "-p=2 -buildvcs=false", **({"GOBIN": str(gobin)} if gobin else {})}
    done = subprocess.run(
        [go(), *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    assert done.returncode == 0, f"go {' '.join(arguments)}: {done.stderr}"
