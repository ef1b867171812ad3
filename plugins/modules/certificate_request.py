#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A TLS key born on the target, a placeholder certificate, and a request for a real one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_request
short_description: A TLS key born on the target, a placeholder certificate, and a request for a real one
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Makes a directory with C(privkey.pem) (EC P-256, mode 0600) and C(fullchain.pem), a certificate that the key signs
    itself, so that a web server can be configured before there is a real one.
  - What is there and works is kept. The key never leaves the target; the returned request is public.
  - The target needs Python and the C(openssl) command, no library.
options:
  directory:
    description: Where the pair lies; made with mode 0700 for root.
    type: path
    required: true
  names:
    description: DNS names to ask for. The first is also the common name.
    type: list
    elements: str
    required: true
  link:
    description: A link that is made to point at O(directory), unless it already leads to a pair that works.
    type: path
attributes:
  check_mode:
    description: Says whether a key or a placeholder would be made; there is no request then.
    support: full
  diff_mode:
    description: Keys are not shown.
    support: none
"""

EXAMPLES = r"""
- name: Give nginx something to start with, and ask for a certificate
  cae.matrix.certificate_request:
    directory: /etc/matrix/example/tls/placeholder
    link: /etc/matrix/example/tls/live
    names: [matrix.example.coop, chat.example.coop]
  register: tls_request
"""

RETURN = r"""
request:
  description: The certificate signing request (PEM).
  type: str
  returned: when not in check mode
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host.tls_pair import (
    OpensslError,
    key_matches,
    key_usable,
    openssl,
)


def put(path: str, text: str, mode: int) -> None:
    """Write a file in one step, never readable to others meanwhile."""
    # By this name, it goes with the next run if this one is killed (module documents).
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.cae-matrix-new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def works(directory: str) -> bool:
    """Whether a server would start with the pair in a directory."""
    certificate, key = os.path.join(directory, "fullchain.pem"), os.path.join(directory, "privkey.pem")
    return os.path.isfile(certificate) and os.path.isfile(key) and key_matches(certificate, key) is None


def wanted(names: list[str]) -> list[str]:
    """The arguments of openssl that name what the certificate is for; a common name holds 64 characters."""
    alternative = ",".join(f"DNS:{name}" for name in names)
    return ["-subj", f"/CN={names[0][:64]}", "-addext", f"subjectAltName={alternative}"]


def make(directory: str, names: list[str], check_mode: bool) -> tuple[bool, str]:
    """Whether something was made, and the request."""
    certificate, key = os.path.join(directory, "fullchain.pem"), os.path.join(directory, "privkey.pem")
    changed = False
    if not key_usable(key):
        changed = True
        if not check_mode:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            put(key, openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"), 0o600)
    if changed or not works(directory):
        changed = True
        if not check_mode:
            text = openssl("req", "-x509", "-new", "-key", key, "-days", "3650", "-sha256", *wanted(names))
            put(certificate, text, 0o644)
    request = "" if check_mode else openssl("req", "-new", "-key", key, "-sha256", *wanted(names))
    return changed, request


def point(link: str, directory: str, check_mode: bool) -> bool:
    """Let a link lead to the directory, unless it leads to something that works."""
    if works(link):
        return False
    if not check_mode:
        temporary = f"{link}.new"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(directory, temporary)
        os.replace(temporary, link)
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "link": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = module.params
    if not given["names"]:
        module.fail_json(msg="names: at least one DNS name is needed")
    try:
        changed, request = make(given["directory"], given["names"], module.check_mode)
        if given["link"]:
            changed = point(given["link"], given["directory"], module.check_mode) or changed
    except OpensslError as error:
        module.fail_json(msg=f"No key or request could be made: {error}. Is the package openssl installed?")
    except OSError as error:
        module.fail_json(msg=f"No key or request could be made in {given['directory']}: {error}")
    module.exit_json(changed=changed, request=request)


if __name__ == "__main__":
    main()
