"""Pin the dependencies of pyproject.toml, with hashes, for every supported Python and platform: requirements/*.lock.

Without arguments everything is raised to its newest version; with names, only those. Uses uv in a throw-away
environment; nothing of it is needed otherwise.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
HEADER = "# Made by `make lock` from pyproject.toml; do not edit.\n"
# Each lock is held to the versions of the ones before it.
LOCKS: dict[str, list[str]] = {
    "runtime.lock": [],
    "build.lock": ["--only-group", "build"],
    "dev.lock": ["--extra", "cluster", "--group", "dev"],
}


def compile_lock(uv: str, name: str, selection: list[str], before: list[str], raise_only: list[str]) -> None:
    upgrade = [part for package in raise_only for part in ("--upgrade-package", package)] or ["--upgrade"]
    constraints = [part for other in before for part in ("--constraint", str(REQUIREMENTS / other))]
    source = ["pyproject.toml"] if "--only-group" not in selection else []
    command = [uv, "pip", "compile", *source, *group_options(selection), *upgrade, *constraints]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-emit-index-url"]
    command += ["--no-annotate", "--quiet", "--output-file", str(REQUIREMENTS / name)]
    subprocess.run(command, cwd=ROOT, check=True)
    path = REQUIREMENTS / name
    path.write_text(HEADER + path.read_text().removeprefix(HEADER))
    print(f"wrote requirements/{name}")


def group_options(selection: list[str]) -> list[str]:
    """uv's `pip compile` names a group of pyproject.toml by --group; alone it takes the group without the project."""
    return ["--group" if option == "--only-group" else option for option in selection]


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        scripts = os.path.join(place, "bin")
        subprocess.run([os.path.join(scripts, "pip"), "install", "--quiet", "uv"], check=True)
        done: list[str] = []
        for name, selection in LOCKS.items():
            compile_lock(os.path.join(scripts, "uv"), name, selection, done, sys.argv[1:])
            done.append(name)


if __name__ == "__main__":
    main()
