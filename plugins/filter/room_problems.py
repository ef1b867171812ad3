# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with rooms that an inventory declares."""

from __future__ import annotations

DOCUMENTATION = r"""
name: room_problems
short_description: What is wrong with rooms that an inventory declares
version_added: 0.2.0
author: cae.matrix contributors
description:
  - Returns a text for each reason why these rooms cannot be made, with the place and what to write there; an empty list
    if there is none. It is what the module M(cae.matrix.matrix_room) refuses, before there is a server.
positional: _input, owner, domain
options:
  _input:
    description: The rooms, as C(rooms_declared) has them.
    type: list
    elements: dict
    required: true
  owner:
    description: Whose rooms they are, C(rooms_owner).
    type: str
    required: true
  domain:
    description: The domain of the instance, C(matrix_domain).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse rooms that cannot be made
  vars:
    example_rooms: [{alias: accueil, name: Accueil, join: space}]
    example_problems: "{{ example_rooms | cae.matrix.room_problems('amina', 'coop.example') }}"
  ansible.builtin.assert:
    that: example_problems | length == 0
    fail_msg: "{{ example_problems }}"
"""

RETURN = r"""
_value:
  description: The problems.
  type: list
  elements: str
  sample: ['rooms_declared[1] (accueil): join is space, and parents names none; name the space, or choose invite']
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import plain
from ansible_collections.cae.matrix.plugins.module_utils.rooms.declared import problems
from ansible_collections.cae.matrix.plugins.modules.matrix_room import SPEC

# As the module calls them, and as the inventory does.
_NAMES = (("rooms[", "rooms_declared["), ("owner:", "rooms_owner:"))


def room_problems(rooms: Iterable[Mapping[str, Any]], owner: str, domain: str) -> list[str]:
    """See DOCUMENTATION."""
    checked = ArgumentSpecValidator({"rooms": SPEC["rooms"]}).validate({"rooms": plain(rooms)})
    found = checked.error_messages or problems(checked.validated_parameters["rooms"], str(owner), str(domain))
    for ours, theirs in _NAMES:
        found = [re.sub("^" + re.escape(ours), theirs, problem) for problem in found]
    return found


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"room_problems": room_problems}
