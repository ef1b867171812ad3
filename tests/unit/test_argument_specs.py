# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every variable of every role is described, and nothing that is not one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted(path for path in (Path(__file__).parents[2] / "roles").iterdir() if (path / "meta").is_dir())
# Set by people, but its default depends on another variable where roles outside a dependency read it too.
WITHOUT_DEFAULT = {
    "machine": {"machine_postgresql_max_connections"},
    "matrix": {"element_hostname"},
    "synapse": {"synapse_trusted_key_servers"},
}


def load(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def specs(role: Path) -> dict[str, Any]:
    found: dict[str, Any] = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    return found


def variables(role: Path) -> dict[str, Any]:
    """Those of the role itself; role variables has none, and describes those of the playbooks."""
    found: dict[str, Any] = specs(role).get("main", {"options": {}})["options"]
    return found


def defaults(role: Path) -> dict[str, Any]:
    path = role / "defaults" / "main.yml"
    return load(path) if path.exists() else {}


def described(name: str, options: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, option in options.items():
        yield f"{name}.{key}", option
        yield from described(f"{name}.{key}", option.get("options", {}))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
class TestRole:
    def test_keys_are_those_of_the_defaults_and_the_required_ones(self, role: Path) -> None:
        options = variables(role)
        required = {key for key, option in options.items() if option.get("required")}
        assert not required & set(defaults(role)), "required, and yet with a default"
        assert set(options) == set(defaults(role)) | required | WITHOUT_DEFAULT.get(role.name, set())

    def test_plain_defaults_are_the_same_in_both(self, role: Path) -> None:
        options = variables(role)
        for key, value in defaults(role).items():
            if "{{" in str(value):
                assert "default" not in options[key], f"{key}: a computed default belongs in the description"
            elif "default" in options[key]:
                assert options[key]["default"] == value, key

    def test_everything_is_described_with_a_type(self, role: Path) -> None:
        for entry, spec in specs(role).items():
            assert spec.get("short_description"), entry
            for name, option in described(entry, spec.get("options", {})):
                assert option.get("description"), name
                assert option.get("type"), name
                assert option["type"] != "list" or option.get("elements"), name

    def test_there_is_a_page_to_read(self, role: Path) -> None:
        assert (role / "README.md").read_text(encoding="utf-8").startswith("# ")
