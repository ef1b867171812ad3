#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""See whether a machine has room for the people of its instances."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_room
short_description: See whether a machine has room for the people of its instances
version_added: 0.1.0
description:
  - Reads how many connections nginx has room for, how full the disks are, and for how many people the instances on the
    machine are meant (C(people) in C(/etc/matrix/*/instance.json)). Changes nothing.
  - Where nginx's main file is as Debian ships it, or as this collection has changed it, says how it would have room.
    A file that is somebody else's is left to them, with a warning.
author:
  - cae.matrix contributors
options:
  people:
    description: For how many people the instances are meant together. Default, the sum of what the markers declare.
    type: int
  paths:
    description: Directories whose file systems are looked at; one that is not there is passed over.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Look whether everybody finds room
  cae.matrix.machine_room:
    paths: [/var/lib/matrix, /var/lib/postgresql, /var/log]
  register: room
"""

RETURN = r"""
people:
  description: For how many people the instances are meant together.
  returned: success
  type: int
nginx:
  description: What one process of nginx may have open, and what it should; null where nginx is not installed.
  returned: success
  type: dict
  contains:
    connections:
      description: Connections, to people and to Synapse.
      type: int
    files:
      description: Open files.
      type: int
    needed_connections:
      description: Connections that so many people need at once.
      type: int
    needed_files:
      description: Open files that go with them.
      type: int
    content:
      description: C(nginx.conf) as it would have room; empty where it has, or where it is somebody else's.
      type: str
    replaces:
      description: The SHA-256 of the file that RV(nginx.content) was made from, otherwise empty.
      type: str
    problem:
      description: Why it has no room and is left alone, and what to do; otherwise empty.
      type: str
disks:
  description: The file systems of O(paths), each once.
  returned: success
  type: list
  elements: dict
  sample: [{path: /var/lib/matrix, size: 107374182400, free: 53687091200, free_percent: 50, free_inodes_percent: 97}]
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host import machine_room


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "people": {"type": "int"},
            "paths": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    people = module.params["people"] or machine_room.people(machine_room.markers())
    nginx = machine_room.nginx(people)
    if nginx and nginx.problem:
        module.warn(nginx.problem)
    module.exit_json(
        changed=False,
        people=people,
        nginx=asdict(nginx) if nginx else None,
        disks=[asdict(disk) for disk in machine_room.disks(tuple(module.params["paths"]))],
    )


if __name__ == "__main__":
    main()
