# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an audit makes of what it sees, and what it sees through the admin API of a real Synapse.

The database is read in molecule/gate, where there is PostgreSQL.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.filter import audit_report as reports
from ansible_collections.cae.matrix.plugins.module_utils.encryption import attestation, audit, gate
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import ServiceAccount, Synapse
from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver
from ansible_collections.cae.matrix.tests.unit.ports import free_port
from ansible_collections.cae.matrix.tests.unit.proof import PROOF
from hypothesis import given, settings
from hypothesis import strategies as st

DOMAIN = "coop.example"
ALICE, BRUNO = f"@alice:{DOMAIN}", f"@bruno:{DOMAIN}"
LOCAL = gate.Room("!abc:coop.example", "Bureau", ALICE, 2, "encrypted state", "2026-11-22T19:00:00Z", True)
REMOTE = gate.Room(
    "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", "", "@x:else.example", 3, "encrypted messages", "", False
)
REPLACED = replace(LOCAL, room_id="!old:coop.example", replaced_by="!new:coop.example")
NOTHING = audit.Findings("database", DOMAIN, (), (), 3, 0, 0)
LATE = replace(NOTHING, rooms=(LOCAL, REMOTE), people=(audit.Person(ALICE, True, False),), identities=1)
ADOPTED = replace(
    PROOF,
    first_attested_at="2026-11-01T12:00:00Z",
    domain=DOMAIN,
    verdict=gate.ACCEPTED,
    accepted_rooms=(LOCAL.room_id,),
)


# -- what it means ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "accepted", "verdict", "steps"),
    [
        (NOTHING, [], gate.IN_TIME, ["go on"]),
        (NOTHING, ["!gone"], gate.IN_TIME, ["go on", "take out"]),
        (replace(NOTHING, identities=1), [], gate.MENDABLE, ["help people"]),
        (replace(NOTHING, key_backups=1), [], gate.MENDABLE, ["help people"]),
        (replace(NOTHING, identities=None, key_backups=None), [], gate.IN_TIME, ["go on"]),
        (LATE, [], gate.TOO_LATE, ["replace", "remote", "accept"]),
        (LATE, [LOCAL.room_id], gate.TOO_LATE, ["remote", "accept"]),
        (LATE, [REMOTE.room_id], gate.TOO_LATE, ["replace", "accept"]),
        (replace(LATE, rooms=(REPLACED,)), [], gate.TOO_LATE, ["replaced", "accept"]),
        (replace(LATE, rooms=(replace(LOCAL, local=None),)), [], gate.TOO_LATE, ["replace", "accept"]),
        (LATE, [LOCAL.room_id, REMOTE.room_id], gate.ACCEPTED, ["accepted"]),
    ],
)
def test_before_the_gate(found: audit.Findings, accepted: list[str], verdict: str, steps: list[str]) -> None:
    told = audit.judge(found, accepted)
    assert (told["verdict"], told["steps"], told["attested"]) == (verdict, steps, None)
    standings = {room["room_id"]: room["standing"] for room in told["rooms"]}
    assert standings == {
        room.room_id: audit.ACCEPTED if room.room_id in accepted else audit.TO_DECIDE for room in found.rooms
    }
    assert told["counts"]["rooms_to_decide"] == list(standings.values()).count(audit.TO_DECIDE)


def test_once_attested_the_verdict_stands_and_what_is_new_was_chosen() -> None:
    told = audit.judge(LATE, ["!whatever"], ADOPTED)
    assert (told["verdict"], told["attested"], told["steps"]) == (
        gate.ACCEPTED,
        ADOPTED.first_attested_at,
        ["attested"],
    )
    assert [room["standing"] for room in told["rooms"]] == [audit.ACCEPTED, audit.CHOSEN]
    assert told["accepted_in_vain"] == []


def test_the_verdicts_of_an_attestation_are_those_that_let_a_server_pass() -> None:
    assert attestation.VERDICTS == (gate.IN_TIME, gate.MENDABLE, gate.ACCEPTED)


def test_the_gate_names_what_it_refuses_and_what_the_inventory_accepts() -> None:
    rooms = [LOCAL, REMOTE]
    assert gate.audit_check(rooms, 0, 0, 3, [LOCAL.room_id, REMOTE.room_id]).status == gate.PASSED
    check = gate.audit_check(rooms, 0, 0, 3, [LOCAL.room_id, "!gone"])
    assert check.status == gate.FAILED
    refused, accepted = check.why.split("accepted by the inventory")
    assert REMOTE.room_id in refused
    assert LOCAL.room_id not in refused
    assert LOCAL.room_id in accepted
    assert "!gone" in accepted
    assert json.dumps([LOCAL.room_id, REMOTE.room_id]) in check.mend


def test_the_earliest_attestation_counts_and_not_somebody_else_s(tmp_path: Path) -> None:
    first = replace(ADOPTED, first_attested_at="2026-10-01T00:00:00Z", accepted_rooms=("!first",))
    other = replace(ADOPTED, domain="else.example", first_attested_at="2020-01-01T00:00:00Z")
    for name, text in (
        ("attestation.json", ADOPTED.to_json()),
        ("attestation.20261001T000000.000000Z.json", first.to_json()),
        ("attestation.20200101T000000.000000Z.json", other.to_json()),
        ("attestation.20190101T000000.000000Z.json", "{}"),
    ):
        (tmp_path / name).write_text(text)
    assert attestation.earliest(tmp_path, "atelier", DOMAIN) == first
    assert attestation.earliest(tmp_path / "none", "atelier", DOMAIN) is None


@pytest.mark.parametrize(
    ("event", "room"),
    [
        ({"content": {"replacement_room": "!new"}}, "!new"),
        ({"content": {"replacement_room": 1}}, ""),
        ({"content": []}, ""),
        ({}, ""),
        (None, ""),
        ([], ""),
    ],
)
def test_where_a_tombstone_leads(event: object, room: str) -> None:
    assert audit.replacement(event) == room


def test_without_a_domain_or_a_creator_nobody_knows_whether_a_room_is_local() -> None:
    assert audit.is_local(ALICE, DOMAIN) is True
    assert audit.is_local(ALICE, "else.example") is False
    assert audit.is_local("", DOMAIN) is audit.is_local(ALICE, "") is None


def test_an_address_that_would_give_the_token_away_is_refused() -> None:
    for url in ("http://matrix.coop.example", "ftp://localhost", "matrix.coop.example", "https://", "http://[::1"):
        with pytest.raises(audit.Unreadable):
            audit.AdminApi(PublicClient(), url, "token")
    for url in ("http://localhost:8008/", "http://[::1]:8008", "http://127.0.0.1:8008", "https://matrix.coop.example"):
        audit.AdminApi(PublicClient(), url, "token")


# -- the report ------------------------------------------------------------------------------------------------------


def report(*found: audit.Findings, failure: str = "") -> dict[str, Any]:
    results = [{"name": f"host{number}", "found": audit.judge(one)} for number, one in enumerate(found)]
    return reports.audit_report([*results, *([{"name": "lost", "failure": failure}] if failure else [])])


def test_a_host_that_was_not_seen_is_in_the_report() -> None:
    told = report(NOTHING, failure="No route. Mend it.")
    assert told["document"]["ok"] is False
    assert [one["name"] for one in told["document"]["instances"]] == ["host0", "lost"]
    assert "lost: not audited" in told["table"]
    assert "  No route. Mend it." in told["table"]
    assert "No route. Mend it." in told["page"]
    assert report(NOTHING)["document"]["ok"] is True


def test_unreachable_and_never_run_are_failures() -> None:
    results = [{"name": "a", "found": {"unreachable": True, "msg": "no ssh"}}, {"name": "b", "found": {}}]
    errors = [one["error"] for one in reports.audit_report(results)["document"]["instances"]]
    assert "cannot be reached" in errors[0]
    assert "no ssh" in errors[0]
    assert "not looked at" in errors[1]


def test_every_step_and_every_unknown_has_words() -> None:
    for step in reports.ADVICE:
        assert all(reports.ADVICE[step])
    told = report(replace(LATE, identities=None, unknown=tuple((what, 7) for what in reports.UNKNOWN)))
    assert " 7 " in "\n".join(told["table"])
    columns = next(line for line in told["table"] if line.startswith("host0 ")).split()
    assert columns == ["host0", "too", "late", "3", "?", "0", "2"]
    for words in (
        "inconnu",
        "Trop tard",
        "distant",
        "date inconnue",
        "7 salon(s)",
        "22 novembre 2026, 19\u00a0h\u00a000\u00a0UTC",
    ):
        assert words in told["page"]


# A whole page is rendered each time, on machines that may be busy.
@settings(deadline=None)
@given(st.text(), st.text())
def test_whatever_people_write_stays_text(name: str, creator: str) -> None:
    told = report(replace(LATE, rooms=(replace(LOCAL, name=name, creator=creator),)))
    shown = gate.readable(name)
    assert shown.isprintable()
    assert html.escape(shown, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in told["page"]
    assert told["page"].count("<") == report(replace(LATE, rooms=(LOCAL,)))["page"].count("<")
    assert all(line.isprintable() for line in told["table"])
    assert json.loads(json.dumps(told["document"]))["instances"][0]["rooms"][0]["name"] == name


@pytest.mark.parametrize("results", [None, "text", [{}], [{"found": {}}]])
def test_what_is_no_result(results: Any) -> None:
    with pytest.raises(AnsibleFilterError):
        reports.audit_report(results)


# -- a real Synapse --------------------------------------------------------------------------------------------------


def listening(python: str, directory: Path, extra: dict[str, Any]) -> tuple[Homeserver, audit.AdminApi]:
    """A server that answers on a port as well, and its admin API there."""
    port = free_port()
    common = {"type": "http", "resources": [{"names": ["client"]}]}
    listeners = [{**common, "path": str(directory / "s")}, {**common, "port": port, "bind_addresses": ["127.0.0.1"]}]
    server = Homeserver(python, directory, {"listeners": listeners, **extra})
    (directory / "secret").write_text("x")
    synapse = Synapse(str(directory / "s"))
    assert ServiceAccount(synapse, DOMAIN, directory / "token", directory / "secret").ready()
    synapse.close()
    return server, audit.AdminApi(PublicClient(), f"http://127.0.0.1:{port}", synapse.token)


@pytest.fixture(scope="module")
def both(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Homeserver, audit.AdminApi]]:
    server, api = listening(python, tmp_path_factory.mktemp("hs"), {})
    yield server, api
    server.stop()


@pytest.fixture(scope="module")
def server(both: tuple[Homeserver, audit.AdminApi]) -> Homeserver:
    return both[0]


@pytest.fixture(scope="module")
def api(both: tuple[Homeserver, audit.AdminApi]) -> audit.AdminApi:
    return both[1]


@pytest.fixture(scope="module")
def people(server: Homeserver) -> dict[str, str]:
    return {user: server.register(user) for user in (ALICE, BRUNO)}


def make(server: Homeserver, token: str, name: str, encryption: Any = None) -> str:
    status, answer = server.request("POST", "/_matrix/client/v3/createRoom", {"name": name}, token)
    assert status == 200, answer
    room = str(answer["room_id"])
    if encryption is not None:
        path = f"/_matrix/client/v3/rooms/{quote(room)}/state/m.room.encryption"
        assert server.request("PUT", path, encryption, token)[0] == 200
    return room


def test_what_the_admin_api_tells(
    server: Homeserver, api: audit.AdminApi, people: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small pages, so that lists have several.
    monkeypatch.setattr(audit, "_PAGE", 2)
    alice = people[ALICE]
    before = audit.read_admin_api(api)
    assert (before.domain, before.accounts, before.identities, before.rooms) == (DOMAIN, 2, 0, ())
    assert audit.judge(before)["verdict"] == gate.IN_TIME

    key = {"user_id": ALICE, "usage": ["master"], "keys": {"ed25519:" + "A" * 43: "A" * 43}}
    path = "/_matrix/client/v3/keys/device_signing/upload"
    assert server.request("POST", path, {"master_key": key}, alice)[0] == 200
    mendable = audit.read_admin_api(api)
    assert mendable.people == (audit.Person(ALICE, True, None),)
    assert audit.judge(mendable)["verdict"] == gate.MENDABLE

    for number in range(3):
        make(server, alice, f"Salon {number}")
    encrypted = make(server, alice, "Paie", {"algorithm": gate.ALGORITHM})
    empty = make(server, people[BRUNO], "Vide", {})
    closed = {"replacement_room": "!new"}
    path = f"/_matrix/client/v3/rooms/{quote(empty)}/state/m.room.tombstone"
    assert server.request("PUT", path, closed, people[BRUNO])[0] == 200
    # The gate's own rooms are nobody's.
    make(server, api.token, gate.ROOM_NAME, {"algorithm": gate.ALGORITHM})
    late = audit.read_admin_api(api)
    found = {room.room_id: room for room in late.rooms}
    assert set(found) == {encrypted, empty}
    assert (found[encrypted].name, found[encrypted].creator, found[encrypted].members) == ("Paie", ALICE, 1)
    assert found[encrypted].local is found[empty].local is True
    assert found[encrypted].since > "2026"
    assert found[empty].replaced_by == "!new"
    assert audit.judge(late)["verdict"] == gate.TOO_LATE
    assert {what for what, _ in late.unknown} == {"key backups", "messages"}

    # Somebody may delete a room between the list and the question.
    assert api.state("!gone:coop.example") == []

    # Where only some rooms are asked, the rest is not called plain.
    limited = audit.read_admin_api(api, room_limit=0)
    assert {room.room_id for room in limited.rooms} == {encrypted}
    assert ("rooms", 4) in limited.unknown


def test_a_token_that_is_no_administrator_s(api: audit.AdminApi, people: dict[str, str]) -> None:
    with pytest.raises(audit.Unreadable, match="not an administrator's"):
        audit.read_admin_api(audit.AdminApi(api.client, api.url, people[BRUNO]))
    with pytest.raises(audit.Unreadable, match="does not know the access token"):
        audit.read_admin_api(audit.AdminApi(api.client, api.url, "nonsense"))


def test_a_server_that_shows_keys_only_to_those_who_share_a_room(python: str, tmp_path: Path) -> None:
    """Whoever is not shown is unknown, not without an identity."""
    features = {"msc4263_limit_key_queries_to_users_who_share_rooms": True}
    server, api = listening(python, tmp_path, {"experimental_features": features})
    try:
        server.register(ALICE)
        found = audit.read_admin_api(api)
    finally:
        server.stop()
    assert found.identities is None
    assert ("identities", 1) in found.unknown
