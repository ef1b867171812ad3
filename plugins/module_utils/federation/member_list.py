# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the federation's list of members is read from: a file on the controller, or the hub's address."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.federation.members import (
    LARGEST_LIST,
    MembersError,
    Nonsense,
    check_age,
    check_place,
    check_signature,
    public_key,
    read_file,
    read_published,
)
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient, Unreachable

# Mistakes of the inventory, which no list in force excuses.
_OURS = ("bad-ca-file", "bad-url")


def fetch(params: Mapping[str, Any]) -> str:
    """What the address answers; Nonsense when that is not a page, Unreachable when there is no answer."""
    client = PublicClient(params["resolve"], params["ca_file"] or None, float(params["timeout"]), max_body=LARGEST_LIST)
    response = client.get(params["source"])
    if response.status != 200:
        raise Nonsense(f"{params['source']}: answered {response.status}")
    return response.text()


def list_in_force(record: str) -> dict[str, Any] | None:
    """The list in the record of the machine, which may have none (no list, or a record from before)."""
    try:
        found = json.loads(base64.b64decode(record)) if record else None
    except (ValueError, RecursionError):
        return None
    known = found.get("list") if isinstance(found, dict) else None
    return {key: value for key, value in known.items() if key != "source"} if isinstance(known, dict) else None


def from_hub(params: Mapping[str, Any], key: bytes) -> tuple[dict[str, Any], list[str]]:
    """The list that the hub publishes, or the one in force when the hub is away."""
    before = list_in_force(params["in_force"])
    now = datetime.datetime.now(datetime.UTC)
    try:
        document, notes = read_published(fetch(params), params["source"])
    except Nonsense as error:
        cause = str(error)
    except Unreachable as error:
        if error.kind in _OURS:
            raise MembersError(f"federation_members: {error}") from None
        cause = str(error)
    else:
        check_signature(document, key, params["source"])
        check_age(document, before, now)
        return {**document, "source": "url"}, notes
    if before is None:
        raise MembersError(
            f"federation_members: the list could not be fetched, and none is in force yet; nothing was changed. {cause}"
        )
    place = "the list in force on the machine"
    document, notes = read_published(json.dumps(before), place)
    check_signature(document, key, place)
    stays = f"The list could not be fetched; the one in force, issued on {document['issued']}, stays. {cause}"
    return {**document, "source": "in force"}, [stays, *notes]


def read(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The list and the notes, or MembersError.

    Args:
        params: what module C(members) takes.
    """
    source, key = params["source"], params["key"]
    if source.lower().startswith("http://"):
        raise MembersError(f'federation_members: "{source}" is not https; write the https address')
    if source.lower().startswith("https://"):
        if not key:
            raise MembersError(
                "federation_members_key: is missing; a list that is fetched must be signed, so write the public key "
                "that whoever keeps the hub tells you"
            )
        document, notes = from_hub(params, public_key(key))
    else:
        document, notes = read_file(source)
        if key and "signatures" in document:
            check_signature(document, public_key(key), source)
        document["source"] = "file"
    own = {name: params[name] for name in ("domain", "hostname", "profile")}
    return document, [*notes, *check_place(document, source, params["hub"], own)]
