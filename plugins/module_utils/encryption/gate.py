# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the gate concludes from what it has seen. Pure functions; the module C(encryption_gate) does the looking."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import _address
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import OWN_MODULE
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import LOCALPART, is_service_account

PASSED, FAILED, UNSEEN = "passed", "failed", "unseen"
IN_TIME, MENDABLE, TOO_LATE = "in time", "late but mendable", "too late"
# It is too late, and the inventory lists every room that makes it so.
ACCEPTED = "too late, accepted"
ENCRYPTION = "m.room.encryption"
ALGORITHM = "m.megolm.v1.aes-sha2"
ROOM_NAME = "cae.matrix encryption gate"
STAGE = "m.login.registration_token"
# Files of the synapse directory that roles write. Synapse reads every other *.yaml as well.
OWN_FILES = frozenset({"homeserver.yaml", "registration.yaml", "secrets.yaml"})

# What in the served documents decides about encryption, or about which server it is decided for.
WELL_KNOWN_CLIENT = ("m.homeserver", "io.element.e2ee", "im.vector.riot.e2ee")
WELL_KNOWN_SERVER = ("m.server",)
ELEMENT = (
    "default_server_config",
    "default_server_name",
    "default_hs_url",
    "enable_client_well_known_lookups",
    "enableClientWellKnownLookups",
    "features",
    "force_verification",
    "forceVerification",
    "modules",
    "setting_defaults",
    "settingDefaults",
)
# Of Element's settings, those that take encryption away; the rest is a matter of taste.
ELEMENT_SETTINGS = ("lowBandwidth", "UIFeature.advancedEncryption")

HABIT = "a room encrypted out of habit"
# Every way in which clients make conversations: the preset decides what Synapse adds, is_direct what a client means.
PROBES: Mapping[str, Mapping[str, Any]] = {
    "a room without preset": {},
    "a private room": {"preset": "private_chat"},
    "a private conversation": {"preset": "trusted_private_chat", "is_direct": True},
    "a private room among equals": {"preset": "trusted_private_chat"},
    "a public room": {"preset": "public_chat"},
    # As clients send it that never read .well-known.
    HABIT: {
        "preset": "trusted_private_chat",
        "is_direct": True,
        "initial_state": [{"type": ENCRYPTION, "state_key": "", "content": {"algorithm": ALGORITHM}}],
    },
}


# Status and JSON, as Synapse gives them.
Answer = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `unseen`: there was no answer, so nothing speaks against the server either."""

    name: str
    status: str
    why: str = ""
    mend: str = ""

    def line(self) -> str:
        """As the report shows it."""
        text = f"[{self.status}] {self.name}"
        if self.why:
            text += f": {self.why}"
        if self.mend and self.status != PASSED:
            text += f"\n    mend: {self.mend}"
        return text


@dataclass(frozen=True)
class Room:
    """A room that is encrypted already. `since` is empty and `local` None where that is not known."""

    room_id: str
    name: str
    creator: str
    members: int
    why: str
    since: str = ""
    local: bool | None = None
    replaced_by: str = ""

    def line(self) -> str:
        """As the report shows it."""
        told = [readable(self.name) or "no name", f"made by {readable(self.creator) or '?'}", f"{self.members} in it"]
        if self.local is not None:
            told.append("local" if self.local else "remote")
        since = f" since {self.since}" if self.since else ""
        moved = f"; replaced by {readable(self.replaced_by)}" if self.replaced_by else ""
        return f"{readable(self.room_id)} ({', '.join(told)}: {self.why}{since}{moved})"


def readable(text: str) -> str:
    """What people wrote, on one line and without what steers a terminal or turns the writing round.

    >>> readable("Bureau\\x1b[2J\\nde \\u202eMarie")
    'Bureau [2J de Marie'
    """
    kept = (one if one.isprintable() else "" if unicodedata.category(one) == "Cf" else " " for one in text)
    return " ".join("".join(kept).split())


def what_matters(documents: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the declared documents that is compared with what is served; it holds no secret."""
    well_known, element = documents.get("well_known") or {}, documents.get("element")
    return {
        "well_known": {
            "client": _only(well_known.get("client") or {}, WELL_KNOWN_CLIENT),
            "server": _only(well_known.get("server") or {}, WELL_KNOWN_SERVER),
        },
        "element": None if element is None else _only(_element_settings(element), ELEMENT),
        # Profile internal: what other servers would ask for is not there.
        "federates": not well_known or bool(well_known.get("server")),
    }


def _element_settings(element: Mapping[str, Any]) -> dict[str, Any]:
    """Element's configuration with nothing of its settings but what matters."""
    kept = dict(element)
    for key in ("setting_defaults", "settingDefaults"):
        settings = kept.pop(key, None)
        matters = _only(settings, ELEMENT_SETTINGS) if isinstance(settings, Mapping) else settings
        if matters:
            kept[key] = matters
    return kept


def _only(document: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: document[key] for key in keys if key in document}


def questions(domain: str, hostname: str, element_hostname: str | None) -> dict[str, tuple[str, str, bool]]:
    """What is asked through the public names: method, URL, and whether the answer is JSON."""
    base = f"https://{hostname}"
    asked = {
        "well_known_client": ("GET", f"https://{domain}/.well-known/matrix/client", True),
        "well_known_server": ("GET", f"https://{domain}/.well-known/matrix/server", True),
        "versions": ("GET", f"{base}/_matrix/client/versions", True),
        "key": ("GET", f"{base}/_matrix/key/v2/server", True),
        "register": ("POST", f"{base}/_matrix/client/v3/register", True),
    }
    if element_hostname:
        element = f"https://{element_hostname}"
        asked["element"] = ("GET", f"{element}/config.json", True)
        # Element prefers this one where it exists.
        asked["element_specific"] = ("GET", f"{element}/config.{element_hostname}.json", True)
        asked["element_version"] = ("GET", f"{element}/version", False)
    return asked


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True) if value is not None else "nothing"
    return text if len(text) <= 160 else text[:157] + "…"


def unlike(declared: Mapping[str, Any], served: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Where what is served is not what was declared.

    >>> unlike({"io.element.e2ee": {"default": False}}, {"io.element.e2ee": {"default": True}}, ["io.element.e2ee"])
    ['io.element.e2ee is {"default": true}, declared {"default": false}']
    """
    found = []
    for key in keys:
        wanted, seen = declared.get(key), served.get(key)
        if not _same(wanted, seen):
            found.append(f"{key} is {_short(seen)}, declared {_short(wanted)}")
    return found


def _same(left: object, right: object) -> bool:
    """Equality as JSON has it: false is not 0, 1 is not true."""
    return json.dumps(_comparable(left), sort_keys=True) == json.dumps(_comparable(right), sort_keys=True)


def _comparable(value: Any) -> Any:
    """As the filter compares: an address is the same with and without its final slash or default port."""
    if not isinstance(value, Mapping):
        return value
    found = {key: _comparable(item) for key, item in value.items()}
    with contextlib.suppress(ValueError):
        if "base_url" in found:
            found["base_url"] = _address(found["base_url"])
    return found


def document_check(
    name: str,
    answer: Mapping[str, Any],
    declared: Mapping[str, Any],
    keys: Sequence[str],
    mend: str,
    needs_cors: bool = False,
) -> Check:
    """Is this document served as it was declared?"""
    url = answer["url"]
    unseen = unseen_check(name, answer)
    if unseen:
        return unseen
    if answer["status"] != 200 or not isinstance(answer["json"], Mapping):
        return Check(name, FAILED, f"{url} answers {answer['status']}, not with the document", mend)
    served = _element_settings(answer["json"]) if keys is ELEMENT else answer["json"]
    wrong = unlike(declared, served, keys)
    if wrong:
        return Check(name, FAILED, f"at {url}, " + "; ".join(wrong), mend)
    if needs_cors and answer["cors"] != "*":
        return Check(
            name,
            FAILED,
            f"{url} comes without Access-Control-Allow-Origin: *, so Element Web cannot read it and encrypts",
            "send that header with the document; where the domain's website is elsewhere, hand its webmaster the "
            "rules that reverse_proxy_well_known: elsewhere renders",
        )
    return Check(name, PASSED)


def unseen_check(name: str, answer: Mapping[str, Any]) -> Check | None:
    """A check without an answer. A document that is no JSON was seen, and is wrong."""
    error = answer.get("error")
    if not error:
        return None
    status = FAILED if error["kind"] in ("not-json", "too-large") and answer["status"] < 500 else UNSEEN
    return Check(name, status, error["cause"], error["mend"])


def public_checks(
    observed: Mapping[str, Mapping[str, Any]],
    declared: Mapping[str, Any],
    server_name: str,
    own_keys: Mapping[str, Any],
) -> list[Check]:
    """Everything that the public names show, but for registration."""
    well_known = declared["well_known"]
    elsewhere = (
        "run the playbook with role reverse_proxy; where the domain's website is elsewhere "
        "(reverse_proxy_well_known: elsewhere), its webmaster has to publish the files in "
        "/etc/matrix/<instance>/well-known/"
    )
    checks = [
        document_check(
            ".well-known/matrix/client",
            observed["well_known_client"],
            well_known.get("client") or {},
            WELL_KNOWN_CLIENT,
            elsewhere,
            needs_cors=True,
        ),
    ]
    if declared["federates"]:
        name = ".well-known/matrix/server"
        served = observed["well_known_server"]
        checks.append(document_check(name, served, well_known.get("server") or {}, WELL_KNOWN_SERVER, elsewhere))
    if declared.get("element") is not None:
        name = "Element's config.json"
        mend = "run the playbook with role element_web, and look for another web server or cache in front"
        checks.append(document_check(name, observed["element"], declared["element"], ELEMENT, mend))
        specific = observed["element_specific"]
        if specific["status"] == 200 and isinstance(specific["json"], Mapping) and specific["json"]:
            checks.append(document_check(name, specific, declared["element"], ELEMENT, f"remove {specific['url']}"))
    checks.append(_versions_check(observed["versions"]))
    checks.append(
        _key_check(observed["key"], server_name, own_keys) if declared["federates"] else _no_key_check(observed["key"])
    )
    return checks


def _versions_check(answer: Mapping[str, Any]) -> Check:
    name = "client API"
    unseen = unseen_check(name, answer)
    if unseen:
        return unseen
    versions = answer["json"].get("versions") if isinstance(answer["json"], Mapping) else None
    if answer["status"] == 200 and isinstance(versions, list) and versions:
        return Check(name, PASSED)
    return Check(
        name,
        FAILED if answer["status"] < 500 else UNSEEN,
        f"{answer['url']} answers {answer['status']}, not with the versions a homeserver speaks",
        "let matrix_hostname lead to role reverse_proxy's nginx, which passes /_matrix on to Synapse",
    )


def _key_check(answer: Mapping[str, Any], server_name: str, own_keys: Mapping[str, Any]) -> Check:
    """The key seen through the public name is the one of the process behind the socket."""
    name = "same server behind the public name"
    unseen = unseen_check(name, answer)
    if unseen:
        return unseen
    seen = answer["json"] if isinstance(answer["json"], Mapping) else {}
    if answer["status"] >= 500:
        return Check(name, UNSEEN, f"{answer['url']} answers {answer['status']}", "see that Synapse runs")
    mend = "let matrix_hostname (or its entry in matrix_resolve) lead to this machine"
    if seen.get("server_name") != server_name:
        why = f"{answer['url']} is signed by {_short(seen.get('server_name'))}, not {server_name}"
        return Check(name, FAILED, why, mend)
    keys = seen.get("verify_keys")
    if not keys or not _same(keys, own_keys):
        return Check(name, FAILED, f"{answer['url']} shows another signing key than this machine's Synapse", mend)
    return Check(name, PASSED)


def _no_key_check(answer: Mapping[str, Any]) -> Check:
    """A server that nobody federates with shows no key: one that does is another."""
    name = "same server behind the public name"
    if answer["status"] == 404:
        return Check(name, PASSED, "it shows no key, as declared")
    if answer.get("error") or answer["status"] >= 500:
        return unseen_check(name, answer) or Check(
            name, UNSEEN, f"{answer['url']} answers {answer['status']}", "see that nginx and Synapse run"
        )
    return Check(
        name,
        FAILED,
        f"{answer['url']} answers {answer['status']}, but matrix_profile is internal and nothing is served there",
        "let matrix_hostname (or its entry in matrix_resolve) lead to this machine, and run the playbook again",
    )


def register_check(answer: Mapping[str, Any], promised: str) -> Check:
    """Does /register behave as promised: `closed` (403) or `token`?

    >>> register_check({"url": "u", "status": 403, "json": {"errcode": "M_FORBIDDEN"}, "error": None}, "closed").status
    'passed'
    """
    name = "registration"
    unseen = unseen_check(name, answer)
    if unseen:
        return unseen
    body = answer["json"] if isinstance(answer["json"], Mapping) else {}
    closed = answer["status"] == 403 and body.get("errcode") == "M_FORBIDDEN"
    flows = body.get("flows") if answer["status"] == 401 else None
    by_token = (
        isinstance(flows, list)
        and bool(flows)
        and all(isinstance(flow, Mapping) and STAGE in (flow.get("stages") or []) for flow in flows)
    )
    if (promised == "closed" and closed) or (promised == "token" and by_token):
        return Check(name, PASSED, "closed" if closed else "with a token")
    if answer["status"] >= 500:
        return Check(name, UNSEEN, f"{answer['url']} answers {answer['status']}", "see that Synapse runs")
    seen = "is closed" if closed else "asks for a token" if by_token else f"answers {answer['status']} {_short(body)}"
    return Check(
        name,
        FAILED,
        f"{answer['url']} {seen}, promised: {promised}",
        "look for a configuration file or drop-in of somebody else's that sets enable_registration "
        "or registration_requires_token",
    )


def open_doors(register: Answer, guest: Answer, login: Answer) -> list[str]:
    """After closing: through which doors could somebody still get an account?

    >>> forbidden, no_guests = (403, {"errcode": "M_FORBIDDEN"}), (403, {"errcode": "M_UNKNOWN"})
    >>> open_doors(forbidden, no_guests, (200, {"flows": [{"type": "m.login.password"}]}))
    []
    >>> open_doors((401, {"flows": [{"stages": ["m.login.dummy"]}]}), no_guests, (200, {}))
    ['/register (401)']
    """
    found = []
    if register[0] < 500 and (register[0], register[1].get("errcode")) != (403, "M_FORBIDDEN"):
        found.append(f"/register ({register[0]})")
    # Synapse has no code of its own for guests who are not let in.
    if guest[0] < 500 and guest[0] != 403:
        found.append(f"/register?kind=guest ({guest[0]})")
    flows = [flow for flow in login[1].get("flows") or [] if isinstance(flow, Mapping)]
    providers = [one.get("id") for flow in flows for one in flow.get("identity_providers") or []]
    # Until the proof they are withheld: they have no switch that makes no account.
    found += ["JWT"] if any(flow.get("type") == "org.matrix.login.jwt" for flow in flows) else []
    return found + (["SAML"] if "saml" in providers else [])


def files_check(names: Iterable[str]) -> Check:
    """Only roles write what Synapse reads.

    >>> files_check(["homeserver.yaml", "zz.yaml"]).why
    'Synapse also reads zz.yaml, which no role wrote'
    """
    unknown = sorted(set(names) - OWN_FILES)
    if not unknown:
        return Check("configuration files", PASSED)
    return Check(
        "configuration files",
        FAILED,
        f"Synapse also reads {', '.join(unknown)}, which no role wrote",
        "move what is needed into synapse_extra_config, remove the file from the synapse directory, "
        "and restart Synapse",
    )


def room_check(label: str, encryption: object) -> Check:
    """A fresh room is plain when it has no encryption event at all."""
    name = f"{label} starts plain"
    if encryption is None:
        return Check(name, PASSED)
    return Check(
        name,
        FAILED,
        f"Synapse made it with m.room.encryption {_short(encryption)}",
        f"see that Synapse loads {OWN_MODULE} (run the playbook again), take modules that encrypt rooms out of "
        "synapse_extra_config"
        if label.endswith(HABIT)
        else 'set encryption_enabled_by_default_for_room_type to "off" wherever it is set (a file in the synapse '
        "directory, a drop-in, a module), and restart Synapse",
    )


def opt_in_check(when: str, where: str, status: int, answer: Mapping[str, Any], seen: object) -> Check:
    """Whoever asks for encryption gets it."""
    name = f"{when}encryption can be turned on in {where}"
    if status != 200:
        said = f"{status} {answer.get('errcode', '')} {answer.get('error', '')}".rstrip()
        return Check(
            name,
            FAILED,
            f"Synapse refuses m.room.encryption with {said}",
            "take power levels or a module that forbid it out of synapse_extra_config",
        )
    if isinstance(seen, Mapping) and seen.get("algorithm") == ALGORITHM:
        return Check(name, PASSED)
    why = f"it was accepted, but the room shows {_short(seen)}"
    return Check(name, FAILED, why, "look for a module that removes it")


def verdict(rooms: Sequence[Room], identities: int, key_backups: int, accepted: Collection[str] = ()) -> str:
    """Before the first attestation: is it too late?

    >>> verdict([], 0, 0), verdict([], 2, 0)
    ('in time', 'late but mendable')
    """
    if any(room.room_id not in accepted for room in rooms):
        return TOO_LATE
    if rooms:
        return ACCEPTED
    return MENDABLE if identities or key_backups else IN_TIME


def audit_check(
    rooms: Sequence[Room], identities: int, key_backups: int, accounts: int, accepted: Collection[str] = ()
) -> Check:
    """What the database says, before the first attestation."""
    name = "nothing is encrypted yet"
    found = verdict(rooms, identities, key_backups, accepted)
    told = [
        found,
        f"{accounts} account(s), {identities} of them with an encryption identity, {key_backups} with a key backup",
    ]
    refused_rooms = [room for room in rooms if room.room_id not in accepted]
    if refused_rooms:
        told.append("encrypted room(s): " + "; ".join(room.line() for room in refused_rooms))
    accepted_rooms = [room for room in rooms if room.room_id in accepted]
    if accepted_rooms:
        told.append("accepted by the inventory: " + "; ".join(room.line() for room in accepted_rooms))
    absent = not_encrypted(accepted, rooms)
    if absent:
        told.append(accepted_in_vain(absent))
    if found != TOO_LATE:
        return Check(name, PASSED, "; ".join(told))
    listed = json.dumps([room.room_id for room in rooms], ensure_ascii=False)
    return Check(
        name,
        FAILED,
        "; ".join(told),
        "encryption cannot be taken off a room. The playbook cae.matrix.audit shows what there is (-e "
        "audit_page=audit.html is a page for the people concerned). Replace a room by a plain one with the playbook "
        "cae.matrix.remedy (the old one stays, closed: delete it with DELETE /_synapse/admin/v2/rooms/<room>, or "
        f"accept it), or accept what stays with encryption_gate_accepted_rooms: {listed}; then run the playbook again",
    )


def not_encrypted(accepted: Collection[str], rooms: Sequence[Room]) -> list[str]:
    """What the inventory accepts without need."""
    return sorted(set(accepted) - {room.room_id for room in rooms})


def accepted_in_vain(rooms: Sequence[str]) -> str:
    """A list that is longer than it has to be does no harm, but somebody may have mistyped."""
    return f"encryption_gate_accepted_rooms also names {', '.join(rooms)}: not encrypted, or not there"


def refused(checks: Iterable[Check]) -> list[Check]:
    """What speaks against the server, or was not to be seen."""
    return [check for check in checks if check.status != PASSED]


def report(instance: str, checks: Sequence[Check], outcome: str) -> str:
    """For people: the outcome first, then what is wrong, then what is right."""
    wrong = refused(checks)
    lines = [f"Encryption gate of {instance}: {outcome}"]
    lines += [check.line() for check in wrong]
    lines += [check.line() for check in checks if check not in wrong]
    return "\n".join(lines)


def localpart_problems(localparts: Sequence[str], domain: str) -> list[str]:
    """Why these cannot be the names of accounts.

    >>> localpart_problems(["Amina"], "a.test")
    ['encryption_gate_administrators: "Amina" is no localpart; small letters, digits and . _ = / + -, no _ first']
    """
    found = []
    for number, localpart in enumerate(localparts):
        quoted = f'encryption_gate_administrators: "{localpart}"'
        if not LOCALPART.fullmatch(localpart):
            found.append(f"{quoted} is no localpart; small letters, digits and . _ = / + -, no _ first")
        elif is_service_account(f"@{localpart}:{domain}"):
            found.append(f"{quoted} is the gate's own account; take another")
        elif len(localpart) + len(domain) + 2 > 255:
            found.append(f"{quoted} is too long; with the domain, 255 characters at most")
        elif localpart in localparts[:number]:
            found.append(f"{quoted} is there twice; name each person once")
    return found
