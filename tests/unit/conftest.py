# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What several of the unit tests ask for, and what holds for all of them.

Bare C(pytest) in a clone runs what the machine has the programs for, and says what it skips. With
C(MATRIX_TEST_STRICT=1), as the runner sets it, nothing is skipped for a program that is not there: that is a failure.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[2]


def the_checkout_is_the_collection() -> None:
    place = ROOT / ".ansible/collections/ansible_collections/cae"
    place.mkdir(parents=True, exist_ok=True)
    # Another checkout's, in a copied directory, would have its code tested in place of this.
    if (place / "matrix").resolve() != ROOT or not (place / "matrix").is_dir():
        (place / "matrix").unlink(missing_ok=True)
        (place / "matrix").symlink_to(ROOT)
        importlib.invalidate_caches()
    # For the programs that tests start.
    paths = (str(place.parents[1]), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    os.environ.setdefault("ANSIBLE_INJECT_FACT_VARS", "0")


the_checkout_is_the_collection()

from ansible_collections.cae.matrix.tests.unit import names, programs

NO_SYNAPSE = (
    "no Synapse: make .cache/venv-synapse (tests/setup venv-synapse), or set SYNAPSE_PYTHON to the Python of a venv "
    "made from roles/synapse/files/requirements-*.txt"
)


def synapse_python() -> str:
    """The interpreter that has Synapse, empty if there is none; what somebody has set is right, or fails."""
    own = ROOT / ".cache/venv-synapse/bin/python"
    return os.environ.get("SYNAPSE_PYTHON") or (str(own) if own.exists() else "")


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter that has Synapse as it is deployed."""
    return synapse_python() or programs.lacking(NO_SYNAPSE)


# Before other plugins select and distribute tests by their marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "python" in getattr(item, "fixturenames", ()):
            item.add_marker("synapse")
            if not synapse_python() and os.environ.get("MATRIX_TEST_STRICT") != "1":
                item.add_marker(pytest.mark.skip(NO_SYNAPSE))
        # What shares servers goes to one worker; a module with a server for each parameter can go to several.
        if not any(item.iter_markers("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


# How long an example takes says something about the machine, and nothing about the collection.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

asked_outside: list[str] = []
names.keep_inside(asked_outside.append)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    asked_outside.clear()
    result = yield
    assert not asked_outside, f"asked outside for {asked_outside}"
    return result
