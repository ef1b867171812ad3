# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Line one of the defence: do the documents about to be deployed keep encryption opt-in?

The three documents are Synapse's configuration as declared, the `.well-known` documents of the domain, and Element's
config.json. `None` means "not managed here" and is not judged. What is refused was read in Synapse 1.163 and
Element Web 1.12.25; tests/unit/test_encryption_opt_in_mutants.py asks the real Synapse about the first.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import (
    CODE,
    DENY_LIST,
    OWN_MODULES,
    TooDeep,
    own_modules,
    plain,
)

E2EE = "io.element.e2ee"
DEPRECATED_E2EE = "im.vector.riot.e2ee"
ENCRYPTION = "m.room.encryption"
POWER_LEVELS = "m.room.power_levels"
# Code of others that is not withheld before the proof: it lets nobody in, and the proof sees what it does to rooms.
OTHER_CODE = ("spam_checker", "third_party_event_rules")
# Modules known to take encryption away from those who ask for it, by what their Python names are known by; the gate
# finds others (docs/en/encryption-gate.md).
FORBID_ENCRYPTION = frozenset(
    {
        "matrix_e2ee_filter",
        "EncryptedRoomFilter",
        "synapse_prevent_encrypt_room",
        "SynapsePreventEncryptRoom",
    }
)
PRESETS = ("private_chat", "trusted_private_chat", "public_chat")
BY_DEFAULT = "encryption_enabled_by_default_for_room_type"
OVERRIDE = "default_power_level_content_override"

_DOCUMENTS = ("synapse", "well_known", "element")
_WELL_KNOWN = ("client", "server", "support")
# A room administrator's level. Creators of rooms of version 12 are above everything, those before are not.
_ADMINISTRATOR = 100
_LARGEST = 2**53 - 1  # the largest integer an event may hold
_DEFAULT_EVENTS = {
    "m.room.name": 50,
    POWER_LEVELS: 100,
    "m.room.history_visibility": 100,
    "m.room.canonical_alias": 50,
    "m.room.avatar": 50,
    "m.room.tombstone": 100,
    "m.room.server_acl": 100,
    ENCRYPTION: 100,
}
# The creator sends these while the room is made: out of reach, no room can be made at all.
_SENT_AT_CREATION = (
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.canonical_alias",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
)
_LEVELS = ("ban", "events_default", "invite", "kick", "redact", "state_default", "users_default")
_LISTS_OF_LEVELS = ("events", "notifications")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True)
class Problem:
    """One contradiction: where it stands, what is wrong, and which variable mends it how."""

    document: str
    key: str
    cause: str
    variable: str
    mend: str

    def __str__(self) -> str:
        return f"{self.document}: {self.key}: {self.cause}\n     Mend: {self.variable}: {self.mend}"


class Contradictions(Exception):
    """The documents contradict opt-in encryption; the message holds every contradiction."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        count = f"{len(problems)} contradiction{'s' if len(problems) > 1 else ''}"
        lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
        super().__init__(f"Encryption would not be opt-in, {count}:\n{lines}")


def problems(documents: Any) -> list[Problem]:
    """Return every contradiction in the documents, in the order in which they stand."""
    try:
        return list(_problems(plain(documents)))
    except TooDeep as error:
        return [_too_deep(error)]


def normalise(documents: Any) -> dict[str, Any]:
    """Return the documents as plain data, Synapse's default made explicit, or raise `Contradictions`."""
    found = problems(documents)
    if found:
        raise Contradictions(found)
    documents = plain(documents)
    result = {name: copy.deepcopy(documents.get(name)) for name in _DOCUMENTS}
    if result["synapse"] is not None:
        result["synapse"][BY_DEFAULT] = "off"
    return result


def digest(documents: Any) -> str:
    """Return "sha256:<hex>" of what matters to encryption, so that nothing else closes a server.

    Covered, of Synapse: server_name, public_baseurl, the default for new rooms, the default power levels, and other
    people's code with its configuration (`CODE`, `OTHER_CODE`), which may change rooms or create accounts. Of the
    client's .well-known, and of the copies of it that Synapse and Element hold: the homeserver's address, and which of
    the e2ee keys are there. Of the server's: `m.server`. Of Element: the homeserver and the modules. Everything else
    that is judged here has one accepted value. A default and the same value spelt out are one.
    """
    documents = normalise(documents)
    synapse, well_known, element = (documents[name] for name in _DOCUMENTS)
    covered: dict[str, Any] = {}
    if synapse is not None:
        covered["synapse"] = _of_synapse(synapse)
    if well_known is not None:
        client, server = well_known["client"], well_known.get("server") or {}
        covered["well_known"] = {
            "client": _e2ee_keys(client) | {"m.homeserver": _address(client["m.homeserver"]["base_url"])},
            # A server that nobody federates with says none; it would say where clients go.
            "server": server.get("m.server", _delegation(client["m.homeserver"]["base_url"])),
        }
    if element is not None:
        config = element.get("default_server_config") or {}
        base_url = config.get("m.homeserver", {}).get("base_url")
        covered["element"] = {
            "default_server_config": _e2ee_keys(config) | {"m.homeserver": _address(base_url) if base_url else None},
            "default_server_name": element.get("default_server_name"),
            "modules": element.get("modules") or [],
        }
    return _hashed(covered)


def synapse_digest(synapse: Any) -> str:
    """Return the same of Synapse's part alone, for Synapse itself: from its files, it finds what was declared.

    Our own modules are left out: the release that they are of is there or not, whatever the configuration says.
    """
    covered = _of_synapse(plain(synapse))
    modules = covered["code"].pop("modules", None)
    if isinstance(modules, list):
        modules = [one for one in modules if not (isinstance(one, dict) and one.get("module") in OWN_MODULES)]
    return _hashed(covered | {"modules": modules or []})


def _of_synapse(synapse: dict[str, Any]) -> dict[str, Any]:
    overrides = synapse.get(OVERRIDE) or {}
    return {
        "server_name": synapse["server_name"],
        "public_baseurl": _address(_public_baseurl(synapse)),
        BY_DEFAULT: synapse.get(BY_DEFAULT) or "off",
        OVERRIDE: {preset: levels for preset, levels in overrides.items() if levels},
        "code": {key: value for key in (*CODE, *OTHER_CODE) if (value := _code(synapse.get(key)))},
        "well_known": _e2ee_keys(synapse.get("extra_well_known_client_content") or {}),
    }


def _hashed(covered: dict[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(_canonical(covered).encode()).hexdigest()


def _code(value: Any) -> Any:
    # Whom the server refuses to talk to has nothing to do with encryption.
    if not isinstance(value, list):
        return value
    return [one for one in value if not (isinstance(one, dict) and one.get("module") == DENY_LIST)]


def _canonical(value: Any) -> str:
    """JSON in one form; unlike json.dumps it sorts keys of different types, and does not confuse 1 with "1"."""
    if isinstance(value, dict):
        items = sorted(
            (json.dumps(key) if isinstance(key, str) else repr(key), _canonical(value[key])) for key in value
        )
        return "{" + ",".join(f"{key}:{item}" for key, item in items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_canonical(item) for item in value) + "]"
    return json.dumps(value)


def _e2ee_keys(well_known: dict[str, Any]) -> dict[str, Any]:
    # What is accepted differs only in whether it is there: `default` is false, nothing is forced.
    return {"e2ee": [key for key in (E2EE, DEPRECATED_E2EE) if key in well_known]}


def _problems(documents: Any) -> Iterator[Problem]:
    if not isinstance(documents, dict):
        yield Problem(
            "documents",
            "(all)",
            f"must be a dict of synapse, well_known and element, but is {_shown(documents)}.",
            "encryption_gate_documents",
            "hand the filter {synapse: …, well_known: …, element: …}, null for what is not managed here.",
        )
        return
    for name in documents:
        if name not in _DOCUMENTS:
            yield Problem(
                "documents",
                _shown(name),
                "is no document known here.",
                "encryption_gate_documents",
                f"use {', '.join(_DOCUMENTS)} only.",
            )
    judges: dict[str, Callable[[dict[str, Any]], Iterator[Problem]]] = {
        "synapse": _synapse_problems,
        "well_known": _well_known_problems,
        "element": _element_problems,
    }
    for name, judge in judges.items():
        document = documents.get(name)
        if isinstance(document, dict):
            yield from judge(document)
        elif document is not None:
            yield _no_dict(name, "(all)", document, _VARIABLE[name])
    yield from _domain_problems(documents)


_VARIABLE = {
    "synapse": "synapse_extra_config",
    "well_known": "reverse_proxy_well_known_client_extra",
    "element": "element_web_extra_config",
}


def _shown(value: Any) -> str:
    """A value as it would stand in JSON, cut short."""
    text = json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    return text if len(text) <= 60 else text[:57] + "…"


def _too_deep(error: TooDeep) -> Problem:
    document, _, key = error.where.partition(".")
    variable = _VARIABLE.get(document, "encryption_gate_documents")
    cause = f"{error.why}: no program reads it."
    return Problem(document or "documents", key or "(all)", cause, variable, "write it as a plain tree of values.")


def _no_dict(document: str, key: str, value: Any, variable: str) -> Problem:
    return Problem(document, key, f"must be a dict, but is {_shown(value)}.", variable, "make it a dict.")


# --- Synapse -----------------------------------------------------------------------------------------------------


def _synapse_problems(synapse: dict[str, Any]) -> Iterator[Problem]:
    yield from _default_for_new_rooms(synapse)
    yield from _power_levels(synapse)
    content = synapse.get("extra_well_known_client_content", {})
    variable = "synapse_extra_config.extra_well_known_client_content"
    if not isinstance(content, dict):
        yield _no_dict("synapse", "extra_well_known_client_content", content, variable)
    elif E2EE in content or DEPRECATED_E2EE in content:
        yield from _e2ee_problems("synapse", "extra_well_known_client_content", content, variable)
    yield from _forbidding_modules(synapse)
    yield from _side_doors(synapse)


def _forbidding_modules(synapse: dict[str, Any]) -> Iterator[Problem]:
    for key in (*CODE, *OTHER_CODE):
        value = synapse.get(key)
        for one in value if isinstance(value, list) else [value]:
            name = one.get("module") if isinstance(one, dict) else None
            if isinstance(name, str) and FORBID_ENCRYPTION.intersection(name.split(".")):
                yield Problem(
                    "synapse",
                    key,
                    f"names {name}, which is known to refuse encryption: nobody could opt in.",
                    f"synapse_extra_config.{key}",
                    "take it out.",
                )


def _default_for_new_rooms(synapse: dict[str, Any]) -> Iterator[Problem]:
    if BY_DEFAULT not in synapse:
        return
    value = synapse[BY_DEFAULT]
    # YAML makes False of an unquoted off; Synapse takes both, and nothing else.
    if value is False or value == "off":
        return
    if value in ("all", "invite"):
        cause = f"is {_shown(value)}: Synapse would encrypt new rooms without being asked, and nothing can undo that."
    else:
        cause = f"is {_shown(value)}: Synapse would not start with it."
    yield Problem("synapse", BY_DEFAULT, cause, f"synapse_extra_config.{BY_DEFAULT}", 'set it to "off" or remove it.')


def _power_levels(synapse: dict[str, Any]) -> Iterator[Problem]:
    overrides = synapse.get(OVERRIDE)
    variable = f"synapse_extra_config.{OVERRIDE}"
    if overrides is None:
        return
    if not isinstance(overrides, dict):
        yield _no_dict("synapse", OVERRIDE, overrides, variable)
        return
    for preset, content in overrides.items():
        key = f"{OVERRIDE}.{preset}"
        if preset not in PRESETS:
            yield Problem(
                "synapse", key, "is no preset: Synapse would not start.", variable, f"use {', '.join(PRESETS)} only."
            )
        elif isinstance(content, dict):
            for suffix, cause, mend in _preset_problems(content):
                yield Problem("synapse", f"{key}.{suffix}", cause, f"{variable}.{preset}.{suffix}", mend)
        elif content is not None:
            yield _no_dict("synapse", key, content, f"{variable}.{preset}")


def _preset_problems(content: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Judge one preset's override, which replaces Synapse's power levels key by key (`events` as a whole)."""
    if "users" in content:
        yield "users", "replaces the room creator's own level: rooms could not be made.", "remove it."
    malformed = list(_malformed_levels(content))
    yield from malformed
    if malformed:
        return
    events = content.get("events", _DEFAULT_EVENTS)
    state_default = content.get("state_default", 50)

    needed = events.get(ENCRYPTION, state_default)
    where = f"events.{ENCRYPTION}" if ENCRYPTION in events else "state_default"
    if needed > _ADMINISTRATOR:
        yield (
            where,
            f"asks for level {needed} to turn encryption on, more than room administrators have: nobody could opt in.",
            f"at most {_ADMINISTRATOR}.",
        )
    elif "events" in content and events.get(ENCRYPTION, 100) > events.get(POWER_LEVELS, 100):
        # Synapse reads the override itself here, with 100 for what it does not name.
        yield (
            f"events.{ENCRYPTION}",
            f"is {events.get(ENCRYPTION, 'missing, which counts as 100')}, more than {POWER_LEVELS} "
            f"({events.get(POWER_LEVELS, 100)}): Synapse answers 403 to whoever makes an encrypted room, and Element X "
            "cannot start a conversation.",
            f"at most the level of {POWER_LEVELS}.",
        )
    unreachable = [
        name for name in _SENT_AT_CREATION if events.get(name, state_default) > _ADMINISTRATOR and name in events
    ]
    for name in unreachable:
        yield (
            f"events.{name}",
            f"is {events[name]}, more than the creator has: rooms could not be made.",
            f"at most {_ADMINISTRATOR}.",
        )
    if state_default > _ADMINISTRATOR and where != "state_default":
        yield (
            "state_default",
            f"is {state_default}, more than the creator has: rooms could not be made.",
            f"at most {_ADMINISTRATOR}.",
        )
    if content.get("invite", 0) > _ADMINISTRATOR:
        yield (
            "invite",
            f"is {content['invite']}, more than the creator has: nobody could start a conversation.",
            f"at most {_ADMINISTRATOR}.",
        )
    events_default = content.get("events_default", 0)
    plain_level, encrypted_level = (events.get(f"m.room.{kind}", events_default) for kind in ("message", "encrypted"))
    for kind, level in (("message", plain_level), ("encrypted", encrypted_level)):
        if level > _ADMINISTRATOR:
            named = f"events.m.room.{kind}" if f"m.room.{kind}" in events else "events_default"
            yield named, f"is {level}, more than the creator has: nobody could write.", f"at most {_ADMINISTRATOR}."
    if encrypted_level > plain_level:
        yield (
            "events.m.room.encrypted",
            f"asks for level {encrypted_level} where m.room.message asks for {plain_level}: who opts in could no "
            "longer write.",
            "at most the level of m.room.message.",
        )


def _malformed_levels(content: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name what Synapse refuses in a power levels event, so that no room could be made."""
    for key, value in content.items():
        if key in _LEVELS:
            if not _is_level(value):
                yield key, f"is {_shown(value)}, no power level: rooms could not be made.", "use an integer."
        elif key in _LISTS_OF_LEVELS:
            if not isinstance(value, dict):
                yield key, f"is {_shown(value)}, no dict: rooms could not be made.", "make it a dict of integers."
                continue
            for name, level in value.items():
                if not isinstance(name, str) or not _is_level(level):
                    yield (
                        f"{key}.{name}",
                        f"is {_shown(level)}, no power level: rooms could not be made.",
                        "use an integer, and a text for its name.",
                    )
        elif key != "users" and not _fits_an_event(value, key):
            yield (
                str(key),
                f"is {_shown(value)}, which no event may hold: rooms could not be made.",
                "remove it, or use whole numbers and texts for names.",
            )


def _is_level(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _fits_an_event(value: Any, key: Any = "") -> bool:
    if not isinstance(key, str) or isinstance(value, float):
        return False
    if isinstance(value, dict):
        return all(_fits_an_event(item, name) for name, item in value.items())
    if isinstance(value, list):
        return all(_fits_an_event(item) for item in value)
    return not isinstance(value, int) or abs(value) <= _LARGEST


_ONLY_FALSE = {
    "enable_registration": "opens registration to anybody",
    "enable_registration_without_verification": "lets anybody register without proving anything",
    "enable_registration_token_3pid_bypass": "lets people register without a token",
    "allow_guest_access": "makes an account for every passer-by",
}


def _side_doors(synapse: dict[str, Any]) -> Iterator[Problem]:
    """Name every way past the gate to an account that the document opens."""

    def door(key: str, cause: str, mend: str) -> Problem:
        return Problem(
            "synapse", key, cause, f"synapse_extra_config.{key}", f"{mend}, and set encryption_gate_registration."
        )

    for key, effect in _ONLY_FALSE.items():
        if key in synapse and synapse[key] is not False:
            yield door(key, f"is {_shown(synapse[key])} and {effect}, past the gate.", "remove it")
    if "disable_registration" in synapse:
        yield door("disable_registration", "overrides what the gate decides.", "remove it")
    if synapse.get("registration_requires_token", True) is not True:
        yield door("registration_requires_token", "lets anybody register without a token.", "remove it")
    if synapse.get("registration_shared_secret") is not None:
        # Never shown: it is a secret.
        yield door(
            "registration_shared_secret",
            "stands in clear in the configuration, and makes accounts for whoever reads it.",
            "remove it (one is born on the target and read by path)",
        )
    delegated = "hands accounts over to another service, where the gate cannot hold them back"
    service = synapse.get("matrix_authentication_service")
    if service is not None and not (isinstance(service, dict) and service.get("enabled", False) is False):
        yield door("matrix_authentication_service", f"{delegated}.", "remove it")
    experimental = synapse.get("experimental_features")
    if isinstance(experimental, dict):
        if experimental.get("msc3861"):
            yield door("experimental_features.msc3861", f"{delegated}, and Synapse no longer starts.", "remove it")
    elif experimental is not None:
        yield _no_dict("synapse", "experimental_features", experimental, "synapse_extra_config.experimental_features")
    yield from _malformed_providers(synapse)


def _malformed_providers(synapse: dict[str, Any]) -> Iterator[Problem]:
    """Sign-on is allowed as declared, but only in a shape of which the gate knows how to hold it back."""
    for key in ("oidc_config", "cas_config", "saml2_config", "jwt_config", "ldap_config"):
        if synapse.get(key) is not None and not isinstance(synapse[key], dict):
            yield _no_dict("synapse", key, "(a value that may be secret)", f"synapse_extra_config.{key}")
    for key in ("oidc_providers", "modules", "password_providers"):
        value = synapse.get(key)
        if value is None or (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
            continue
        yield Problem(
            "synapse", key, "must be a list of dicts.", f"synapse_extra_config.{key}", "make it a list of dicts."
        )
    own = [module["module"] for module in own_modules(synapse)]
    for again in sorted({name for name in own if own.count(name) > 1}):
        yield Problem(
            "synapse",
            "modules",
            f"names {again} again, which role synapse brings by itself.",
            "synapse_extra_config.modules",
            "take it out.",
        )


# --- .well-known -------------------------------------------------------------------------------------------------


def _well_known_problems(well_known: dict[str, Any]) -> Iterator[Problem]:
    for name, value in well_known.items():
        if name not in _WELL_KNOWN:
            yield Problem(
                "well_known",
                _shown(name),
                "is no .well-known document known here.",
                _VARIABLE["well_known"],
                f"use {', '.join(_WELL_KNOWN)} only.",
            )
        elif not isinstance(value, dict) and not (value is None and name != "client"):
            yield _no_dict("well_known", str(name), value, _VARIABLE["well_known"])
    if "client" not in well_known:
        yield Problem(
            "well_known",
            "client",
            "is missing: clients would not know that encryption is opt-in.",
            _VARIABLE["well_known"],
            f"serve at least {E2EE} and m.homeserver.",
        )
    elif isinstance(well_known["client"], dict):
        client = well_known["client"]
        yield from _e2ee_problems("well_known", "client", client, _VARIABLE["well_known"])


def _e2ee_problems(document: str, where: str, client: dict[str, Any], variable: str) -> Iterator[Problem]:
    """Judge what Element Web reads in a client's .well-known about encryption."""
    if E2EE not in client:
        cause = (
            f"stands only under the deprecated key {DEPRECATED_E2EE}, which clients are about to stop reading."
            if DEPRECATED_E2EE in client
            else "is missing: Element would encrypt private rooms and direct messages without being asked."
        )
        yield Problem(document, f"{where}.{E2EE}", cause, f"{variable}.{E2EE}", "set {default: false} under this key.")
    for key in (E2EE, DEPRECATED_E2EE):
        if key not in client:
            continue
        settings = client[key]
        if not isinstance(settings, dict):
            yield _no_dict(document, f"{where}.{key}", settings, f"{variable}.{key}")
            continue
        contradicts = f" and contradicts {E2EE}" if key == DEPRECATED_E2EE else ""
        if settings.get("default") is not False:
            cause = (
                f"is {_shown(settings['default'])}, not the boolean false" if "default" in settings else "is missing"
            )
            yield Problem(
                document,
                f"{where}.{key}.default",
                f"{cause}{contradicts}: Element would encrypt without being asked.",
                f"{variable}.{key}.default",
                "set it to false (boolean, no quotes)." if key == E2EE else "remove the deprecated key.",
            )
        if settings.get("force_disable", False) is not False:
            yield Problem(
                document,
                f"{where}.{key}.force_disable",
                f"is {_shown(settings['force_disable'])}{contradicts}: Element would take away every switch to opt in.",
                f"{variable}.{key}.force_disable",
                "remove it.",
            )
        if settings.get("secure_backup_required", False) is not False:
            yield Problem(
                document,
                f"{where}.{key}.secure_backup_required",
                "makes clients that still read it demand a backup of keys before anything else.",
                f"{variable}.{key}.secure_backup_required",
                "remove it.",
            )


# --- Element -----------------------------------------------------------------------------------------------------


def _element_problems(element: dict[str, Any]) -> Iterator[Problem]:
    def problem(key: str, cause: str, mend: str) -> Problem:
        return Problem("element", key, cause, f"{_VARIABLE['element']}.{key}", mend)

    # Element reads a key in snake case, or else its old form in camel case.
    for key in ("force_verification", "forceVerification"):
        if element.get(key, False) is not False:
            yield problem(
                key,
                f"is {_shown(element[key])}: nobody could get past the verification of their session.",
                "remove it or set it to false.",
            )
    for key in ("enable_client_well_known_lookups", "enableClientWellKnownLookups"):
        if element.get(key, True) is not True:
            yield problem(
                key,
                f"is {_shown(element[key])}: Element would not read {E2EE} and would encrypt without being asked.",
                "remove it or set it to true.",
            )
    features = element.get("features")
    if isinstance(features, dict):
        feature = "feature_exclude_insecure_devices"
        # Element takes true and "enable" for on.
        if features.get(feature, False) not in (False, None, "disable"):
            yield problem(
                f"features.{feature}",
                f"is {_shown(features[feature])}: who opts in without verifying a session would neither read nor be "
                "read.",
                "remove it or set it to false.",
            )
    elif features is not None:
        yield _no_dict("element", "features", features, f"{_VARIABLE['element']}.features")
    for key in ("setting_defaults", "settingDefaults"):
        defaults = element.get(key)
        if isinstance(defaults, dict):
            if defaults.get("lowBandwidth", False) not in (False, None):
                yield problem(
                    f"{key}.lowBandwidth",
                    f"is {_shown(defaults['lowBandwidth'])}: Element starts without encryption, nobody could opt in.",
                    "remove it.",
                )
        elif defaults is not None:
            yield _no_dict("element", key, defaults, f"{_VARIABLE['element']}.{key}")
    modules = element.get("modules")
    if modules is not None and not isinstance(modules, list):
        yield problem("modules", f"must be a list of addresses, but is {_shown(modules)}.", "make it a list.")

    config = element.get("default_server_config")
    if isinstance(config, dict):
        if E2EE in config or DEPRECATED_E2EE in config:
            yield from _e2ee_problems(
                "element", "default_server_config", config, f"{_VARIABLE['element']}.default_server_config"
            )
    elif config is not None:
        yield _no_dict("element", "default_server_config", config, f"{_VARIABLE['element']}.default_server_config")
    if element.get("default_hs_url") is not None:
        yield problem(
            "default_hs_url",
            "is deprecated, and next to another way of naming the homeserver Element refuses to start.",
            "remove it; default_server_config names the homeserver.",
        )
    if config is None and element.get("default_server_name") is None:
        yield problem(
            "default_server_config",
            "is missing: Element would not know the homeserver.",
            "set m.homeserver.base_url in it.",
        )


# --- Names -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Named:
    document: str
    key: str
    variable: str
    value: str  # in the form that is compared


def _domain_problems(documents: dict[str, Any]) -> Iterator[Problem]:
    """The three documents must name one domain, and one address of its homeserver."""
    found: list[Problem] = []
    domains: list[_Named] = []
    addresses: list[_Named] = []

    def name(where: list[_Named], document: str, key: str, variable: str, value: Any, form: Any) -> None:
        try:
            where.append(_Named(document, key, variable, form(value)))
        except ValueError as error:
            found.append(Problem(document, key, f"is {_shown(value)}: {error}.", variable, "correct it."))

    synapse = documents.get("synapse")
    if isinstance(synapse, dict):
        name(domains, "synapse", "server_name", "matrix_domain", synapse.get("server_name"), _server_name)
        if "public_baseurl" in synapse or domains:
            name(addresses, "synapse", "public_baseurl", "matrix_hostname", _public_baseurl(synapse), _address)
    well_known = documents.get("well_known")
    well_known = well_known if isinstance(well_known, dict) else {}
    client = well_known.get("client")
    if isinstance(client, dict):
        variable = f"{_VARIABLE['well_known']}.m.homeserver.base_url"
        value = _base_url(client)
        name(addresses, "well_known", "client.m.homeserver.base_url", variable, value, _address)
    element = documents.get("element")
    config = element.get("default_server_config") if isinstance(element, dict) else None
    if isinstance(config, dict):
        key = "default_server_config.m.homeserver"
        variable = f"{_VARIABLE['element']}.{key}"
        name(addresses, "element", f"{key}.base_url", f"{variable}.base_url", _base_url(config), _address)
        homeserver = config.get("m.homeserver")
        shown = homeserver.get("server_name") if isinstance(homeserver, dict) else None
        if shown is not None:
            name(domains, "element", f"{key}.server_name", f"{variable}.server_name", shown, _server_name)
    if isinstance(element, dict) and element.get("default_server_name") is not None:
        key = "default_server_name"
        name(domains, "element", key, f"{_VARIABLE['element']}.{key}", element[key], _server_name)
    yield from found
    yield from _disagreements(domains, "domain")
    yield from _disagreements(addresses, "homeserver")

    server = well_known.get("server")
    if isinstance(server, dict):
        key, variable = "server.m.server", "matrix_hostname"
        host, problem = _delegated_host(server.get("m.server"))
        if problem:
            value = _shown(server.get("m.server"))
            yield Problem("well_known", key, f"is {value}: {problem}.", variable, "write it as host:443.")
        elif addresses and urlsplit(addresses[0].value).hostname != host:
            yield Problem(
                "well_known",
                key,
                f"sends other servers to {host}, but {addresses[0].document} {addresses[0].key} is "
                f"{addresses[0].value}.",
                variable,
                "name the same host.",
            )


def _disagreements(named: list[_Named], what: str) -> Iterator[Problem]:
    for other in named[1:]:
        if other.value != named[0].value:
            yield Problem(
                other.document,
                other.key,
                f"names the {what} {other.value}, but {named[0].document} {named[0].key} is {named[0].value}.",
                other.variable,
                f"name the same {what} everywhere (it comes from {named[0].variable}).",
            )


def _base_url(client: dict[str, Any]) -> Any:
    homeserver = client.get("m.homeserver")
    return homeserver.get("base_url") if isinstance(homeserver, dict) else None


def _public_baseurl(synapse: dict[str, Any]) -> Any:
    value = synapse.get("public_baseurl")
    return f"https://{synapse.get('server_name')}/" if value is None else value


def _server_name(value: Any) -> str:
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise ValueError("must be a domain such as coop.example, in small letters, without scheme, port or final dot")
    return value


def _address(value: Any) -> str:
    """An https address in the form that is compared: no default port, one final slash."""
    if not isinstance(value, str):
        raise ValueError("must be an https address")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError("is no valid address") from error
    if parts.scheme != "https" or not _HOST.fullmatch(parts.hostname or "") or "@" in parts.netloc:
        raise ValueError("must be an https address with the name of a host")
    if parts.query or parts.fragment or "?" in value or "#" in value or value != value.strip():
        raise ValueError("must hold neither a query, nor a fragment, nor spaces")
    authority = f"{parts.hostname}:{port}" if port not in (None, 443) else f"{parts.hostname}"
    return f"https://{authority}{parts.path.rstrip('/')}/"


def _delegation(base_url: Any) -> str:
    """What other servers are told when they go where clients go."""
    parts = urlsplit(_address(base_url))
    return f"{parts.hostname}:{parts.port or 443}"


def _delegated_host(value: Any) -> tuple[str, str]:
    """The host that other servers are sent to, or what is wrong with it."""
    if not isinstance(value, str):
        return "", "must be a text"
    host, colon, port = value.partition(":")
    if not _HOST.fullmatch(host) or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        return "", "must be a host, with a port that is not 8448"
    return host, ""
