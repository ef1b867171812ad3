#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The federation's list of members, signed, where the hub serves it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: members_publication
short_description: Sign the federation's list of members and put it where the hub serves it
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Runs on the hub's machine, with the standard library and the openssl command.
  - The key is born there, once, readable by root alone. It is never replaced; members have its public part.
  - Signs as Matrix does ("Signing JSON" of its specification). The date of issue and the signature change when the
    content does, and only then; each list is newer than the one before, whatever the clock says.
  - What stands at O(path) is replaced only if this key has signed it; anything else is somebody's, and refused.
extends_documentation_fragment:
  - ansible.builtin.files
options:
  document:
    description: The list as M(cae.matrix.members) returns it.
    type: dict
    required: true
  key_path:
    description: The private key (PEM), in a directory that only root can write to.
    type: path
    required: true
  path:
    description: The file that is served.
    type: path
    required: true
  mode:
    default: "0644"
attributes:
  check_mode:
    support: full
    description: A key that is not there yet has no public part to show.
  diff_mode:
    support: full
    description: Pictures are shown by their size.
seealso:
  - module: cae.matrix.members
"""

EXAMPLES = r"""
- name: Publish the list of members
  cae.matrix.members_publication:
    document: "{{ federation_list }}"
    key_path: /etc/matrix/hub/secrets/members.key
    path: /etc/matrix/hub/public/members.json
"""

RETURN = r"""
public_key:
  description: What members write as C(federation_members_key); empty in check mode before the key is born.
  returned: success
  type: str
  sample: 0d8iZNUPx0xNFv9ndPVwLFzZQ5ZoFrgRzU8wPzYyyPg
key_id:
  description: The name of the key in the signature.
  returned: success
  type: str
  sample: ed25519:66687aad
issued:
  description: The date of the list that is published; of the one that would be, in check mode.
  returned: success
  type: str
  sample: "2026-11-22T10:00:00Z"
"""

import base64
import contextlib
import datetime
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host.tls_pair import OpensslError, openssl
from ansible_collections.cae.matrix.plugins.module_utils.matrix.signed_json import (
    decode_base64,
    encode_base64,
    key_id,
    signed_part,
)

SCHEMA = "cae.matrix/members/1"
CONTENT = ("schema", "name", "hub", "members")
ISSUED = "%Y-%m-%dT%H:%M:%SZ"
# A list from further ahead than this was not issued here, or the clock was wrong.
CLOCK = datetime.timedelta(minutes=5)


class PublicationError(Exception):
    """Why the list is not published, and the mend."""


def bear_key(path: Path) -> None:
    """Make the key, whole and readable by root alone from its first moment; never over one that is there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    before = os.umask(0o077)
    try:
        openssl("genpkey", "-algorithm", "ed25519", "-out", str(beside))
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.link(beside, path)
    finally:
        os.umask(before)
        beside.unlink(missing_ok=True)


def public_part(path: Path) -> bytes:
    """The 32 bytes that others check the signature with."""
    try:
        pem = openssl("pkey", "-in", str(path), "-pubout", "-passin", "pass:no")
        raw = base64.b64decode("".join(re.findall(r"^[A-Za-z0-9+/=]+$", pem, re.MULTILINE)))
    except OpensslError as error:
        raise PublicationError(f"{path}: is no private key ({error}); put it back from the backup") from None
    # The object identifier of ed25519, then the key.
    prefix = bytes.fromhex("302a300506032b6570032100")
    if not raw.startswith(prefix) or len(raw) != len(prefix) + 32:
        raise PublicationError(f"{path}: is no ed25519 key; put back from the backup the one that members know")
    return raw[len(prefix) :]


def sign(path: Path, content: bytes) -> bytes:
    """The signature, which openssl gives for files only."""
    with tempfile.TemporaryDirectory(prefix="cae-matrix-") as directory:
        given, signature = Path(directory, "content"), Path(directory, "signature")
        given.write_bytes(content)
        openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(path), "-in", str(given), "-out", str(signature))
        return signature.read_bytes()


def is_signed(key_path: Path, document: Mapping[str, Any], name: str) -> bool:
    """Whether the document is as it was signed with the key; made again, as ed25519 always gives the same signature."""
    signature = document["signatures"][document["hub"]][name]
    return bool(decode_base64(signature) == sign(key_path, signed_part(document)))


def published(path: Path, key_path: Path, name: str, hub: str) -> dict[str, Any] | None:
    """What stands there, or None; PublicationError if it is not ours to replace."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise PublicationError(f"{path}: cannot be read ({error}); move it away, and run again") from None
    try:
        document: dict[str, Any] = json.loads(text)
        theirs, signatures = document["hub"], document["signatures"][document["hub"]]
        datetime.datetime.strptime(document["issued"], ISSUED)
        if document["schema"] != SCHEMA or not isinstance(signatures, dict):
            raise ValueError(path)
    except (ValueError, KeyError, TypeError):
        raise PublicationError(
            f"{path}: holds something that is no published list of members; move it away, and run again"
        ) from None
    if theirs != hub:
        raise PublicationError(
            f"{path}: holds the list of another hub, {theirs}, not of {hub}; publish to another path, or move it away"
        )
    if name not in signatures:
        raise PublicationError(
            f"{path}: was signed with another key ({', '.join(signatures)}) than {key_path} ({name}). Put that key "
            "back from the backup. If it is lost, move the file away, run again, and let every member write the new "
            "public key as federation_members_key"
        )
    try:
        sound = is_signed(key_path, document, name)
    except (ValueError, TypeError):
        sound = False
    if not sound:
        raise PublicationError(
            f"{path}: was changed after it was signed. Change the list itself (federation_members), move this file "
            "away, and run again"
        )
    return document


def date_of_issue(before: Mapping[str, Any] | None, path: Path, now: datetime.datetime) -> str:
    """Now, but always later than the list before."""
    moment = now.replace(microsecond=0)
    if before is not None:
        last = datetime.datetime.strptime(before["issued"], ISSUED).replace(tzinfo=datetime.UTC)
        if last > now + CLOCK:
            raise PublicationError(
                f"{path}: the list there was issued on {before['issued']}, which is yet to come; set this machine's "
                "clock right, or move the file away if the clock was wrong then"
            )
        moment = max(moment, last + datetime.timedelta(seconds=1))
    return moment.strftime(ISSUED)


def shown(document: Mapping[str, Any] | None) -> str:
    """For a diff: what people know, pictures by their size."""
    if document is None:
        return ""
    members = [
        {**one, "logo": f"({len(one['logo'])} characters)"} if one.get("logo") else one for one in document["members"]
    ]
    return as_text({**unsigned(document), "members": members})


def unsigned(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without its signature, which is made anew whenever the rest changes."""
    return {key: value for key, value in document.items() if key != "signatures"}


def as_text(document: Mapping[str, Any]) -> str:
    """What is served: readable, and the same for the same content."""
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def content_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is signed but for its date, or PublicationError if it cannot be the list of a hub."""
    missing = [key for key in CONTENT if not given.get(key)]
    if missing or given["schema"] != SCHEMA:
        raise PublicationError(
            f"document: is no list of members ({', '.join(missing) or 'schema'}); give what cae.matrix.members returned"
        )
    if given["hub"] not in [member.get("domain") for member in given["members"]]:
        raise PublicationError(f"document: the hub {given['hub']} is not among its members; add it")
    return {key: given[key] for key in CONTENT}


def put(path: Path, text: str) -> None:
    """Write beside, then move: whoever fetches gets the old list or the new one."""
    # By this name, it goes with the next run if this one is killed (module documents).
    beside = path.with_name(f".{path.name}.{os.getpid()}.cae-matrix-new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)


def publish(module: AnsibleModule) -> dict[str, Any]:
    """All of it; what is returned."""
    key_path, path = Path(module.params["key_path"]), Path(module.params["path"])
    content = content_of(module.params["document"])
    for file in (key_path, path):
        # In check mode, what comes before may not have made it yet.
        if not file.parent.is_dir() and not module.check_mode:
            raise PublicationError(f"{file.parent}: is no directory; make it first")
    changed = False
    public, name = b"", ""
    if not key_path.exists():
        if path.exists():
            raise PublicationError(
                f"{key_path}: is missing, but {path} is published. Put the key back from the backup, for members know "
                "it. If it is lost, move the published file away, run again, and let every member write the new public "
                "key as federation_members_key"
            )
        changed = True
        if not module.check_mode:
            bear_key(key_path)
    elif stat.S_IMODE(key_path.stat().st_mode) & 0o077:
        changed = True
        if not module.check_mode:
            key_path.chmod(0o600)
    before = None
    if key_path.exists():
        public = public_part(key_path)
        name = key_id(public)
        before = published(path, key_path, name, content["hub"])
    if before is not None and {**content, "issued": before["issued"]} == unsigned(before):
        document = unsigned(before)
    else:
        changed = True
        document = {**content, "issued": date_of_issue(before, path, datetime.datetime.now(datetime.UTC))}
        if name and not module.check_mode:
            signature = encode_base64(sign(key_path, signed_part(document)))
            put(path, as_text({**document, "signatures": {content["hub"]: {name: signature}}}))
    if path.exists():
        attributes = module.load_file_common_arguments(module.params)
        changed = module.set_fs_attributes_if_different(attributes, changed)
    diff = {"before_header": str(path), "after_header": str(path), "before": shown(before), "after": shown(document)}
    return {
        "changed": changed,
        "public_key": encode_base64(public),
        "key_id": name,
        "issued": document["issued"],
        "diff": diff,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "document": {"type": "dict", "required": True},
            "key_path": {"type": "path", "required": True, "no_log": False},
            "path": {"type": "path", "required": True},
            "mode": {"type": "raw", "default": "0644"},
        },
        add_file_common_args=True,
        supports_check_mode=True,
    )
    try:
        module.exit_json(**publish(module))
    except PublicationError as error:
        module.fail_json(msg=str(error))
    except OpensslError as error:
        module.fail_json(msg=f"openssl: {error}; role machine installs it")
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}; run the play with become: true")


if __name__ == "__main__":
    main()
