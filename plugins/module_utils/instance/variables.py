# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an inventory declares, against the argument specs of the roles.

An argument spec only refuses: C(no) from an INI inventory and C(-e x=false) pass as a bool, and stay text, which is
true. Here every value is converted by the type of its option, or refused, all in one go.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# What the filter `bool` takes, so that both ways to convert agree.
TRUE = ("yes", "on", "true", "1")
FALSE = ("no", "off", "false", "0")
# Types that every reader converts itself (`| bool`), for values of the command line: nothing else can replace these.
CONVERTED_WHERE_READ = ("bool", "int", "float")
# What names of variables begin with, longer ones before what they begin with themselves.
PREFIXES = (
    "element_web_",
    "element_",
    "encryption_gate_",
    "federation_",
    "machine_",
    "matrix_",
    "postgresql_",
    "reverse_proxy_",
    "rooms_",
    "synapse_",
)
SPELLED = {"str": "text", "path": "a path", "bool": "true or false", "int": "a whole number", "float": "a number"}


def read_options(roles: Path) -> dict[str, dict[str, Any]]:
    """The options of all roles by their names, whatever the entry point."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        specs = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)["argument_specs"]  # noqa: S506
        for entry, spec in specs.items():
            for name, option in (spec.get("options") or {}).items():
                # What an entry point requires is that entry point's business; `main` is what every instance needs.
                found.setdefault(name, option if entry == "main" else {**option, "required": False})
    return found


@dataclass
class Checked:
    """What is wrong, each with its variable and what to do; the values that had to be converted; whose are refused."""

    problems: list[str] = field(default_factory=list)
    converted: dict[str, Any] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)


def check(
    values: Mapping[str, Any],
    options: Mapping[str, Mapping[str, Any]],
    *,
    names: Collection[str] = (),
    own: Collection[str] = (),
    command_line: Collection[str] = (),
    required: Iterable[str] = (),
) -> Checked:
    """Check and convert what is declared.

    Args:
        values: the values of options, by their names.
        options: the options of all roles.
        names: all names that the inventory declares, also those that are no options.
        own: those that look like a typing error and are none.
        command_line: those that come from C(-e): they win over everything, so that nothing can replace them.
        required: what has to be among the names.

    >>> spec = {"a": {"type": "bool"}, "b": {"type": "int"}}
    >>> check({"a": "no", "b": "five"}, spec)
    Checked(problems=['b: "five" is no whole number: write one'], converted={'a': False}, wrong={'b'})
    """
    checked = Checked()
    misspelt = dict(misspellings(set(names) - set(own), options))
    checked.problems += [
        f"{name}: no role of cae.matrix has such a variable: write {meant}; if it is a variable of your own, list it "
        "in matrix_own_variables"
        for name, meant in misspelt.items()
    ]
    checked.problems += [
        f"{name}: is missing: set it for this host"
        for name in required
        if name not in names and name not in misspelt.values()
    ]
    for name, value in values.items():
        option = options[name]
        walk = _Walk(name in command_line)
        converted = walk.value(name, value, option)
        checked.problems += walk.problems
        if walk.problems:
            checked.wrong.add(name)
        read_converted = name in command_line and option["type"] in CONVERTED_WHERE_READ
        if converted is not value and not walk.problems and not read_converted:
            checked.converted[name] = converted
    return checked


class _Walk:
    """One option's value, with all that is in it. What needs no conversion is returned as it was, not copied."""

    def __init__(self, command_line: bool) -> None:
        self.problems: list[str] = []
        self.command_line = command_line

    def refuse(self, where: str, what: str) -> None:
        self.problems.append(f"{where}: {what}")

    def value(self, where: str, value: Any, option: Mapping[str, Any]) -> Any:
        kind = option.get("type", "str")
        if value is None:
            empty = ', "" for none' if option.get("default") == "" else ""
            self.refuse(where, f"has no value: write one{empty}, or delete the line")
            return value
        if kind == "list":
            return self.items(where, value, option)
        if kind == "dict":
            return self.members(where, value, option)
        if kind not in SPELLED:
            return value
        converted = _scalar(kind, value)
        if converted is None:
            self.refuse(where, _scalar_problem(kind, value, option))
            return value
        if self.command_line and converted is not value and (kind not in CONVERTED_WHERE_READ or _nested(where)):
            form = "put it in quotes" if kind in ("str", "path") else f"write {SPELLED[kind]}, without quotes"
            self.refuse(where, f"comes from the command line as {_what(value)}: {form}")
        choices = option.get("choices")
        if choices and converted not in choices:
            self.refuse(where, f'"{converted}" is unknown: write one of {", ".join(map(str, choices))}')
        return converted

    def items(self, where: str, value: Any, option: Mapping[str, Any]) -> Any:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection):
            self.refuse(where, f"is {_what(value)}, a list is needed: {_how(where, '[…]')}")
            return value
        element = {key: option[key] for key in ("options", "choices") if key in option}
        element["type"] = option.get("elements", "raw")
        converted = [self.value(f"{where}[{index}]", item, element) for index, item in enumerate(value)]
        return value if all(new is old for new, old in zip(converted, value, strict=True)) else converted

    def members(self, where: str, value: Any, option: Mapping[str, Any]) -> Any:
        if not isinstance(value, Mapping):
            self.refuse(where, f"is {_what(value)}, a dict is needed: {_how(where, '{…}')}")
            return value
        options = option.get("options")
        if not options:
            return value
        for name in value:
            if name not in options:
                meant = nearest(str(name), options)
                fix = f"write {meant}" if meant else f"known are {', '.join(options)}"
                self.refuse(f"{where}.{name}", f"is unknown: {fix}")
        for name, one in options.items():
            if one.get("required") and name not in value and not any(nearest(str(key), [name]) for key in value):
                self.refuse(f"{where}.{name}", "is missing: add it")
        converted = {
            name: self.value(f"{where}.{name}", item, options[name]) if name in options else item
            for name, item in value.items()
        }
        return value if all(converted[name] is item for name, item in value.items()) else converted


def _nested(where: str) -> bool:
    return "." in where or "[" in where


def _scalar(kind: str, value: Any) -> Any:
    """The value as this kind; itself where it is one already, None where it is none."""
    text = str(value).strip() if isinstance(value, (str, int)) else ""
    if kind == "bool":
        if isinstance(value, bool):
            return value
        return True if text.lower() in TRUE else False if text.lower() in FALSE else None
    if kind == "int":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        return int(text) if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", text) else None
    if kind == "float":
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        return float(text) if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+([.][0-9]*)?", text) else None
    # YAML has made something else of text that was not quoted: a fraction may have lost digits, NO has become false.
    if isinstance(value, str):
        return value
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _scalar_problem(kind: str, value: Any, option: Mapping[str, Any]) -> str:
    if kind in ("str", "path"):
        if isinstance(value, (bool, float)):
            return f"is read as {_what(value)}: put it in quotes"
        return f"is {_what(value)}, {SPELLED[kind]} is needed"
    shown = f'"{value}"' if isinstance(value, (str, int, float)) else _what(value)
    if kind == "bool":
        return f"{shown} is neither true nor false: write one of them"
    example = f", such as {option['default']}" if "default" in option else ""
    return f"{shown} is no {'whole number' if kind == 'int' else 'number'}: write one{example}"


def _what(value: Any) -> str:
    """What a value is, without showing it: it may be secret."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "a dict"
    return "a list" if isinstance(value, Collection) else f"a {type(value).__name__}"


def _how(where: str, shape: str) -> str:
    if _nested(where):
        return f"write {shape}"
    return f"write it as YAML, or -e '{{\"{where}\": {shape}}}' on the command line"


def shape_problems(given: Mapping[str, Any], base: Mapping[str, Any], where: str) -> list[str]:
    """What is merged over a dict or a list of ours and is none, each with its place and the mend.

    >>> shape_problems({"database": "x", "report_stats": True}, {"database": {}, "report_stats": False}, "extra")
    ['extra.database: is text, a dict is needed: write {…}']
    """
    found: list[str] = []
    for key, value in given.items():
        ours, place = base.get(key), f"{where}.{key}"
        if isinstance(ours, Mapping) and isinstance(value, Mapping):
            found += shape_problems(value, ours, place)
        elif isinstance(ours, Mapping) or (_is_list(ours) and not _is_list(value)):
            shape, written = ("a dict", "{…}") if isinstance(ours, Mapping) else ("a list", "[…]")
            if value is None:
                found.append(f"{place}: has no value: write {written}, or delete the line")
            else:
                found.append(f"{place}: is {_what(value)}, {shape} is needed: write {written}")
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping))


# --- names that look like a typing error ---------------------------------------------------------------------------


def misspellings(names: Iterable[str], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names that are no option and look like one, each with the option that is meant."""
    for name in sorted(names):
        if name in options or name.startswith("_"):
            continue
        if meant := nearest(name, options) or of_another_role(name, options):
            yield name, meant


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option at most two typing errors away (one, if the name is short), or with the same words in another order.

    >>> nearest("synapse_presnce_enabeld", ["synapse_presence_enabled"])
    'synapse_presence_enabled'
    """
    allowed = 2 if len(name) > 11 else 1
    near = [
        (slips, option)
        for option in options
        if abs(len(option) - len(name)) <= allowed and (slips := _slips(name.lower(), option, allowed)) <= allowed
    ]
    return min(near)[1] if near else None


def of_another_role(name: str, options: Iterable[str]) -> str | None:
    """The option that is called so but for the role in front, and has two words at least after that.

    >>> of_another_role("synapse_max_upload_size", ["matrix_max_upload_size"])
    'matrix_max_upload_size'
    """
    rests = [name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)]
    rests = [rest for rest in rests if "_" in rest]
    others = {prefix + rest for rest in rests for prefix in ("", *PREFIXES)}
    return min(others.intersection(options), default=None)


def _slips(one: str, other: str, allowed: int) -> int:
    """How many typing errors lie between two names: letters changed, added, left out, or two neighbours swapped."""
    letters = Counter(one)
    letters.subtract(other)
    if sum(map(abs, letters.values())) > 2 * allowed:
        return allowed + 1
    if sorted(one.split("_")) == sorted(other.split("_")):
        return min(allowed, 1)
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            slips = min(row[j - 1] + 1, before[j] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                slips = min(slips, last[j - 2] + 1)
            row.append(slips)
    return row[-1]
