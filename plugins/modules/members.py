#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The federation's list of members, from a file or from the hub."""

from __future__ import annotations

DOCUMENTATION = r"""
module: members
short_description: Read the federation's list of members
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Reads the list from a file (YAML or JSON) or from the https address where the hub publishes it, checks all of it,
    and returns it normalised. Runs on the controller and changes nothing.
  - A list that is wrong anywhere is refused, with every problem in one message, each with its line, its entry and the
    mend. What is only worth a look is returned as notes.
  - A list that is fetched must be signed with O(key), be no older than the one O(in_force), and be the one of O(hub).
  - When the hub is away, or what answers is no list at all, the list O(in_force) stays; its signature is checked again,
    and a note says so. Without one, the module fails.
options:
  source:
    description: A path on the controller, or an https address.
    type: str
    required: true
  key:
    description:
      - The public key that must have signed a list that is fetched; ed25519, base64 without padding. Required with an
        address. A file that carries a signature, a copy of what is published, is checked with it too.
    type: str
    default: ""
  hub:
    description: The hub's domain as the inventory knows it. A list that names another is refused.
    type: str
    default: ""
  domain:
    description: The instance that asks. Empty, nobody in particular.
    type: str
    default: ""
  hostname:
    description: Where the instance that asks is served.
    type: str
    default: ""
  profile:
    description: The profile of the instance that asks. With V(federation), it must be in the list itself.
    type: str
    default: open
    choices: [open, federation, internal]
  in_force:
    description:
      - The record of what is in force on the instance's machine, C(/etc/matrix/<instance>/federation.json), as
        M(ansible.builtin.slurp) returns it. Read for a list that is fetched.
    type: str
    default: ""
  resolve:
    description: Addresses by name, in place of DNS.
    type: dict
    default: {}
  ca_file:
    description: A file of CA certificates (PEM) that is trusted besides the system's.
    type: str
    default: ""
  timeout:
    description: Seconds for fetching.
    type: int
    default: 10
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It changes nothing.
seealso:
  - module: cae.matrix.members_publication
"""

EXAMPLES = r"""
- name: Read the list that the hub publishes
  cae.matrix.members:
    source: https://federation.example/federation/members.json
    key: 0d8iZNUPx0xNFv9ndPVwLFzZQ5ZoFrgRzU8wPzYyyPg
    hub: federation.example
    domain: atelier.example
  delegate_to: localhost
  become: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""

RETURN = r"""
list:
  description:
    - The list. Each member has all of its keys; what it does not have is empty. C(issued) is null and C(signatures) is
      missing in a list that a person wrote.
  returned: success
  type: dict
  sample:
    schema: cae.matrix/members/1
    name: Fédération des CAE
    hub: federation.example
    issued: "2026-11-22T10:00:00Z"
    members:
      - name: Atelier
        domain: atelier.example
        hostname: matrix.atelier.example
        contact: support@atelier.example
        logo: ""
        profile: open
    signatures: {"federation.example": {"ed25519:66687aad": "…"}}
    source: url
  contains:
    source:
      description: Where it comes from, C(file), C(url), or C(in force) when the hub is away.
      type: str
notes:
  description: What is worth a look, and why the list in force stays, if it does.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.federation.member_list import read
from ansible_collections.cae.matrix.plugins.module_utils.federation.members import MembersError
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import Unreachable


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            "key": {"type": "str", "default": "", "no_log": False},
            "hub": {"type": "str", "default": ""},
            "domain": {"type": "str", "default": ""},
            "hostname": {"type": "str", "default": ""},
            "profile": {"type": "str", "default": "open", "choices": ["open", "federation", "internal"]},
            "in_force": {"type": "str", "default": ""},
            "resolve": {"type": "dict", "default": {}},
            "ca_file": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    try:
        document, notes = read(module.params)
    except MembersError as error:
        module.fail_json(msg=str(error))
    except Unreachable as error:
        module.fail_json(msg=f"federation_members: {error}")
    module.exit_json(changed=False, list=document, notes=notes)


if __name__ == "__main__":
    main()
