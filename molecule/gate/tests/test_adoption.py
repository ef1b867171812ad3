# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server where it is too late is adopted only with the rooms that the inventory accepts, and that is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Run, Server


@pytest.fixture
def rooms(server: Server) -> Iterator[list[str]]:
    """Two encrypted rooms on a server that no gate has seen."""
    token = server.token_of_support()
    made = [server.encrypted_room(token, name) for name in ("Conseil", "Paie")]
    server.forget()
    yield made
    for room in made:
        server.remove_room(room)


def refused(server: Server, run: Run, *words: str) -> None:
    assert run.status != 0, run.output
    told = " ".join(run.output.split())
    for word in words:
        assert word in told, run.output
    assert server.attestation() is None
    assert server.register()[0] == 403


def test_what_is_accepted_is_attested_and_nothing_else_passes(server: Server, rooms: list[str]) -> None:
    first, second = rooms
    run = server.gate(encryption_gate_accepted_rooms=[first])
    refused(server, run, f"encrypted room(s): {second} (Paie", f"accepted by the inventory: {first} (Conseil")

    # A name too many does no harm, and is said.
    run = server.gate(encryption_gate_accepted_rooms=[first, second, "!nulle-part:atelier.test"])
    assert run.status == 0, run.output
    assert "also names !nulle-part:atelier.test: not encrypted, or not there" in " ".join(run.output.split())
    found = server.attestation()
    assert found is not None
    assert found["verdict"] == "too late, accepted"
    assert found["accepted_rooms"] == sorted(rooms)
    assert server.register()[0] == 401

    # Carried on by later proofs, whatever the inventory says then.
    server.restart()
    run = server.gate()
    assert run.status == 0, run.output
    again = server.attestation()
    assert again is not None
    assert again["invocation_id"] != found["invocation_id"]
    kept = ("verdict", "accepted_rooms", "first_attested_at")
    assert {key: again[key] for key in kept} == {key: found[key] for key in kept}


@pytest.mark.parametrize("name", ["*", "!*", "#accueil:atelier.test", "Accueil", "! "])
def test_what_is_no_room_is_refused_before_anything_happens(server: Server, name: str) -> None:
    before = server.attestation()
    run = server.gate(encryption_gate_accepted_rooms=["!a:atelier.test", name])
    assert run.status != 0
    assert f"encryption_gate_accepted_rooms: {name.strip()}" in " ".join(run.output.split())
    assert "a room ID begins with !" in " ".join(run.output.split())
    assert server.attestation() == before
