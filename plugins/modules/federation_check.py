#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: federation_check
short_description: Ask from an instance whether it reaches other servers, and they let it in
version_added: 0.1.0
description:
  - Runs on the instance's machine, so that it sees what Synapse sees (its DNS, the authorities it trusts, its network).
    It looks at each of the other servers in order, C(.well-known) and certificate, version, clock, signing keys, then
    asks it something with a request that is signed with the instance's own key, then has Synapse itself ask, and ends
    at the first of these that fails. Changes nothing on the instance.
  - Where two servers may not talk, a refusal is what is right, by the instance's own policy or by the other's.
  - The module itself only fails when it cannot begin; look at RV(ok).
  - A server that is asked successfully takes it as a sign of life, and resumes sending at once what it held back after
    earlier failures.
  - SRV records are not read. A server that can only be found by them is left to Synapse, with a warning.
extends_documentation_fragment: cae.matrix.service_account
options:
  peers:
    description: The servers to ask, all at the same time.
    type: list
    elements: dict
    required: true
    suboptions:
      domain:
        description: The server's name.
        type: str
        required: true
      expected:
        description: Whether it and the instance may talk.
        type: bool
        default: true
      why:
        description: Why they may not, for messages.
        type: str
        default: ""
  ca_file:
    description: A file of CA certificates (PEM) that are trusted besides the machine's.
    type: path
  timeout:
    description: Seconds that one request may take.
    type: float
    default: 10
  deadline:
    description: Seconds after which servers that are not done are reported as such.
    type: float
    default: 120
requirements:
  - cryptography; the virtual environment of Synapse has it, so let that be C(ansible_python_interpreter)
attributes:
  check_mode:
    description: Looks in check mode as well.
    support: full
  diff_mode:
    description: There is nothing to change.
    support: none
author:
  - cae.matrix contributors
"""

EXAMPLES = r"""
- name: See whether the hub lets us in
  cae.matrix.federation_check:
    domain: atelier.example
    config_dir: /etc/matrix/atelier
    socket: /run/matrix-synapse/atelier/client.sock
    peers:
      - domain: federation.example
      - domain: ailleurs.example
        expected: false
        why: ailleurs.example is denied here
  become: true
  vars:
    ansible_python_interpreter: /etc/matrix/atelier/venv/bin/python
  register: reached
"""

RETURN = r"""
ok:
  description: Whether every server was reached, or refused, as it should. Warnings do not count.
  type: bool
  returned: always
rows:
  description: What came of each, in the order of O(peers).
  type: list
  elements: dict
  returned: always
  contains:
    domain:
      description: The server's name.
      type: str
    expected:
      description: Whether it and the instance may talk.
      type: bool
    outcome:
      description: C(reached), C(refused here), C(refused there), C(absent) (no federation there at all) or C(failed).
      type: str
    state:
      description: C(ok), also for a refusal that is as it should be, C(warn) or C(FAIL).
      type: str
    step:
      description:
        - Where it ended, C(policy), C(delegation), C(version), C(clock), C(keys), C(request), C(synapse) or C(backoff),
          which is the last.
      type: str
    seen:
      description: What was seen on the way.
      type: str
    cause:
      description: Why it is a warning or a failure, otherwise empty.
      type: str
    mend:
      description: What to do about it, otherwise empty.
      type: str
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from ansible_collections.cae.matrix.plugins.module_utils.federation import pairs as federation_pairs
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None

from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient, Unreachable
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import ServiceAccount, Synapse, SynapseError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "domain": {"type": "str", "required": True},
            "config_dir": {"type": "path", "required": True},
            "socket": {"type": "path", "required": True},
            "peers": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "domain": {"type": "str", "required": True},
                    "expected": {"type": "bool", "default": True},
                    "why": {"type": "str", "default": ""},
                },
            },
            "ca_file": {"type": "path"},
            "timeout": {"type": "float", "default": 10},
            "deadline": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    if MISSING is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=str(MISSING))
    options = module.params
    secrets = Path(options["config_dir"]) / "secrets"
    # Synapse may try more than once before it gives an answer.
    patience = 2 * options["timeout"]
    synapse = Synapse(options["socket"], patience)
    account = ServiceAccount(
        synapse,
        options["domain"],
        Path(options["config_dir"]) / "gate.token",
        secrets / "registration_shared_secret",
    )
    try:
        if not account.look():
            module.fail_json(
                msg=f"The gate's account cannot be used with {account.token_file}. Run the playbook that brings the"
                " instance up (cae.matrix.cooperative or cae.matrix.federation_hub); it makes it anew."
            )
        key = federation_pairs.SigningKey.read(secrets / "signing.key")
        client = PublicClient(
            None,
            options["ca_file"],
            options["timeout"],
            federation_pairs.MAX_BODY,
            federation_pairs.MAX_REDIRECTS,
        )
    except (SynapseError, Unreachable) as error:
        module.fail_json(msg=str(error))
    except (OSError, ValueError) as error:
        module.fail_json(
            msg=f"The signing key {secrets / 'signing.key'} cannot be read: {error}. Put it back from a backup."
        )

    def ask() -> Synapse:
        one = Synapse(options["socket"], patience)
        one.token = synapse.token
        return one

    own = federation_pairs.Own(options["domain"], key, ask)
    rows = federation_pairs.check(own, client, federation_pairs.peers(options["peers"]), options["deadline"])
    module.exit_json(
        changed=False,
        ok=federation_pairs.kept(rows),
        rows=[asdict(row) for row in rows],
    )


if __name__ == "__main__":
    main()
