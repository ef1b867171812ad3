# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""/createRoom as clients send it: one row per client and kind of room, each with where that stands in its source.

The bodies are what these clients' code serialises for what a person does with the choices a client offers first. They
name no room version, as clients do (but Cinny, which takes the server's default); the tests add the versions. Nothing
but `initial_state` says anything about encryption.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]

KINDS = ("direct", "private", "public", "space")
VERSIONS = ("10", "11", "12")
ALGORITHM = "m.megolm.v1.aes-sha2"
ME, OTHER = "@me:coop.example", "@other:coop.example"


@dataclass(frozen=True)
class Request:
    """A row: `encrypts` is what the body asks for."""

    client: str
    kind: str
    source: str
    agent: str
    encrypts: bool
    body: Body

    def __str__(self) -> str:
        return f"{self.client}, {self.kind}"


def _state(event_type: str, content: Body, state_key: str | None = "") -> Body:
    event = {"type": event_type, "content": content}
    return event if state_key is None else {**event, "state_key": state_key}


_ENCRYPTION = _state("m.room.encryption", {"algorithm": ALGORITHM})
_CALLS = {"m.call.member": 0, "org.matrix.msc3401.call.member": 0}
_SPACE = {"type": "m.space"}

# --- Element X, both through matrix-rust-sdk --------------------------------------------------------------------------
# What the apps ask for becomes a body in `TryFrom<CreateRoomParameters>`; ruma leaves out empty lists and false.

_FFI = "matrix-org/matrix-rust-sdk bindings/matrix-sdk-ffi/src/client.rs (TryFrom<CreateRoomParameters>); "
_IOS = _FFI + "element-hq/element-x-ios ElementX/Sources/Services/Client/ClientProxy.swift "
_IOS_AGENT = "Element X/26.11.0 (iPhone 15; iOS 18.1; Scale/3.00)"
_ANDROID = (
    _FFI + "element-hq/element-x-android libraries/matrix/impl/src/main/kotlin/io/element/android/libraries/matrix/"
    "impl/RustMatrixClient.kt "
)
_ANDROID_AGENT = "Element X/26.11.0 (Google Pixel 8; Android 15; Sdk)"

_ELEMENT_X = [
    Request(
        "Element X iOS",
        "direct",
        _IOS + "(createDirectRoom: isEncrypted true)",
        _IOS_AGENT,
        True,
        {
            "is_direct": True,
            "preset": "trusted_private_chat",
            "visibility": "private",
            "invite": [OTHER],
            "initial_state": [_ENCRYPTION, _state("m.room.history_visibility", {"history_visibility": "invited"})],
            "power_level_content_override": {"invite": 0, "events": _CALLS},
        },
    ),
    Request(
        "Element X iOS",
        "private",
        _IOS + "(createRoom, accessType private: isEncrypted true)",
        _IOS_AGENT,
        True,
        {
            "name": "Atelier",
            "preset": "private_chat",
            "visibility": "private",
            "invite": [OTHER],
            "initial_state": [
                _ENCRYPTION,
                _state("m.room.avatar", {"url": "mxc://coop.example/avatar"}),
                _state("m.room.history_visibility", {"history_visibility": "invited"}),
            ],
            "power_level_content_override": {"invite": 0, "events": _CALLS},
        },
    ),
    Request(
        "Element X iOS",
        "private, ask to join",
        _IOS + "(createRoom, accessType askToJoin)",
        _IOS_AGENT,
        True,
        {
            "name": "Atelier",
            "preset": "private_chat",
            "visibility": "private",
            "initial_state": [_ENCRYPTION, _state("m.room.join_rules", {"join_rule": "knock"})],
            "power_level_content_override": {"invite": 50, "events": _CALLS},
        },
    ),
    Request(
        "Element X iOS",
        "public",
        _IOS + "(createRoom, accessType public: isEncrypted false)",
        _IOS_AGENT,
        False,
        {
            "name": "Place",
            "topic": "Pour tous",
            "preset": "public_chat",
            "visibility": "public",
            "room_alias_name": "place-ios",
            "initial_state": [_state("m.room.history_visibility", {"history_visibility": "shared"})],
            "power_level_content_override": {"invite": 0, "events": _CALLS},
        },
    ),
    Request(
        "Element X iOS",
        "space",
        _IOS + "(createRoom, isSpace: accessType.isEncrypted all the same)",
        _IOS_AGENT,
        True,
        {
            "name": "Coopérative",
            "preset": "private_chat",
            "visibility": "private",
            "creation_content": _SPACE,
            "initial_state": [_ENCRYPTION],
            "power_level_content_override": {"events_default": 100, "invite": 50},
        },
    ),
    Request(
        "Element X Android",
        "direct",
        _ANDROID + "(createDM: isEncrypted = true)",
        _ANDROID_AGENT,
        True,
        {
            "is_direct": True,
            "preset": "trusted_private_chat",
            "visibility": "private",
            "invite": [OTHER],
            "initial_state": [_ENCRYPTION],
            "power_level_content_override": {"events": _CALLS},
        },
    ),
    Request(
        "Element X Android",
        "private",
        _ANDROID + "(createRoom, with ConfigureRoomPresenter.kt: isEncrypted = private)",
        _ANDROID_AGENT,
        True,
        {
            "name": "Atelier",
            "topic": "Le mardi",
            "preset": "private_chat",
            "visibility": "private",
            "invite": [OTHER],
            "initial_state": [_ENCRYPTION],
            "power_level_content_override": {"events": _CALLS},
        },
    ),
    Request(
        "Element X Android",
        "public",
        _ANDROID + "(createRoom: public is not encrypted)",
        _ANDROID_AGENT,
        False,
        {
            "name": "Place",
            "preset": "public_chat",
            "visibility": "public",
            "room_alias_name": "place-android",
            "power_level_content_override": {"events": _CALLS},
        },
    ),
    Request(
        "Element X Android",
        "space",
        _FFI + "(is_space and is_encrypted are independent of each other)",
        _ANDROID_AGENT,
        True,
        {
            "name": "Coopérative",
            "preset": "private_chat",
            "visibility": "private",
            "creation_content": _SPACE,
            "initial_state": [_ENCRYPTION],
            "power_level_content_override": {"events_default": 100},
        },
    ),
]

# --- FluffyChat, through matrix-dart-sdk ------------------------------------------------------------------------------

_DART = "famedly/matrix-dart-sdk lib/src/client.dart "
_FLUFFY = "krille-chan/fluffychat lib/pages/new_group/new_group.dart "
_FLUFFY_AGENT = "FluffyChat/2.3.0"

_FLUFFYCHAT = [
    Request(
        "FluffyChat",
        "direct",
        _DART + "(startDirectChat: enableEncryption where the other has keys)",
        _FLUFFY_AGENT,
        True,
        {
            "initial_state": [_ENCRYPTION],
            "invite": [OTHER],
            "is_direct": True,
            "preset": "trusted_private_chat",
        },
    ),
    Request(
        "FluffyChat",
        "private",
        _FLUFFY + "(_createGroup) and " + _DART + "(createGroupChat: encrypted unless public_chat)",
        _FLUFFY_AGENT,
        True,
        {
            "initial_state": [_state("m.room.avatar", {"url": "mxc://coop.example/avatar"}), _ENCRYPTION],
            "name": "Atelier",
            "preset": "private_chat",
            "visibility": "private",
        },
    ),
    Request(
        "FluffyChat",
        "public",
        _FLUFFY + "(_createGroup, publicGroup)",
        _FLUFFY_AGENT,
        False,
        {"initial_state": [], "name": "Place", "preset": "public_chat", "visibility": "public"},
    ),
    Request(
        "FluffyChat",
        "space",
        _FLUFFY + "(_createSpace)",
        _FLUFFY_AGENT,
        False,
        {
            "creation_content": _SPACE,
            "initial_state": [],
            "name": "Coopérative",
            "power_level_content_override": {"events_default": 100},
            "preset": "private_chat",
        },
    ),
]

# --- Cinny ------------------------------------------------------------------------------------------------------------

_CINNY = "cinnyapp/cinny src/app/components/create-room/utils.ts (createRoom)"
_CINNY_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"

_CINNYS = [
    Request(
        "Cinny",
        "direct",
        "cinnyapp/cinny src/app/features/create-chat/CreateChat.tsx (encryption is switched on at first)",
        _CINNY_AGENT,
        True,
        {
            "is_direct": True,
            "invite": [OTHER],
            "visibility": "private",
            "preset": "trusted_private_chat",
            "initial_state": [_ENCRYPTION],
        },
    ),
    Request(
        "Cinny",
        "private",
        _CINNY + " with encryption switched on",
        _CINNY_AGENT,
        True,
        {
            "name": "Atelier",
            "creation_content": {},
            "initial_state": [_ENCRYPTION, _state("m.room.join_rules", {"join_rule": "invite"})],
        },
    ),
    Request(
        "Cinny",
        "public",
        _CINNY,
        _CINNY_AGENT,
        False,
        {
            "name": "Place",
            "topic": "Pour tous",
            "room_alias_name": "place-cinny",
            "creation_content": {"m.federate": False},
            "initial_state": [_state("m.room.join_rules", {"join_rule": "public"})],
        },
    ),
    Request(
        "Cinny",
        "space",
        _CINNY,
        _CINNY_AGENT,
        False,
        {
            "name": "Coopérative",
            "creation_content": _SPACE,
            "initial_state": [_state("m.room.join_rules", {"join_rule": "invite"})],
            "power_level_content_override": {"events_default": 50},
        },
    ),
]

# --- Nheko ------------------------------------------------------------------------------------------------------------
# mtxclient writes every event with a sender, empty here.

_NHEKO = "Nheko-Reborn/nheko src/ui/NhekoGlobalObject.cpp (createRoom), Nheko-Reborn/mtxclient lib/structs/requests.cpp"
_NHEKO_AGENT = "mtxclient v0.10.1"

_NHEKOS = [
    Request(
        "Nheko",
        "direct",
        "Nheko-Reborn/nheko src/ChatPage.cpp (startChat: encrypted where the other has keys)",
        _NHEKO_AGENT,
        True,
        {
            "invite": [OTHER],
            "is_direct": True,
            "preset": "trusted_private_chat",
            "visibility": "private",
            "initial_state": [{**_ENCRYPTION, "sender": ""}],
        },
    ),
    Request(
        "Nheko",
        "private",
        _NHEKO + ", encryption switched on",
        _NHEKO_AGENT,
        True,
        {
            "name": "Atelier",
            "is_direct": False,
            "preset": "private_chat",
            "visibility": "private",
            "initial_state": [{**_ENCRYPTION, "sender": ""}],
        },
    ),
    Request(
        "Nheko",
        "public",
        _NHEKO,
        _NHEKO_AGENT,
        False,
        {
            "name": "Place",
            "room_alias_name": "place-nheko",
            "is_direct": False,
            "preset": "public_chat",
            "visibility": "private",
            "initial_state": [],
        },
    ),
    Request(
        "Nheko",
        "space",
        _NHEKO,
        _NHEKO_AGENT,
        False,
        {
            "name": "Coopérative",
            "is_direct": False,
            "preset": "private_chat",
            "visibility": "private",
            "creation_content": {**_SPACE, "m.federate": True},
            "initial_state": [],
        },
    ),
]

# --- Element Web ------------------------------------------------------------------------------------------------------
# Another cooperative's, or a desktop's: it encrypts private rooms and conversations unless its .well-known says not to.

_WEB = "element-hq/element-web src/createRoom.ts "
_WEB_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
_GUESTS = _state("m.room.guest_access", {"guest_access": "can_join"})
_WEB_LEVELS = {
    "m.room.name": 50,
    "m.room.avatar": 50,
    "m.room.power_levels": 100,
    "m.room.history_visibility": 100,
    "m.room.canonical_alias": 50,
    "m.room.tombstone": 100,
    "m.room.server_acl": 100,
    "m.room.encryption": 100,
}

_ELEMENT_WEB = [
    Request(
        "Element Web",
        "direct",
        _WEB + "(ensureDMExists, createRoom)",
        _WEB_AGENT,
        True,
        {
            "preset": "trusted_private_chat",
            "visibility": "private",
            "invite": [OTHER],
            "is_direct": True,
            "initial_state": [_GUESTS, _ENCRYPTION],
        },
    ),
    Request(
        "Element Web",
        "private",
        _WEB + "(createRoom), src/components/views/dialogs/CreateRoomDialog.tsx; with feature_group_calls",
        _WEB_AGENT,
        True,
        {
            "preset": "private_chat",
            "visibility": "private",
            "name": "Atelier",
            "power_level_content_override": {
                "events": {**_WEB_LEVELS, "org.matrix.msc3401.call.member": 0, "org.matrix.msc3401.call": 100}
            },
            "initial_state": [
                _GUESTS,
                _ENCRYPTION,
                _state("m.room.avatar", {"url": "mxc://coop.example/avatar"}, None),
                _state("m.room.history_visibility", {"history_visibility": "invited"}, None),
            ],
        },
    ),
    Request(
        "Element Web",
        "public",
        _WEB + "(createRoom), src/components/views/dialogs/CreateRoomDialog.tsx",
        _WEB_AGENT,
        False,
        {
            "preset": "public_chat",
            "visibility": "private",
            "name": "Place",
            "room_alias_name": "place-web",
            "initial_state": [_GUESTS, _state("m.room.history_visibility", {"history_visibility": "shared"}, None)],
        },
    ),
    Request(
        "Element Web",
        "space",
        "element-hq/element-web src/components/views/spaces/SpaceCreateMenu.tsx (createSpace: encryption false)",
        _WEB_AGENT,
        False,
        {
            "preset": "private_chat",
            "visibility": "private",
            "name": "Coopérative",
            "creation_content": _SPACE,
            "power_level_content_override": {"events_default": 100},
            "initial_state": [
                _GUESTS,
                _state("m.room.history_visibility", {"history_visibility": "invited"}, None),
                _state("m.room.topic", {"topic": "Nous"}, None),
            ],
        },
    ),
    Request(
        "Element Web",
        "private, for a video call",
        _WEB + "(createRoom, RoomType.ElementVideo)",
        _WEB_AGENT,
        True,
        {
            "preset": "private_chat",
            "visibility": "private",
            "name": "Visio",
            "creation_content": {"type": "io.element.video"},
            "power_level_content_override": {
                "events": {**_WEB_LEVELS, "io.element.video.member": 0, "im.vector.modular.widgets": 200},
                "users": {ME: 200},
            },
            "initial_state": [_GUESTS, _ENCRYPTION],
        },
    ),
]

REQUESTS = [*_ELEMENT_X, *_FLUFFYCHAT, *_CINNYS, *_NHEKOS, *_ELEMENT_WEB]


def matrix() -> list[tuple[str, Request, str, Body]]:
    """Every row in every room version, with power levels of its own and without: an id, the row, the version, the body.

    In version 12 the creator stands above all levels and must not be given one.
    """
    cells = []
    for request in REQUESTS:
        for version in VERSIONS:
            for levels in (True, False):
                body = copy.deepcopy(request.body)
                if "power_level_content_override" not in body and levels:
                    body["power_level_content_override"] = {"events": dict(_WEB_LEVELS)}
                if not levels:
                    body.pop("power_level_content_override", None)
                if version == "12":
                    body.get("power_level_content_override", {}).pop("users", None)
                alias = body.get("room_alias_name")
                if alias:
                    body["room_alias_name"] = f"{alias}-{version}-{levels}".lower()
                body["room_version"] = version
                name = f"{request}, version {version}, {'with' if levels else 'without'} power levels"
                cells.append((name, request, version, body))
    return cells
