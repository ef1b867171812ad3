#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: verify
short_description: Look at an instance from outside
version_added: 0.1.0
description:
  - Asks the public names of an instance what anyone can ask, and says for each check what was seen. Changes nothing
    and needs no connection to the instance's machine, so delegate it to the machine that looks, usually localhost.
  - Looks at DNS, TLS and its expiry, the redirect from HTTP, the C(.well-known) documents on the domain and on the
    homeserver's name, CORS, versions and login of the client API, registration, what must not be reachable, the
    clock, federation with its keys and their signature, Element Web, and whether encryption is opt-in.
  - Every check runs, also after one has failed. One that builds on a failed one is C(not checked). The module itself
    only fails when it cannot begin; look at RV(ok).
options:
  domain:
    description: The part after the colon in C(@name:domain).
    type: str
    required: true
  hostname:
    description: Where the homeserver is served.
    type: str
    required: true
  element_hostname:
    description: Where Element Web is served. Left out or empty, Element Web is declared absent and not looked for.
    type: str
  element_version:
    description: The version that Element Web should have. Empty, any.
    type: str
    default: ""
  registration:
    description: How accounts should come to be.
    type: str
    choices: [closed, token]
    default: closed
  profile:
    description: Whom the server federates with. With V(internal), nothing may be there for other servers.
    type: str
    choices: [open, federation, internal]
    default: open
  well_known_elsewhere:
    description: Whether the domain's website is on somebody else's machine; it need not redirect from HTTP then.
    type: bool
    default: false
  support:
    description: Whether C(.well-known/matrix/support) should be there.
    type: bool
    default: false
  third_parties:
    description: Hosts that Element's C(config.json) may point at, besides the instance's own names.
    type: list
    elements: str
    default: []
  element_declared:
    description: The inventory's own C(element_web_*) variables. Hosts that they name may be in C(config.json).
    type: dict
    default: {}
  turn_uris:
    description: The relays for calls that the inventory declares. Without one, Element should show no calls of two.
    type: list
    elements: str
    default: []
  expiry_warning_days:
    description: A certificate that is valid for fewer days than this is warned about.
    type: int
    default: 21
  expiry_failure_days:
    description: A certificate that is valid for fewer days than this fails.
    type: int
    default: 3
  machine:
    description:
      - What the module M(cae.matrix.machine_room) returned on the instance's machine, or why it did not. Empty, the
        machine is not looked at.
    type: dict
    default: {}
  disk_warning_percent:
    description: A disk of the machine with less than this free is warned about.
    type: int
    default: 20
  disk_failure_percent:
    description: A disk of the machine with less than this free fails.
    type: int
    default: 5
  resolve:
    description:
      - Addresses by name, in place of DNS. Both sides may carry a port, C(chat.example.coop:443) to C(192.0.2.7:8443).
        TLS is still checked for the name.
    type: dict
    default: {}
  ca_file:
    description: A file of CA certificates (PEM) that are trusted besides the system's.
    type: path
  timeout:
    description: Seconds that one request may take.
    type: float
    default: 10
requirements:
  - cryptography (comes with ansible-core)
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
- name: Look at the instance from the controller
  cae.matrix.verify:
    domain: example.coop
    hostname: matrix.example.coop
    element_hostname: chat.example.coop
  delegate_to: localhost
  become: false
  register: seen

- name: Show what was seen
  cae.matrix.show:
    lines: "{{ seen.table }}"

- name: Look before DNS has moved
  cae.matrix.verify:
    domain: example.coop
    hostname: matrix.example.coop
    resolve:
      example.coop: 192.0.2.7
      matrix.example.coop: 192.0.2.7
  delegate_to: localhost
  become: false
"""

RETURN = r"""
ok:
  description: Whether no check failed. Warnings and checks left out do not count.
  type: bool
  returned: always
counts:
  description: How many checks are in each state, C(ok), C(warn), C(fail), C(not_checked).
  type: dict
  returned: always
checks:
  description: The checks in the order in which they ran.
  type: list
  elements: dict
  returned: always
  contains:
    id:
      description: A stable name for programs.
      type: str
      sample: tls.homeserver
    title:
      description: A name for people.
      type: str
      sample: TLS matrix.example.coop
    state:
      description: C(ok), C(warn), C(FAIL) or C(not checked).
      type: str
    seen:
      description: What was seen.
      type: str
    cause:
      description: Why it is a warning or a failure, otherwise empty.
      type: str
    mend:
      description: What to do about it, otherwise empty.
      type: str
table:
  description: The same as lines for a terminal.
  type: list
  elements: str
  returned: always
failures:
  description: One line for each failed check, with its cause.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification import (
        FAIL,
        Expected,
        Verification,
        report,
        table,
    )
    from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification_machine import (
        checks as machine_checks,
    )
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None

from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient, Unreachable


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "domain": {"type": "str", "required": True},
            "hostname": {"type": "str", "required": True},
            "element_hostname": {"type": "str"},
            "element_version": {"type": "str", "default": ""},
            "registration": {"type": "str", "choices": ["closed", "token"], "default": "closed"},
            "profile": {"type": "str", "choices": ["open", "federation", "internal"], "default": "open"},
            "well_known_elsewhere": {"type": "bool", "default": False},
            "support": {"type": "bool", "default": False},
            "third_parties": {"type": "list", "elements": "str", "default": []},
            "element_declared": {"type": "dict", "default": {}},
            "turn_uris": {"type": "list", "elements": "str", "default": []},
            "expiry_warning_days": {"type": "int", "default": 21},
            "expiry_failure_days": {"type": "int", "default": 3},
            "machine": {"type": "dict", "default": {}},
            "disk_warning_percent": {"type": "int", "default": 20},
            "disk_failure_percent": {"type": "int", "default": 5},
            "resolve": {"type": "dict", "default": {}},
            "ca_file": {"type": "path"},
            "timeout": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    if MISSING is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=str(MISSING))
    options = module.params
    try:
        client = PublicClient(options["resolve"], options["ca_file"], options["timeout"])
    except Unreachable as error:
        module.fail_json(msg=str(error))
    expected = Expected(
        domain=options["domain"],
        hostname=options["hostname"],
        element_hostname=options["element_hostname"] or None,
        element_version=options["element_version"],
        registration=options["registration"],
        federates=options["profile"] != "internal",
        well_known_elsewhere=options["well_known_elsewhere"],
        support=options["support"],
        third_parties=tuple(options["third_parties"]),
        element_declared=options["element_declared"],
        turn_uris=tuple(options["turn_uris"]),
        expiry_warning_days=options["expiry_warning_days"],
        expiry_failure_days=options["expiry_failure_days"],
    )
    checks = Verification(expected, client).run()
    if options["machine"]:
        levels = options["disk_warning_percent"], options["disk_failure_percent"]
        checks += machine_checks(options["machine"], *levels)
    seen = report(expected.domain, expected.domain, checks)
    module.exit_json(
        changed=False,
        ok=seen["ok"],
        counts=seen["counts"],
        checks=seen["checks"],
        table=table(expected.domain, checks),
        failures=[f"{check.title}: {check.cause}" for check in checks if check.state == FAIL],
    )


if __name__ == "__main__":
    main()
