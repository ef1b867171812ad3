# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check what is declared for a host; the action plugin of the same name does it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: variables
short_description: Check what is declared for a host
version_added: 0.1.0
description:
  - Compares all variables of a host with the argument specs of all roles of this collection, and fails with one message
    that lists every value that does not have the type of its option, and every name that looks like a misspelt option.
  - Returns, converted, the values that say the same in another form, such as C(no) from an INI inventory.
    What comes from C(-e) wins over everything and cannot be replaced; roles convert booleans and numbers where they
    read them.
  - Runs on the controller and does not connect to the host.
author:
  - cae.matrix contributors
options:
  required:
    description: Variables that have to be there.
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
- name: Check the variables against the argument specs of all roles
  cae.matrix.plan:
    required: [matrix_domain]
  register: example_variables
"""

RETURN = r"""
converted:
  description: The values that had to be converted, by the names of their variables.
  returned: success
  type: dict
  sample: {synapse_presence_enabled: false}
"""
