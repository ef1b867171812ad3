# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an instance may be called, and who else is called so.

Pure functions, used by the filters C(instance_slug) and C(instance_problems).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.matrix.server_names import hostname_problem

SLUG = re.compile(r"[a-z][a-z0-9-]{0,19}")
SIZE = re.compile(r"[1-9][0-9]*[KMG]")
PROFILES = ("open", "federation", "internal")
STATES = ("present", "absent")
LANGUAGES = ("fr", "en")


@dataclass(frozen=True)
class Neighbour:
    """Another instance of the inventory: its host, machine, slug, domain, and all names it is served under."""

    host: str
    machine: str
    instance: str
    domain: str
    names: tuple[str, ...] = ()


def slug(inventory_hostname: str) -> str:
    """The slug an inventory host gets unless C(matrix_instance) says otherwise.

    >>> slug("Atelier_Nord.example.coop")
    'atelier-nord'
    """
    return str(inventory_hostname).split(".", 1)[0].lower().replace("_", "-")


def problems(this: Mapping[str, Any], neighbours: Iterable[Neighbour] = ()) -> list[str]:
    """Everything wrong with the shared variables of one instance, each naming the variable and the mend.

    Args:
        this: C(host), C(machine) and the values of the variables of role C(matrix), by their names.
        neighbours: the other instances of the inventory.

    >>> problems({"host": "a", "machine": "a", "matrix_instance": "9", "matrix_domain": "a.test",
    ...           "matrix_hostname": "matrix.a.test", "element_hostname": "chat.a.test"})
    ['matrix_instance: "9" is no slug; at most 20 of a-z, 0-9 and dashes, a letter first']
    """
    found: list[str] = []

    instance = this.get("matrix_instance")
    if not isinstance(instance, str) or not SLUG.fullmatch(instance):
        found.append(f'matrix_instance: "{instance}" is no slug; at most 20 of a-z, 0-9 and dashes, a letter first')

    domain = this.get("matrix_domain")
    names = {"matrix_hostname": this.get("matrix_hostname"), "element_hostname": this.get("element_hostname")}
    if text := hostname_problem("matrix_domain", domain):
        found.append(text)
        # Names derived from a bad domain are bad for the same reason: say it once.
        names_to_check = {name: value for name, value in names.items() if not str(value).endswith(f".{domain}")}
    else:
        names_to_check = names
    found += [text for name, value in names_to_check.items() if (text := hostname_problem(name, value))]
    if names["matrix_hostname"] == names["element_hostname"]:
        found.append(
            "element_hostname: the same name as matrix_hostname; give Element a name of its own, "
            "or what people upload could run in Element's pages"
        )

    state = this.get("matrix_state", "present")
    if state not in STATES:
        found.append(f'matrix_state: "{state}" is unknown; {" or ".join(STATES)}')

    profile = this.get("matrix_profile", "open")
    if profile not in PROFILES:
        found.append(f'matrix_profile: "{profile}" is unknown; one of {", ".join(PROFILES)}')

    language = this.get("matrix_language", "fr")
    if language not in LANGUAGES:
        found.append(f'matrix_language: "{language}" is unknown; one of {", ".join(LANGUAGES)}')

    size = this.get("matrix_max_upload_size", "50M")
    if not isinstance(size, str) or not SIZE.fullmatch(size):
        found.append(f'matrix_max_upload_size: "{size}" is no size; a whole number and K, M or G, such as 50M')

    people = this.get("matrix_people", 300)
    if not re.fullmatch(r"[1-9][0-9]{0,5}", str(people)):
        found.append(f'matrix_people: "{people}" is no number of people; a whole number from 1 to 999999, such as 300')

    found += _resolve_problems(this.get("matrix_resolve", {}))
    found += _clashes(this, neighbours)
    return found


def _resolve_problems(resolve: object) -> list[str]:
    if not isinstance(resolve, Mapping):
        return ["matrix_resolve: a dict of names and addresses is needed, such as {matrix.example.coop: 192.0.2.7}"]
    found = []
    for name, address in resolve.items():
        try:
            ipaddress.ip_address(str(address))
        except ValueError:
            found.append(f'matrix_resolve: "{address}", given for {name}, is no IP address')
    return found


def _clashes(this: Mapping[str, Any], neighbours: Iterable[Neighbour]) -> list[str]:
    found = []
    for other in neighbours:
        if other.host == this.get("host") or other.machine != this.get("machine"):
            continue
        if other.instance == this.get("matrix_instance"):
            found.append(
                f'matrix_instance: "{other.instance}" is also that of inventory host {other.host}, '
                f"on the same machine {other.machine}; give one of them another"
            )
        if other.domain == this.get("matrix_domain"):
            found.append(
                f'matrix_domain: "{other.domain}" is also that of inventory host {other.host}, '
                f"on the same machine {other.machine}; one domain has one server"
            )
            continue
        found += [
            f'{variable}: "{name}" is also served for inventory host {other.host}, on the same machine '
            f"{other.machine}; give one of them another name"
            for variable, name in _served(this)
            if name in other.names
        ]
    return found


def _served(this: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names that an instance is served under, each once, with the variable that says so."""
    variables = ["matrix_hostname"]
    variables += ["element_hostname"] if this.get("matrix_element_enabled", True) else []
    variables += ["matrix_domain"] if this.get("reverse_proxy_well_known", "here") == "here" else []
    seen: set[str] = set()
    for variable in variables:
        name = this.get(variable)
        if isinstance(name, str) and name not in seen:
            seen.add(name)
            yield variable, name


# Which machine a host of the inventory is: one address behind two jump hosts, or with two ports, is two machines.
_REACHED_BY = (
    "ansible_connection",
    "ansible_port",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_ssh_args",
)
_USUAL = ("", "22", "ssh")


def machine_of(host: str, variables: Mapping[str, Any]) -> str:
    """The address, and how it is reached where that is not as usual; the owner's marker has the last word."""
    ways = (str(variables.get(name, "")) for name in _REACHED_BY)
    return " ".join([str(variables.get("ansible_host", host)), *(way for way in ways if way not in _USUAL)])


def served(this: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that an instance is served under.

    >>> served({"matrix_domain": "a.test", "matrix_hostname": "matrix.a.test", "matrix_element_enabled": False})
    ('matrix.a.test', 'a.test')
    """
    return tuple(name for _, name in _served(this))
