# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whom a server federates with."""

from __future__ import annotations

DOCUMENTATION = r"""
name: federation_policy
short_description: Whom a server federates with
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Makes one policy of C(matrix_profile), the list of members and the inventory's own exceptions, or refuses what
    contradicts itself, every contradiction in one message with the variable and the mend.
positional: _input, members, domain
options:
  _input:
    description: The profile, C(open), C(federation) or C(internal).
    type: str
    required: true
  members:
    description: The list of members, as C(federation_list) holds it; empty without one.
    type: dict
    required: true
  domain:
    description: The server's own domain.
    type: str
    required: true
  hub:
    description: The hub's domain as the inventory knows it. It has to be that of the list.
    type: str
    default: ""
  denied:
    description: With C(open), servers that are refused in both directions, C(*) and C(?) as in Synapse's globs.
    type: list
    elements: str
    default: []
  allowed:
    description: With C(federation), servers that are no members and are allowed all the same.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show whom atelier.example talks to
  ansible.builtin.debug:
    msg: "{{ ('open' | cae.matrix.federation_policy({}, 'atelier.example', denied=['*.bad.example'])).denied }}"
"""

RETURN = r"""
_value:
  description:
    - C(profile) and C(federates), whether the server federates at all.
    - C(allowed), the only servers it talks to; null, everybody who is not denied.
    - C(denied), globs of servers that are refused.
    - C(key_servers), whom it asks for keys of others.
    - C(hub), the hub's domain or an empty string.
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import plain
from ansible_collections.cae.matrix.plugins.module_utils.federation.policy import Contradictions, policy


def federation_policy(
    profile: str,
    members: Mapping[str, Any] | None,
    domain: str,
    hub: str = "",
    denied: Sequence[str] = (),
    allowed: Sequence[str] = (),
) -> dict[str, Any]:
    """See DOCUMENTATION."""
    try:
        return policy(plain(profile), plain(members), plain(domain), plain(hub), plain(denied), plain(allowed))
    except Contradictions as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"federation_policy": federation_policy}
