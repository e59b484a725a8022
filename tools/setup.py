"""Bring .venv up to date with the lock files: `setup.py run` for what the server needs, `setup.py dev` for all.

Quick when nothing changed: .venv/setup-stamp holds a digest of all that the environment was made from. Runs on a bare
Python; safe to run several times at once.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "setup-stamp"
NEEDS = {"run": "the server needs", "dev": "development needs"}
LOCKS = {"run": ["runtime.lock", "build.lock"], "dev": ["dev.lock"]}
# dev.lock holds all that the other two do, in the same versions, so an environment for 'dev' also serves 'run'.
SERVES = {"run": ("run", "dev"), "dev": ("dev",)}


def digest(level: str) -> str:
    """What an environment of this level is made from, as one line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # Only these tables reach the installed project; the settings of linters do not.
    tables = [project["build-system"], project["project"], project["tool"]["hatch"]]
    files = [Path(__file__), ROOT / "src/dts/__init__.py", *(ROOT / "requirements" / name for name in LOCKS[level])]
    content = [str(ROOT), platform.python_version(), json.dumps(tables), *(path.read_text() for path in files)]
    return f"{level} {hashlib.sha256(chr(0).join(content).encode()).hexdigest()}"


def current(level: str) -> bool:
    """Whether .venv works and was made from what is here now."""
    try:
        stamp = STAMP.read_text()
    except OSError:
        return False
    return (VENV / "bin" / "python").exists() and stamp in [digest(served) for served in SERVES[level]]


def run(*command: str | Path) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_REQUIRE_VIRTUALENV": "0"}
    result = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, check=False)
    if result.returncode:
        sys.exit(f"setup: failed: {' '.join(str(part) for part in command)}")


def create() -> None:
    """Make .venv, unless there is one of this Python's version that works."""
    probe = [str(VENV / "bin" / "python"), "-c", "import pip, platform; print(platform.python_version())"]
    try:
        found = subprocess.run(probe, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        found = ""
    if found == platform.python_version():
        return
    shutil.rmtree(VENV, ignore_errors=True)
    result = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if result.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        print(result.stdout, result.stderr, file=sys.stderr)
        sys.exit("setup: Python cannot make a virtual environment. Debian, Ubuntu: apt-get install python3-venv")


def install(level: str) -> None:
    pip = (VENV / "bin" / "python", "-m", "pip", "--quiet")
    requirements = [part for name in LOCKS[level] for part in ("-r", ROOT / "requirements" / name)]
    run(*pip, "install", "--require-hashes", "--only-binary", ":all:", *requirements)
    run(*pip, "install", "--no-deps", "--no-build-isolation", "--editable", ".")


def main() -> None:
    level = sys.argv[1]
    if current(level):
        return
    guard = os.open(ROOT / "tools", os.O_RDONLY)
    fcntl.flock(guard, fcntl.LOCK_EX)
    if current(level):
        return
    print(f"setup: installing what {NEEDS[level]} into .venv", flush=True)
    create()
    STAMP.unlink(missing_ok=True)
    install(level)
    STAMP.write_text(digest(level))


if __name__ == "__main__":
    main()
