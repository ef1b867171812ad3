# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The attestation: what the gate has proven, for whom, and when. Its JSON schema is docs/attestation.schema.json."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
REGISTRATION = ("closed", "token")
VERDICTS = ("in time", "late but mendable", "too late, accepted")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_INVOCATION = re.compile(r"[0-9a-f]{32}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_KEYS = frozenset(
    {
        "schema_version",
        "instance",
        "domain",
        "attested_at",
        "first_attested_at",
        "collection_version",
        "synapse_version",
        "element_version",
        "digest",
        "invocation_id",
        "registration",
        "verdict",
        "accepted_rooms",
    }
)
# What attestations of earlier versions do not have.
_LATER = frozenset({"synapse_digest", "machine"})
_MACHINE = re.compile(r"[0-9a-f]{64}")


class Malformed(Exception):
    """This is no attestation."""


@dataclass(frozen=True)
class Attestation:
    """One proof. `invocation_id` is systemd's name for the process that was proven."""

    instance: str
    domain: str
    attested_at: str
    first_attested_at: str
    collection_version: str
    synapse_version: str
    element_version: str | None
    digest: str
    invocation_id: str
    registration: str
    verdict: str
    accepted_rooms: tuple[str, ...] = field(default=())
    synapse_digest: str = ""
    machine: str = ""

    def to_json(self) -> str:
        """The file's text."""
        document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **vars(self)}
        document["accepted_rooms"] = list(self.accepted_rooms)
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    def is_for(self, instance: str, domain: str) -> bool:
        """Whether it speaks of this instance at all."""
        return (self.instance, self.domain) == (instance, domain)


def now() -> str:
    """The present, as the attestation writes it."""
    return datetime.datetime.now(datetime.UTC).strftime(_TIME)


def this_machine(path: str = "/etc/machine-id") -> str:
    """The machine's name for itself, which systemd asks to keep to itself: hashed. Empty where it has none."""
    try:
        name = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(f"cae.matrix attestation {name}".encode()).hexdigest() if name else ""


def _is_time(text: str) -> bool:
    """Whether it is a moment that there is, written as the gate does it."""
    try:
        return datetime.datetime.strptime(text, _TIME).strftime(_TIME) == text
    except ValueError:
        return False


def parse(text: str) -> Attestation:
    """An attestation from its file's text, or `Malformed` saying why not: what is not whole proves nothing."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON ({error})") from None
    if not isinstance(document, Mapping):
        raise Malformed("it is not a JSON object")
    if document.get("schema_version") != SCHEMA_VERSION or isinstance(document.get("schema_version"), bool):
        raise Malformed(f"its schema_version is {document.get('schema_version')!r}, not {SCHEMA_VERSION}")
    if set(document) - _LATER != _KEYS:
        odd = sorted((set(document) - _LATER) ^ _KEYS)
        raise Malformed(f"keys are missing or unknown: {', '.join(map(str, odd))}")
    rooms = document["accepted_rooms"]
    if not isinstance(rooms, list) or not all(isinstance(room, str) and room.startswith("!") for room in rooms):
        raise Malformed("accepted_rooms is not a list of room IDs")
    element = document["element_version"]
    if element is not None and not isinstance(element, str):
        raise Malformed("element_version is neither text nor null")
    texts = {key: document[key] for key in _KEYS - {"schema_version", "accepted_rooms", "element_version"}}
    texts |= {key: document[key] for key in _LATER & set(document) if document[key] != ""}
    for key, value in sorted(texts.items()):
        if not isinstance(value, str) or not value:
            raise Malformed(f"{key} is not text")
    for key, fits in (
        ("digest", _DIGEST.fullmatch),
        ("synapse_digest", _DIGEST.fullmatch),
        ("machine", _MACHINE.fullmatch),
        ("invocation_id", _INVOCATION.fullmatch),
        ("attested_at", _is_time),
        ("first_attested_at", _is_time),
    ):
        if key in texts and not fits(texts[key]):
            raise Malformed(f"{key} is {texts[key]!r}")
    if texts["registration"] not in REGISTRATION or texts["verdict"] not in VERDICTS:
        raise Malformed("registration or verdict is unknown")
    return Attestation(**texts, element_version=element, accepted_rooms=tuple(rooms))


def earliest(config_dir: Path, instance: str, domain: str) -> Attestation | None:
    """The first that is known, also of those that were set aside; what people encrypt after it is their business."""
    found = []
    for path in [config_dir / "attestation.json", *sorted(config_dir.glob("attestation.*.json"))]:
        try:
            one = parse(path.read_text(encoding="utf-8"))
        except (Malformed, OSError, ValueError):
            continue
        if one.is_for(instance, domain):
            found.append(one)
    return min(found, key=lambda one: one.first_attested_at, default=None)
