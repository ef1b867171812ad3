#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Registration tokens of one server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registration_token
short_description: Make, list and revoke registration tokens
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Works through Synapse's admin API on its Unix socket, with the encryption gate's account, once the gate has passed.
  - Shows tokens in its result, on purpose, since somebody has to hand them out.
  - Refuses to make a token that nobody could use, since registration is not open by token.
extends_documentation_fragment: [cae.matrix.service_account]
options:
  action:
    description: What to do.
    type: str
    choices: [create, list, revoke]
    default: list
  token:
    description:
      - With O(action=create), the token itself. If it is there already, its limits become those given. Without it, a
        new one is born on every run.
      - With O(action=revoke), the one to revoke.
    type: str
  uses_allowed:
    description: How many people may use it. Without it, any number.
    type: int
  expiry:
    description: When it ends, in hours from now (C(48)), or as a date (C(2027-01-31), to its end in UTC), or as a date
      and time (C(2027-01-31T18:00:00+01:00)). Without it, never.
    type: str
attributes:
  check_mode:
    support: full
    description: Says what it would change; a token that would be born is not there to be shown.
seealso:
  - module: cae.matrix.encryption_gate
"""

EXAMPLES = r"""
- name: Make a token that thirty people can use within two days
  cae.matrix.registration_token:
    action: create
    uses_allowed: 30
    expiry: "48"
    domain: example.coop
    config_dir: /etc/matrix/example
    socket: /run/matrix-synapse/example/client.sock
"""

RETURN = r"""
tokens:
  description: The token that was made, or all of them.
  returned: always
  type: list
  elements: dict
  sample: [{token: abc, uses_allowed: 30, pending: 0, completed: 4, expiry_time: 1798761599000}]
report:
  description: The same, for people.
  returned: always
  type: str
"""

import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.encryption import attestation
from ansible_collections.cae.matrix.plugins.module_utils.synapse import tokens
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import (
    Synapse,
    SynapseError,
    existing_account,
    quote,
    read_text,
)

BASE = "/_synapse/admin/v1/registration_tokens"


def existing(synapse: Synapse, token: str) -> dict[str, Any] | None:
    """The token as Synapse has it."""
    status, answer = synapse.ask("GET", f"{BASE}/{quote(token)}")
    if status == 404:
        return None
    if status != 200:
        raise synapse.refusal("GET", BASE, status, answer)
    return dict(answer)


def create(module: AnsibleModule, synapse: Synapse, limits: dict[str, Any]) -> tuple[bool, list[dict[str, Any]]]:
    """A token with these limits."""
    token = module.params["token"]
    found = existing(synapse, token) if token else None
    if found and {key: found[key] for key in limits} == limits:
        return False, [found]
    if module.check_mode:
        return True, [{**(found or {"token": token, "pending": 0, "completed": 0}), **limits}] if token else []
    if found:
        return True, [synapse.call("PUT", f"{BASE}/{quote(token)}", limits)]
    return True, [synapse.call("POST", f"{BASE}/new", {**limits, **({"token": token} if token else {})})]


def revoke(module: AnsibleModule, synapse: Synapse) -> tuple[bool, list[dict[str, Any]]]:
    """No such token any more."""
    token = module.params["token"]
    found = existing(synapse, token)
    if found and not module.check_mode:
        synapse.call("DELETE", f"{BASE}/{quote(token)}")
    return found is not None, []


def must_be_of_use(config_dir: Path) -> None:
    """Only where registration is by token."""
    try:
        proof = attestation.parse(read_text(config_dir / "attestation.json") or "")
    except attestation.Malformed as error:
        raise SynapseError(
            f"The encryption gate has not passed: {config_dir / 'attestation.json'}: {error}.",
            "Run the playbook cae.matrix.cooperative, and mend what its report names.",
        ) from None
    if proof.registration != "token":
        raise SynapseError(
            "Nobody could use the token: registration is closed.",
            "Set encryption_gate_registration: token, and run the playbook cae.matrix.cooperative first.",
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "choices": ["create", "list", "revoke"], "default": "list"},
            # Shown on purpose: handing it out is what it is for.
            "token": {"type": "str", "no_log": False},
            "uses_allowed": {"type": "int"},
            "expiry": {"type": "str"},
            "domain": {"type": "str", "required": True},
            "config_dir": {"type": "path", "required": True},
            "socket": {"type": "path", "required": True},
        },
        required_if=[("action", "revoke", ("token",))],
        supports_check_mode=True,
    )
    params = module.params
    config_dir = Path(params["config_dir"])
    limits: dict[str, Any] = {"uses_allowed": params["uses_allowed"], "expiry_time": None}
    if params["token"] and not tokens.TOKEN.fullmatch(params["token"]):
        module.fail_json(msg=f'registration_token: "{params["token"]}": at most 64 letters, digits and . _ ~ -')
    if params["uses_allowed"] is not None and params["uses_allowed"] < 1:
        module.fail_json(msg=f"registration_token_uses_allowed: {params['uses_allowed']}: at least 1, or leave it out")
    try:
        if params["expiry"]:
            limits["expiry_time"] = tokens.expiry_ms(params["expiry"], datetime.datetime.now(datetime.UTC))
    except (ValueError, OverflowError) as error:
        module.fail_json(msg=f"registration_token_expiry: {error}")
    changed = False
    found: list[dict[str, Any]] = []
    try:
        synapse = Synapse(params["socket"])
        if params["action"] == "create":
            must_be_of_use(config_dir)
        existing_account(synapse, params["domain"], config_dir)
        if params["action"] == "create":
            changed, found = create(module, synapse, limits)
        elif params["action"] == "revoke":
            changed, found = revoke(module, synapse)
        else:
            found = synapse.call("GET", BASE)["registration_tokens"]
    except SynapseError as error:
        module.fail_json(msg=str(error))
    report = tokens.report(params["domain"], params["action"], found, changed)
    module.exit_json(changed=changed, tokens=found, report=report)


if __name__ == "__main__":
    main()
