# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The deny list between real servers: whoever is denied gets and takes nothing, in either direction; others do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ansible_collections.cae.matrix.tests.patience import eventually
from ansible_collections.cae.matrix.tests.unit.federating_servers import FederatingServer
from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver
from ansible_collections.cae.matrix.tests.unit.opt_in_server import Person
from ansible_collections.cae.matrix.tests.unit.public_server import Authority

MODULE = "cae_matrix_federation.DenyList"
OPEN_ROOM = {"preset": "public_chat", "name": "Salon"}


def denying(*globs: str) -> dict[str, Any]:
    return {"modules": [{"module": MODULE, "config": {"denied": list(globs)}}]}


@dataclass
class World:
    """Somebody on our server, on one that is as good as any, and on two that ours denies: by name, and by a glob."""

    ours: Person
    friend: Person
    named: Person
    globbed: Person


@pytest.fixture(scope="module")
def world(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("servers")
    authority = Authority(directory)
    # As role synapse says it for profile open.
    closed = {"allow_profile_lookup_over_federation": False, "allow_public_rooms_over_federation": False}
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "ours": ("127.0.0.2", closed | denying("127.0.0.4", "*.0.1.?", "*.bad.example")),
        "friend": ("127.0.0.3", {}),
        "named": ("127.0.0.4", {}),
        "globbed": ("127.0.1.5", {}),
    }
    with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
        started = {
            name: pool.submit(FederatingServer, python, directory / name, address, authority, extra)
            for name, (address, extra) in wanted.items()
        }
    servers = {name: server.result() for name, server in started.items()}
    yield World(**{name: server.person("amina") for name, server in servers.items()})
    for server in servers.values():
        server.stop()


@pytest.fixture(params=["named", "globbed"])
def denied(world: World, request: pytest.FixtureRequest) -> Person:
    person: Person = getattr(world, request.param)
    return person


def server_of(person: Person) -> str:
    return person.user_id.split(":", 1)[1]


def invite(room: str, by: Person, whom: Person) -> int:
    return by.ask("POST", f"/rooms/{quote(room)}/invite", {"user_id": whom.user_id})[0]


def join(room: str, who: Person, over: Person) -> int:
    return who.ask("POST", f"/join/{quote(room)}?server_name={quote(server_of(over))}", {})[0]


def invited(who: Person, room: str) -> bool:
    return room in who.ask("GET", "/sync?timeout=0")[1].get("rooms", {}).get("invite", {})


def sees(who: Person, path: str) -> bool:
    return who.ask("GET", path)[0] == 200


def keys(asked: Person, of: Person) -> list[Any]:
    """What a server tells of another's keys, when others ask it as a notary."""
    assert isinstance(asked.server, FederatingServer)
    assert isinstance(of.server, FederatingServer)
    query: dict[str, Any] = {"server_keys": {of.server.name: {of.server.key_id: {"minimum_valid_until_ts": 0}}}}
    status, answer = asked.server.over_tls("POST", "/_matrix/key/v2/query", query)
    assert status == 200, answer
    found: list[Any] = answer["server_keys"]
    return found


def test_everybody_else_comes_and_goes(world: World) -> None:
    ours, friend = world.ours, world.friend
    here, there = ours.make(OPEN_ROOM), friend.make(OPEN_ROOM)
    assert join(here, friend, over=ours) == 200
    assert join(there, ours, over=friend) == 200
    private = ours.make({"preset": "private_chat"})
    assert invite(private, ours, friend) == 200
    eventually(lambda: invited(friend, private), "the invitation arrives")
    private = friend.make({"preset": "private_chat"})
    assert invite(private, friend, ours) == 200
    eventually(lambda: invited(ours, private), "the invitation arrives")
    assert ours.ask("GET", f"/profile/{friend.user_id}")[0] == 200
    assert len(keys(ours, friend)) == 1


def test_a_message_goes_both_ways(world: World) -> None:
    room = world.friend.make(OPEN_ROOM)
    assert join(room, world.ours, over=world.friend) == 200
    for by, to in ((world.ours, world.friend), (world.friend, world.ours)):
        text = f"de {by.user_id}"
        body = {"msgtype": "m.text", "body": text}
        status, answer = by.ask("PUT", f"/rooms/{quote(room)}/send/m.room.message/{quote(by.user_id)}", body)
        assert status == 200, answer
        path = f"/rooms/{quote(room)}/event/{quote(answer['event_id'])}"
        eventually(partial(sees, to, path), f"{text} arrives")


def test_strangers_look_up_neither_profiles_nor_the_directory(world: World) -> None:
    assert world.friend.ask("GET", f"/profile/{world.ours.user_id}")[0] in (403, 404)
    status, answer = world.friend.ask("POST", f"/publicRooms?server={quote(server_of(world.ours))}", {})
    assert status != 200, answer


def test_who_is_denied_cannot_come_in(world: World, denied: Person) -> None:
    room = world.ours.make(OPEN_ROOM)
    assert join(room, denied, over=world.ours) >= 400
    private = denied.make({"preset": "private_chat"})
    assert invite(private, denied, world.ours) >= 400
    assert not invited(world.ours, private)
    assert f"Federation denied with {server_of(denied)}" in world.ours.server.log


def test_nobody_goes_to_who_is_denied(world: World, denied: Person) -> None:
    room = denied.make(OPEN_ROOM)
    assert join(room, world.ours, over=denied) >= 400
    private = world.ours.make({"preset": "private_chat"})
    status, answer = world.ours.ask("POST", f"/rooms/{quote(private)}/invite", {"user_id": denied.user_id})
    assert status == 403, answer
    assert "denied" in answer["error"]
    assert not invited(denied, private)


def test_nothing_is_looked_up_at_who_is_denied(world: World, denied: Person) -> None:
    assert world.ours.ask("GET", f"/profile/{denied.user_id}")[0] >= 400
    assert world.friend.ask("GET", f"/profile/{denied.user_id}")[0] == 200
    alias = f"/directory/room/{quote('#x:' + server_of(denied))}"
    assert world.ours.ask("GET", alias)[0] >= 400
    assert keys(world.ours, denied) == []
    assert len(keys(world.friend, denied)) == 1


def test_in_a_room_of_a_third_server_nothing_goes_from_one_to_the_other(world: World, denied: Person) -> None:
    room = world.friend.make(OPEN_ROOM)
    assert join(room, world.ours, over=world.friend) == 200
    assert join(room, denied, over=world.friend) == 200
    for by, to in ((world.ours, world.friend), (world.friend, denied)):
        path = f"/rooms/{quote(room)}/send/m.room.message/{quote(by.user_id)}"
        event = by.ask("PUT", path, {"msgtype": "m.text", "body": "nous"})[1]["event_id"]
        eventually(partial(sees, to, f"/rooms/{quote(room)}/event/{quote(event)}"), "the message arrives")
    # Synapse notes of each request which server signed it.
    sent = f"{{{server_of(world.ours)}}} Processed request"
    assert sent in world.friend.server.log
    assert sent not in denied.server.log


REFUSED = [
    (denying("127.0.0.9") | {"federation_domain_whitelist": ["x.test"]}, "exclude each other"),
    (denying("coop.*"), "own name, coop.example, is denied"),
    (denying("Bad.example"), "write bad.example"),
    (denying(), "must be a list of server names"),
    (denying("bad.example") | {"federation_whitelist_endpoint_enabled": True}, "cannot answer for a deny list"),
    ({"modules": [{"module": "synapse_probe.WithoutWhitelist"}, *denying("a.test")["modules"]]}, "cannot be kept"),
    ({"modules": [{"module": MODULE, "config": {"denied": ["a.test"], "allowed": []}}]}, "not known here"),
]


@pytest.mark.parametrize(("extra", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_synapse_does_not_start_where_the_list_cannot_be_kept(
    python: str, tmp_path: Path, extra: dict[str, Any], words: str
) -> None:
    with pytest.raises(AssertionError) as death:
        Homeserver(python, tmp_path, extra).stop()
    assert words in str(death.value)
