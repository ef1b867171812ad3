# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose servers need a look."""

from __future__ import annotations

DOCUMENTATION = r"""
name: federation_troubles
short_description: Whose servers in the federation need a look, and why
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Makes lines for a terminal of what the hub's directory has seen, with the words of its page.
options:
  _input:
    description: The directory's C(state.json).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show whose servers need a look
  cae.matrix.show:
    lines: "{{ lookup('ansible.builtin.file', 'state.json') | from_json | cae.matrix.federation_troubles }}"
"""

RETURN = r"""
_value:
  description: A line for each problem and each warning.
  type: list
  elements: str
  sample: ['fabrique.example does not answer: matrix.fabrique.example did not answer in time']
"""

from collections.abc import Callable

from ansible_collections.cae.matrix.plugins.module_utils.federation.page import troubles


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"federation_troubles": troubles}
