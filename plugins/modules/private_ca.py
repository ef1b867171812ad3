#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: private_ca
short_description: Sign a machine's request with a CA kept on the controller
version_added: 0.1.0
author: cae.matrix contributors (@cae-matrix)
description:
  - Works on the controller, whatever the connection, C(become) and interpreter of the host are.
  - Looks at the CA in O(directory), C(ca.pem) and C(ca.key), and fails with every problem if it is there and cannot
    sign.
    A CA of any kind and maker is used, also an intermediate one, followed in C(ca.pem) by those above it.
  - What is there is never changed or replaced. A new CA is made only where neither of the two files is, and of several
    runs at once one makes it.
  - Of a request, only the key is taken. What is certified are O(names), for servers.
options:
  directory:
    description: The directory of the CA, on the controller.
    type: path
    required: true
  passphrase:
    description: What C(ca.key) is encrypted with. Empty, it is not.
    type: str
    default: ""
  make:
    description: Whether a CA is made where there is none, for ten years (EC P-384).
    type: bool
    default: false
  request:
    description: A certificate signing request (PEM). Without one, nothing is signed.
    type: str
  names:
    description: DNS names that are certified, or would be. The first is also the common name.
    type: list
    elements: str
    default: []
  days:
    description: How long the certificate is valid; never longer than the CA's own.
    type: int
    default: 365
attributes:
  check_mode:
    description: Looks at the CA, and signs if there is one; makes none.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Check that the CA can sign
  cae.matrix.private_ca:
    directory: /srv/ca
    names: [matrix.example.coop]

- name: Sign what the machine asks for
  cae.matrix.private_ca:
    directory: /srv/ca
    make: true
    request: "{{ tls_request.request }}"
    names: [matrix.example.coop, chat.example.coop]
  register: tls_signed
"""

RETURN = r"""
exists:
  description: Whether there is a CA (now).
  type: bool
  returned: success
not_after:
  description: The end of the CA's own validity, ISO 8601, UTC.
  type: str
  returned: when there is a CA
chain:
  description: The certificate, the CA's, and those above it (PEM).
  type: str
  returned: when O(request) is given and there is a CA
"""
