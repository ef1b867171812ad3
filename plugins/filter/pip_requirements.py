# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a file of requirements asks pip for."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pip_requirements
short_description: What a file of requirements asks pip for, and whether it is pinned
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Reads lines as pip does, continued ones joined and without comments.
options:
  _input:
    description: The text of the file.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse what is not pinned
  ansible.builtin.assert:
    that: "text | cae.matrix.pip_requirements | rejectattr('pinned') | list | length == 0"
  vars:
    text: "{{ lookup('ansible.builtin.file', 'requirements.txt') }}"
"""

RETURN = r"""
_value:
  description: Each line that says something.
  type: list
  elements: dict
  contains:
    text:
      description: The line.
      type: str
    pinned:
      description: Whether it is one version, with its hashes.
      type: bool
    name:
      description: The package of one that is for one version; else empty.
      type: str
    version:
      description: That version; else empty.
      type: str
"""

import re
from collections.abc import Callable

_CONTINUED = re.compile(r"[ \t]*\\\n[ \t]*")
_COMMENT = re.compile(r"(^|[ \t])#.*$")
_VERSION = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[A-Za-z0-9._, -]+\])?\s*==(?P<version>[^\s;*]+)")
_REST = re.compile(r"\s*(;[^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+$")


def pip_requirements(text: str) -> list[dict[str, str | bool]]:
    """The lines, each with what it pins.

    >>> pip_requirements("ldap3==2.9.1 # for people\\n")
    [{'text': 'ldap3==2.9.1', 'pinned': False, 'name': 'ldap3', 'version': '2.9.1'}]
    """
    lines = (_COMMENT.sub("", line).strip() for line in _CONTINUED.sub(" ", text).splitlines())
    found: list[dict[str, str | bool]] = []
    for line in filter(None, lines):
        version = _VERSION.match(line)
        found.append(
            {
                "text": line,
                "pinned": bool(version and _REST.match(line, version.end())),
                "name": version["name"] if version else "",
                "version": version["version"] if version else "",
            }
        )
    return found


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[dict[str, str | bool]]]]:
        return {"pip_requirements": pip_requirements}
