# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is added to a document and would break its shape."""

from __future__ import annotations

DOCUMENTATION = r"""
name: shape_problems
short_description: What is added to a document and would break its shape
version_added: 0.1.0
author: cae.matrix contributors
description:
  - An inventory's C(…_extra_config) is merged over a document of ours, dict by dict. Text in the place of a dict or a
    list would go unnoticed until a program fails of it.
  - Returns every such place with the mend, never a value, which may be secret; an empty list if there is none.
options:
  _input:
    description: What is added.
    type: dict
    required: true
  base:
    description: The document that it is merged over.
    type: dict
    required: true
  variable:
    description: What is added is called so in the inventory.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse what would break homeserver.yaml
  vars:
    example_problems: "{{ synapse_extra_config | cae.matrix.shape_problems({'database': {}}, 'synapse_extra_config') }}"
  ansible.builtin.assert:
    that: example_problems | length == 0
    fail_msg: "{{ example_problems }}"
"""

RETURN = r"""
_value:
  description: The problems.
  type: list
  elements: str
  sample: ["synapse_extra_config.database: is text, a dict is needed: write {…}"]
"""

from collections.abc import Callable

from ansible_collections.cae.matrix.plugins.module_utils.instance.variables import shape_problems


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"shape_problems": shape_problems}
