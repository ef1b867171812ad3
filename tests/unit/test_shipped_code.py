# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs on a machine without Ansible, Synapse's modules and the hub's timer, has all that it imports beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "plugins/module_utils"
PACKAGE = "ansible_collections.cae.matrix.plugins.module_utils"


def listed(role: str, variable: str) -> list[str]:
    found: list[str] = yaml.safe_load((ROOT / "roles" / role / "vars/main.yml").read_text("utf-8"))[variable]
    return found


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{PACKAGE}."):
            place = node.module.removeprefix(f"{PACKAGE}.").replace(".", "/")
            if (UTILS / place).is_dir():
                yield from (f"{place}/{name.name}.py" for name in node.names)
            else:
                yield f"{place}.py"


@pytest.mark.parametrize(
    ("role", "variable", "own"),
    [("federation", "_federation_code", ""), ("synapse", "_synapse_shared_names", "files/*/*/*.py")],
)
def test_nothing_is_missing_and_nothing_is_there_for_nobody(role: str, variable: str, own: str) -> None:
    shipped = set(listed(role, variable))
    # The hub's timer runs with the Python of the instance, which has what Synapse's modules share.
    there = shipped | set(listed("synapse", "_synapse_shared_names"))
    files = [UTILS / name for name in there] + (sorted((ROOT / "roles" / role).glob(own)) if own else [])
    needed = {name for path in files for name in imported(path)}
    assert needed <= there, f"{variable} of role {role} lacks {sorted(needed - there)}"
    # What is started by itself is imported by nobody.
    assert shipped - needed <= {"federation/state.py"}
