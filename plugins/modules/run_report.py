#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say at the end of a run how an instance is, and that the run has ended."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_report
short_description: Say at the end of a run how an instance is, and that the run has ended
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Shows about ten lines to the person who started the run. Addresses, versions, whom the server talks to, who can
    register, who administers, what this run has changed, and what comes next.
  - What has changed is what the roles of this collection have registered as C(__<role>_<what>), and the paths of
    M(cae.matrix.documents).
  - Adds a line to the log of runs on the machine, C(/var/log/matrix/<instance>.log), where M(cae.matrix.instance_claim)
    has written that the run begins. The log is no part of what is declared, and counts as no change.
options:
  instance:
    description: The slug of the instance.
    type: str
    required: true
  name:
    description: How people call it.
    type: str
    required: true
  domain:
    description: The part after the colon in C(@name:domain).
    type: str
    required: true
  homeserver_url:
    description: Where the homeserver answers.
    type: str
    required: true
  element_url:
    description: Where Element Web answers. Without it there is none.
    type: str
  profile:
    description: Whom the server talks to.
    type: str
    choices: [open, federation, internal]
    default: open
  registration:
    description: Who can register.
    type: str
    choices: [closed, token]
    default: closed
  administrators:
    description: The localparts of the administrators.
    type: list
    elements: str
    default: []
  config_dir:
    description: The instance's directory, such as C(/etc/matrix/atelier).
    type: path
    required: true
  run:
    description: What M(cae.matrix.instance_claim) called this run in the log. Without it, nothing is logged.
    type: str
  digest:
    description: A digest of the documents that the run was about.
    type: str
  changed:
    description: How many things the run has changed. The action counts them.
    type: int
  collection_version:
    description: The version of the collection. The action knows it.
    type: str
  log_dir:
    description: Where the logs of runs are.
    type: path
    default: /var/log/matrix
attributes:
  check_mode:
    description: Says what would be, and logs nothing.
    support: full
  diff_mode:
    description: There is nothing to change.
    support: none
seealso:
  - module: cae.matrix.instance_claim
"""

EXAMPLES = r"""
- name: Say how it is now
  cae.matrix.run_report:
    instance: atelier
    name: Coopérative Atelier
    domain: atelier.example
    homeserver_url: https://matrix.atelier.example/
    element_url: https://chat.atelier.example/
    registration: token
    administrators: [support]
    config_dir: /etc/matrix/atelier
    run: "{{ ansible_facts.cae_matrix_machine.run }}"
"""

RETURN = r"""
changes:
  description: What has changed (in check mode, what would), by role.
  returned: success
  type: dict
  sample: {synapse: [service, /etc/matrix/atelier/synapse/homeserver.yaml]}
lines:
  description: What was to be shown.
  returned: when the callback prints JSON
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.instance import run_log
from ansible_collections.cae.matrix.plugins.module_utils.instance.run_report import ARGUMENTS

# Each link leads to a directory that has the version in its name.
LINKS = {"synapse": "venv", "element_web": "element/release"}


def versions(config_dir: Path) -> dict[str, str]:
    """What is in place, by the links of the instance: 1.163.2 of /opt/matrix/synapse/1.163.2-0a1b2c3d4e5f."""
    found = {name: config_dir / link for name, link in LINKS.items()}
    return {name: link.readlink().name.partition("-")[0] for name, link in found.items() if link.is_symlink()}


def password_files(config_dir: Path, localparts: list[str]) -> dict[str, str]:
    """The files of passwords that were born on the machine."""
    found = {localpart: config_dir / "admins" / f"{quote(localpart)}.password" for localpart in localparts}
    return {localpart: str(file) for localpart, file in found.items() if file.exists()}


def log(params: dict[str, Any], seen: dict[str, str]) -> str:
    """Where it was written down that the run has ended."""
    file = run_log.path(params["instance"], params["log_dir"])
    more = {name: params[name] for name in ("changed", "registration", "digest")}
    run_log.write(file, run_log.line("ended", params["run"], **more, **seen))
    return str(file)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    config_dir = Path(params["config_dir"])
    seen = versions(config_dir)
    found: dict[str, Any] = {"versions": seen, "password_files": password_files(config_dir, params["administrators"])}
    if params["run"] and not module.check_mode:
        try:
            found["log"] = log(params, seen)
        except OSError as error:
            module.warn(f"That this run has ended could not be written down: {error}")
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
