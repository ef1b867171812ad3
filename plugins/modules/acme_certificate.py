#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: acme_certificate
short_description: Get a certificate from an ACME server with certbot
version_added: 0.1.0
author: cae.matrix contributors (@cae-matrix)
description:
  - Looks first whether every address of every name leads to this machine, so that an ACME server that counts failures
    is not asked in vain. Where an address is none of the machine's own (a router, a proxy in front), a file of its own
    in O(webroot) has to be found there. What cannot be told from inside the network is a warning.
  - Then has certbot get the certificate, waits for another certbot that is running, and remembers what it was asked
    with, for the option O(cae.matrix.certificate#module:acme) of M(cae.matrix.certificate).
  - Always asks; whether it is needed is that module's to say.
options:
  name:
    description: What certbot calls the certificate. Needed with O(ask=true).
    type: str
  directory:
    description: URL of the ACME server's directory. Needed with O(ask=true).
    type: str
  names:
    description: DNS names to ask for.
    type: list
    elements: str
    required: true
  webroot:
    description: Where challenges are served from. Needed with O(ask=true).
    type: path
  hook:
    description: What certbot runs when it has a new certificate, now and at each renewal. Needed with O(ask=true).
    type: path
  record:
    description: The file that remembers what was asked. Needed with O(ask=true).
    type: path
  email:
    description: Whom the ACME server may write to. Empty, nobody.
    type: str
    default: ""
  in_front:
    description: Whether names lead to another machine's proxy. What cannot be told from here is a warning then.
    type: bool
    default: false
  options:
    description:
      - More of certbot's configuration, by the long names of its options without dashes in front, such as C(account).
        They reach certbot in a file that only root reads, and are not shown.
    type: dict
    default: {}
  ask:
    description: Where V(false), only looks at the names' addresses, before there is a web server that could answer.
    type: bool
    default: true
attributes:
  check_mode:
    description: Says that a certificate would be asked for, and asks nobody.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Ask for the certificate
  cae.matrix.acme_certificate:
    name: matrix-example
    directory: https://acme-v02.api.letsencrypt.org/directory
    names: [example.coop, matrix.example.coop]
    webroot: /var/www/matrix-example
    hook: /etc/matrix/example/proxy/certificate-renewed
    record: /etc/matrix/example/tls/acme.json
"""

RETURN = r"""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host.acme import (
    AcmeError,
    Order,
    by_web,
    look_at_answers,
    look_at_names,
    obtain,
)
from ansible_collections.cae.matrix.plugins.module_utils.host.machine_web import addresses


def refuse(module: AnsibleModule, wrong: list[str]) -> None:
    if wrong:
        causes = "\n".join(f"- {text}" for text in wrong)
        module.fail_json(msg=f"The ACME server was not asked, since it would not find this machine:\n{causes}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "directory": {"type": "str"},
            "names": {"type": "list", "elements": "str", "required": True},
            "webroot": {"type": "path"},
            "hook": {"type": "path"},
            "record": {"type": "path"},
            "email": {"type": "str", "default": ""},
            "in_front": {"type": "bool", "default": False},
            "options": {"type": "dict", "default": {}, "no_log": True},
            "ask": {"type": "bool", "default": True},
        },
        required_if=[("ask", True, ("name", "directory", "webroot", "hook", "record"))],
        supports_check_mode=True,
    )
    given = module.params
    record, ask, in_front = given.pop("record"), given.pop("ask"), given.pop("in_front")
    own = addresses()
    try:
        elsewhere: list[tuple[str, str]] = []
        if by_web(given["options"]):
            found, elsewhere = look_at_names(given["names"], own, in_front=in_front)
            refuse(module, found.wrong)
        if not ask:
            module.exit_json(changed=False)
        if module.check_mode:
            module.exit_json(changed=True)
        if elsewhere:
            found = look_at_answers(elsewhere, own, given["webroot"], in_front=in_front)
            refuse(module, found.wrong)
            for text in found.unseen:
                module.warn(text)
        obtain(Order(**given), record)
    except AcmeError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The certificate cannot be asked for: {error}")
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
