# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Declared rooms between real servers: members come in by alias, others do not, and who leaves the list is let go."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import CHILD, MEMBER, Room
from ansible_collections.cae.matrix.plugins.module_utils.rooms import declared as rooms
from ansible_collections.cae.matrix.plugins.module_utils.rooms.declared import Declared
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import Synapse
from ansible_collections.cae.matrix.plugins.modules.matrix_room import Rooms
from ansible_collections.cae.matrix.tests.patience import eventually
from ansible_collections.cae.matrix.tests.unit.federating_servers import FederatingServer
from ansible_collections.cae.matrix.tests.unit.opt_in_server import Person
from ansible_collections.cae.matrix.tests.unit.public_server import Authority

MESSAGE = {"msgtype": "m.text", "body": "Bonjour"}
VERSIONS = ("11", "12")


class Instance:
    """A server with a service account, its owner Alice, and Bruno."""

    def __init__(self, python: str, directory: Path, address: str, authority: Authority, version: str) -> None:
        self.server = FederatingServer(python, directory, address, authority, {"default_room_version": version})
        self.name = self.server.name
        self.socket = str(directory / "s")
        self.admin = self.server.register(f"@encryption-gate:{self.name}", admin=True)
        self.alice, self.bruno = self.server.person("alice"), self.server.person("bruno")

    def run(self, *declared: dict[str, Any]) -> Rooms:
        synapse = Synapse(self.socket)
        synapse.token = self.admin
        runner = Rooms(synapse, self.name, f"@encryption-gate:{self.name}", "alice", check_mode=False)
        assert rooms.problems(declared, "alice", self.name) == []
        runner.run([Declared.read(one, self.name) for one in declared])
        runner.log_out()
        assert runner.objections == {}
        return runner

    def room(self, room_id: str) -> Room:
        path = f"/_synapse/admin/v1/rooms/{quote(room_id)}/state"
        status, answer = self.server.request("GET", path, token=self.admin)
        assert status == 200, answer
        return Room(room_id, answer["state"])


@dataclass
class Federation:
    hub: Instance
    atelier: Instance
    leaving: Instance

    def rooms(self, *members: Instance) -> list[dict[str, Any]]:
        """The hub's, open to the members given."""
        servers = {"allow": [member.name for member in members]}
        inside = {"join": "space", "parents": ["federation"], "servers": servers}
        return [
            {"alias": "federation", "kind": "space", "name": "Fédération", "join": "public", "servers": servers},
            {"alias": "comptabilite", "name": "Comptabilité", **inside},
            {"alias": "bureau", "name": "Bureau", "servers": servers},
        ]

    def welcome(self, *links: str) -> dict[str, Any]:
        return {"alias": "bienvenue", "kind": "space", "name": "Bienvenue", "links": list(links)}


# Each test has servers of its own: one of them leaves them without the hub.
@pytest.fixture(
    params=[pytest.param(version, marks=pytest.mark.xdist_group(f"federation {version}")) for version in VERSIONS],
)
def federation(request: pytest.FixtureRequest, python: str, tmp_path: Path) -> Iterator[Federation]:
    authority = Authority(tmp_path)
    addresses = {"hub": "127.0.0.2", "atelier": "127.0.0.3", "leaving": "127.0.0.4"}
    with ThreadPoolExecutor(max_workers=len(addresses)) as pool:
        started = {
            name: pool.submit(Instance, python, tmp_path / name, address, authority, request.param)
            for name, address in addresses.items()
        }
    servers = {name: server.result() for name, server in started.items()}
    yield Federation(**servers)
    for server in servers.values():
        server.server.stop()


def join(person: Person, alias_or_id: str, via: str) -> int:
    return person.ask("POST", f"/join/{quote(alias_or_id)}?server_name={via}&via={via}", {})[0]


def say(person: Person, room_id: str, number: int) -> int:
    return person.ask("PUT", f"/rooms/{quote(room_id)}/send/m.room.message/{number}", MESSAGE)[0]


def test_a_member_leaves_the_list(federation: Federation) -> None:
    hub, atelier, leaving = federation.hub, federation.atelier, federation.leaving
    before = federation.rooms(hub, atelier, leaving)
    ids = {one["alias"]: one["room_id"] for one in hub.run(*before).result()["rooms"]}
    for person in (atelier.bruno, leaving.bruno):
        assert join(person, f"#federation:{hub.name}", hub.name) == 200
        assert join(person, ids["comptabilite"], hub.name) == 200
    invited = {"user_id": leaving.alice.user_id}
    assert hub.alice.ask("POST", f"/rooms/{quote(ids['bureau'])}/invite", invited)[0] == 200
    for number, person in enumerate((atelier.bruno, leaving.bruno, hub.alice)):
        assert say(person, ids["comptabilite"], number) == 200
    assert not hub.run(*before).changed

    after = federation.rooms(hub, atelier)
    run = hub.run(*after)
    assert run.changed
    news = hub.room(ids["comptabilite"])
    assert news.members("join") == sorted([hub.alice.user_id, atelier.bruno.user_id])
    assert hub.room(ids["federation"]).membership(leaving.bruno.user_id) == "leave"
    assert hub.room(ids["bureau"]).membership(leaving.alice.user_id) == "leave"
    assert "Votre serveur ne participe plus" in news.content(MEMBER, leaving.bruno.user_id)["reason"]
    # Their own server has heard it, so that they see it; and it does not let them in again.
    path = f"/rooms/{quote(ids['comptabilite'])}/state/{MEMBER}/{leaving.bruno.user_id}"
    eventually(lambda: leaving.bruno.ask("GET", path)[1].get("membership") == "leave", "told")
    assert join(leaving.bruno, f"#federation:{hub.name}", hub.name) != 200
    assert join(leaving.bruno, ids["comptabilite"], hub.name) != 200
    # The others go on.
    assert say(atelier.bruno, ids["comptabilite"], 10) == 200
    assert not hub.run(*after).changed

    # Back in the list, they come back by themselves.
    hub.run(*before)
    assert join(leaving.bruno, f"#federation:{hub.name}", hub.name) == 200
    assert join(leaving.bruno, ids["comptabilite"], hub.name) == 200


def test_a_link_to_another_server(federation: Federation) -> None:
    hub, atelier = federation.hub, federation.atelier
    alias = f"#federation:{hub.name}"
    made = hub.run(*federation.rooms(hub, atelier)).result()["rooms"]
    run = atelier.run(federation.welcome(alias))
    welcome = str(run.result()["rooms"][0]["room_id"])
    space = made[0]["room_id"]
    (child,) = atelier.room(welcome).of_kind(CHILD).items()
    assert (child[0], child[1]["via"][0], child[1][rooms.LINK]) == (space, hub.name, alias)
    assert not atelier.run(federation.welcome(alias)).changed

    # The alias leads elsewhere from now on.
    path = f"/directory/room/{quote(alias)}"
    assert hub.alice.ask("DELETE", path)[0] == 200
    assert hub.alice.ask("PUT", path, {"room_id": made[1]["room_id"]})[0] == 200
    assert atelier.run(federation.welcome(alias)).changed
    assert list(atelier.room(welcome).of_kind(CHILD)) == [made[1]["room_id"]]
    assert not atelier.run(federation.welcome(alias)).changed

    # The hub is down: nothing fails, and the link stays.
    hub.server.stop()
    run = atelier.run(federation.welcome(alias))
    assert not run.changed
    assert alias in run.report()
    assert list(atelier.room(welcome).of_kind(CHILD)) == [made[1]["room_id"]]
    assert atelier.run(federation.welcome()).changed
    assert atelier.room(welcome).of_kind(CHILD) == {}
