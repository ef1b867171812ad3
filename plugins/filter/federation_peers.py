# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which servers an instance should ask whether they let it in."""

from __future__ import annotations

DOCUMENTATION = r"""
name: federation_peers
short_description: Which other servers an instance should reach, and which not
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Gives the O(cae.matrix.federation_check#module:peers), the other servers of the inventories, the members of the
    federation that are in none, and further names. Two servers may talk when the policy of neither refuses the other;
    of a member elsewhere the list tells its profile, and a stranger refuses nobody. C(playbooks/verify.yml) uses it.
positional: _input, policies, members, others
options:
  _input:
    description: The domain of the instance that asks.
    type: str
    required: true
  policies:
    description: The policy of each instance of the inventories (C(federation_policy)) by its domain.
    type: dict
    required: true
  members:
    description: The list of members (C(federation_list)), empty without one.
    type: dict
    default: {}
  others:
    description: Names of further servers.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show whom the instance should reach
  ansible.builtin.debug:
    msg: "{{ matrix_domain | cae.matrix.federation_peers({matrix_domain: federation_policy}, federation_list) }}"
"""

RETURN = r"""
_value:
  description: For each server its C(domain), whether the two may talk (C(expected)), and C(why) not.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import plain
from ansible_collections.cae.matrix.plugins.module_utils.federation.reach import wanted
from ansible_collections.cae.matrix.plugins.module_utils.matrix.server_names import server_name_problem


def federation_peers(
    domain: str,
    policies: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, Any] | None = None,
    others: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    others = plain(others)
    if isinstance(others, str) or not isinstance(others, Sequence):
        raise AnsibleFilterError("verify_peers: a list of server names is needed, such as [example.coop]")
    for name in others:
        if problem := server_name_problem(name):
            raise AnsibleFilterError(f"verify_peers: {problem}")
    return wanted(plain(domain), plain(policies), plain(members) or {}, others)


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[dict[str, Any]]]]:
        return {"federation_peers": federation_peers}
