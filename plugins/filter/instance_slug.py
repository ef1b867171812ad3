# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The slug of an instance, from its inventory hostname."""

from __future__ import annotations

DOCUMENTATION = r"""
name: instance_slug
short_description: The default slug of an instance
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Makes the default of C(matrix_instance) from an inventory hostname, that is its first label,
    in small letters, underscores as dashes.
  - It does not check the result; see the filter P(cae.matrix.instance_problems#filter).
options:
  _input:
    description: The inventory hostname.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the slug of Atelier_Nord.example.coop, which is atelier-nord
  ansible.builtin.debug:
    msg: "{{ 'Atelier_Nord.example.coop' | cae.matrix.instance_slug }}"
"""

RETURN = r"""
_value:
  description: The slug.
  type: str
  sample: atelier-nord
"""

from collections.abc import Callable

from ansible_collections.cae.matrix.plugins.module_utils.instance.names import slug


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"instance_slug": slug}
