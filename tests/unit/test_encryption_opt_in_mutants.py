# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every mutant of valid documents is refused, or is shown harmless: with the real Synapse, and with Element's rules.

Mutants that ask the same of Synapse are tried once. Synapse reads each configuration, and under each set of power
levels real rooms are made: they are plain, an encrypted one can be made, and its creator can turn encryption on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import normalise, problems
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import (
    registration_document,
    without_doors,
)
from ansible_collections.cae.matrix.tests.patience import SETTLE, patient
from ansible_collections.cae.matrix.tests.unit.homeserver import KEY, Homeserver
from ansible_collections.cae.matrix.tests.unit.opt_in_documents import (
    CLIENT,
    DEFAULT,
    DEPRECATED,
    E2EE,
    HARMLESS,
    HOMESERVER,
    LISTED,
    OVERRIDE,
    RELEVANT,
    REMOVED,
    Edit,
    edited,
)

PRESETS = ("private_chat", "trusted_private_chat", "public_chat")
# Creators are above all levels from room version 12 on, and at 100 before.
# Other default power levels without the two seconds of a new start.
LEVELS_MODULE = {"modules": [{"module": "synapse_probe.Levels", "config": {}}]}
ROOM_VERSIONS = ("12", "11")
PARTS = 4
CREATOR, FRIEND = "@creator:coop.example", "@friend:coop.example"
MEGOLM = {"algorithm": "m.megolm.v1.aes-sha2"}

VALUES: tuple[Any, ...] = (
    REMOVED,
    None,
    True,
    False,
    0,
    1,
    -1,
    50,
    100,
    101,
    2**53,
    0.5,
    "",
    "off",
    "Off",
    "false",
    "true",
    "all",
    "invite",
    "100",
    [],
    [False],
    {},
    {"default": False},
    {"enabled": True},
)
LEVEL_VALUES: tuple[Any, ...] = (REMOVED, None, True, -1, 50, 2**53, 0.5, [], {}, [0], 0, 100, 101, "100")
NAMES: tuple[Any, ...] = (
    "other.example",
    "coop.example",
    "COOP.example",
    "coop.example:443",
    "coop.example.",
    "https://coop.example",
    "matrix.coop.example",
    "matrix.coop.example:443",
    "matrix.coop.example:8448",
    "matrix.coop.example:x",
    "https://matrix.coop.example",
    "https://matrix.coop.example/",
    "https://matrix.coop.example:443",
    "https://matrix.coop.example:8448",
    "http://matrix.coop.example/",
    "https://matrix.coop.example/?x",
    "https://other.example/",
    "https://[",
    "//matrix.coop.example",
)
EVENTS = (
    "m.room.encryption",
    "m.room.power_levels",
    "m.room.encrypted",
    "m.room.message",
    "m.room.join_rules",
    "m.room.name",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.tombstone",
    "org.example",
)
LEVELS = (
    "state_default",
    "events_default",
    "users_default",
    "invite",
    "kick",
    "ban",
    "redact",
    "users",
    "events",
    "notifications",
    "org.example",
)

PLACES: tuple[tuple[str, ...], ...] = (
    DEFAULT,
    OVERRIDE,
    *((*OVERRIDE, preset) for preset in (*PRESETS, "secret_chat")),
    *((*OVERRIDE, preset, level) for preset in PRESETS for level in LEVELS),
    *((*OVERRIDE, preset, "events", event) for preset in PRESETS for event in EVENTS),
    *(
        ("synapse", key)
        for key in (
            "server_name",
            "public_baseurl",
            "extra_well_known_client_content",
            "enable_registration",
            "disable_registration",
            "enable_registration_without_verification",
            "registration_requires_token",
            "enable_registration_token_3pid_bypass",
            "allow_guest_access",
            "registration_shared_secret",
            "matrix_authentication_service",
            "experimental_features",
            "oidc_config",
            "oidc_providers",
            "cas_config",
            "saml2_config",
            "jwt_config",
            "modules",
            "password_providers",
            "ldap_config",
        )
    ),
    ("synapse", "experimental_features", "msc3861"),
    ("synapse", "extra_well_known_client_content", "io.element.e2ee"),
    ("synapse",),
    ("well_known",),
    ("element",),
    CLIENT,
    ("well_known", "server"),
    ("well_known", "support"),
    ("well_known", "server", "m.server"),
    (*CLIENT, "m.homeserver"),
    (*CLIENT, "m.homeserver", "base_url"),
    E2EE,
    DEPRECATED,
    *((*key, name) for key in (E2EE, DEPRECATED) for name in ("default", "force_disable", "secure_backup_required")),
    *(
        ("element", key)
        for key in (
            "force_verification",
            "forceVerification",
            "enable_client_well_known_lookups",
            "features",
            "setting_defaults",
            "settingDefaults",
            "modules",
            "default_server_config",
            "default_server_name",
            "default_hs_url",
            "brand",
        )
    ),
    ("element", "features", "feature_exclude_insecure_devices"),
    ("element", "setting_defaults", "lowBandwidth"),
    ("element", "default_server_config", "io.element.e2ee"),
    HOMESERVER,
    (*HOMESERVER, "base_url"),
    (*HOMESERVER, "server_name"),
)


def mutants() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value in every place; of what people may add, all of it and every two; levels two at a time."""
    for place in PLACES:
        # Each level that is accepted means rooms to make: fewer values there, and all of them for one preset.
        if place[:2] == OVERRIDE and len(place) > 3:
            values = LEVEL_VALUES if place[2] == PRESETS[0] else LEVEL_VALUES[-4:]
        else:
            values = (*VALUES, *NAMES)
        for value in values:
            yield f"{'.'.join(place)} = {'removed' if value is REMOVED else value!r}", edited((place, value))
    added: list[tuple[Edit, ...]] = [*((edit,) for edit in HARMLESS), *RELEVANT]
    for one, two in itertools.combinations(added, 2):
        yield f"{one} and {two}", edited(*one, *two)
    for encryption, power, default in itertools.product((REMOVED, 50, 100, 101), repeat=3):
        place = (*OVERRIDE, "private_chat")
        levels = ((*place, "events", "m.room.encryption"), (*place, "events", "m.room.power_levels"))
        edits = ((levels[0], encryption), (levels[1], power), ((*place, "state_default"), default))
        yield f"levels {edits}", edited(*edits)


def element_objects(documents: dict[str, Any]) -> list[str]:
    """What Element Web 1.12.25 would do that is not opt-in, written after its own code, not after ours."""
    client, element = (documents["well_known"] or {}).get("client"), documents["element"]
    found = []
    if client is not None:
        settings = client.get("io.element.e2ee") or client.get("im.vector.riot.e2ee")
        disabled = isinstance(settings, dict) and settings.get("force_disable") is True
        if disabled:
            found.append("no switches")
        elif not isinstance(settings, dict) or settings.get("default") is not False:
            found.append("encrypts")
    if element is not None:
        if element.get("force_verification") or element.get("forceVerification"):
            found.append("forces verification")
        if not element.get("enable_client_well_known_lookups", True):
            found.append("does not read .well-known")
        if (element.get("features") or {}).get("feature_exclude_insecure_devices") in (True, "enable"):
            found.append("excludes the unverified")
        if (element.get("setting_defaults") or {}).get("lowBandwidth"):
            found.append("has no crypto")
        sources = [bool(element.get(key)) for key in ("default_server_config", "default_server_name")]
        if not any(sources) or element.get("default_hs_url"):
            found.append("does not start")
    return found


def names_object(documents: dict[str, Any]) -> list[str]:
    """Hosts that the documents send people and servers to; there may be one, and one domain."""
    synapse, well_known, element = (documents[name] or {} for name in ("synapse", "well_known", "element"))
    config = element.get("default_server_config") or {}
    client, server = well_known.get("client") or {}, well_known.get("server") or {}
    base_urls = [
        synapse and (synapse.get("public_baseurl") or f"https://{synapse['server_name']}/"),
        *(source and source["m.homeserver"]["base_url"] for source in (client, config)),
    ]
    hosts = {urlsplit(url).hostname for url in base_urls if url}
    delegated = {server["m.server"].split(":")[0]} if server and hosts else set()
    shown = (config.get("m.homeserver") or {}).get("server_name")
    domains = {name for name in (synapse.get("server_name"), shown, element.get("default_server_name")) if name}
    return [f"{found}" for found in (hosts | delegated, domains) if len(found) > 1]


# --- the real Synapse ----------------------------------------------------------------------------------------------


def asked(python: str, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the real Synapse makes of each configuration."""
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    probe = [python, str(Path(__file__).with_name("synapse_probe.py"))]
    # Synapse makes directories where it is started when a configuration names none.
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            probe, input=lines, capture_output=True, text=True, check=True, timeout=patient(SETTLE), cwd=place
        )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(documents)
    return answers


def loadable(synapse: dict[str, Any], mode: str = "closed-until-proven") -> dict[str, Any]:
    """What Synapse reads before the proof, with no file of ours to be found."""
    merged = without_doors(synapse) | registration_document(synapse, mode)
    merged.pop("registration_shared_secret_path", None)
    return merged | {"signing_key_path": "/nowhere/key", "signing_key": KEY, "macaroon_secret_key": "x"}


def objections(server: Homeserver, token: str, preset: str) -> list[str]:
    """Why rooms of a preset are not opt-in; empty if they are."""
    found = []

    def ask(what: str, method: str, path: str, body: Any, expected: int = 200) -> dict[str, Any]:
        status, answer = server.request(method, f"/_matrix/client/v3/{path}", body, token)
        if status != expected:
            found.append(f"{preset}, {what}: {status} {answer}")
        return answer

    for version in ROOM_VERSIONS:
        wanted: dict[str, Any] = {"preset": preset, "room_version": version, "name": "x", "topic": "y"}
        if preset != "public_chat":
            wanted |= {"invite": [FRIEND], "is_direct": preset == "trusted_private_chat"}
        room = ask(f"plain room, version {version}", "POST", "createRoom", wanted).get("room_id")
        if room:
            ask("is plain", "GET", f"rooms/{room}/state/m.room.encryption", None, 404)
            ask("write", "PUT", f"rooms/{room}/send/m.room.message/1", {"msgtype": "m.text", "body": "x"})
            ask("opt in", "PUT", f"rooms/{room}/state/m.room.encryption", MEGOLM)
            ask("write encrypted", "PUT", f"rooms/{room}/send/m.room.encrypted/2", MEGOLM | {"ciphertext": "x"})
        # What Element X does for every conversation.
        encrypted = {"initial_state": [{"type": "m.room.encryption", "state_key": "", "content": MEGOLM}]}
        ask(f"encrypted room, version {version}", "POST", "createRoom", wanted | encrypted)
    return found


@dataclass(frozen=True)
class Rooms:
    """A server with two people on it, where rooms are made."""

    server: Homeserver
    token: str

    def under(self, overrides: list[dict[str, Any]]) -> dict[str, list[str]]:
        """Make rooms under each preset's power levels; return the objections to each."""
        found = {}
        for override in overrides:
            assert self.server.request("PUT", "/_synapse/client/levels", override)[0] == 200
            for preset, levels in override.items():
                found[_key(preset, levels)] = objections(self.server, self.token, preset)
        return found


@contextlib.contextmanager
def rooms_on(python: str, directory: Path, extra: dict[str, Any]) -> Iterator[Rooms]:
    server = Homeserver(python, directory, LEVELS_MODULE | extra)
    try:
        token = server.register(CREATOR)
        server.register(FRIEND)
        yield Rooms(server, token)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def rooms(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rooms]:
    with rooms_on(python, tmp_path_factory.mktemp("rooms"), {}) as made:
        yield made


class Outcome:
    """What all tests of mutants come to, for the figures of bench/."""

    def __init__(self) -> None:
        self.everything = list(mutants())
        self.accepted = [(name, normalise(documents)) for name, documents in self.everything if not problems(documents)]
        self.bad: dict[str, list[str]] = {}

    def judge(self, found: dict[str, list[str]]) -> None:
        bad = {name: objections for name, objections in found.items() if objections}
        self.bad |= bad
        assert not bad, json.dumps(bad, indent=1)[:8000]

    def figures(self) -> dict[str, int]:
        return {
            "listed": len(LISTED),
            "listed_refused": sum(bool(problems(edited(*listed.edits))) for listed in LISTED),
            "mutants": len(self.everything),
            "refused": len(self.everything) - len(self.accepted),
            "harmless": len(self.accepted) - len(self.bad),
            "bad": len(self.bad),
        }


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    made = Outcome()
    yield made
    if os.environ.get("BENCH_MUTANTS"):
        Path(os.environ["BENCH_MUTANTS"]).write_text(json.dumps(made.figures()) + "\n")


def _config(documents: dict[str, Any]) -> str:
    return json.dumps(loadable(documents["synapse"]), sort_keys=True)


def _as_declared(documents: dict[str, Any]) -> str:
    return json.dumps(loadable(documents["synapse"], "closed"), sort_keys=True)


def _key(preset: str, levels: Any) -> str:
    return f"{preset} {json.dumps(levels, sort_keys=True)}"


def test_enough_is_tried(outcome: Outcome) -> None:
    figures = outcome.figures()
    assert figures["listed"] == figures["listed_refused"]
    assert figures["refused"] > 500
    assert len(outcome.accepted) > 100


def test_accepted_mutants_are_harmless(python: str, outcome: Outcome) -> None:
    """As Synapse reads them, and Element. One question to Synapse for all that it would read the same."""
    configs = sorted({_config(documents) for _, documents in outcome.accepted if documents["synapse"]})
    answers = dict(zip(configs, asked(python, [json.loads(config) for config in configs]), strict=True))
    # Where Synapse does not start (no such module, no such provider), nobody comes to harm, unless it would start
    # without what the gate makes of it.
    stopped = {
        _as_declared(documents)
        for _, documents in outcome.accepted
        if documents["synapse"] and "refused" in answers[_config(documents)]
    }
    again = sorted(stopped)
    declared = dict(zip(again, asked(python, [json.loads(config) for config in again]), strict=True))
    found: dict[str, list[str]] = {}
    started = 0
    for name, documents in outcome.accepted:
        found[name] = [*element_objects(documents), *names_object(documents)]
        if documents["synapse"]:
            answer = answers[_config(documents)]
            found[name] += answer.get("encrypts", []) + answer.get("opens", [])
            started += "refused" not in answer
            if _as_declared(documents) in declared and "refused" not in declared[_as_declared(documents)]:
                found[name].append(f"only what the gate makes of it does not start: {answer['refused']}")
    assert started > 500
    outcome.judge(found)


# In parts, which workers share.
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.xdist_group(f"mutants {part}")) for part in range(PARTS)]
)
def test_rooms_of_accepted_mutants_are_opt_in(rooms: Rooms, outcome: Outcome, part: int) -> None:
    """Under each set of power levels, once for all mutants that have it."""
    levels: dict[str, dict[str, Any]] = {}
    which: dict[str, list[str]] = {}
    for name, documents in outcome.accepted:
        overrides = (documents["synapse"] or {}).get(OVERRIDE[1]) or {}
        # Without Synapse's document, these are Synapse's own levels.
        for preset in PRESETS:
            key = _key(preset, overrides.get(preset))
            levels[key] = {preset: overrides.get(preset)}
            if documents["synapse"]:
                which.setdefault(key, []).append(name)
    assert len(levels) > 100
    found = rooms.under(list(levels.values())[part::PARTS])
    outcome.judge({name: objections for key, objections in found.items() for name in which.get(key, [key])})


def test_synapse_does_not_start_where_the_filter_says_so(python: str) -> None:
    said = [
        listed for listed in LISTED if any("Synapse would not start" in problem.cause for problem in _found(listed))
    ]
    answers = asked(python, [loadable(edited(*listed.edits)["synapse"]) for listed in said])
    assert len(said) > 10
    assert [listed.name for listed, answer in zip(said, answers, strict=True) if "refused" not in answer] == []


def test_single_sign_on_is_held_back_until_proven_and_as_declared_after(python: str) -> None:
    sso = {"issuer": "https://sso.coop.example", "client_id": "x", "client_secret": "x", "discover": False}
    endpoints = {
        f"{name}_endpoint": f"https://sso.coop.example/{name}" for name in ("authorization", "token", "userinfo")
    }
    oidc = {**sso, **endpoints, "idp_id": "sso", "idp_name": "SSO", "jwks_uri": "https://sso.coop.example/jwks"}
    cas = {"enabled": True, "server_url": "https://cas.coop.example"}
    jwt = {"enabled": True, "secret": "x", "algorithm": "HS256"}
    document = edited(
        (("synapse", "oidc_providers"), [oidc, oidc | {"idp_id": "other", "enable_registration": True}]),
        (("synapse", "oidc_config"), oidc | {"idp_id": "old", "enabled": True}),
        (("synapse", "cas_config"), cas),
        (("synapse", "jwt_config"), jwt),
    )
    assert problems(document) == []
    modes = ("closed-until-proven", "closed", "token")
    before, closed, token = asked(python, [loadable(document["synapse"], mode) for mode in modes])
    assert before["opens"] == []
    assert closed["opens"] == ["oidc", "cas", "jwt"]
    assert token["opens"] == ["registration", "oidc", "cas", "jwt"]


def test_the_real_synapse_sees_what_is_harmful(python: str, rooms: Rooms, tmp_path: Path) -> None:
    """What the filter refuses is refused for a reason, and the checks above are not blind."""
    harmful: list[dict[str, Any]] = [
        {"private_chat": {"events": {"m.room.encryption": 101}}},
        {"private_chat": {"events": {"m.room.power_levels": 50}}},
        {"trusted_private_chat": {"users": {CREATOR: 100}}},
        {"trusted_private_chat": {"invite": 101}},
        {"public_chat": {"state_default": 101}},
        {"public_chat": {"events": {"m.room.encrypted": 101}}},
    ]
    found = rooms.under(harmful)
    assert [key for key, objections in found.items() if not objections] == []
    with rooms_on(python, tmp_path, {DEFAULT[1]: "all"}) as all_encrypted:
        encrypted = all_encrypted.under([{preset: None} for preset in PRESETS])
    assert all(any("is plain" in objection for objection in objections) for objections in encrypted.values())


def _found(listed: Any) -> list[Any]:
    return problems(edited(*listed.edits))
