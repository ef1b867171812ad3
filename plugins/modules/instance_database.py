#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have the role and the database of one instance in the machine's own cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_database
short_description: Have the role and the database of one instance in the machine's own cluster
version_added: 0.1.0
description:
  - Makes a role, a group that it is in, and a database of the role's name that it owns and nobody else can connect to,
    with encoding UTF8 and collation C.
  - Acts as the owner of the cluster by C(runuser) and C(psql); running as root is all it needs, however the inventory
    becomes root.
  - A database with another encoding or collation is left alone; then nothing else is made either.
author:
  - cae.matrix contributors
options:
  name:
    description: The name of the role and of the database.
    type: str
    required: true
  group:
    description: The role that the roles of all instances are in.
    type: str
    default: matrix_instances
  owner:
    description: The user of the machine that owns the cluster.
    type: str
    default: postgres
  port:
    description: The cluster's port, which names its socket.
    type: int
    default: 5432
  socket_directory:
    description: Where the cluster's socket is, if not where Debian's clusters have theirs.
    type: path
  service:
    description: The cluster's systemd service; it is started if the cluster does not answer.
    type: str
attributes:
  check_mode:
    description: Says what would be made.
    support: full
  diff_mode:
    description: Lists what is made.
    support: full
"""

EXAMPLES = r"""
- name: Have the role and the database
  cae.matrix.instance_database:
    name: matrix_atelier
    service: postgresql@15-main.service
"""

RETURN = r"""
made:
  description: What was made, or would be.
  returned: success
  type: list
  elements: str
  sample: [role matrix_atelier, database matrix_atelier]
usable:
  description: Whether Synapse can use the database; false for another encoding or collation than UTF8 and C.
  returned: success
  type: bool
database:
  description: Encoding and collation of a database that was there.
  returned: success
  type: dict
  sample: {encoding: UTF8, collate: C, ctype: C}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.instance.database import (
    Cluster,
    DatabaseError,
    NotConnected,
    make,
    patiently,
    state_of,
    steps,
    usable,
)


def start(module: AnsibleModule, service: str) -> None:
    status, _, words = module.run_command(["systemctl", "start", service], handle_exceptions=True)
    if status:
        raise DatabaseError(f"systemctl start {service}: {words.strip()}")


def run(module: AnsibleModule) -> dict[str, object]:
    """What the module returns."""
    name, group, service = (module.params[key] for key in ("name", "group", "service"))
    cluster = Cluster(*(module.params[key] for key in ("owner", "port", "socket_directory")))
    made: list[str] = []
    try:
        state = state_of(cluster, name, group)
    except NotConnected:
        if not service:
            raise
        made.append(f"{service} started")
        if module.check_mode:
            return {"changed": True, "made": made, "usable": True, "database": {}}
        start(module, service)
        state = patiently(lambda: state_of(cluster, name, group))
    found = {key: state[key] for key in ("encoding", "collate", "ctype")} if state["database_there"] else {}
    result = {"usable": usable(state), "database": found}
    if result["usable"]:
        if state["stale"]:
            # An interrupted run has left that undone.
            made.append("pg_hba.conf and pg_ident.conf read again")
            if not module.check_mode:
                cluster.run("SELECT pg_reload_conf()")
        if module.check_mode:
            made += [words for words, _ in steps(state, name, group)]
        else:
            made += make(cluster, name, group)
    diff = {"before": "", "after": "".join(f"{one}\n" for one in made)}
    return {**result, "changed": bool(made), "made": made, **({"diff": diff} if made else {})}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "group": {"type": "str", "default": "matrix_instances"},
            "owner": {"type": "str", "default": "postgres"},
            "port": {"type": "int", "default": 5432},
            "socket_directory": {"type": "path"},
            "service": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except DatabaseError as error:
        module.fail_json(
            msg=f"PostgreSQL on this machine (port {module.params['port']}, as {module.params['owner']}) could not be "
            f"asked: {error}. Run the play as root (become: true), and see that the cluster runs: pg_lsclusters."
        )


if __name__ == "__main__":
    main()
