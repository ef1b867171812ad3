# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the encryption gate needs to know of the declared documents."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gate_plan
short_description: What the encryption gate needs to know of the declared documents
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Takes the documents that P(cae.matrix.encryption_opt_in#filter) has let pass, and returns what
    M(cae.matrix.encryption_gate) is given, so that the target sees no more of them than it needs.
positional: _input, registration
options:
  _input:
    description: The documents, as P(cae.matrix.encryption_opt_in#filter) returns them.
    type: dict
    required: true
  registration:
    description: How people may register once the gate has passed.
    type: str
    choices: [closed, token]
    required: true
seealso:
  - plugin: cae.matrix.encryption_opt_in
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show what closes registration when it changes
  ansible.builtin.debug:
    msg: "{{ (encryption_gate_documents | cae.matrix.gate_plan('closed')).digest }}"
"""

RETURN = r"""
_value:
  description:
    - C(digest), of what matters to encryption in the documents, and C(synapse_digest), of Synapse's part of it.
    - C(configuration), Synapse's own document in JSON, for the rehearsal.
    - C(declared), what the public names have to serve.
    - C(database) and C(database_password), how the database is reached.
    - C(closed_until_proven) and C(proven), the texts of C(registration.yaml).
    - C(prove_again), whether code of others is held back until the proof, which then cannot have seen what it does.
    - C(collection_version), for the attestation.
  type: dict
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import what_matters
from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import digest, synapse_digest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import (
    CODE,
    TooDeep,
    plain,
    registration_document,
)
from ansible_collections.cae.matrix.plugins.plugin_utils.version import collection_version

_POOL = ("cp_min", "cp_max", "cp_reconnect", "cp_noisy", "cp_openfun", "cp_good_sql")
_HEADER = "# Written by cae.matrix.encryption_gate, the only one to decide how people register.\n"


def gate_plan(documents: Mapping[str, Any], registration: str) -> dict[str, Any]:
    """See DOCUMENTATION."""
    try:
        documents = plain(documents)
    except TooDeep as error:
        raise AnsibleFilterError(f"gate_plan: {error}") from None
    if not isinstance(documents, dict) or not documents.get("synapse"):
        raise AnsibleFilterError("gate_plan: documents with Synapse's own are needed (encryption_gate_documents)")
    if registration not in ("closed", "token"):
        raise AnsibleFilterError(f"encryption_gate_registration: {registration!r} is neither closed nor token")
    synapse = documents["synapse"]
    database = synapse.get("database", {}).get("args", {})
    before, after = (registration_document(synapse, mode) for mode in ("closed-until-proven", registration))
    return {
        "digest": digest(documents),
        "synapse_digest": synapse_digest(synapse),
        "declared": what_matters(documents),
        "configuration": json.dumps(synapse),
        "database": {key: value for key, value in database.items() if key not in (*_POOL, "password")},
        "database_password": database.get("password"),
        "closed_until_proven": _text(before),
        "proven": _text(after),
        "prove_again": any(before.get(key) != after.get(key) for key in CODE),
        "collection_version": collection_version(),
    }


def _text(document: Mapping[str, Any]) -> str:
    body: str = yaml.safe_dump(dict(document), sort_keys=True, allow_unicode=True, default_flow_style=False)
    return _HEADER + body


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"gate_plan": gate_plan}
