# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Booleans and numbers are converted wherever they are read: nothing can replace what C(-e) says, which is text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.plugins.module_utils.instance.variables import CONVERTED_WHERE_READ, read_options
from jinja2 import Environment, nodes

# Jinja's own lexer, about a backslash in a regular expression.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = read_options(ROOT / "roles")
CONVERTED = {name: option["type"] for name, option in OPTIONS.items() if option["type"] in CONVERTED_WHERE_READ}
# Keywords whose values are expressions without braces.
EXPRESSIONS = ("when", "that", "until", "failed_when", "changed_when")
# Filters that pass a value on as it is.
TRANSPARENT = {"default", "d"}
FILES = sorted(
    path for path in [*ROOT.glob("roles/**/*.*"), *ROOT.glob("playbooks/**/*.*")] if path.suffix in (".yml", ".j2")
)


class Known(dict[str, Any]):
    """Ansible's filters and tests: only their names count here."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> Any:
        return lambda *_arguments, **_more: None

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]


def environment() -> Environment:
    made = Environment(autoescape=False)
    made.filters, made.tests = Known(made.filters), Known(made.tests)
    return made


JINJA = environment()


def expressions(content: Any, bare: bool = False) -> Iterator[str]:
    """The templates of a YAML file."""
    if isinstance(content, str):
        if bare and "{{" not in content:
            yield "{{ " + content + " }}"
        elif "{{" in content or "{%" in content:
            yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from expressions(key)
            yield from expressions(value, key in EXPRESSIONS)
    elif isinstance(content, list):
        for item in content:
            yield from expressions(item, bare)


def unconverted(template: str, known: dict[str, str] = CONVERTED) -> Iterator[str]:
    """The reads in a template that leave a value as it was given."""
    yield from _unconverted(JINJA.parse(template), None, known)


def _unconverted(node: nodes.Node, filtered: str | None, known: dict[str, str]) -> Iterator[str]:
    if isinstance(node, nodes.Name):
        if node.ctx == "load" and node.name in known and known[node.name] != filtered:
            yield node.name
        return
    if isinstance(node, nodes.Test) and node.name in ("defined", "undefined"):
        return
    if isinstance(node, nodes.Filter):
        name = node.name.rpartition(".")[2]
        first = node.args[0] if node.args else None
        if name in TRANSPARENT and isinstance(first, nodes.Name) and first.name == "omit":
            # What is passed on to a module, whose own spec converts it, or left out.
            return
        if node.node is not None:
            yield from _unconverted(node.node, filtered if name in TRANSPARENT else name, known)
        for child in [*node.args, *node.kwargs]:
            yield from _unconverted(child, None, known)
        return
    for child in node.iter_child_nodes():
        yield from _unconverted(child, None, known)


def templates(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".j2":
        yield text
    elif "meta" not in path.parts:
        yield from expressions(yaml.safe_load(text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_booleans_and_numbers_are_converted_where_they_are_read(path: Path) -> None:
    found = {name for template in templates(path) for name in unconverted(template)}
    assert not found, f"write {', '.join(f'{name} | {CONVERTED[name]}' for name in sorted(found))}"


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ a }}", ["a"]),
        ("{{ a | bool }}", []),
        ("{{ a | ansible.builtin.bool }}", []),
        ("{{ a | default(true) | bool }}", []),
        ("{{ a | default(true) }}", ["a"]),
        ("{{ a | default(omit) }}", []),
        ("{{ a | ternary(1, 2) }}", ["a"]),
        ("{{ a | bool | ternary(1, 2) }}", []),
        ("{{ not a }}", ["a"]),
        ("{{ b is defined and a | bool }}", []),
        ("{{ [b, 5] | max }}", ["b"]),
        ("{{ {'x': b | int} }}", []),
        ("{% if a %}{% endif %}", ["a"]),
        ("{{ x | default(b) }}", ["b"]),
        ("{{ 1 if b | bool else 2 }}", ["b"]),
    ],
)
def test_what_counts_as_converted(template: str, found: list[str]) -> None:
    assert list(unconverted(template, {"a": "bool", "b": "int"})) == found


def test_expressions_without_braces_are_read_too() -> None:
    assert list(expressions({"when": ["a", "b | bool"], "name": "a"})) == ["{{ a }}", "{{ b | bool }}"]
