# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a server's published signing keys are what other servers will accept.

Needs `cryptography`, which every controller has with ansible-core.
"""

from __future__ import annotations

import binascii
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.matrix.signed_json import decode_base64, signed_part
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class KeyProblem(Exception):
    """Other servers would refuse these keys: `cause` and `mend` for people."""

    def __init__(self, cause: str, mend: str) -> None:
        super().__init__(f"{cause} {mend}")
        self.cause = cause
        self.mend = mend


@dataclass(frozen=True)
class Keys:
    """Keys that are in order: what they are called, and until when others may rely on them."""

    key_ids: tuple[str, ...]
    valid_until: datetime.datetime


def check(document: Any, server_name: str, now: datetime.datetime) -> Keys:
    """The keys in an answer of /_matrix/key/v2/server, or KeyProblem."""
    if not isinstance(document, Mapping):
        raise KeyProblem("The key document is not a JSON object.", "Look at what answers in place of Synapse.")
    shown = document.get("server_name")
    if shown != server_name:
        raise KeyProblem(
            f"The keys are those of {shown!r}, not of {server_name!r}.",
            f"Let .well-known/matrix/server lead to the homeserver of {server_name}; two instances may be mixed up.",
        )
    until = document.get("valid_until_ts")
    if not isinstance(until, int) or isinstance(until, bool):
        raise KeyProblem("The key document has no valid_until_ts.", "Look at what answers in place of Synapse.")
    try:
        valid_until = datetime.datetime.fromtimestamp(until / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        valid_until = datetime.datetime.max.replace(tzinfo=datetime.UTC)
    if valid_until <= now:
        raise KeyProblem(
            f"The keys were valid until {valid_until:%Y-%m-%d %H:%M} UTC only.",
            "Check the clock of the server, and caches in front of /_matrix/key.",
        )
    keys = document.get("verify_keys")
    if not isinstance(keys, Mapping) or not keys:
        raise KeyProblem("The key document names no key (verify_keys).", "Check the signing key of Synapse.")
    signatures = document.get("signatures")
    own = signatures.get(server_name) if isinstance(signatures, Mapping) else None
    if not isinstance(own, Mapping):
        raise KeyProblem(
            f"The key document has no signature of {server_name}.", "Look for something that changes it on the way."
        )
    try:
        signed = signed_part(document)
    except (ValueError, RecursionError) as error:
        raise KeyProblem(
            f"The key document cannot be signed: {error}.", "Look for something that changes it on the way."
        ) from None
    for key_id, key in keys.items():
        _check_signature(str(key_id), key, own.get(key_id), signed)
    return Keys(tuple(sorted(str(key_id) for key_id in keys)), valid_until)


def _check_signature(key_id: str, key: Any, signature: Any, signed: bytes) -> None:
    if not key_id.startswith("ed25519:"):
        raise KeyProblem(f"The key {key_id} is not an ed25519 key.", "Check the signing key of Synapse.")
    if not isinstance(signature, str):
        raise KeyProblem(
            f"The key document is not signed with its own key {key_id}.",
            "Look for something that changes the document on the way.",
        )
    encoded = key.get("key") if isinstance(key, Mapping) else None
    try:
        public = Ed25519PublicKey.from_public_bytes(decode_base64(str(encoded)))
        raw = decode_base64(signature)
    except (ValueError, binascii.Error):
        raise KeyProblem(f"The key {key_id}, or its signature, is garbled.", "Check the signing key.") from None
    try:
        public.verify(raw, signed)
    except InvalidSignature:
        raise KeyProblem(
            f"The signature by {key_id} does not match the key document.",
            "Something changes the document on its way, or keys of two servers are mixed: other servers will refuse"
            " everything that this one signs.",
        ) from None
