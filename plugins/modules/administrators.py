#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The first administrators of a server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: administrators
short_description: Give people server administrators' accounts
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Makes the accounts that are missing, through Synapse's admin API on its Unix socket, once the encryption gate has
    passed. An account that exists and is no administrator becomes one.
  - Never changes the password or the name of a person who is there already.
  - A password that is not given is born on the target, in C(admins/<localpart>.password) (root, 0600), before the
    account is made, so that an interrupted run loses nothing.
  - Every name is checked before the first account is made.
extends_documentation_fragment: [cae.matrix.service_account]
options:
  administrators:
    description: Who they are.
    type: list
    elements: dict
    required: true
    suboptions:
      localpart:
        description: The part before the colon.
        type: str
        required: true
      display_name:
        description: The name others see, when the account is made.
        type: str
      password:
        description: The password, when the account is made.
        type: str
attributes:
  check_mode:
    support: full
    description: Says which accounts it would make. Before the gate has passed, that is all of them.
seealso:
  - module: cae.matrix.encryption_gate
"""

EXAMPLES = r"""
- name: Give the first administrators their accounts
  cae.matrix.administrators:
    domain: example.coop
    config_dir: /etc/matrix/example
    socket: /run/matrix-synapse/example/client.sock
    administrators:
      - localpart: amina
        display_name: Amina Diallo
"""

RETURN = r"""
made:
  description: The accounts that were made.
  returned: always
  type: list
  elements: str
  sample: ["@amina:example.coop"]
promoted:
  description: The accounts that were there and became administrators.
  returned: always
  type: list
  elements: str
password_files:
  description: Where the passwords born on the target are, by account.
  returned: always
  type: dict
  sample: {"@amina:example.coop": /etc/matrix/example/admins/amina.password}
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import localpart_problems
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import (
    Synapse,
    SynapseError,
    existing_account,
    quote,
    read_text,
    write_private,
)


class Administrators:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.domain: str = module.params["domain"]
        self.config_dir = Path(module.params["config_dir"])
        self.people: Sequence[dict[str, Any]] = module.params["administrators"]
        self.synapse = Synapse(module.params["socket"])
        self.made: list[str] = []
        self.promoted: list[str] = []
        self.password_files: dict[str, str] = {}

    def run(self) -> None:
        problems = localpart_problems([person["localpart"] for person in self.people], self.domain)
        if problems:
            self.module.fail_json(msg="\n".join(problems))
        try:
            if self.module.check_mode and not (self.config_dir / "gate.token").exists():
                self.made = [self.user_id(person) for person in self.people]
            else:
                existing_account(self.synapse, self.domain, self.config_dir)
                # All are looked at before the first is touched.
                for person, found in [(person, self.look(person)) for person in self.people]:
                    self.bring_about(person, found)
        except SynapseError as error:
            self.module.fail_json(msg=str(error), **self.result())
        self.module.exit_json(**self.result())

    def result(self) -> dict[str, Any]:
        return {
            "changed": bool(self.made or self.promoted),
            "made": self.made,
            "promoted": self.promoted,
            "password_files": self.password_files,
        }

    def user_id(self, person: dict[str, Any]) -> str:
        return f"@{person['localpart']}:{self.domain}"

    def path(self, person: dict[str, Any]) -> str:
        return f"/_synapse/admin/v2/users/{quote(self.user_id(person))}"

    def look(self, person: dict[str, Any]) -> dict[str, Any] | None:
        status, answer = self.synapse.ask("GET", self.path(person))
        if status == 404:
            return None
        if status != 200:
            raise self.synapse.refusal("GET", self.path(person), status, answer)
        if answer.get("deactivated"):
            raise SynapseError(
                f"{self.user_id(person)} was deactivated.",
                "Take the person out of encryption_gate_administrators, or give them another localpart.",
            )
        return dict(answer)

    def bring_about(self, person: dict[str, Any], found: dict[str, Any] | None) -> None:
        if found and found.get("admin"):
            return
        if found:
            self.promoted.append(self.user_id(person))
            if not self.module.check_mode:
                self.synapse.call("PUT", self.path(person), {"admin": True})
            return
        if not self.module.check_mode:
            body: dict[str, Any] = {"admin": True, "password": person["password"] or self.born_password(person)}
            if person["display_name"]:
                body["displayname"] = person["display_name"]
            status, answer = self.synapse.ask("PUT", self.path(person), body)
            if status not in (200, 201):
                raise self.synapse.refusal("PUT", self.path(person), status, answer)
        self.made.append(self.user_id(person))

    def born_password(self, person: dict[str, Any]) -> str:
        """The one in the file, which is made if there is none."""
        directory = self.config_dir / "admins"
        directory.mkdir(mode=0o700, exist_ok=True)
        file = directory / f"{quote(person['localpart'])}.password"
        password = (read_text(file) or "").strip()
        if not password:
            password = secrets.token_urlsafe(18)
            write_private(file, password + "\n")
        self.password_files[self.user_id(person)] = str(file)
        return password


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "domain": {"type": "str", "required": True},
            "config_dir": {"type": "path", "required": True},
            "socket": {"type": "path", "required": True},
            "administrators": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "localpart": {"type": "str", "required": True},
                    "display_name": {"type": "str"},
                    "password": {"type": "str", "no_log": True},
                },
            },
        },
        supports_check_mode=True,
    )
    Administrators(module).run()


if __name__ == "__main__":
    main()
