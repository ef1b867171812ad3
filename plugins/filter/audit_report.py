# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the audits of several servers say, for programs, for the terminal, and as a page."""

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_report
short_description: One report of several audits, for programs, for the terminal, and as a page
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Puts the results of M(cae.matrix.audit) for several hosts into one report. C(playbooks/audit.yml) uses it.
options:
  _input:
    description:
      - For each host, its C(name), what the module returned (C(found), possibly empty), and why it failed (C(failure),
        possibly empty).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show one report for all hosts
  cae.matrix.show:
    lines: "{{ ([{'name': inventory_hostname, 'found': found, 'failure': ''}] | cae.matrix.audit_report).table }}"
"""

RETURN = r"""
_value:
  description:
    - C(document), the report as data (schema C(cae.matrix/audit/1)).
    - C(table), the report as lines for a terminal.
    - C(page), the report as one self-contained HTML page in French.
  type: dict
"""

import datetime
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import (
    ACCEPTED,
    IN_TIME,
    MENDABLE,
    TOO_LATE,
    Room,
    readable,
)
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import plain

TEMPLATES = Path(__file__).resolve().parents[2] / "playbooks" / "templates"
MONTHS = (
    *("janvier", "février", "mars", "avril", "mai", "juin"),
    *("juillet", "août", "septembre", "octobre", "novembre", "décembre"),
)
_ROOM = ("room_id", "name", "creator", "members", "why", "since", "local", "replaced_by")
_NOTHING: Mapping[str, Any] = {
    "verdict": None,
    "source": "",
    "domain": "",
    "attested": None,
    "counts": {},
    "rooms": [],
    "people": [],
    "accepted_in_vain": [],
    "unknown": [],
    "steps": [],
}

# What can be done, in the language of the terminal and in that of the page.
ADVICE: Mapping[str, tuple[str, str]] = {
    "attested": (
        "This instance has passed the gate. What people have encrypted since is their own choice: nothing to do.",
        "Cette instance a franchi la barrière. Ce qui a été chiffré depuis l’a été par choix : il n’y a rien à faire.",
    ),
    "go on": (
        "Nothing is encrypted: make encryption opt-in before people come (cae.matrix.cooperative does it).",
        "Rien n’est chiffré : rendez le chiffrement facultatif avant que les gens arrivent "
        "(cae.matrix.cooperative s’en charge).",
    ),
    "help people": (
        "No room is encrypted, so nobody loses anything. Clients may ask the people named here to confirm an "
        "identity: show them how, or how to reset it. Then go on (cae.matrix.cooperative).",
        "Aucun salon n’est chiffré, personne ne perd donc rien. Leur application peut demander aux personnes nommées "
        "ici de confirmer leur identité : montrez-leur comment faire, ou comment la réinitialiser. Puis continuez "
        "(cae.matrix.cooperative).",
    ),
    "replace": (
        "Encryption cannot be taken off a room. Replace the local ones by plain rooms with the same people: the "
        "playbook cae.matrix.remedy, by room ID. Old messages stay in the old room.",
        "On ne peut pas retirer le chiffrement d’un salon. Remplacez les salons locaux par des salons en clair, avec "
        "les mêmes personnes : playbook cae.matrix.remedy, par identifiant de salon. Les anciens messages restent dans "
        "l’ancien salon.",
    ),
    "remote": (
        "Remote rooms belong to people of another server: ask them, leave those rooms, or accept them.",
        "Les salons distants appartiennent à des personnes d’un autre serveur : voyez avec elles, quittez ces salons, "
        "ou acceptez-les.",
    ),
    "replaced": (
        "Rooms that were replaced stay encrypted, and closed: accept them, or delete them "
        "(DELETE /_synapse/admin/v2/rooms/<room>).",
        "Les salons déjà remplacés restent chiffrés, et fermés : acceptez-les, ou supprimez-les "
        "(DELETE /_synapse/admin/v2/rooms/<salon>).",
    ),
    "accept": (
        "Accept what shall stay as it is: encryption_gate_accepted_rooms in the inventory. Then go on "
        "(cae.matrix.cooperative).",
        "Acceptez ce qui doit rester tel quel : encryption_gate_accepted_rooms dans l’inventaire. Puis continuez "
        "(cae.matrix.cooperative).",
    ),
    "accepted": (
        "The inventory accepts every encrypted room. Go on: cae.matrix.cooperative writes them into the attestation.",
        "L’inventaire accepte tous les salons chiffrés. Continuez : cae.matrix.cooperative les inscrit dans "
        "l’attestation.",
    ),
    "take out": (
        "encryption_gate_accepted_rooms names rooms that are not encrypted, or not there: take them out of the list.",
        "encryption_gate_accepted_rooms nomme des salons qui ne sont pas chiffrés, ou n’existent pas : retirez-les de "
        "cette liste.",
    ),
}
# What a source cannot show. It is not counted as none.
UNKNOWN: Mapping[str, tuple[str, str]] = {
    "key backups": ("who has a key backup", "qui a une sauvegarde de clés"),
    "messages": (
        "rooms with encrypted messages whose state says nothing of encryption",
        "les salons où des messages sont chiffrés sans que leur état le dise",
    ),
    "identities": (
        "whether {number} account(s) have an encryption identity: the server does not show them",
        "si {number} compte(s) ont une identité de chiffrement : le serveur ne les montre pas",
    ),
    "rooms": (
        "whether {number} room(s) have an encryption without algorithm, which the list of rooms does not show "
        "(audit_room_limit)",
        "si {number} salon(s) ont un chiffrement sans algorithme, que la liste des salons ne montre pas "
        "(audit_room_limit)",
    ),
}


def audit_report(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """See DOCUMENTATION."""
    results = plain(results)
    if not isinstance(results, list) or not all(isinstance(one, dict) and one.get("name") for one in results):
        raise AnsibleFilterError("audit_report: a list of dicts with name, found and failure is needed")
    instances = [_instance(one["name"], one.get("found") or {}, one.get("failure") or "") for one in results]
    document = {
        "schema": "cae.matrix/audit/1",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ok": all(one["ok"] for one in instances),
        "instances": instances,
    }
    return {"document": document, "table": table(document), "page": page(document)}


def _instance(name: str, found: Mapping[str, Any], failure: str) -> dict[str, Any]:
    seen = "verdict" in found
    error = "" if seen else failure or str(found.get("msg") or "not looked at: the output of the playbook says why")
    if found.get("unreachable"):
        error = f"Its machine cannot be reached. Check ansible_host, SSH and its keys. {error}"
    told = {key: found[key] if seen else value for key, value in _NOTHING.items()}
    steps, unknown = told.pop("steps"), told.pop("unknown")
    advice = [{"step": step, "en": ADVICE[step][0], "fr": ADVICE[step][1]} for step in steps]
    unseen = [
        {"what": one["what"], "en": UNKNOWN[one["what"]][0].format(**one), "fr": UNKNOWN[one["what"]][1].format(**one)}
        for one in unknown
    ]
    return {"name": name, "ok": seen, "error": error, **told, "unknown": unseen, "what_can_be_done": advice}


# -- the terminal ----------------------------------------------------------------------------------------------------


def table(document: Mapping[str, Any]) -> list[str]:
    """One line for each server, then what there is to know of each."""
    rows = [("INSTANCE", "VERDICT", "ACCOUNTS", "IDENTITIES", "KEY BACKUPS", "ENCRYPTED ROOMS")]
    for one in document["instances"]:
        keys = ("accounts", "identities", "key_backups", "encrypted_rooms")
        counts = [_count(one["counts"].get(key)) for key in keys] if one["ok"] else ["-"] * len(keys)
        rows.append((one["name"], one["verdict"] or "not audited", *counts))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"Audit of encryption, {document['date']}", ""]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for one in document["instances"]:
        lines += ["", *_lines(one)]
    return lines


def _lines(one: Mapping[str, Any]) -> list[str]:
    if not one["ok"]:
        return [f"{one['name']}: not audited", f"  {readable(one['error'])}"]
    since = f", attested since {one['attested']}" if one["attested"] else ""
    lines = [
        f"{one['name']} ({readable(one['domain']) or 'no domain'}, by its {one['source']}): {one['verdict']}{since}"
    ]
    for room in one["rooms"]:
        lines.append(f"  [{room['standing']}] {Room(**{key: room[key] for key in _ROOM}).line()}")
    for title, key in (("encryption identity", "identity"), ("key backup", "key_backup")):
        names = [readable(person["user_id"]) for person in one["people"] if person[key]]
        lines += [f"  {title}: {', '.join(names)}"] if names else []
    lines += [f"  accepted in vain: {readable(room)}" for room in one["accepted_in_vain"]]
    lines += [f"  not known: {what['en']}" for what in one["unknown"]]
    lines += [f"  to do: {advice['en']}" for advice in one["what_can_be_done"]]
    return lines


def _count(value: int | None) -> str:
    return "?" if value is None else str(value)


# -- the page --------------------------------------------------------------------------------------------------------


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"readable": lambda text: readable(str(text)), "day": _day}
    return environment.get_template("audit.html.j2")


def page(document: Mapping[str, Any]) -> str:
    """The report as one page. Everything that is put into it is escaped: people choose names as they like."""
    verdicts = {"in_time": IN_TIME, "mendable": MENDABLE, "too_late": TOO_LATE, "accepted": ACCEPTED}
    return _template().render(**document, verdicts=verdicts)


def _day(text: str) -> str:
    """A moment as French people read it.

    >>> _day("2026-11-01T19:05:00Z"), _day("")
    ('1er novembre 2026, 19\\xa0h\\xa005\\xa0UTC', '')
    """
    try:
        when = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return ""
    day = "1er" if when.day == 1 else str(when.day)
    return f"{day} {MONTHS[when.month - 1]} {when.year}, {when:%H}\u00a0h\u00a0{when:%M}\u00a0UTC"


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"audit_report": audit_report}
