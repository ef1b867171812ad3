# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Python environments of tests, made by uv within seconds, and made anew when what they are made of changes.

usage: tests/environments.py 2.19|2.21|unit-2.19|unit-2.21|synapse|lock
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"

# The Pythons that a core runs on, the best first, and the package that brings its collections.
PYTHONS = {"2.19": ("3.11", "3.12", "3.13"), "2.21": ("3.13", "3.12", "3.14")}
ANSIBLE = {"2.19": "ansible==12.3.0", "2.21": "ansible==14.5.0"}


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def prepare_uv() -> None:
    """uv reads no settings of pip, but what a machine says to pip, of its index and its own CAs, holds for uv, too."""
    os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ.setdefault("UV_SYSTEM_CERTS", "1")
    pip = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = os.environ.get("PIP_INDEX_URL") or subprocess.run(pip, capture_output=True, text=True).stdout.strip()
    if index:
        os.environ.setdefault("UV_DEFAULT_INDEX", index)


def uv(*arguments: str | pathlib.Path) -> None:
    subprocess.run(["uv", *arguments], check=True, cwd=ROOT)


def version(python: pathlib.Path) -> str:
    """What a Python says it is; nothing if it does not run."""
    try:
        asked = subprocess.run([python, "-c", "import platform, ssl; print(platform.python_version())"],
                               capture_output=True, text=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return asked.stdout.strip()


def python_of(versions: tuple[str, ...]) -> pathlib.Path | None:
    """The first of these Pythons that is installed, also by pyenv."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv") / "versions"
    for wanted in versions:
        found = [pathlib.Path(f"/usr/bin/python{wanted}"), pathlib.Path(shutil.which(f"python{wanted}") or "")]
        for path in (*found, *sorted(pyenv.glob(f"{wanted}.*/bin/python"))):
            if path.is_file() and version(path).startswith(f"{wanted}."):
                return path
    return None


def make(directory: pathlib.Path, python: pathlib.Path | None, wanted: str, files: list[pathlib.Path],
         *install: str | pathlib.Path) -> None:  # fmt: skip
    """An environment of what is installed by these arguments of uv; the stamp knows the Python and the files."""
    if python is None:
        raise SystemExit(f"error: {directory.name} needs Python {wanted}; Debian 12 and 13 have one: python3")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    stamp = directory / ".stamp"
    now = f"Python {version(python)} {digest}\n"
    if stamp.exists() and stamp.read_text() == now:
        return
    say(f"{directory.name}: Python {version(python)}, {', '.join(path.name for path in files)}")
    stamp.unlink(missing_ok=True)
    uv("venv", "--quiet", "--clear", "--python", python, directory)
    uv("pip", *install, "--quiet", "--python", directory / "bin/python")
    stamp.write_text(now)


def controller(core: str) -> None:
    """All that tests with one core need.

    Core 2.21 wants Python 3.12 or newer. Debian 12 has none: there, that controller runs in a Debian 13 container, and
    tests/on-core is the one place that knows.
    """
    lock = ROOT / f"requirements-dev-{core}.txt"
    python = python_of(PYTHONS[core])
    container = CACHE / "controller-in-container"
    if core == "2.21":
        if python is None or os.environ.get("MATRIX_CONTROLLER_IN_CONTAINER"):
            subprocess.run(["tests/setup", "engine"], check=True, cwd=ROOT)
            subprocess.run(["tests/images/build", "controller"], check=True, cwd=ROOT)
            container.touch()
            return
        container.unlink(missing_ok=True)
    make(ROOT / f".venv-{core}", python, " or ".join(PYTHONS[core]), [lock], "sync", lock)


def unit(core: str) -> None:
    """What unit tests import and nothing more, in the versions of the controller."""
    wanted, lock = ROOT / "requirements-unit.in", ROOT / f"requirements-dev-{core}.txt"
    python = python_of(PYTHONS[core])
    directory = CACHE / f"venv-unit-{core}"
    make(directory, python, " or ".join(PYTHONS[core]), [wanted, lock], "install", "-r", wanted, "-c", lock)


def synapse() -> None:
    """Synapse as it is deployed where an inventory adds LDAP and SAML, for the unit tests that ask the real one."""
    locks = (ROOT / "roles/synapse/files").glob("requirements-*.txt")
    lock = max(locks, key=lambda path: [int(number) for number in path.stem.rpartition("-")[2].split(".")])
    python = python_of(("3.11", "3.13", "3.12"))
    extra = ROOT / "tests/unit/extra-requirements.txt"
    make(CACHE / "venv-synapse", python, "3.11, 3.12 or 3.13", [lock, extra], "sync", "--require-hashes", lock, extra)


def lock() -> None:
    """Resolves what is asked for anew; the result is committed, so that every machine tests the same."""
    compile_ = ("pip", "compile", "--quiet", "--upgrade", "--no-annotate", "--python-platform", "linux")
    head = "# Every version pinned; made by `make lock`."
    with tempfile.TemporaryDirectory() as work:
        for name, lowest, more in (
            ("nox", "3.11", ""),
            ("package", "3.11", ""),
            *((f"dev-{core}", "3.11" if core == "2.19" else "3.12", ANSIBLE[core]) for core in PYTHONS),
        ):
            asked = ROOT / f"requirements-{name.partition('-')[0]}.in"
            also = pathlib.Path(work) / f"{name}.in"
            also.write_text(f"{more}\n")
            made = pathlib.Path(work) / f"{name}.txt"
            uv(*compile_, "--no-header", "--python-version", lowest, asked, also, "--output-file", made)
            (ROOT / f"requirements-{name}.txt").write_text(f"{head}\n{made.read_text()}")


def main(steps: list[str]) -> None:
    prepare_uv()
    CACHE.mkdir(exist_ok=True)
    for step in steps:
        match step.split("-"):
            case [core] if core in PYTHONS:
                controller(core)
            case ["unit", core] if core in PYTHONS:
                unit(core)
            case ["synapse"]:
                synapse()
            case ["lock"]:
                lock()
            case _:
                raise SystemExit(f"error: unknown environment: {step}")


if __name__ == "__main__":
    main(sys.argv[1:])
