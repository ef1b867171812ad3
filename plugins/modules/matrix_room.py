#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rooms and spaces of one server, as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: matrix_room
short_description: Make and keep rooms and spaces
version_added: 0.2.0
author: cae.matrix contributors
description:
  - Makes the rooms and spaces that are declared, all of them in one task, and keeps what is declared of them. What is
    not declared, such as a topic that is not given, is left as people made it. Rooms that are not named are left alone.
  - Works through Synapse's API on its Unix socket, with the encryption gate's account, which asks Synapse to act as
    O(owner). The rooms are that person's, and nobody else comes into them. Where O(owner) has left a room or has no
    power in it any more, it is done as another person of this server who has.
  - Rooms are made plain. Encryption that somebody turns on later is never touched.
  - Can be interrupted at any moment and run again. Synapse gives an alias to one room only, and makes it with the
    room, so that there is never a second one.
  - An alias that leads to a room that people have made is taken at its word. That room is kept from then on.
extends_documentation_fragment: [cae.matrix.service_account]
options:
  owner:
    description:
      - The part before the colon in C(@name:domain) of the person whose rooms these are. The account has to exist; the
        gate makes those of C(encryption_gate_administrators).
    type: str
    required: true
  rooms:
    description: The rooms and spaces. In a space, rooms are in the order in which they are here.
    type: list
    elements: dict
    required: true
    suboptions:
      alias:
        description: The part between C(#) and the colon in C(#name:domain). It is what the room is known by.
        type: str
        required: true
      state:
        description:
          - With C(absent), the room is closed. Nobody can write or come in any more, which is said in it, and its
            alias, its place in the spaces named here and in the directory are taken away. Nothing is deleted. Whoever
            is in it can still read it.
        type: str
        choices: [present, absent]
        default: present
      kind:
        description: A space holds rooms and other spaces.
        type: str
        choices: [room, space]
        default: room
      name:
        description: The name that people see. Required unless O(rooms[].state=absent).
        type: str
      topic:
        description: What it is about. An empty text takes the topic away.
        type: str
      join:
        description:
          - Who can come in by themselves. C(public) is everybody whom O(rooms[].servers) does not refuse, C(space)
            whoever is in one of O(rooms[].parents), C(invite) nobody.
          - A new room begins with C(invite).
        type: str
        choices: [public, space, invite]
      parents:
        description:
          - Aliases of the spaces, among O(rooms), that the room is in. Where this is given, it is in no other of those
            spaces; an empty list takes it out of them all.
        type: list
        elements: str
      links:
        description:
          - For a space, aliases of rooms and spaces of other servers that are shown in it, such as
            C(#federation:federation.example). One that cannot be found now is named in the result and tried again on
            the next run.
          - Where this is given, links of an earlier run that are not named any more are taken away. What people have
            put into the space is left there.
        type: list
        elements: str
      write:
        description:
          - Who can write.
          - A new room begins with C(everyone).
        type: str
        choices: [everyone, moderators, administrators]
      moderators:
        description:
          - People (C(@name:domain)) who have at least the power to moderate (50). Nobody loses power that others have
            given them.
        type: list
        elements: str
        default: []
      administrators:
        description: People who have at least the power to administer the room (100).
        type: list
        elements: str
        default: []
      history:
        description:
          - Who can read what was said before.
          - A new room begins with C(shared).
        type: str
        choices: [shared, joined, invited, world_readable]
      listed:
        description:
          - Whether it is in the public directory of this server.
          - A new room is not.
        type: bool
      servers:
        description:
          - Which servers can take part, as names with C(*) and C(?) (C(m.room.server_acl)). This server always can.
            Servers that are named by an address are refused.
          - People of a server that is refused are removed from the room, as their server would otherwise go on
            receiving what is said there, and invitations to them are withdrawn.
        type: dict
        suboptions:
          allow:
            description: Servers that can take part.
            type: list
            elements: str
            default: ["*"]
          deny:
            description: Servers that cannot, even where O(rooms[].servers.allow) has them.
            type: list
            elements: str
            default: []
attributes:
  check_mode:
    support: full
    description: Says what it would do.
  diff_mode:
    support: full
    description: What is declared of each room, as it is and as it will be.
seealso:
  - module: cae.matrix.remedy
"""

EXAMPLES = r"""
- name: A welcome space with two rooms, which shows the federation's space as well
  cae.matrix.matrix_room:
    owner: amina
    rooms:
      - alias: bienvenue
        kind: space
        name: Bienvenue
        topic: Les salons de la coopérative
        join: public
        links: ["#federation:federation.example"]
      - alias: annonces
        name: Annonces
        join: space
        parents: [bienvenue]
        write: moderators
        moderators: ["@bruno:example.coop"]
      - alias: entraide
        name: Entraide
        join: space
        parents: [bienvenue]
    domain: example.coop
    config_dir: /etc/matrix/example
    socket: /run/matrix-synapse/example/client.sock

- name: A room of the federation, for its members' servers
  cae.matrix.matrix_room:
    owner: amina
    rooms:
      - alias: comptabilite
        name: Comptabilité
        join: public
        servers:
          allow: [federation.example, atelier.example, example.coop]
    domain: federation.example
    config_dir: /etc/matrix/hub
    socket: /run/matrix-synapse/hub/client.sock

- name: Close a room
  cae.matrix.matrix_room:
    owner: amina
    rooms:
      - alias: projet-2024
        state: absent
    domain: example.coop
    config_dir: /etc/matrix/example
    socket: /run/matrix-synapse/example/client.sock
"""

RETURN = r"""
rooms:
  description: The rooms, in the order given, and what was done in this run.
  returned: always
  type: list
  elements: dict
  contains:
    alias:
      description: The alias, as given.
      type: str
    room_id:
      description: The room; null if there is none, or not yet.
      type: str
    changed:
      description: Whether anything was changed.
      type: bool
    done:
      description: The steps of this run, or those that there would be.
      type: list
      elements: str
    notes:
      description: What could not be done, and why.
      type: list
      elements: str
  sample:
    - alias: annonces
      room_id: "!nUbMWhkbnfBQvFMDVd:example.coop"
      changed: true
      done: ["made the room Annonces"]
      notes: []
report:
  description: What was done, for people; nothing about rooms that needed nothing.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

SPEC = {
    "owner": {"type": "str", "required": True},
    "rooms": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "alias": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "kind": {"type": "str", "choices": ["room", "space"], "default": "room"},
            "name": {"type": "str"},
            "topic": {"type": "str"},
            "join": {"type": "str", "choices": ["public", "space", "invite"]},
            "parents": {"type": "list", "elements": "str"},
            "links": {"type": "list", "elements": "str"},
            "write": {"type": "str", "choices": ["everyone", "moderators", "administrators"]},
            "moderators": {"type": "list", "elements": "str", "default": []},
            "administrators": {"type": "list", "elements": "str", "default": []},
            "history": {"type": "str", "choices": ["shared", "joined", "invited", "world_readable"]},
            "listed": {"type": "bool"},
            "servers": {
                "type": "dict",
                "options": {
                    "allow": {"type": "list", "elements": "str", "default": ["*"]},
                    "deny": {"type": "list", "elements": "str", "default": []},
                },
            },
        },
    },
    "domain": {"type": "str", "required": True},
    "config_dir": {"type": "path", "required": True},
    "socket": {"type": "path", "required": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    module.fail_json(msg="The rooms cannot be made yet: this release of the module only knows their options.")


if __name__ == "__main__":
    main()
