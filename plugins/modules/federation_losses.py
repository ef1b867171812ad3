#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Refuses to cut people off from other servers by mistake."""

from __future__ import annotations

DOCUMENTATION = r"""
module: federation_losses
short_description: Refuse to cut people off from other servers by mistake
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Compares whom a server may federate with so far and from this run on. Where servers go out of reach, looks in
    Synapse's database (one read-only transaction) which rooms people from here share with people there.
  - Fails when there are such rooms and the loss of the server has not been acknowledged; the message lists them.
  - Changes nothing. Where nothing can be lost, or Synapse has never been set up, the database is not asked.
options:
  policy:
    description: Whom the server may federate with from this run on, as P(cae.matrix.federation_policy#filter) says it.
    type: dict
    required: true
  config_dir:
    description: The instance's directory. What is in force is in C(federation.json) there; without it, nothing limits
      whom the server talks to.
    type: path
    required: true
  domain:
    description: The part after the colon in C(@name:domain).
    type: str
    required: true
  database:
    description: How libpq reaches the database, as role C(postgresql) says it. What is for Synapse's pool is left out.
    type: dict
    required: true
  accepted:
    description: Names of servers whose loss is acknowledged; C(*) acknowledges all, and then nobody looks.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that the database may take.
    type: int
    default: 300
requirements:
  - psycopg2, where the database has to be asked
attributes:
  check_mode:
    support: full
    description: Looks, and fails, in check mode as well.
  diff_mode:
    support: none
    description: There is nothing to change.
seealso:
  - plugin: cae.matrix.federation_policy
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Refuse to cut people off by mistake
  cae.matrix.federation_losses:
    policy: "{{ federation_policy }}"
    config_dir: /etc/matrix/atelier
    domain: atelier.example
    database: "{{ postgresql_connection }}"
    accepted: [client.example]
"""

RETURN = r"""
losses:
  description: The servers that go out of reach and that people from here share rooms with, those that are not
    acknowledged first. At most 100, where C(lost_servers) counts all of them.
  returned: always, but for a failure to look
  type: list
  elements: dict
  contains:
    server:
      description: Its name.
      type: str
    rooms:
      description: How many rooms are shared with it.
      type: int
    people:
      description: How many people of it are in these, or invited.
      type: int
    accepted:
      description: Whether its loss is acknowledged.
      type: bool
    listed:
      description: At most 20 of the rooms, those with the most people from here first; of the first 20 servers.
      type: list
      elements: dict
      sample:
        - {room_id: "!a:atelier.example", name: Chantier, local_people: 4, people: 1, some: ["@jo:client.example"]}
lost_servers:
  description: How many there are.
  returned: always, but for a failure to look
  type: int
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.federation import losses
from ansible_collections.cae.matrix.plugins.module_utils.host.interpreter import with_library

_LISTED = 100


def look(module: AnsibleModule) -> tuple[str, list[losses.Loss]]:
    """The profile so far, and every loss, acknowledged or not; the database is asked only if there can be one."""
    options = module.params
    config_dir = Path(options["config_dir"])
    if losses.EVERYBODY in options["accepted"] or not (config_dir / "synapse/homeserver.yaml").exists():
        return "", []
    before = losses.in_force(config_dir / "federation.json")
    if not losses.can_lose(before, options["policy"]):
        return before["profile"], []
    connection = {key: value for key, value in options["database"].items() if not key.startswith("cp_")}
    found = losses.read(
        connection, options["domain"], before, options["policy"], options["accepted"], options["timeout"]
    )
    return before["profile"], found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "policy": {"type": "dict", "required": True},
            "config_dir": {"type": "path", "required": True},
            "domain": {"type": "str", "required": True},
            "database": {"type": "dict", "required": True},
            "accepted": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    options = module.params
    with_library("psycopg2")
    problems = losses.accepted_problems(options["accepted"])
    if problems:
        module.fail_json(msg="; ".join(problems))
    try:
        before, found = look(module)
    except losses.Unknown as error:
        module.fail_json(
            msg="Whether this run would cut people off from other servers cannot be seen; nothing has been changed. "
            f'{error} To go on without knowing: federation_accepted_losses: ["*"].'
        )
    result = {"changed": False, "losses": [asdict(one) for one in found[:_LISTED]], "lost_servers": len(found)}
    refused = [one for one in found if not one.accepted]
    if refused:
        module.fail_json(msg=losses.message(refused, before, options["policy"]["profile"]), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
