"""The image: what its Dockerfile does is done here without an engine, and the command that it starts is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.acceptance.served import BIN, Served, environment, stop, wait_until_ready
from tests.deploy.parts import ROOT, Dockerfile, assert_command, assert_settings

STEP_S = 100.0


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([BIN / "hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_only_what_is_copied_is_sent() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert sent == set(Dockerfile().copied())
    assert all((ROOT / path).exists() for path in sent)


def test_everything_is_pinned_and_nobody_is_root() -> None:
    file = Dockerfile()
    bases = {rest.split()[0] for rest in file.all("FROM")}
    assert len(bases) == 1
    assert "slim" in bases.pop().partition(":")[2]
    installs = [step for rest in file.all("RUN") for step in rest.split("&&") if "pip install" in step]
    assert installs
    assert all("--require-hashes" in step or "--no-index" in step for step in installs)
    assert file.all("USER")[-1].split(":")[0] not in ("0", "root")
    instructions = [name for name, _ in file.instructions]
    assert "RUN" not in instructions[instructions.index("USER") :]


def test_its_settings_and_commands_are_ours() -> None:
    file = Dockerfile()
    assert_settings({name: value for name, value in file.environment().items() if name.startswith("DTS_")})
    assert file.words("ENTRYPOINT") == ["dts"]
    assert_command(file.words("CMD"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's /opt: the build step of the Dockerfile over what it copies, its dependencies from this environment."""
    folder = tmp_path_factory.mktemp("image")
    build, opt = folder / "build", folder / "opt"
    file = Dockerfile()
    for path in file.copied():
        target = build / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, target)
    venv.create(opt / "dts", with_pip=True)
    purelib = sysconfig.get_path("purelib", vars={"base": str(opt / "dts"), "platbase": str(opt / "dts")})
    Path(purelib, "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    step = next(rest for rest in file.all("RUN") if "pip wheel" in rest)
    step = step.replace("/opt/build/bin/pip", f"{sys.executable} -m pip").replace("/opt/dts/", f"{opt}/dts/")
    done = subprocess.run(
        step, shell=True, cwd=build, capture_output=True, text=True, timeout=STEP_S, check=False, executable="/bin/sh"
    )
    assert done.returncode == 0, done.stderr
    shutil.copy(build / "deploy/docker/healthcheck.py", opt / "dts/healthcheck.py")
    return opt


def test_what_it_starts_works_and_says_so(installed: Path, tmp_path: Path) -> None:
    file = Dockerfile()
    found = environment(tmp_path)
    env = {**file.environment(), **found, "DTS_LISTEN": "localhost"}
    env["PATH"] = f"{installed / 'dts/bin'}{os.pathsep}{found['PATH']}"
    check = [word.replace("/opt/", f"{installed}/") for word in _healthcheck(file)]

    def healthy() -> int:
        return subprocess.run(check, env=env, timeout=10, check=False).returncode

    assert healthy() == 1
    command = [*file.words("ENTRYPOINT"), *file.words("CMD")]
    log = tmp_path / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [shutil.which(command[0], path=env["PATH"]) or "", *command[1:]],
            env=env,
            stdout=out,
            stderr=out,
            cwd=tmp_path,
        )
    running = Served(env, log, process)
    try:
        wait_until_ready(running)
        assert healthy() == 0
        assert str(installed) in Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        stop(running)
    assert healthy() == 1


def test_the_migrations_came_along(installed: Path) -> None:
    code = "import dts, pathlib; print(len(list((pathlib.Path(dts.__file__).parent / 'migrations').glob('*.up.cql'))))"
    done = subprocess.run(
        [installed / "dts/bin/python", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert int(done.stdout) == len(list((ROOT / "migrations").glob("*.up.cql"))) > 5


def _healthcheck(file: Dockerfile) -> list[str]:
    import json

    words = json.loads(file.all("HEALTHCHECK")[-1].partition(" CMD ")[2])
    assert isinstance(words, list)
    return words
