# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Encrypted rooms of a server of ours, replaced with the playbook, as the people in them see it."""

from __future__ import annotations

import json
import secrets
from typing import Any
from urllib.parse import quote as percent

import pytest
from gate import ATTESTATION, CONFIG, DOMAIN, MEGOLM, Server

PLAYBOOK = "playbooks/remedy.yml"


class Person:
    """Somebody with an account, at the public name of the server."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.user_id = server, f"@{name}:{DOMAIN}"
        self.token = server.token_of_new(name)

    def status(self, method: str, path: str, body: Any = None) -> int:
        return self.server.ask(method, f"/_matrix/client/v3/{path}", body, self.token)[0]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.server.ask(method, f"/_matrix/client/v3/{path}", body, self.token)
        assert status == 200, (method, path, answer)
        return answer

    def state(self, room: str, kind: str, key: str = "") -> Any:
        return self.ask("GET", f"rooms/{quote(room)}/state/{kind}/{quote(key)}")

    def says(self, room: str) -> int:
        path = f"rooms/{quote(room)}/send/m.room.message/{secrets.token_hex(4)}"
        return self.status("PUT", path, {"msgtype": "m.text", "body": "Bonjour"})


def quote(part: str) -> str:
    return percent(part, safe="")


@pytest.fixture(scope="module")
def people(server: Server) -> tuple[Person, Person]:
    return Person(server, f"alice-{secrets.token_hex(3)}"), Person(server, f"bruno-{secrets.token_hex(3)}")


def office(people: tuple[Person, Person], alias: str) -> tuple[str, str]:
    """An encrypted room of both, in a space."""
    alice, bruno = people
    space = alice.ask("POST", "createRoom", {"name": "Maison", "creation_content": {"type": "m.space"}})["room_id"]
    body = {"name": alias, "topic": "Le quotidien", "room_alias_name": alias, "invite": [bruno.user_id]}
    room = alice.ask("POST", "createRoom", body)["room_id"]
    # As any client does in the room's settings; at creation, it would be taken for a habit.
    alice.ask("PUT", f"rooms/{quote(room)}/state/m.room.encryption/", MEGOLM)
    alice.ask("PUT", f"rooms/{quote(space)}/state/m.space.child/{quote(room)}", {"via": [DOMAIN], "order": "a"})
    bruno.ask("POST", f"join/{quote(room)}", {})
    return room, space


def test_shown_done_and_done_again(server: Server, people: tuple[Person, Person]) -> None:
    alice, bruno = people
    alias = f"bureau-{secrets.token_hex(3)}"
    room, space = office(people, alias)
    rooms = "SELECT count(*) FROM rooms"
    before = server.sql(rooms)

    shown = server.run(PLAYBOOK, remedy_rooms=[alias])
    assert shown.status == 0, shown.output
    assert not shown.changed, shown.output
    for words in (room, "would be replaced", alice.user_id, bruno.user_id, "remedy_apply=true"):
        assert words in shown.output, (words, shown.output)
    assert server.sql(rooms) == before
    assert bruno.says(room) == 200

    done = server.run(PLAYBOOK, remedy_rooms=[f"#{alias}:{DOMAIN}"], remedy_apply=True)
    assert done.status == 0, done.output
    assert done.changed, done.output
    assert int(server.sql(rooms)) == int(before) + 1

    # Bruno is in the old room: it is closed, and leads to the new one.
    assert bruno.says(room) == 403
    tombstone = bruno.state(room, "m.room.tombstone")
    assert "fermé" in tombstone["body"]
    new = tombstone["replacement_room"]
    assert f"{room} ({alias}): replaced by {new}" in done.output
    sync = bruno.ask("GET", "sync?filter=" + quote(json.dumps({"room": {"timeline": {"limit": 1}}})))
    assert new in sync["rooms"]["invite"]
    bruno.ask("POST", f"join/{quote(new)}", {})
    assert bruno.says(new) == 200
    assert bruno.status("GET", f"rooms/{quote(new)}/state/m.room.encryption/") == 404
    assert bruno.state(new, "m.room.name") == {"name": alias}
    assert bruno.state(new, "m.room.create")["predecessor"]["room_id"] == room
    assert bruno.ask("GET", f"directory/room/{quote(f'#{alias}:{DOMAIN}')}")["room_id"] == new
    assert alice.state(space, "m.space.child", new) == {"via": [DOMAIN], "order": "a"}
    assert alice.state(space, "m.space.child", room) == {}
    # What was said there stays there.
    assert bruno.ask("GET", f"rooms/{quote(room)}/messages?dir=b&limit=100")["chunk"]

    again = server.module("remedy", rooms=[room, f"#{alias}:{DOMAIN}", alias])
    assert again.status == 0, again.output
    assert not again.changed, again.output
    assert f"replaced already by {new}; nothing to do" in " ".join(again.output.split())
    assert int(server.sql(rooms)) == int(before) + 1
    assert server.sql("SELECT count(*) FROM room_memberships WHERE user_id LIKE '@encryption-gate%'") == "0"


def test_before_the_first_attestation(server: Server, people: tuple[Person, Person]) -> None:
    """The gate refuses a server for such a room; the remedy has to work there all the same."""
    alice, bruno = people
    room, _ = office(people, f"tard-{secrets.token_hex(3)}")
    with server.aside(ATTESTATION):
        done = server.module("remedy", rooms=[room])
    assert done.status == 0, done.output
    new = alice.state(room, "m.room.tombstone")["replacement_room"]
    bruno.ask("POST", f"join/{quote(new)}", {})
    assert bruno.says(new) == 200


def test_one_wrong_room_and_nothing_is_changed(server: Server, people: tuple[Person, Person]) -> None:
    alice, _ = people
    room, _ = office(people, f"juste-{secrets.token_hex(3)}")
    plain = alice.ask("POST", "createRoom", {"name": "En clair"})["room_id"]
    run = server.module("remedy", rooms=[room, plain, f"!nowhere:{DOMAIN}"])
    assert run.status != 0, run.output
    for words in (
        "Nothing was changed",
        f"{plain} (En clair) is not encrypted",
        f"!nowhere:{DOMAIN}: there is no such",
    ):
        assert words in run.output, (words, run.output)
    assert alice.status("GET", f"rooms/{quote(room)}/state/m.room.tombstone/") == 404


def test_without_rooms_it_asks_for_them(server: Server) -> None:
    wrong: list[object] = [[], "!a:b"]
    for rooms in wrong:
        run = server.run(PLAYBOOK, remedy_rooms=rooms)
        assert run.status != 0, run.output
        assert "Name the rooms" in run.output


def test_without_the_gate_s_token_it_is_said(server: Server, people: tuple[Person, Person]) -> None:
    room, _ = office(people, f"sans-{secrets.token_hex(3)}")
    with server.aside(f"{CONFIG}/gate.token"):
        run = server.module("remedy", rooms=[room], _ansible_check_mode=True)
    assert run.status != 0, run.output
    assert "cae.matrix.cooperative" in run.output
