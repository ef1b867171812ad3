# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Valid documents, and the contradictions that issue and documentation list, each as an edit of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

REMOVED = object()
OVERRIDE = ("synapse", "default_power_level_content_override")
CLIENT = ("well_known", "client")
E2EE = (*CLIENT, "io.element.e2ee")
DEPRECATED = (*CLIENT, "im.vector.riot.e2ee")
DEFAULT = ("synapse", "encryption_enabled_by_default_for_room_type")
COPY = ("synapse", "extra_well_known_client_content", "io.element.e2ee")
HOMESERVER = ("element", "default_server_config", "m.homeserver")

Path = tuple[str, ...]
Values = tuple[Any, ...]
Edit = tuple[Path, Any]


def valid() -> dict[str, Any]:
    """What the roles declare for a cooperative whose inventory adds nothing."""
    return {
        "synapse": {
            "server_name": "coop.example",
            "public_baseurl": "https://matrix.coop.example/",
            "report_stats": False,
            "registration_shared_secret_path": "/etc/matrix/coop/secrets/registration_shared_secret",
        },
        "well_known": {
            "client": {
                "m.homeserver": {"base_url": "https://matrix.coop.example"},
                "io.element.e2ee": {"default": False},
            },
            "server": {"m.server": "matrix.coop.example:443"},
            "support": {"support_page": "https://help.example/"},
        },
        "element": {
            "brand": "Coop",
            "default_server_config": {
                "m.homeserver": {"base_url": "https://matrix.coop.example", "server_name": "coop.example"}
            },
            "setting_defaults": {"language": "fr"},
            "features": {"feature_video_rooms": True},
        },
    }


def edited(*edits: Edit, documents: dict[str, Any] | None = None) -> dict[str, Any]:
    """Valid documents with values put in place (dicts on the way are made) or `REMOVED`."""
    result = copy.deepcopy(valid() if documents is None else documents)
    for path, value in edits:
        place: Any = result
        for key in path[:-1]:
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        if value is REMOVED:
            place.pop(path[-1], None)
        else:
            place[path[-1]] = copy.deepcopy(value)
    return result


@dataclass(frozen=True)
class Listed:
    """A contradiction that must be refused: the edit, and what the message must name."""

    name: str
    edits: tuple[Edit, ...]
    key: str
    variable: str


def _one(path: Path, value: Any, key: str, variable: str) -> Listed:
    shown = "removed" if value is REMOVED else repr(value)
    return Listed(f"{'.'.join(path)}={shown}", ((path, value),), key, variable)


NOT_OFF: Values = ("all", "invite", None, "", "False", "Off", "none", True, 0, 1, [], {}, ["off"])
NO_SETTINGS: Values = (None, [], "false", False)
NOT_FALSE: Values = ("false", 0, None, True, "", [], "off")


def _default(value: Any) -> Listed:
    key = "encryption_enabled_by_default_for_room_type"
    return _one(DEFAULT, value, key, f"synapse_extra_config.{key}")


def _client(path: Path, value: Any) -> Listed:
    key = ".".join(path[2:])
    return _one(path, value, f"client.{key}", f"reverse_proxy_well_known_client_extra.{key}")


def _level(preset: str, content: Any, suffix: str) -> Listed:
    key = f"default_power_level_content_override.{preset}" + (f".{suffix}" if suffix else "")
    return _one((*OVERRIDE, preset), content, key, f"synapse_extra_config.{key}")


def _door(path: Path, value: Any) -> Listed:
    key = ".".join(path)
    return _one(("synapse", *path), value, key, f"synapse_extra_config.{key}")


def _element(path: Path, value: Any) -> Listed:
    key = ".".join(path)
    return _one(("element", *path), value, key, f"element_web_extra_config.{key}")


LISTED: tuple[Listed, ...] = (
    # Synapse encrypts, or does not start.
    *(_default(value) for value in NOT_OFF),
    # Element encrypts, or takes the switches away.
    _client(E2EE, REMOVED),
    *(_client(E2EE, value) for value in NO_SETTINGS),
    *((Listed("no default", ((E2EE, {}),), f"client.{E2EE[2]}.default", f"{E2EE[2]}.default"),)),
    *(_client((*E2EE, "default"), value) for value in NOT_FALSE),
    *(_client((*E2EE, "force_disable"), value) for value in (True, "true", 1, None, "false")),
    _client((*E2EE, "secure_backup_required"), True),
    Listed(
        "deprecated key only",
        ((E2EE, REMOVED), (DEPRECATED, {"default": False})),
        "client.io.element.e2ee",
        "reverse_proxy_well_known_client_extra.io.element.e2ee",
    ),
    _client((*DEPRECATED, "default"), True),
    Listed(
        "both keys, contradictory",
        ((DEPRECATED, {"default": False, "force_disable": True}),),
        "client.im.vector.riot.e2ee.force_disable",
        "reverse_proxy_well_known_client_extra.im.vector.riot.e2ee.force_disable",
    ),
    Listed(
        "no client document",
        ((CLIENT, REMOVED),),
        "client",
        "reverse_proxy_well_known_client_extra",
    ),
    Listed(
        "Synapse's own copy of the .well-known",
        (
            (
                ("synapse", "extra_well_known_client_content", "io.element.e2ee"),
                {"force_disable": True, "default": False},
            ),
        ),
        "extra_well_known_client_content.io.element.e2ee.force_disable",
        "synapse_extra_config.extra_well_known_client_content.io.element.e2ee.force_disable",
    ),
    Listed(
        "Element's own copy of the .well-known",
        ((("element", "default_server_config", "io.element.e2ee"), {"default": True}),),
        "default_server_config.io.element.e2ee.default",
        "element_web_extra_config.default_server_config.io.element.e2ee.default",
    ),
    # Power levels.
    *(
        listed
        for preset in ("private_chat", "trusted_private_chat", "public_chat")
        for listed in (
            _level(preset, {"events": {"m.room.encryption": 101}}, "events.m.room.encryption"),
            _level(preset, {"events": {}, "state_default": 101}, "state_default"),
            _level(preset, {"state_default": 101}, "state_default"),
            _level(
                preset,
                {"events": {"m.room.encryption": 100, "m.room.power_levels": 50}},
                "events.m.room.encryption",
            ),
            _level(preset, {"events": {"m.room.power_levels": 50}}, "events.m.room.encryption"),
            _level(preset, {"events": {"m.room.encrypted": 50}}, "events.m.room.encrypted"),
            _level(preset, {"events_default": 101}, "events_default"),
            _level(preset, {"events": {"m.room.message": 101}}, "events.m.room.message"),
            _level(preset, {"events": {"m.room.encryption": "100"}}, "events.m.room.encryption"),
            _level(preset, {"events": {"m.room.encryption": True}}, "events.m.room.encryption"),
            _level(preset, {"events": {"m.room.encryption": None}}, "events.m.room.encryption"),
            _level(preset, {"events": {"m.room.join_rules": 101}}, "events.m.room.join_rules"),
            _level(preset, {"events": None}, "events"),
            _level(preset, {"users": {"@boss:coop.example": 100}}, "users"),
            _level(preset, {"users": {}}, "users"),
            _level(preset, {"users_default": "0"}, "users_default"),
            _level(preset, {"state_default": 2**53}, "state_default"),
            _level(preset, {"invite": 101}, "invite"),
            _level(preset, {"notifications": {"room": None}}, "notifications.room"),
            _level(preset, {"org.example": {"level": 1.5}}, "org.example"),
            _level(preset, [], ""),
        )
    ),
    Listed(
        "no preset",
        (((*OVERRIDE, "secret_chat"), {}),),
        f"{OVERRIDE[1]}.secret_chat",
        f"synapse_extra_config.{OVERRIDE[1]}",
    ),
    _one(
        OVERRIDE,
        [],
        "default_power_level_content_override",
        "synapse_extra_config.default_power_level_content_override",
    ),
    # Element demands, does not read, or cannot encrypt.
    *(_element(("force_verification",), value) for value in (True, "false", 1)),
    _element(("forceVerification",), True),
    *(_element(("enable_client_well_known_lookups",), value) for value in (False, None, 0, "")),
    _element(("features", "feature_exclude_insecure_devices"), True),
    _element(("features", "feature_exclude_insecure_devices"), "enable"),
    _element(("features",), []),
    _element(("setting_defaults", "lowBandwidth"), True),
    _element(("settingDefaults", "lowBandwidth"), True),
    _element(("setting_defaults",), "fr"),
    _element(("default_server_config",), REMOVED),
    _element(("default_server_config",), []),
    _element(("default_hs_url",), "https://matrix.coop.example"),
    _element(("modules",), {"url": "/modules/x.js"}),
    # Different domains.
    _one(("synapse", "server_name"), "Coop.example", "server_name", "matrix_domain"),
    _one(("synapse", "server_name"), REMOVED, "server_name", "matrix_domain"),
    _one(
        ("synapse", "server_name"), "other.example", "default_server_config.m.homeserver.server_name", "matrix_domain"
    ),
    _one(("synapse", "public_baseurl"), "https://matrix.other.example/", "base_url", "matrix_hostname"),
    _one(("synapse", "public_baseurl"), REMOVED, "base_url", "matrix_hostname"),
    _one(("synapse", "public_baseurl"), "http://matrix.coop.example/", "public_baseurl", "matrix_hostname"),
    _client((*CLIENT, "m.homeserver", "base_url"), "https://matrix.other.example"),
    _client((*CLIENT, "m.homeserver", "base_url"), "https://matrix.coop.example:8448"),
    _client((*CLIENT, "m.homeserver", "base_url"), REMOVED),
    Listed(
        "a homeserver that is no dict",
        (((*CLIENT, "m.homeserver"), "https://matrix.coop.example"),),
        "client.m.homeserver.base_url",
        "reverse_proxy_well_known_client_extra.m.homeserver.base_url",
    ),
    *(
        _one(("well_known", "server", "m.server"), value, "server.m.server", "matrix_hostname")
        for value in ("matrix.other.example:443", "https://matrix.coop.example", 443, "matrix.coop.example:0", REMOVED)
    ),
    _element((*HOMESERVER[1:], "base_url"), "https://matrix.other.example"),
    _element((*HOMESERVER[1:], "server_name"), "other.example"),
    _element(("default_server_name",), "other.example"),
    # Modules that refuse encryption, wherever Synapse takes modules from, and whatever their file is called.
    _door(("modules",), [{"module": "x.Y"}, {"module": "matrix_e2ee_filter.EncryptedRoomFilter"}]),
    _door(("modules",), [{"module": "site_rules.EncryptedRoomFilter", "config": {}}]),
    _door(("password_providers",), [{"module": "matrix_e2ee_filter.EncryptedRoomFilter"}]),
    _door(("spam_checker",), [{"module": "synapse.modules.synapse_prevent_encrypt_room.SynapsePreventEncryptRoom"}]),
    _door(("spam_checker",), {"module": "matrix_e2ee_filter.EncryptedRoomFilter"}),
    _door(("third_party_event_rules",), {"module": "matrix_e2ee_filter.EncryptedRoomFilter"}),
    _one(COPY[:2], [], COPY[1], f"synapse_extra_config.{COPY[1]}"),
    # Side doors of registration.
    *(_door(("enable_registration",), value) for value in (True, "true", None, 1)),
    _door(("disable_registration",), False),
    _door(("enable_registration_without_verification",), True),
    _door(("enable_registration_token_3pid_bypass",), True),
    _door(("registration_requires_token",), False),
    _door(("allow_guest_access",), True),
    _door(("registration_shared_secret",), "hunter2"),
    _door(("matrix_authentication_service",), {"enabled": True}),
    _door(("matrix_authentication_service",), []),
    _door(("experimental_features", "msc3861"), {"enabled": True}),
    _door(("experimental_features",), []),
    *(_door((key,), "x") for key in ("oidc_config", "cas_config", "saml2_config", "jwt_config", "ldap_config")),
    *(_door((key,), {"a": 1}) for key in ("oidc_providers", "modules", "password_providers")),
    # Shapes.
    _one(("synapse",), [], "(all)", "synapse_extra_config"),
    _one(("well_known",), "x", "(all)", "reverse_proxy_well_known_client_extra"),
    _one(("element",), 1, "(all)", "element_web_extra_config"),
    _one(CLIENT, None, "client", "reverse_proxy_well_known_client_extra"),
    _one(("well_known", "server"), [], "server", "reverse_proxy_well_known_client_extra"),
    _one(("elements",), {}, "elements", "encryption_gate_documents"),
    _one(("well_known", "clients"), {}, "clients", "reverse_proxy_well_known_client_extra"),
)

PROVIDER = {
    "idp_id": "coop",
    "idp_name": "Coop",
    "issuer": "https://sso.example/",
    "client_id": "x",
    "client_secret": "x",
}
# What an inventory may well add, and what must neither be refused nor, unless named below, change the digest.
HARMLESS: tuple[Edit, ...] = (
    (("synapse", "max_upload_size"), "50M"),
    (("synapse", "presence"), {"enabled": False}),
    (("synapse", "enable_registration"), False),
    (("synapse", "registration_requires_token"), True),
    (("synapse", "oidc_providers"), [PROVIDER]),
    (("synapse", "oidc_config"), None),
    (("synapse", "matrix_authentication_service"), {"enabled": False}),
    (("synapse", "experimental_features"), {"msc3266_enabled": True}),
    (DEFAULT, "off"),
    (DEFAULT, False),
    (OVERRIDE, None),
    (OVERRIDE, {}),
    ((*OVERRIDE, "private_chat"), None),
    (("well_known", "support", "contacts"), [{"role": "m.role.admin", "email_address": "help@coop.example"}]),
    ((*CLIENT, "org.example.extra"), {"x": 1}),
    ((*E2EE, "force_disable"), False),
    ((*CLIENT, "m.homeserver", "base_url"), "https://MATRIX.coop.example:443/"),
    (("element", "brand"), "Une autre"),
    (("element", "branding"), {"auth_header_logo_url": "logo.png"}),
    (("element", "force_verification"), False),
    (("element", "setting_defaults", "UIFeature.feedback"), False),
    (("element", "setting_defaults", "UIFeature.advancedEncryption"), False),
    (("element", "features", "feature_exclude_insecure_devices"), False),
    (("element", "enable_client_well_known_lookups"), True),
)

# What is accepted and changes the digest: what it says about encryption was proven for the old value only.
RELEVANT: tuple[tuple[Edit, ...], ...] = (
    (((*OVERRIDE, "private_chat"), {"events": {"m.room.encryption": 50}}),),
    (((*OVERRIDE, "public_chat"), {"state_default": 0}),),
    ((("synapse", "modules"), [{"module": "x.Y", "config": {}}]),),
    ((("synapse", "password_providers"), [{"module": "x.Y"}]),),
    ((("synapse", "third_party_event_rules"), {"module": "x.Y"}),),
    ((("synapse", "extra_well_known_client_content"), {"io.element.e2ee": {"default": False}}),),
    ((DEPRECATED, {"default": False}),),
    ((("element", "modules"), ["/modules/x.js"]),),
    ((("well_known", "server", "m.server"), "matrix.coop.example"),),
    ((("element",), None),),
    (
        (("synapse", "server_name"), "neu.example"),
        ((*HOMESERVER, "server_name"), "neu.example"),
    ),
    (
        (("synapse", "public_baseurl"), "https://neu.example/"),
        ((*CLIENT, "m.homeserver", "base_url"), "https://neu.example"),
        ((*HOMESERVER, "base_url"), "https://neu.example"),
        (("well_known", "server", "m.server"), "neu.example:443"),
    ),
)
