# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with the shared variables of an instance."""

from __future__ import annotations

DOCUMENTATION = r"""
name: instance_problems
short_description: What is wrong with the shared variables of an instance
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Checks the names of an instance (slug, domain, hostnames), its profile and the other variables of role C(matrix),
    and that no other host of the inventory claims the same slug or domain, or is served under the same name, on this
    machine.
  - Returns every problem, each naming the variable and the mend; an empty list if there is none.
options:
  _input:
    description: The values of the variables of role C(matrix) by their names, and C(host).
    type: dict
    required: true
  hostvars:
    description: Ansible's C(hostvars). Hosts without C(matrix_domain) are passed over.
    type: dict
    required: true
  hosts:
    description: The inventory hosts to compare with.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse an instance that cannot be
  vars:
    example_problems: >-
      {{ {'host': inventory_hostname,
          'matrix_domain': matrix_domain, 'matrix_instance': matrix_instance,
          'matrix_hostname': matrix_hostname, 'element_hostname': element_hostname}
         | cae.matrix.instance_problems(hostvars, groups['all']) }}
  ansible.builtin.assert:
    that: example_problems | length == 0
    fail_msg: "{{ example_problems }}"
"""

RETURN = r"""
_value:
  description: The problems.
  type: list
  elements: str
  sample: ['matrix_domain: "Example.coop" has capitals; Matrix identifiers compare byte by byte, write example.coop']
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.cae.matrix.plugins.module_utils.instance.names import (
    Neighbour,
    machine_of,
    problems,
    served,
    slug,
)


def _neighbours(hostvars: Mapping[str, Any], hosts: Iterable[str]) -> Iterator[Neighbour]:
    for host in hosts:
        variables = hostvars[host]
        if "matrix_domain" in variables:
            yield Neighbour(
                host=host,
                machine=machine_of(host, variables),
                instance=str(variables.get("matrix_instance", slug(host))),
                domain=str(variables["matrix_domain"]),
                names=_names(variables),
            )


def _names(variables: Mapping[str, Any]) -> tuple[str, ...]:
    """What another host is served under: variables that it does not set have the defaults of the roles."""
    if variables.get("matrix_state", "present") == "absent":
        return ()
    domain = str(variables["matrix_domain"])
    defaults = {"matrix_hostname": f"matrix.{domain}", "element_hostname": f"chat.{domain}"}
    wanted = ("matrix_hostname", "element_hostname", "matrix_element_enabled", "reverse_proxy_well_known")
    given = {name: variables[name] for name in wanted if name in variables}
    given["matrix_element_enabled"] = boolean(given.get("matrix_element_enabled", True), strict=False)
    return served({"matrix_domain": domain, **defaults, **given})


def instance_problems(this: Mapping[str, Any], hostvars: Mapping[str, Any], hosts: Iterable[str]) -> list[str]:
    host = str(this["host"])
    return problems({**this, "machine": machine_of(host, hostvars[host])}, _neighbours(hostvars, hosts))


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"instance_problems": instance_problems}
