# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The house has floors: each package of module_utils imports from those below it, and nothing imports in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[2] / "plugins/module_utils"
PACKAGE = "ansible_collections.cae.matrix.plugins.module_utils"
# From the ground up.
FLOORS = ("matrix", "outside", "host", "synapse", "instance", "encryption", "federation", "rooms")


def imported(text: str) -> Iterator[str]:
    """The modules of the house that a module imports, each as floor.module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name.removeprefix(f"{PACKAGE}.") for name in node.names if PACKAGE in name.name)
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith(PACKAGE)):
            # A relative import would hide where it leads.
            place = "" if node.level else (node.module or "").removeprefix(PACKAGE).lstrip(".")
            if place.count(".") == 1:
                yield place
            else:
                yield from (f"{place}.{name.name}" for name in node.names)


def upward(floor: str, text: str) -> list[str]:
    """What a module of this floor may not import."""
    allowed = FLOORS[: FLOORS.index(floor) + 1]
    return [found for found in imported(text) if found.partition(".")[0] not in allowed]


HOUSE = {f"{path.parent.name}.{path.stem}": path for path in sorted(UTILS.glob("*/*.py")) if path.stem != "__init__"}


def test_every_module_stands_on_a_floor() -> None:
    assert {path.name for path in UTILS.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(FLOORS)
    assert [path for path in UTILS.glob("*.py") if path.stem != "__init__"] == []
    assert [path for path in UTILS.glob("*/*/*.py")] == []


@pytest.mark.parametrize("name", HOUSE)
def test_nothing_is_imported_from_above(name: str) -> None:
    assert upward(name.partition(".")[0], HOUSE[name].read_text("utf-8")) == []


def test_nothing_is_imported_in_a_circle() -> None:
    graph = {name: set(imported(path.read_text("utf-8"))) for name, path in HOUSE.items()}
    assert set().union(*graph.values()) <= set(HOUSE)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {error.args[1]}")


def test_an_import_from_above_is_seen() -> None:
    for line in (
        f"from {PACKAGE}.encryption import gate",
        f"from {PACKAGE}.encryption.gate import readable",
        f"import {PACKAGE}.encryption.gate",
        "from ..encryption import gate",
    ):
        assert upward("host", line), line
        assert not upward("federation", line) or ".." in line
