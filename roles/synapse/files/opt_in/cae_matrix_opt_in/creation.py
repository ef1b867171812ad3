# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a /createRoom request asks for, and what it is made to ask for. Pure functions on the request's body."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import ALGORITHM, ENCRYPTION

Body = dict[str, Any]

_INVITE_3PID = ("medium", "address", "id_server", "id_access_token")


def malformed(body: Body) -> str | None:
    """Why Synapse would answer 500 to this body, or worse than 400; None if it would not.

    Found by feeding Synapse 1.163.2 malformed bodies. What Synapse answers otherwise, odd as it may be, is its own
    affair.
    """
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return "text is not Unicode, or things are nested too deeply"
    for key, judge in _JUDGES.items():
        if key in body:
            why = judge(body[key])
            if why:
                return f"{key} {why}"
    return None


def _is_storable(value: Any) -> bool:
    """Whether PostgreSQL can hold this in a column: it has no text with a NUL in it."""
    return not isinstance(value, str) or "\0" not in value


def _initial_state(value: Any) -> str | None:
    if not value and isinstance(value, (str, list, dict)):
        return None
    if not isinstance(value, list):
        return "must be a list of events"
    for event in value:
        if not isinstance(event, dict) or "content" not in event or not isinstance(event.get("type"), str):
            return "must be a list of events, each with a type and a content"
        if not isinstance(event.get("state_key", ""), str):
            return "holds an event whose state_key is not text"
        columns = [event["type"], event.get("state_key")]
        if event["type"] == "m.room.member" and isinstance(event["content"], dict):
            columns += [event["content"].get("displayname"), event["content"].get("avatar_url")]
        if not all(map(_is_storable, columns)):
            return "holds an event with a NUL in its name"
        if event["type"] == "m.room.create":
            return "must not hold m.room.create; creation_content is the place for it"
    return None


def _creation_content(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "must be an object"
    creators = value.get("additional_creators", [])
    if not isinstance(creators, list) or not all(isinstance(creator, str) for creator in creators):
        return "holds additional_creators that are no list of user IDs"
    return None


def _power_levels(value: Any) -> str | None:
    if not value:
        return None
    if not isinstance(value, dict):
        return "must be an object"
    return None if isinstance(value.get("users", {}), dict) else "holds users that are no object"


def _invite(value: Any) -> str | None:
    whole = isinstance(value, (list, str, dict)) and all(map(_is_storable, value))
    return None if whole else "must be a list of user IDs"


def _invite_3pid(value: Any) -> str | None:
    if not value and isinstance(value, (str, list, dict)):
        return None
    whole = isinstance(value, list) and all(
        isinstance(item, dict)
        and all(isinstance(item.get(key, ""), str) and _is_storable(item.get(key)) for key in _INVITE_3PID)
        for item in value
    )
    return None if whole else f"must be a list of objects with {', '.join(_INVITE_3PID)}, each a text"


def _alias(value: Any) -> str | None:
    # Of a list or an object, Synapse sometimes makes an alias that nobody can name.
    return None if isinstance(value, str) and _is_storable(value) else "must be text, without a NUL"


def _preset(value: Any) -> str | None:
    return "must be text" if isinstance(value, (list, dict)) else None


_JUDGES = {
    "initial_state": _initial_state,
    "creation_content": _creation_content,
    "power_level_content_override": _power_levels,
    "invite": _invite,
    "invite_3pid": _invite_3pid,
    "room_alias_name": _alias,
    "preset": _preset,
}


def kind(body: Body) -> str:
    """What the request makes, in one word for the log."""
    if is_space(body):
        return "space"
    if body.get("is_direct") is True or body.get("preset") == "trusted_private_chat":
        return "direct"
    if body.get("preset") == "public_chat" or body.get("visibility") == "public":
        return "public"
    return "private"


def is_space(body: Body) -> bool:
    """Whether it makes a space: nobody writes in one."""
    return bool(body.get("creation_content", {}).get("type") == "m.space")


def _encrypts(event: dict[str, Any]) -> bool:
    return (event["type"], event.get("state_key", "")) == (ENCRYPTION, "")


def asks_for_encryption(body: Body) -> bool:
    """Whether the room would be encrypted from the start."""
    return any(_encrypts(event) for event in body.get("initial_state") or [])


def without_encryption(body: Body) -> None:
    """Makes it a plain room."""
    body["initial_state"] = [event for event in body["initial_state"] if not _encrypts(event)]


def with_encryption(body: Body) -> None:
    """Makes it an encrypted room, for clients that do not say how, or say it wrong."""
    events = body.get("initial_state") or []
    # Of several events of a type, Synapse takes the last.
    last = next((event for event in reversed(events) if _encrypts(event)), {"content": None})["content"]
    if not isinstance(last, dict) or not isinstance(last.get("algorithm"), str):
        encryption = {"type": ENCRYPTION, "state_key": "", "content": {"algorithm": ALGORITHM}}
        body["initial_state"] = [*events, encryption]
