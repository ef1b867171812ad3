# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What several of the unit tests ask for."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter that has Synapse as it is deployed."""
    path = os.environ.get("SYNAPSE_PYTHON", "")
    assert path, "set SYNAPSE_PYTHON to the Python of a venv made from roles/synapse/files/requirements-*.txt"
    return path
