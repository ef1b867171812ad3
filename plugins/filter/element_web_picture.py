# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A picture on the controller as a data address."""

from __future__ import annotations

DOCUMENTATION = r"""
name: element_web_picture
short_description: A picture on the controller as a data address
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Reads a picture (SVG, PNG, JPEG or WebP) and returns it as a C(data:) address.
options:
  _input:
    description: Path on the controller.
    type: path
    required: true
  variable:
    description:
      - The variable that names it, for the message about what is wrong with it. A logo has 64 KiB at most, a background
        256 KiB.
    type: str
    choices: [element_web_logo_file, element_web_background_file]
    default: element_web_logo_file
"""

EXAMPLES = r"""
- name: Show the address of a logo
  ansible.builtin.debug:
    msg: "{{ 'files/logo.svg' | cae.matrix.element_web_picture }}"
"""

RETURN = r"""
_value:
  description: The address.
  type: str
  sample: data:image/png;base64,iVBORw0KGgo
"""

from collections.abc import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.module_utils.host.element_look import LookError, picture_uri


def element_web_picture(path: str, variable: str = "element_web_logo_file") -> str:
    try:
        return picture_uri(path, variable)
    except LookError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"element_web_picture": element_web_picture}
