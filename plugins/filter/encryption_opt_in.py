# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Refuse documents under which encryption would not be opt-in."""

from __future__ import annotations

DOCUMENTATION = r"""
name: encryption_opt_in
short_description: Refuse documents under which encryption would not be opt-in
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Reads what would be deployed (Synapse's configuration, the domain's C(.well-known) documents, Element's
    C(config.json)) and returns it normalised, or fails with every contradiction in one message. Each contradiction
    names the inventory's variable to change and how.
  - Opt-in means that no room is encrypted unless somebody asks for it, and that nobody is kept from asking.
  - Refuses a Synapse that encrypts new rooms, or that would not start; C(io.element.e2ee) that is missing, whose
    C(default) is not the boolean V(false), that has C(force_disable) or C(secure_backup_required) on, or that stands
    under the deprecated key; default power levels that keep people from turning encryption on, from writing in an
    encrypted room or from making rooms at all; settings of Element that demand verification, do not read
    C(.well-known) or start without encryption; documents that name different domains or homeservers; and every way
    to an account that goes past the gate.
  - Single sign-on and modules are allowed as declared; the gate holds them back until the running server is proven.
  - Needs no connection and changes nothing.
positional: _input
options:
  _input:
    description:
      - The documents. V(null) or a missing key means that the document is not managed here, and it is not judged.
    type: dict
    required: true
    suboptions:
      synapse:
        description: Synapse's configuration as declared, sign-on providers and modules included.
        type: dict
      well_known:
        description: The documents C(client), C(server) and C(support) of the domain; the last two may be missing.
        type: dict
      element:
        description: Element's C(config.json).
        type: dict
seealso:
  - plugin: cae.matrix.without_registration
    plugin_type: filter
    description: What of Synapse's configuration is put in C(homeserver.yaml).
"""

EXAMPLES = r"""
- name: Stop before anything is touched if encryption would not be opt-in
  ansible.builtin.set_fact:
    encryption_gate_documents: "{{ documents | cae.matrix.encryption_opt_in }}"
  vars:
    documents:
      synapse:
        server_name: coop.example
        public_baseurl: https://matrix.coop.example/
      well_known:
        client:
          m.homeserver:
            base_url: https://matrix.coop.example/
          io.element.e2ee:
            default: false
        server:
          m.server: matrix.coop.example:443
      element: null
  # => {"synapse": {…, "encryption_enabled_by_default_for_room_type": "off"}, "well_known": {…}, "element": null}

- name: A role used alone passes its own document
  ansible.builtin.set_fact:
    synapse_document: "{{ ({'synapse': synapse_document} | cae.matrix.encryption_opt_in).synapse }}"
"""

RETURN = r"""
_value:
  description:
    - The three documents as plain data, V(null) for what is not managed here.
    - Synapse's C(encryption_enabled_by_default_for_room_type) is always there, as the text V(off).
  type: dict
  contains:
    synapse:
      description: Synapse's configuration.
      type: dict
    well_known:
      description: The C(.well-known) documents.
      type: dict
    element:
      description: Element's C(config.json).
      type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import Contradictions, normalise


def encryption_opt_in(documents: Any) -> dict[str, Any]:
    """Return the documents normalised, or fail with every contradiction."""
    try:
        return normalise(documents)
    except Contradictions as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of cae.matrix."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filter."""
        return {"encryption_opt_in": encryption_opt_in}
