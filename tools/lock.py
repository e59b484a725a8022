"""Pin the dependencies of pyproject.toml, with hashes, for every supported Python and platform: requirements/*.lock.

Without arguments everything is raised to its newest version; with names, only those. Uses uv in a throw-away
environment; nothing of it is needed otherwise.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
HEADER = "# Made by `make lock` from pyproject.toml; do not edit.\n"
# What goes into each, for `uv pip compile`; each is held to the versions of the ones before it.
LOCKS = {
    "runtime.lock": ["pyproject.toml"],
    "build.lock": ["--group", "build"],
    "cluster.lock": ["pyproject.toml", "--extra", "cluster"],
    "dev.lock": ["pyproject.toml", "--extra", "cluster", "--group", "dev"],
}


def compile_lock(uv: str, name: str, selection: list[str], before: list[str], raise_only: list[str]) -> None:
    upgrade = [part for package in raise_only for part in ("--upgrade-package", package)] or ["--upgrade"]
    constraints = [part for other in before for part in ("--constraint", str(REQUIREMENTS / other))]
    command = [uv, "pip", "compile", *selection, *upgrade, *constraints]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-emit-index-url"]
    command += ["--no-annotate", "--quiet", "--output-file", str(REQUIREMENTS / name)]
    subprocess.run(command, cwd=ROOT, check=True)
    path = REQUIREMENTS / name
    path.write_text(HEADER + path.read_text().removeprefix(HEADER))
    print(f"wrote requirements/{name}")


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        scripts = Path(place) / "bin"
        subprocess.run([scripts / "pip", "install", "--quiet", "uv"], check=True)
        done: list[str] = []
        for name, selection in LOCKS.items():
            compile_lock(str(scripts / "uv"), name, selection, done, sys.argv[1:])
            done.append(name)


if __name__ == "__main__":
    main()
