# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server where it is too late is adopted only with the rooms that the inventory accepts, and that is kept."""

from __future__ import annotations

import json

from gate import Server, closed, passed


def test_what_is_accepted_is_attested_and_nothing_else_passes(server: Server) -> None:
    token = server.token_of_support()
    bureau, *rooms = (server.encrypted_room(token, name) for name in ("Bureau", "Conseil", "Paie"))
    first, second = rooms

    # After the first gate it is people's own business, whatever is restarted.
    server.restart()
    passed(server, server.gate())

    server.forget()
    closed(
        server,
        server.gate(accepted=[first]),
        "too late",
        "@support:atelier.test",
        f"{bureau} (Bureau",
        f"{second} (Paie",
        f"accepted by the inventory: {first} (Conseil",
        "cae.matrix.audit",
        "cae.matrix.remedy",
        "encryption_gate_accepted_rooms: [",
    )
    # The mends that the report names: one is removed, and for those that are there still it takes the whole list.
    server.remove_rooms([bureau])
    listed = f"encryption_gate_accepted_rooms: {json.dumps(sorted(rooms))}"
    closed(server, server.gate(), listed)

    # A name too many does no harm, and is said.
    run = server.play(encryption_gate_accepted_rooms=[first, second, "!nulle-part:atelier.test"])
    passed(server, run)
    assert "also names !nulle-part:atelier.test: not encrypted, or not there" in run.told
    found = server.attested()
    assert found["verdict"] == "too late, accepted"
    assert found["accepted_rooms"] == sorted(rooms)

    # Carried on by later proofs, whatever the inventory says then.
    server.restart()
    passed(server, server.gate())
    again = server.attested()
    assert again["invocation_id"] != found["invocation_id"]
    kept = ("verdict", "accepted_rooms", "first_attested_at")
    assert {key: again[key] for key in kept} == {key: found[key] for key in kept}


def test_what_is_no_room_is_refused_before_anything_happens(server: Server) -> None:
    before = server.attestation()
    wrong = ["*", "!*", "#accueil:atelier.test", "Accueil", "! "]
    run = server.run("playbooks/cooperative.yml", encryption_gate_accepted_rooms=["!a:atelier.test", *wrong])
    assert run.status != 0
    assert not run.changed, run.output
    # Every one that is wrong, and the one that is right not.
    listed = ", ".join(wrong)
    assert f"encryption_gate_accepted_rooms: {listed}: a room ID begins with !" in run.told, run.output
    assert server.attestation() == before
