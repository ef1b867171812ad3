# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a list of rooms, which servers a room lets in, and the order in a space."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import CHILD, POWER, Room
from ansible_collections.cae.matrix.plugins.module_utils.rooms import declared as rooms
from ansible_collections.cae.matrix.plugins.module_utils.rooms.declared import Child, Declared
from hypothesis import given
from hypothesis import strategies as st

DOMAIN = "coop.example"
SPACE = {"alias": "accueil", "kind": "space", "name": "Accueil"}


def room(**more: Any) -> dict[str, Any]:
    return {"alias": "bureau", "name": "Bureau"} | more


def test_examples() -> None:
    assert doctest.testmod(rooms).attempted > 10
    assert doctest.testmod(rooms).failed == 0


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [room()],
        [SPACE, room(join="space", parents=["accueil"])],
        [room(join="space", parents=["accueil"]), SPACE],
        [SPACE | {"links": ["#federation:hub.example"]}],
        [room(servers={"allow": ["*.example"], "deny": ["bad.example"]}, moderators=["@a:b.example:8448"])],
        [{"alias": "ancien", "state": "absent"}],
        [room(alias="café_2.0")],
    ],
)
def test_what_is_right(entries: list[dict[str, Any]]) -> None:
    assert rooms.problems(entries, "amina", DOMAIN) == []


@pytest.mark.parametrize(
    ("entries", "label", "words"),
    [
        ([room(), room()], "rooms[2] (bureau)", "there twice"),
        ([room(alias="#bureau:coop.example")], "rooms[1] (#bureau:coop.example)", "without # and domain: bureau"),
        ([room(alias="bureau:hub.example")], "rooms[1] (bureau:hub.example)", "an alias of hub.example"),
        ([room(alias="le bureau")], "rooms[1] (le bureau)", "spaces in it"),
        ([room(alias="")], "rooms[1] ()", "empty"),
        ([room(alias="a" * 250)], "rooms[1]", "too long"),
        ([room(name=None)], "rooms[1] (bureau)", "name is missing"),
        ([room(name=" ")], "rooms[1] (bureau)", "name is missing"),
        ([room(join="space")], "rooms[1] (bureau)", "parents names none"),
        ([room(parents=["accueil"])], "rooms[1] (bureau)", '"accueil" is none of these rooms'),
        ([room(), room(alias="b", parents=["bureau"])], "rooms[2] (b)", '"bureau" is no space'),
        ([SPACE | {"state": "absent"}, room(parents=["accueil"])], "rooms[2] (bureau)", "to be absent"),
        ([SPACE, room(parents=["accueil", "accueil"])], "rooms[2] (bureau)", "there twice"),
        ([SPACE | {"parents": ["accueil"]}], "rooms[1] (accueil)", "inside itself: accueil in accueil"),
        (
            [SPACE | {"parents": ["b"]}, SPACE | {"alias": "b", "parents": ["accueil"]}],
            "rooms[1] (accueil)",
            "accueil in b in accueil",
        ),
        ([room(links=["#a:hub.example"])], "rooms[1] (bureau)", "links are for spaces"),
        ([SPACE | {"links": ["federation"]}], "rooms[1] (accueil)", "write it as #name:example.coop"),
        ([SPACE | {"links": ["#federation:coop.example"]}], "rooms[1] (accueil)", "on this server"),
        ([SPACE | {"links": ["#f:hub.example"] * 2}], "rooms[1] (accueil)", "there twice"),
        ([SPACE | {"links": ["#f:https://hub.example"]}], "rooms[1] (accueil)", "scheme"),
        ([room(moderators=["bruno"])], "rooms[1] (bureau)", '"bruno" is nobody'),
        ([room(administrators=["@bruno:Coop.Example"])], "rooms[1] (bureau)", "capitals"),
        ([room(servers={"allow": ["https://a.example"]})], "rooms[1] (bureau)", "servers.allow"),
        ([room(servers={"deny": ["*.example"]})], "rooms[1] (bureau)", "shut itself out"),
    ],
)
def test_what_is_wrong_is_named(entries: list[dict[str, Any]], label: str, words: str) -> None:
    found = rooms.problems(entries, "amina", DOMAIN)
    assert any(text.startswith(label) and words in text for text in found), found


def test_everything_wrong_is_in_one_message() -> None:
    entries = [room(name=None), room(alias="b", parents=["nowhere"]), room(alias="c", moderators=["x"])]
    assert len(rooms.problems(entries, "Amina", DOMAIN)) == 4
    for owner in ("", "@amina:coop.example", "encryption-gate"):
        assert "owner" in rooms.problems([], owner, DOMAIN)[0]


@pytest.mark.parametrize("domain", [DOMAIN, "coop.example:8448", "127.0.0.1:8448", "[::1]:8448"])
@given(allow=st.lists(st.sampled_from(["a.example", "*.test", "b.example:8448"])))
def test_a_server_never_shuts_itself_out(domain: str, allow: list[str]) -> None:
    acl = rooms.access(allow, [], domain)
    assert not rooms.refused(acl, domain)
    assert rooms.refused(acl, "192.0.2.1") or domain.startswith(("127", "["))
    assert rooms.refused(acl, "c.example")


def test_who_is_put_out() -> None:
    def member(user: str, membership: str) -> dict[str, Any]:
        return {"type": "m.room.member", "state_key": user, "content": {"membership": membership}}

    people = {
        "@a:coop.example": "join",
        "@b:bad.example": "join",
        "@c:bad.example": "invite",
        "@d:bad.example": "leave",
        "@e:bad.example": "ban",
        "@f:good.example": "join",
        "@g:bad.example": "knock",
    }
    there = Room("!a", [member(*one) for one in people.items()])
    acl = rooms.access(["good.example"], [], DOMAIN)
    assert rooms.outsiders(acl, there, DOMAIN) == ["@b:bad.example", "@c:bad.example", "@g:bad.example"]
    assert rooms.outsiders(None, there, DOMAIN) == []


@given(st.lists(st.one_of(st.none(), st.integers(-2, 200000), st.sampled_from(["aa", "0000000007", 3]))))
def test_orders_rise_and_are_found_again(existing: list[Any]) -> None:
    given_ = [f"{one:010d}" if isinstance(one, int) and one >= 0 else one for one in existing]
    places = rooms.orders(given_)
    assert sorted(set(places)) == places
    assert all(len(one) == 10 for one in places)
    assert rooms.orders(places) == places


@given(st.integers(0, 20), st.integers(0, 20))
def test_one_more_room_moves_no_other(count: int, at: int) -> None:
    places: list[str | None] = [*rooms.orders([None] * count)]
    places.insert(min(at, count), None)
    after = rooms.orders(places)
    assert sum(one != other for one, other in zip(places, after, strict=True)) == 1


def test_a_space_keeps_what_people_put_there() -> None:
    def child(room_id: str, **content: Any) -> dict[str, Any]:
        return {"type": CHILD, "state_key": room_id, "content": content}

    space = Room(
        "!space",
        [
            child("!people", via=["x.example"]),
            child("!link", via=["hub.example"], **{rooms.LINK: "#f:hub.example"}),
            child("!old", via=[DOMAIN]),
            child("!taken", **{}),
        ],
    )
    kept = rooms.arrangement(space, [], ["!old", "!taken"], ["#f:hub.example"])
    assert [(one.key, one.content) for one in kept] == [("!old", {})]
    assert [one.key for one in rooms.arrangement(space, [], [], [])] == ["!link"]
    assert rooms.arrangement(space, [], [], None) == []
    moved = rooms.arrangement(space, [Child("!new", "f", ("hub.example",), "#f:hub.example")], [], ["#f:hub.example"])
    assert [(one.key, bool(one.content)) for one in moved] == [("!new", True), ("!link", False)]


def test_nobody_loses_power_and_makers_of_version_12_are_in_no_list() -> None:
    def there(room_id: str) -> Room:
        create = {"type": "m.room.create", "state_key": "", "sender": "@a:coop.example", "content": {}}
        powers = {"users": {"@b:coop.example": 75, "@c:coop.example": 10}, "users_default": 5, "events_default": 50}
        return Room(room_id, [create, {"type": POWER, "state_key": "", "content": powers}])

    people = ["@a:coop.example", "@b:coop.example", "@c:coop.example", "@d:coop.example"]
    one = Declared.read(room(moderators=people, write="everyone"), DOMAIN)
    old = rooms.wanted_powers(one, there("!a:coop.example"), False, "@a:coop.example")
    assert old["users"] == dict(zip(people, (50, 75, 50, 50), strict=True))
    assert (old["users_default"], old["events_default"]) == (5, 0)
    new = rooms.wanted_powers(one, there("!a"), False, "@a:coop.example")
    assert "@a:coop.example" not in new["users"]
