# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run says at its end: about ten lines for the person who started it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_TEXT: dict[str, Any] = {"type": "str", "required": True}
# Of the module, whose action wants them with their defaults as well.
ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(("instance", "name", "domain", "homeserver_url"), _TEXT),
    "element_url": {"type": "str"},
    "profile": {"type": "str", "choices": ["open", "federation", "internal"], "default": "open"},
    "registration": {"type": "str", "choices": ["closed", "token"], "default": "closed"},
    "administrators": {"type": "list", "elements": "str", "default": []},
    "config_dir": {"type": "path", "required": True},
    "run": {"type": "str"},
    "digest": {"type": "str"},
    "changed": {"type": "int"},
    "collection_version": {"type": "str"},
    "log_dir": {"type": "path", "default": "/var/log/matrix"},
}
# Where the action `documents` keeps what each role has changed: {role: [path, …]}.
CHANGED_FACT = "cae_matrix_changed"
# In the order of a run. What a task of theirs has changed is registered as __<role>_<what>.
ROLES = ("machine", "postgresql", "synapse", "element_web", "reverse_proxy", "encryption_gate", "federation", "rooms")
_SHOWN = 4
_TALKS_TO = {
    "open": "every Matrix server",
    "federation": "the members of the federation",
    "internal": "nobody outside",
}
_REGISTERS = {"token": "whoever has a registration token", "closed": "nobody; the ops team makes the accounts"}
_WIDTH = 16


def changes(variables: Mapping[str, Any], paths: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """What each role has changed: paths by its documents, words by what its other tasks have registered.

    >>> changes({"__synapse_service": {"changed": True}, "__machine_user": {"changed": False}}, {})
    {'synapse': ['service']}
    """
    found: dict[str, list[str]] = {}
    for role in ROLES:
        prefix = f"__{role}_"
        words = [
            name.removeprefix(prefix).replace("_", " ")
            for name, value in variables.items()
            if name.startswith(prefix) and _has_changed(value)
        ]
        if said := sorted(words) + list(dict.fromkeys(paths.get(role, ()))):
            found[role] = said
    return found


def _has_changed(value: object) -> bool:
    # Of documents, the paths are known.
    return isinstance(value, Mapping) and value.get("changed") is True and "changed_paths" not in value


def count(changed: Mapping[str, Sequence[str]]) -> int:
    return sum(map(len, changed.values()))


def _in_short(said: Sequence[str]) -> str:
    """Words, and the names of the first files.

    >>> _in_short(["service", "/etc/a/x.yaml", "/etc/a/y.yaml", "/b", "/c", "/d"])
    'service, x.yaml, y.yaml, b and 2 more'
    """
    shown = [os.path.basename(one) for one in said[:_SHOWN]]
    more = len(said) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def lines(about: Mapping[str, Any], changed: Mapping[str, Sequence[str]], found: Mapping[str, Any]) -> list[str]:
    """The report of one instance.

    Args:
        about: the options of the module run_report, as the inventory declares the instance.
        changed: by role, as C(changes) says it.
        found: what the module has seen on the machine, and C(check_mode).
    """
    would = found["check_mode"]
    rows: list[tuple[str, Iterable[str]]] = [
        ("Element", [about.get("element_url") or "none (matrix_element_enabled: false)"]),
        ("homeserver", [about["homeserver_url"]]),
        ("versions", [", ".join(_versions(about, found))]),
        ("talks to", [f"{_TALKS_TO[about['profile']]} (matrix_profile: {about['profile']})"]),
        (
            "registers",
            [f"{_REGISTERS[about['registration']]} (encryption_gate_registration: {about['registration']})"],
        ),
        ("administers", list(_administrators(about, found)) or ["nobody yet (encryption_gate_administrators)"]),
        (
            "would change" if would else "changed",
            [f"{role}: {_in_short(said)}" for role, said in changed.items()] or ["nothing"],
        ),
        ("next", _next(about, would)),
    ]
    if found.get("log"):
        rows.insert(-1, ("log", [found["log"]]))
    head = f"{about['name']} ({about['domain']}), instance {about['instance']}"
    told = [f"{head}: as it would be, nothing was changed" if would else head]
    for label, texts in rows:
        for number, text in enumerate(texts):
            told.append(f"  {'' if number else label:<{_WIDTH}}{text}")
    return told


def _versions(about: Mapping[str, Any], found: Mapping[str, Any]) -> Iterable[str]:
    names = {"synapse": "Synapse", "element_web": "Element Web"}
    for key, name in names.items():
        if version := found.get("versions", {}).get(key):
            yield f"{name} {version}"
        elif key == "synapse" or about.get("element_url"):
            yield f"{name} (not there yet)"
    yield f"cae.matrix {about['collection_version']}"


def _administrators(about: Mapping[str, Any], found: Mapping[str, Any]) -> Iterable[str]:
    for localpart in about["administrators"]:
        file = found.get("password_files", {}).get(localpart)
        yield f"@{localpart}:{about['domain']}" + (f", password in {file}" if file else "")


def _next(about: Mapping[str, Any], would: bool) -> list[str]:
    if would:
        return ["the same without --check"]
    told = ["cae.matrix.verify looks from outside"]
    if about["registration"] == "token" and about.get("element_url"):
        told.append("cae.matrix.registration_token -e registration_token_action=create makes an invitation code;")
        told.append(f"people register with it at {about['element_url']}")
    return told
