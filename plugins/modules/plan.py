# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plan what is declared for a host; the action plugin of the same name does it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Plan what is declared for a host
version_added: 0.1.0
description:
  - Compares all variables of a host with the argument specs of all roles of this collection, and fails with one message
    that lists every value that does not have the type of its option, and every name that looks like a misspelt option.
  - For a whole instance, that message also lists what each role finds wrong with its own variables, what is wrong with
    the list of members, and what in the documents would contradict encryption opt-in.
  - Returns what follows, to be kept as facts, such as the values that say the same in another form (C(no) from an INI
    inventory). What comes from C(-e) wins over everything and cannot be replaced; roles convert booleans and numbers
    where they read them.
  - Runs on the controller and does not connect to the host.
author:
  - cae.matrix contributors
options:
  required:
    description: Variables that have to be there.
    type: list
    elements: str
    default: []
  whole:
    description: Whether all roles take part, as in the playbooks that bring up an instance.
    type: bool
    default: false
  documents:
    description:
      - The roles whose documents are composed, any of C(synapse), C(reverse_proxy), C(element_web). With it, the fact
        C(cae_matrix_machine) counts, and a list of members has to be known (C(federation_list)).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Refuse every mistake in what is declared
  cae.matrix.plan:
    required: [matrix_domain]
    whole: true
  register: example_plan
"""

RETURN = r"""
facts:
  description:
    - What is to be kept. With O(documents), C(<role>_document) for each of these roles, C(federation_policy) and
      C(postgresql_connection) among it.
  returned: success
  type: dict
  sample: {synapse_presence_enabled: false}
"""
