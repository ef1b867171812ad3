# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The instances that an inventory puts on a machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: machine_instances
short_description: The instances that an inventory puts on a machine
version_added: 0.1.0
author: cae.matrix contributors
description:
  - The slugs of all hosts that are reached in the same way (address, port, jump host), without those with
    C(matrix_state=absent).
options:
  _input:
    description: Ansible's C(hostvars). Hosts without C(matrix_domain) are passed over.
    type: dict
    required: true
  hosts:
    description: The inventory hosts to look at.
    type: list
    elements: str
    required: true
  this:
    description: An inventory host on the machine.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show who shares the machine
  ansible.builtin.debug:
    msg: "{{ hostvars | cae.matrix.machine_instances(groups['all'], inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The slugs.
  type: list
  elements: str
  sample: [atelier, nord]
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.instance.names import machine_of, slug


def machine_instances(hostvars: Mapping[str, Any], hosts: Iterable[str], this: str) -> list[str]:
    found = set()
    machine = machine_of(this, hostvars[this])
    for host in hosts:
        variables = hostvars[host]
        if "matrix_domain" not in variables or machine_of(host, variables) != machine:
            continue
        if variables.get("matrix_state", "present") != "absent":
            found.add(str(variables.get("matrix_instance", slug(host))))
    return sorted(found)


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"machine_instances": machine_instances}
