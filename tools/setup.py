"""Bring .venv up to date with the lock files: `setup.py run` for what the server needs, `setup.py dev` for all.

Quick when nothing changed: .venv/setup-stamp holds a digest of all that the environment was made from. Runs on a bare
Python; safe to run several times at once.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
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
    sources = [ROOT / "pyproject.toml", Path(__file__), *(ROOT / "requirements" / name for name in LOCKS[level])]
    content = b"\0".join([str(ROOT).encode(), *(path.read_bytes() for path in sources)])
    return f"{level} {hashlib.sha256(content).hexdigest()}"


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
    """Make .venv, unless there is one that works."""
    probe = [str(VENV / "bin" / "python"), "-m", "pip", "--version"]
    try:
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return
    except OSError:
        pass
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
