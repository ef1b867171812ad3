# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs that some of the unit tests need, and that not every machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from ansible_collections.cae.matrix.tests.patience import SETTLE, patient

ROOT = Path(__file__).resolve().parents[2]
# Of the environment that runs the tests, whether it is activated or not.
ANSIBLE_PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))


def lacking(what: str) -> NoReturn:
    """What a test needs is not on this machine. Where everything has to be, as in CI, that is a failure."""
    if os.environ.get("MATRIX_TEST_STRICT") == "1":
        pytest.fail(what)
    pytest.skip(what)


def program(name: str, package: str) -> str:
    places = [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    return shutil.which(name, path=os.pathsep.join(places)) or lacking(f"no {name}: apt-get install {package}")


def ansible_playbook(
    place: Path, *arguments: str | Path, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """A run with this checkout's collection, started in a directory; what it said is without colours."""
    own = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible/collections"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        [ANSIBLE_PLAYBOOK, *arguments],
        cwd=place,
        env={**environment, **own},
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(SETTLE),
    )
