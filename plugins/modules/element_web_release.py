#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: element_web_release
short_description: Install a verified release of Element Web
version_added: 0.1.0
author: cae.matrix contributors (@cae-matrix)
description:
  - Unpacks a release tarball into O(root)/O(version), after its SHA-256 digest and its OpenPGP signature have been
    verified; there is no way around either.
  - Unpacks beside the destination and moves the whole tree into place, so that an interrupted run is simply done again.
    What was unpacked is kept as a list of digests in the tree, and a tree that differs from it is put back.
  - A release that holds anything but files and directories below one top folder is refused.
options:
  version:
    description: The version, such as V(1.12.25).
    type: str
    required: true
  root:
    description: The directory that holds one tree for each version. It must exist.
    type: path
    default: /opt/matrix/element-web
  sha256:
    description: The digest of the tarball, 64 hexadecimal digits.
    type: str
    required: true
  signing_key:
    description: The armored public key that the release is signed with.
    type: str
    required: true
  fingerprint:
    description: The fingerprint of the primary key of O(signing_key).
    type: str
    required: true
  url:
    description: Where the machine downloads the tarball from.
    type: str
  signature_url:
    description: Where the machine downloads the detached signature from. Required with O(url).
    type: str
  file:
    description: The tarball on the controller, in place of O(url). It is sent only when it is needed.
    type: path
  signature_file:
    description: The detached signature on the controller. Required with O(file).
    type: path
  timeout:
    description: How many seconds to wait for the server that O(url) names.
    type: int
    default: 60
attributes:
  check_mode:
    description: Says whether the release would be installed, and fetches nothing.
    support: full
  diff_mode:
    description: The state of the tree before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install a release that was fetched beforehand
  cae.matrix.element_web_release:
    version: 1.12.25
    sha256: "{{ element_web_release_sha256 }}"
    signing_key: "{{ lookup('ansible.builtin.file', 'element-release-key.asc') }}"
    fingerprint: 712BFBEE92DCA45252DB17D7C7BE97EFA179B100
    file: /srv/mirror/element-v1.12.25.tar.gz
    signature_file: /srv/mirror/element-v1.12.25.tar.gz.asc
"""

RETURN = r"""
path:
  description: The tree.
  returned: success
  type: str
  sample: /opt/matrix/element-web/1.12.25
"""

import fcntl
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host.element_web import (
    SHA256,
    VERSION,
    ReleaseError,
    state,
    unpack,
    verify,
)


def opener() -> urllib.request.OpenerDirector:
    """Fetches over HTTP and HTTPS only, redirects included: no file:, no ftp:."""
    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        made.add_handler(handler)
    return made


def download(url: str, path: str, timeout: int, variable: str) -> None:
    try:
        with opener().open(url, timeout=timeout) as response, open(path, "wb") as file:
            shutil.copyfileobj(response, file, 1 << 20)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ReleaseError(
            f"{variable}: {url} cannot be fetched by the machine ({error}). Give a mirror, or element_web_release_file "
            "on the controller"
        ) from error


def install(module: AnsibleModule, tree: Path) -> None:
    given = module.params
    with tempfile.TemporaryDirectory(prefix=".download-", dir=given["root"]) as directory:
        release, signature = os.path.join(directory, "release.tar.gz"), os.path.join(directory, "release.tar.gz.asc")
        if given["file"]:
            shutil.copyfile(given["file"], release)
            shutil.copyfile(given["signature_file"], signature)
        else:
            download(given["url"], release, given["timeout"], "element_web_release_url")
            download(given["signature_url"], signature, given["timeout"], "element_web_release_signature_url")
        verify(release, signature, given["sha256"], given["signing_key"], given["fingerprint"])
        unpack(release, tree, given["version"], given["sha256"])


def run(module: AnsibleModule) -> dict[str, object]:
    given = module.params
    if not VERSION.fullmatch(given["version"]):
        raise ReleaseError(f'element_web_version: "{given["version"]}" is no version; such as 1.12.25, without the v')
    if not SHA256.fullmatch(given["sha256"]):
        raise ReleaseError("element_web_release_sha256: must be 64 of 0-9 and a-f")
    root = Path(given["root"])
    tree = root / given["version"]
    if not module.check_mode and not root.is_dir():
        raise ReleaseError(f"there is no directory {root} on the machine; role machine makes it")
    if not root.is_dir():
        complete, before = False, "not there"
    else:
        with open(root / ".lock", "a") if not module.check_mode else open(os.devnull) as lock:
            if not module.check_mode:
                fcntl.flock(lock, fcntl.LOCK_EX)
            complete, before = state(tree, given["sha256"])
            if not complete and not module.check_mode and given["transferred"]:
                install(module, tree)
    return {
        "changed": not complete,
        "path": str(tree),
        "needed": not complete,
        "diff": {
            "before_header": str(tree),
            "after_header": str(tree),
            "before": "" if complete else before + "\n",
            "after": "" if complete else f"release {given['version']}, {given['sha256']}\n",
        },
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/opt/matrix/element-web"},
            "sha256": {"type": "str", "required": True},
            "signing_key": {"type": "str", "required": True, "no_log": False},
            "fingerprint": {"type": "str", "required": True},
            "url": {"type": "str"},
            "signature_url": {"type": "str"},
            "file": {"type": "path"},
            "signature_file": {"type": "path"},
            "timeout": {"type": "int", "default": 60},
            # Set by the action plugin: whether the controller's files are on the machine already.
            "transferred": {"type": "bool", "default": True},
        },
        mutually_exclusive=[("url", "file")],
        required_one_of=[("url", "file")],
        required_together=[("url", "signature_url"), ("file", "signature_file")],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except (ReleaseError, OSError, EOFError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
