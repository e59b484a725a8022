"""Install the wheel in dist/ into an empty environment, as a person would, and use it from an empty folder.

The versions are those of runtime.lock, so that the test says the same tomorrow.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "dts"
# Run by the installed Python: every file that is no module must have come along.
LOOK = """
import sys
from importlib.resources import files
missing = [name for name in sys.argv[1:] if not files("dts").joinpath(name).is_file()]
sys.exit(f"missing from the wheel: {missing}" if missing else 0)
"""


def main() -> None:
    wheels = list((ROOT / "dist").glob("dts-*.whl"))
    if len(wheels) != 1:
        sys.exit(f"wheel-test: expected one wheel in dist/, found {len(wheels)}")
    # Neither the checkout nor the caller's environment may help.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with tempfile.TemporaryDirectory() as place:

        def run(*command: object) -> None:
            result = subprocess.run([str(part) for part in command], cwd=place, env=environment, check=False)
            if result.returncode:
                sys.exit(f"wheel-test: failed: {' '.join(str(part) for part in command)}")

        run(sys.executable, "-m", "venv", "venv")
        binaries = Path(place) / "venv" / "bin"
        pip = [binaries / "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        run(*pip, "--constraint", constraints(Path(place)), wheels[0])
        run(binaries / "python", "-c", LOOK, *data_files())
        run(binaries / "dts", "--version")
    print(f"wheel-test: {wheels[0].name} works")


def data_files() -> list[str]:
    """Paths, relative to the package, of all that is no module: migrations, web files, py.typed."""
    paths = (Path(place) / name for place, _, names in os.walk(PACKAGE, followlinks=True) for name in names)
    return [path.relative_to(PACKAGE).as_posix() for path in paths if path.suffix not in {".py", ".pyc"}]


def constraints(place: Path) -> Path:
    """runtime.lock without its hashes, which pip would then demand of the wheel too."""
    lines = (ROOT / "requirements" / "runtime.lock").read_text().splitlines()
    path = place / "constraints.txt"
    path.write_text("\n".join(line.rstrip(" \\") for line in lines if not line.startswith((" ", "#"))))
    return path


if __name__ == "__main__":
    main()
