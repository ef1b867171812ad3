#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Remove one instance from a machine that it may share with others."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_removal
short_description: Remove one instance from a machine that it may share with others
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Says what would be lost, and fails unless O(confirmed) is the instance's domain.
  - Then takes the instance out of nginx and stops it. Keeps a dump of its database, its media, configuration and
    secrets in C(removed-DATE) below O(backup_dir), for root only. Drops its database and role, and removes its
    certificate of certbot, line of C(pg_ident.conf), units, slice, system user and owner marker.
  - What instances share stays, packages, releases, nginx and the PostgreSQL cluster. An external database is dumped if
    that can be done, and never dropped.
  - Can be interrupted at any moment and run again. Each step looks at the machine for what is still to be done. The
    owner marker goes last.
  - An instance that is not there is left at that.
options:
  instance:
    description: The slug of the instance.
    type: str
    required: true
  domain:
    description: The Matrix domain of the instance.
    type: str
    required: true
  confirmed:
    description: The Matrix domain once more, by somebody who has read what would be lost.
    type: str
    default: ""
  user:
    description: The instance's system user.
    type: str
    required: true
  service:
    description: The instance's service.
    type: str
    required: true
  slice:
    description: The instance's slice.
    type: str
    required: true
  site:
    description: What the instance's site of nginx and its certificate of certbot are called.
    type: str
    required: true
  database:
    description: The instance's database and role in the machine's own cluster.
    type: str
    required: true
  connection:
    description: How an external database is reached, as libpq names it; empty for the machine's own.
    type: dict
    default: {}
  cluster:
    description: The cluster of the machine that its database is in, such as C(15/main); empty if it is in none.
    type: str
    default: ""
  config_dir:
    description: The instance's directory, such as C(/etc/matrix/atelier).
    type: path
    required: true
  data_dir:
    description: Where its media are, such as C(/var/lib/matrix/atelier).
    type: path
    required: true
  backup_dir:
    description: Where the archive is put, such as C(/var/backups/matrix/atelier).
    type: path
    required: true
attributes:
  check_mode:
    description: Says what would be lost and what would be done, also without a confirmation.
    support: full
  diff_mode:
    description: What was there is listed.
    support: none
"""

EXAMPLES = r"""
- name: Remove a cooperative that has left
  cae.matrix.instance_removal:
    instance: atelier
    domain: atelier.example.coop
    confirmed: atelier.example.coop
    user: matrix-atelier
    service: matrix-synapse@atelier.service
    slice: matrix-atelier.slice
    site: matrix-atelier
    database: matrix_atelier
    cluster: 15/main
    config_dir: /etc/matrix/atelier
    data_dir: /var/lib/matrix/atelier
    backup_dir: /var/backups/matrix/atelier
"""

RETURN = r"""
archive:
  description: Where what people wrote is kept; empty if there was nothing to remove.
  returned: success
  type: str
  sample: /var/backups/matrix/atelier/removed-20261122T170000Z
lost:
  description: What was there, as it was counted before anything was removed.
  returned: always
  type: dict
  sample: {people: 12, rooms: 4, messages: 3021, media: 17, shared_rooms: 1, servers: [nord.example.coop]}
steps:
  description: What was done in this run; in check mode, what would be.
  returned: success
  type: list
  elements: str
report:
  description: All of it, for people.
  returned: success
  type: list
  elements: str
"""

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host.document_set import DocumentError
from ansible_collections.cae.matrix.plugins.module_utils.instance.removal import Names, Removal, RemovalError, report

NAMES = ("instance", "user", "service", "slice", "site", "database")
SAFE = re.compile(r"[a-z][a-z0-9_.@-]*")


def required(kind: str) -> dict[str, Any]:
    return {"type": kind, "required": True}


ARGUMENTS: dict[str, Any] = {
    **{name: required("str") for name in (*NAMES, "domain")},
    **{name: required("path") for name in ("config_dir", "data_dir", "backup_dir")},
    "confirmed": {"type": "str", "default": ""},
    "connection": {"type": "dict", "default": {}},
    "cluster": {"type": "str", "default": ""},
}


def names_of(params: dict[str, Any]) -> Names:
    """What the instance is called, with paths as such."""
    given: dict[str, Any] = {name: params[name] for name in (*NAMES, "domain", "connection", "cluster")}
    given |= {name: Path(params[name]) for name in ("config_dir", "data_dir", "backup_dir")}
    return Names(**given)


def refusal(names: Names, told: list[str], confirmed: str) -> str:
    """Why nothing is removed yet, and how to have it done."""
    wrong = f' (it is "{confirmed}")' if confirmed else ""
    return "\n".join(
        [
            f"Nothing has been removed. Without the instance {names.instance} ({names.domain}), its people lose:",
            *(f"  {line}" for line in told),
            f"If that is meant, set matrix_removal_confirmed to {names.domain}{wrong} and run this again. A dump of "
            f"the database, media, configuration and secrets are kept in {names.backup_dir}/removed-<date>.",
        ]
    )


def remove(module: AnsibleModule, names: Names) -> dict[str, Any]:
    """Everything, or nothing where there is none."""
    removal = Removal(names)
    nothing: dict[str, Any] = {"changed": False, "archive": "", "lost": {}, "steps": [], "report": []}
    if not removal.there():
        return nothing
    lost = removal.losses()
    told = report(names, lost)
    if not module.check_mode:
        if module.params["confirmed"] != names.domain:
            module.fail_json(msg=refusal(names, told, module.params["confirmed"]), lost=lost)
        if lacking := removal.lacks(lost):
            module.fail_json(msg=lacking, lost=lost)
    done = []
    for step in removal.pending(lost):
        if not module.check_mode:
            step.do()
        done.append(step.what)
    would = "would be done" if module.check_mode else "done"
    return {
        "changed": True,
        "archive": str(removal.archive),
        "lost": lost,
        "steps": done,
        "report": [*told, *(f"{would}: {what}" for what in done), *removal.notes],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    for name in NAMES:
        if not SAFE.fullmatch(module.params[name]):
            module.fail_json(msg=f'{name}: "{module.params[name]}" is no name of an instance')
    names = names_of(module.params)
    try:
        result = remove(module, names)
    except (RemovalError, DocumentError, OSError) as error:
        module.fail_json(
            msg=f"The removal of {names.instance} has stopped: {error}. What was done stays done, and what people "
            "wrote is kept; run this again when the cause is mended."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
