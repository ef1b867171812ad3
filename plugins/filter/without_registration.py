# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Leave out of Synapse's configuration what the gate alone decides."""

from __future__ import annotations

DOCUMENTATION = r"""
name: without_registration
short_description: Leave out of Synapse's configuration what the gate alone decides
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Returns what belongs in C(homeserver.yaml), which is the configuration as declared, less the keys that decide
    whether and how accounts come to be (registration, guests, single sign-on, modules and password providers).
  - The gate writes those keys into C(registration.yaml), which Synapse reads afterwards, so that they stay closed
    until the running server is proven to be opt-in.
positional: _input
options:
  _input:
    description: Synapse's configuration as declared.
    type: dict
    required: true
seealso:
  - plugin: cae.matrix.encryption_opt_in
    plugin_type: filter
    description: What is refused before anything is deployed.
"""

EXAMPLES = r"""
- name: What homeserver.yaml holds
  ansible.builtin.set_fact:
    homeserver: "{{ declared | cae.matrix.without_registration }}"
  vars:
    declared:
      server_name: coop.example
      enable_registration: false
      oidc_providers: []
  # => {"server_name": "coop.example"}
"""

RETURN = r"""
_value:
  description: The configuration, without the keys that only the gate writes.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import TooDeep, without_doors


def without_registration(synapse_document: Any) -> dict[str, Any]:
    """Return the configuration without the keys that only the gate writes."""
    if not isinstance(synapse_document, Mapping):
        raise AnsibleFilterError("cae.matrix.without_registration takes Synapse's configuration as a dict.")
    try:
        return without_doors(synapse_document)
    except TooDeep as error:
        raise AnsibleFilterError(f"cae.matrix.without_registration: {error}") from None


class FilterModule:
    """Filters of cae.matrix."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filter."""
        return {"without_registration": without_registration}
