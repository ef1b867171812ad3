# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a release of Element Web that is to be installed, and with how it is to look."""

from __future__ import annotations

DOCUMENTATION = r"""
name: element_web_problems
short_description: What is wrong with a release of Element Web that is to be installed
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Checks the version, the digest, the key and its fingerprint, the files on the controller (the digest of the release
    too), the pictures and the colour, without a connection to the machine.
  - Returns every problem, each naming the variable and the mend; an empty list if there is none.
options:
  _input:
    description: The values of the variables of role C(element_web) by their names.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse a release that is not the one promised
  vars:
    example_problems: >-
      {{ {'element_web_version': element_web_version,
          'element_web_release_sha256': element_web_release_sha256,
          'element_web_release_file': element_web_release_file,
          'element_web_release_signature_file': element_web_release_signature_file,
          'element_web_signing_key': element_web_signing_key,
          'element_web_signing_key_fingerprint': element_web_signing_key_fingerprint}
         | cae.matrix.element_web_problems }}
  ansible.builtin.assert:
    that: example_problems | length == 0
    fail_msg: "{{ example_problems }}"
"""

RETURN = r"""
_value:
  description: The problems.
  type: list
  elements: str
  sample: ['element_web_version: "v1.12.25" is no version; such as 1.12.25, without the v']
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.host import element_look, element_web


def element_web_problems(given: Mapping[str, Any]) -> list[str]:
    return element_web.problems(given) + element_look.problems(given)


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"element_web_problems": element_web_problems}
