# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One colour as Element's buttons need it, readable in the light and in the dark theme."""

from __future__ import annotations

DOCUMENTATION = r"""
name: element_web_palette
short_description: One colour as Element's buttons need it
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Makes of one colour what buttons need (at rest, under the pointer, pressed), for the light and for the dark theme.
    For the dark one it is made as much lighter as it takes to be read there.
  - A colour that cannot be read on white (a contrast below 4.5, WCAG 2 AA) is an error that offers the nearest one.
options:
  _input:
    description: The colour, as C(#rrggbb).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the colours
  ansible.builtin.debug:
    msg: "{{ '#0b5c4a' | cae.matrix.element_web_palette }}"
"""

RETURN = r"""
_value:
  description: Of C(light) and C(dark) each C(rest), C(hovered) and C(pressed).
  type: dict
"""

from collections.abc import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.module_utils.host.element_look import LookError, palette


def element_web_palette(colour: str) -> dict[str, dict[str, str]]:
    try:
        return palette(colour)
    except LookError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., dict[str, dict[str, str]]]]:
        return {"element_web_palette": element_web_palette}
