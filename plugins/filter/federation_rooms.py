# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rooms of the federation's hub."""

from __future__ import annotations

DOCUMENTATION = r"""
name: federation_rooms
short_description: The rooms of the federation's hub
version_added: 0.2.0
author: cae.matrix contributors
description:
  - Makes of the list of members what the hub has rooms for, a space, a room per theme and a room per member, as
    M(cae.matrix.matrix_room) takes them. Only the hub and members who talk to others can take part in them.
  - A member keeps the alias that it was once given. The room of a member that has left is to be closed.
positional: _input
options:
  _input:
    description: The list of members, as C(federation_list) holds it.
    type: dict
    required: true
  record:
    description: What RV(_value) held as C(record) on the run before; empty on the first.
    type: dict
    default: {}
  space:
    description: What the inventory says of the space, over the defaults (alias C(federation), the federation's name).
    type: dict
    default: {}
  themes:
    description: The rooms per theme; C(alias) and C(name), and what else M(cae.matrix.matrix_room) knows.
    type: list
    elements: dict
    default: []
  declared:
    description: Other rooms of the hub, whose aliases are taken.
    type: list
    elements: dict
    default: []
  language:
    description: The language of topics, C(fr) or C(en).
    type: str
    default: fr
seealso:
  - module: cae.matrix.matrix_room
"""

EXAMPLES = r"""
- name: Make the rooms of a list of members
  cae.matrix.matrix_room:
    owner: support
    rooms: "{{ (federation_list | cae.matrix.federation_rooms(themes=themes)).rooms }}"
    domain: federation.example
    config_dir: /etc/matrix/hub
    socket: /run/matrix-synapse/hub/client.sock
  vars:
    themes:
      - alias: entraide
        name: Entraide
"""

RETURN = r"""
_value:
  description:
    - C(rooms), the space first, then the themes, the members in the list's order, and what is to be closed.
    - C(record), which alias is whose, to be kept for the next run.
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import plain
from ansible_collections.cae.matrix.plugins.module_utils.federation.hub_rooms import RoomsError
from ansible_collections.cae.matrix.plugins.module_utils.federation.hub_rooms import federation_rooms as rooms_of


def federation_rooms(
    members: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
    space: Mapping[str, Any] | None = None,
    themes: Sequence[Mapping[str, Any]] = (),
    declared: Sequence[Mapping[str, Any]] = (),
    language: str = "fr",
) -> dict[str, Any]:
    """See DOCUMENTATION."""
    try:
        return rooms_of(*(plain(one) for one in (members, record, space, themes, declared, language)))
    except RoomsError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"federation_rooms": federation_rooms}
