#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Says whether it is too late for encryption opt-in on a server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit
short_description: Say whether it is too late for encryption opt-in on a server
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Looks for encrypted rooms, encryption identities and key backups, in the database of a Synapse (one read-only
    transaction) or through its admin API. The Synapse need not have been installed by this collection.
  - Changes nothing. Runs where it can reach the database or the address.
  - It fails when the server cannot be read; the message names the cause and the mend.
options:
  database:
    description: How libpq reaches the database, as role C(postgresql) says it. What is for Synapse's pool is left out.
    type: dict
  database_password:
    description: Its password, if there is one that libpq does not read from a file.
    type: str
  database_url:
    description: The same as a URL, C(postgresql://user:password@host:5432/synapse).
    type: str
  homeserver_url:
    description: Where Synapse and its admin API answer. HTTPS, or HTTP on the machine itself.
    type: str
  admin_token:
    description: The access token of a server administrator. Required with O(homeserver_url).
    type: str
  domain:
    description: The part after the colon in C(@name:domain), of an attestation, and where nobody is on the server yet.
    type: str
    default: ""
  instance:
    description: The slug of an instance of this collection, with O(config_dir).
    type: str
    default: ""
  config_dir:
    description: Its directory, where an attestation may lie. Once attested, what people encrypt is their own choice.
    type: path
  accepted_rooms:
    description: IDs of the rooms that the inventory accepts.
    type: list
    elements: str
    default: []
  room_limit:
    description: How many rooms are asked one by one, with O(homeserver_url), whether they have an C(m.room.encryption)
      that the list of rooms does not show.
    type: int
    default: 2000
  resolve:
    description: Addresses by name, in place of DNS, with O(homeserver_url).
    type: dict
    default: {}
  ca_file:
    description: A file of CA certificates (PEM) that are trusted besides the system's, with O(homeserver_url).
    type: path
  timeout:
    description: Seconds that the database, or one request, may take. By default 300 for the one, 30 for the other.
    type: int
requirements:
  - psycopg2, for a database
attributes:
  check_mode:
    support: full
    description: Looks in check mode as well.
  diff_mode:
    support: none
    description: There is nothing to change.
seealso:
  - module: cae.matrix.encryption_gate
  - plugin: cae.matrix.audit_report
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Audit a Synapse by its database
  cae.matrix.audit:
    database_url: "{{ vault_synapse_database_url }}"
  register: found

- name: Audit a Synapse by its admin API, from the controller
  cae.matrix.audit:
    homeserver_url: https://matrix.example.coop
    admin_token: "{{ vault_synapse_admin_token }}"
  delegate_to: localhost
  become: false
  register: found

- name: Show the verdict
  ansible.builtin.debug:
    msg: "{{ found.verdict }}"
"""

RETURN = r"""
verdict:
  description: C(in time), C(late but mendable), C(too late), or C(too late, accepted) where the inventory accepts every
    encrypted room. The attestation's, where there is one.
  returned: success
  type: str
source:
  description: Where it was seen, C(database) or C(admin API).
  returned: success
  type: str
domain:
  description: The server's domain.
  returned: success
  type: str
attested:
  description: Since when the gate has attested this instance, if it has.
  returned: success
  type: str
counts:
  description: C(accounts), C(identities), C(key_backups), C(encrypted_rooms) and C(rooms_to_decide). Null is not known.
  returned: success
  type: dict
rooms:
  description: The encrypted rooms.
  returned: success
  type: list
  elements: dict
  contains:
    room_id:
      description: Its ID.
      type: str
    name:
      description: Its name, or its alias. Somebody wrote it; it may be anything.
      type: str
    creator:
      description: Who made it.
      type: str
    members:
      description: How many are in it.
      type: int
    why:
      description: What shows that it is encrypted, its state, messages, or both.
      type: str
    since:
      description: When it became encrypted, or empty.
      type: str
    local:
      description: Whether it was made on this server; null where that is not known.
      type: bool
    replaced_by:
      description: The room that a tombstone leads to, or empty.
      type: str
    standing:
      description: C(to decide), C(accepted), or C(chosen since) the attestation.
      type: str
people:
  description: People with an encryption identity or a key backup; null is not known.
  returned: success
  type: list
  elements: dict
  sample: [{user_id: "@amina:example.coop", identity: true, key_backup: false}]
accepted_in_vain:
  description: Rooms that the inventory accepts, and that are not encrypted, or not there.
  returned: success
  type: list
  elements: str
unknown:
  description: What could not be seen, and of how many accounts or rooms.
  returned: success
  type: list
  elements: dict
  sample: [{what: key backups, number: 300}]
steps:
  description: What can be done; P(cae.matrix.audit_report#filter) puts it into words.
  returned: success
  type: list
  elements: str
  sample: [replace, accept]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.encryption.attestation import earliest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.audit import (
    AdminApi,
    Findings,
    Unreadable,
    judge,
    read_admin_api,
    read_database,
)
from ansible_collections.cae.matrix.plugins.module_utils.host.interpreter import with_library
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient, Unreachable

# A room's whole state is one answer, with an event for each member.
_LARGEST_ANSWER = 64 << 20


def look(module: AnsibleModule) -> Findings:
    """What there is to be seen of the server."""
    options = module.params
    if options["homeserver_url"]:
        client = PublicClient(options["resolve"], options["ca_file"], options["timeout"] or 30, _LARGEST_ANSWER)
        return read_admin_api(
            AdminApi(client, options["homeserver_url"], options["admin_token"]), options["room_limit"]
        )
    if options["database_url"]:
        if not options["database_url"].startswith(("postgresql://", "postgres://")):
            raise Unreadable(
                "audit_database_url is no URL of PostgreSQL.",
                "Write postgresql://user:password@host:5432/database. A Synapse on SQLite is audited through its admin "
                "API (audit_homeserver_url, audit_admin_token).",
            )
        return read_database(options["database_url"], options["domain"], options["timeout"] or 300)
    arguments = {key: value for key, value in options["database"].items() if not key.startswith("cp_")}
    if options["database_password"]:
        arguments["password"] = options["database_password"]
    return read_database(arguments, options["domain"], options["timeout"] or 300)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "dict"},
            "database_password": {"type": "str", "no_log": True},
            "database_url": {"type": "str", "no_log": True},
            "homeserver_url": {"type": "str"},
            "admin_token": {"type": "str", "no_log": True},
            "domain": {"type": "str", "default": ""},
            "instance": {"type": "str", "default": ""},
            "config_dir": {"type": "path"},
            "accepted_rooms": {"type": "list", "elements": "str", "default": []},
            "room_limit": {"type": "int", "default": 2000},
            "resolve": {"type": "dict", "default": {}},
            "ca_file": {"type": "path"},
            "timeout": {"type": "int"},
        },
        mutually_exclusive=[("database", "database_url", "homeserver_url")],
        required_one_of=[("database", "database_url", "homeserver_url")],
        required_together=[("homeserver_url", "admin_token")],
        supports_check_mode=True,
    )
    options = module.params
    if not options["homeserver_url"]:
        with_library("psycopg2")
    attested = None
    if options["config_dir"]:
        attested = earliest(Path(options["config_dir"]), options["instance"], options["domain"])
    try:
        found = look(module)
    except (Unreadable, Unreachable) as error:
        module.fail_json(msg=f"This server cannot be audited. {error.cause} {error.mend}")
    module.exit_json(changed=False, **judge(found, options["accepted_rooms"], attested))


if __name__ == "__main__":
    main()
