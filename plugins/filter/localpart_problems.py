# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with localparts that an inventory declares."""

from __future__ import annotations

DOCUMENTATION = r"""
name: localpart_problems
short_description: What is wrong with localparts that an inventory declares
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Returns a text for each localpart that cannot be, or that is there more than once, with what to write in its place;
    an empty list if there is none.
positional: _input, domain
options:
  _input:
    description: The localparts.
    type: list
    elements: str
    required: true
  domain:
    description: The domain of the accounts, C(matrix_domain).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse localparts that cannot be
  vars:
    example_problems: "{{ ['jo', 'Zoé'] | cae.matrix.localpart_problems('example.coop') }}"
  ansible.builtin.assert:
    that: example_problems | length == 0
    fail_msg: "{{ example_problems }}"
"""

RETURN = r"""
_value:
  description: The problems.
  type: list
  elements: str
  sample: ['"Jo" is no localpart; small letters, digits and . _ = / + -, not beginning with _, such as jo']
"""

from collections.abc import Callable, Iterable

from ansible_collections.cae.matrix.plugins.module_utils.matrix.localparts import problems


def localpart_problems(localparts: Iterable[object], domain: str) -> list[str]:
    return list(problems([str(localpart) for localpart in localparts], str(domain)))


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"localpart_problems": localpart_problems}
