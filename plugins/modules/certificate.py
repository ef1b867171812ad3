#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look at a TLS certificate and its key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate
short_description: Look at a TLS certificate and its key
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Reads a certificate chain and a private key on the target and tells whether a web server can serve the given names
    with them - they exist, can be read, belong together, are valid today, cover every name, stand in order, and lead
    to the CA if one is given.
  - Changes nothing. The target needs Python and the C(openssl) command, no library.
options:
  path:
    description: The certificate, followed by its intermediates (PEM).
    type: path
    required: true
  key_path:
    description: The private key (PEM), without a passphrase.
    type: path
    required: true
  names:
    description: DNS names that the certificate has to cover.
    type: list
    elements: str
    default: []
  required:
    description:
      - Fail when something is wrong, with everything that is in one message.
      - When V(false), problems are only returned; a tool such as an ACME client is about to mend them.
    type: bool
    default: false
  renew_before_days:
    description: From how many days before its end on a certificate counts as due.
    type: int
    default: 30
  ca_content:
    description: Certificates of the CA that has to have issued the certificate (PEM). Empty, any.
    type: str
    default: ""
  allow_self_signed:
    description: Whether a certificate that signs itself is good. V(false) tells a placeholder from a real one.
    type: bool
    default: true
  acme:
    description:
      - What a certificate of certbot has to have been asked with; another directory or other options make it due. See
        M(cae.matrix.acme_certificate).
    type: dict
    suboptions:
      name:
        description: What certbot calls the certificate.
        type: str
        required: true
      directory:
        description: The ACME server's directory.
        type: str
        required: true
      options:
        description: More of certbot's configuration.
        type: dict
        default: {}
      record:
        description: The file that remembers what was asked.
        type: path
        required: true
  path_variable:
    description: What messages call O(path), such as the role variable that people set.
    type: str
    default: path
  key_path_variable:
    description: What messages call O(key_path).
    type: str
    default: key_path
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: Nothing is ever changed.
    support: none
"""

EXAMPLES = r"""
- name: Refuse a certificate that people's browsers would refuse
  cae.matrix.certificate:
    path: /etc/ssl/example.coop/fullchain.pem
    key_path: /etc/ssl/example.coop/privkey.pem
    names: [example.coop, matrix.example.coop, chat.example.coop]
    required: true
    path_variable: reverse_proxy_certificate_path
    key_path_variable: reverse_proxy_certificate_key_path

- name: See whether a new certificate is needed
  cae.matrix.certificate:
    path: /etc/matrix/example/tls/live/fullchain.pem
    key_path: /etc/matrix/example/tls/live/privkey.pem
    names: [matrix.example.coop]
    allow_self_signed: false
  register: tls
"""

RETURN = r"""
usable:
  description: Whether a web server would start with the pair, right or not for the names.
  type: bool
  returned: always
needed:
  description: Whether a new certificate is needed - something is wrong, or it ends within O(renew_before_days) days.
  type: bool
  returned: always
problems:
  description: What is wrong, each with a C(code) and a C(text) that names the variable and the mend.
  type: list
  elements: dict
  returned: always
  sample: [{code: names, text: "path: /etc/ssl/a.pem: does not cover chat.example.coop (it covers example.coop)"}]
exists:
  description: Whether both files are there.
  type: bool
  returned: always
not_after:
  description: The end of its validity, ISO 8601, UTC.
  type: str
  returned: when there is a certificate
days_left:
  description: Whole days until then; negative afterwards.
  type: int
  returned: when there is a certificate
names:
  description: The DNS names it covers.
  type: list
  elements: str
  returned: when there is a certificate
subject:
  description: Whom it was issued to.
  type: str
  returned: when there is a certificate
issuer:
  description: Who issued it.
  type: str
  returned: when there is a certificate
self_signed:
  description: Whether it signs itself.
  type: bool
  returned: when there is a certificate
fingerprint:
  description: SHA-256 of the certificate, hexadecimal.
  type: str
  returned: when there is a certificate
"""

import dataclasses
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host.acme_order import other_order
from ansible_collections.cae.matrix.plugins.module_utils.host.tls_pair import OpensslError, Problem, Report, examine


def result(report: Report) -> dict[str, Any]:
    """The report as a module returns it."""
    returned: dict[str, Any] = {
        "changed": False,
        "exists": report.exists,
        "usable": report.usable,
        "needed": bool(report.problems) or report.expires_soon,
        "problems": [dataclasses.asdict(problem) for problem in report.problems],
    }
    if report.certificate:
        returned |= {
            "not_after": report.certificate.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "days_left": report.days_left,
            "names": list(report.certificate.names),
            "subject": report.certificate.subject,
            "issuer": report.certificate.issuer,
            "self_signed": report.certificate.self_signed,
            "fingerprint": report.certificate.fingerprint,
        }
    return returned


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "key_path": {"type": "path", "required": True, "no_log": False},
            "names": {"type": "list", "elements": "str", "default": []},
            "required": {"type": "bool", "default": False},
            "renew_before_days": {"type": "int", "default": 30},
            "ca_content": {"type": "str", "default": ""},
            "allow_self_signed": {"type": "bool", "default": True},
            "acme": {
                "type": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "directory": {"type": "str", "required": True},
                    "options": {"type": "dict", "default": {}, "no_log": True},
                    "record": {"type": "path", "required": True},
                },
            },
            "path_variable": {"type": "str", "default": "path"},
            "key_path_variable": {"type": "str", "default": "key_path", "no_log": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        report = examine(
            given["path"],
            given["key_path"],
            given["names"],
            path_variable=given["path_variable"],
            key_path_variable=given["key_path_variable"],
            renew_before_days=given["renew_before_days"],
            ca=given["ca_content"],
            placeholder_is_problem=not given["allow_self_signed"],
        )
    except OpensslError as error:
        module.fail_json(msg=f"Certificates cannot be looked at: {error}. Install the package openssl on the machine.")
    if given["acme"] and report.exists and (text := other_order(**given["acme"])):
        report.problems.append(Problem("acme", f"{given['path_variable']}: {given['path']}: {text}"))
    returned = result(report)
    if given["required"]:
        if report.problems:
            causes = "\n".join(f"- {problem.text}" for problem in report.problems)
            module.fail_json(msg=f"The certificate cannot be used, nothing was changed:\n{causes}", **returned)
        if report.expires_soon:
            module.warn(f"{given['path_variable']}: {given['path']} expires in {report.days_left} days; renew it.")
    module.exit_json(**returned)


if __name__ == "__main__":
    main()
