# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""JSON in the form in which Matrix signs it ("Signing JSON" of the specification). Standard library only."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> bytes:
    """The one form in which Matrix signs JSON: shortest, UTF-8, keys sorted, whole numbers only.

    >>> canonical_json({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    _refuse_floats(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("utf-8")


def signed_part(document: Mapping[str, Any]) -> bytes:
    """The bytes of a document that a signature is for: all but C(signatures) and C(unsigned).

    >>> signed_part({"a": 1, "signatures": {"hub.example": {}}})
    b'{"a":1}'
    """
    return canonical_json({key: value for key, value in document.items() if key not in ("signatures", "unsigned")})


def encode_base64(raw: bytes) -> str:
    """Base64 as Matrix writes it, without padding.

    >>> encode_base64(b"a")
    'YQ'
    """
    return base64.b64encode(raw).decode("ascii").rstrip("=")


def decode_base64(text: str) -> bytes:
    """The bytes of what C(encode_base64) wrote; ValueError for anything else.

    >>> decode_base64("YQ")
    b'a'
    """
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def key_id(public_key: bytes) -> str:
    """What we call an ed25519 key: always the same for the same key, so that a wrong one can be named.

    >>> key_id(bytes(32))
    'ed25519:66687aad'
    """
    return f"ed25519:{hashlib.sha256(public_key).hexdigest()[:8]}"


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError(f"{value} is not a whole number")
    if isinstance(value, Mapping):
        for inner in value.values():
            _refuse_floats(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _refuse_floats(inner)
