# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Synapse's module, in a real Synapse: what becomes of the rooms that clients make."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.cae.matrix.tests.patience import eventually
from ansible_collections.cae.matrix.tests.unit import create_room_requests as requests
from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver
from ansible_collections.cae.matrix.tests.unit.opt_in_server import (
    ENCRYPTION,
    OWN,
    PREFERENCE,
    SERVICE,
    OptInServer,
    Person,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BOTH: dict[str, Any] = {"preset": "trusted_private_chat", "is_direct": True, "invite": [requests.OTHER]}


@pytest.fixture(scope="module")
def server(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OptInServer]:
    server = OptInServer(python, tmp_path_factory.mktemp("opt-in"))
    try:
        # What happens before that is seen as well, but not told event by event.
        eventually(server.follows, "the stream is followed")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def stock(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homeserver]:
    """Synapse without the module."""
    server = Homeserver(python, tmp_path_factory.mktemp("stock"), {})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def me(server: OptInServer) -> Person:
    return server.person("me")


@pytest.fixture(scope="module")
def other(server: OptInServer) -> Person:
    return server.person("other")


def test_no_client_encrypts_out_of_habit(server: OptInServer, me: Person, other: Person) -> None:
    """Every row of the request matrix, in every room version, with and without power levels."""
    before, cells = server.counts(), requests.matrix()
    rooms = {me.make(body, {"User-Agent": row.agent}): name for name, row, _, body in cells}
    assert [name for room, name in rooms.items() if room in server.encrypted_rooms()] == []
    asked = sum(row.encrypts for _, row, _, _ in cells)
    assert asked > 60
    assert server.counts()["rooms_started_plain"] - before["rooms_started_plain"] == asked
    assert server.log.count(f"a room (direct) of {me.user_id}, whose client 'Element X/26.11.0 (iPhone 15;") == 6


def test_a_choice_in_the_cooperatives_own_element_web_is_kept(server: OptInServer, me: Person, other: Person) -> None:
    before, cells = server.counts(), [cell for cell in requests.matrix() if cell[1].client == "Element Web"]
    rooms = {}
    for name, row, _, body in cells:
        body.pop("room_alias_name", None)
        rooms[me.make(body, OWN | {"User-Agent": row.agent})] = (name, row.encrypts)
    encrypted = server.encrypted_rooms()
    assert [name for room, (name, encrypts) in rooms.items() if (room in encrypted) != encrypts] == []
    after = server.counts()
    assert after["rooms_started_plain"] == before["rooms_started_plain"]
    assert after["opt_ins creation"] - before["opt_ins creation"] == sum(row.encrypts for _, row, _, _ in cells)
    assert f"Opt-in (creation): {me.user_id} made an encrypted room (direct) in Element Web" in server.log


def test_the_matrix_is_whole() -> None:
    """Each client makes each kind of room; and the rows do ask for encryption where the clients do it by habit."""
    clients = {row.client for row in requests.REQUESTS}
    assert clients == {"Element X iOS", "Element X Android", "FluffyChat", "Cinny", "Nheko", "Element Web"}
    made = {(row.client, row.kind.split(",")[0]) for row in requests.REQUESTS}
    assert made >= set(itertools.product(clients, requests.KINDS))
    habit = {row.client for row in requests.REQUESTS if row.encrypts and row.kind == "direct"}
    assert habit == clients
    assert all(
        row.encrypts == (ENCRYPTION["type"] in json.dumps(row.body["initial_state"]))
        for row in requests.REQUESTS
        if "initial_state" in row.body
    )


def test_stock_synapse_would_encrypt(stock: Homeserver) -> None:
    """The same requests without the module: the matrix does measure something."""
    me = Person(stock, requests.ME, stock.register(requests.ME))
    stock.register(requests.OTHER)
    for _, row, version, body in requests.matrix():
        if row.client == "FluffyChat" and version == "12":
            assert me.encrypts(me.make(body)) == row.encrypts


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Matrix-Own-Client": "something else"},
        {"X-Matrix-Own-Client": ""},
        {"X-Matrix-Own-Client": "xelement-web-1"},
        {"X-Request-Id": "element-web-1"},
        {"User-Agent": "element-web-1"},
        {"Origin": "https://chat.coop.example"},
    ],
    ids=str,
)
def test_only_the_proxys_mark_counts(me: Person, headers: dict[str, str]) -> None:
    assert not me.encrypts(me.make({"initial_state": [ENCRYPTION]}, headers))


def test_the_mark_counts_for_a_transaction_too(me: Person) -> None:
    """PUT /createRoom/<transaction> is Synapse's own way, besides POST."""
    body = {"initial_state": [ENCRYPTION]}
    for headers, encrypted in ((OWN, True), ({}, False)):
        status, answer = me.ask("PUT", f"/createRoom/{encrypted}", body, headers)
        assert status == 200, answer
        assert me.encrypts(answer["room_id"]) == encrypted


def test_what_is_taken_out_is_all_encryption_and_nothing_else(me: Person) -> None:
    topic = {"type": "m.room.topic", "content": {"topic": "hors sujet"}}
    mine = {"type": "m.room.encryption", "state_key": "x", "content": {"algorithm": "y"}}
    without_key = {key: value for key, value in ENCRYPTION.items() if key != "state_key"}
    empty = {**ENCRYPTION, "content": {}}
    room = me.make({"initial_state": [ENCRYPTION, topic, empty, mine, without_key, ENCRYPTION], "name": "Atelier"})
    assert not me.encrypts(room)
    assert me.ask("GET", f"/rooms/{room}/state/m.room.topic")[1]["topic"] == "hors sujet"
    assert me.ask("GET", f"/rooms/{room}/state/m.room.name")[1]["name"] == "Atelier"
    assert me.ask("GET", f"/rooms/{room}/state/m.room.encryption/x")[1] == {"algorithm": "y"}


def test_application_services_decide_for_themselves(server: OptInServer) -> None:
    bridge = Person(server, f"@{SERVICE['sender_localpart']}:coop.example", str(SERVICE["as_token"]))
    assert bridge.encrypts(bridge.make({"initial_state": [ENCRYPTION]}))
    assert not bridge.encrypts(bridge.make({}))


def test_administrators_have_habits_too(server: OptInServer) -> None:
    boss = server.person("boss")
    server.sql("UPDATE users SET admin = 1 WHERE name = '@boss:coop.example'")
    assert not boss.encrypts(boss.make({"initial_state": [ENCRYPTION]}))


def test_who_prefers_encryption_gets_it_in_every_room(server: OptInServer) -> None:
    before, ann = server.counts(), server.person("ann")
    ann.put_data(PREFERENCE, {"enabled": True})
    bodies: list[dict[str, Any]] = [
        {},
        {"initial_state": [ENCRYPTION]},
        {"initial_state": [{**ENCRYPTION, "content": {}}]},
        {
            "initial_state": [
                {**ENCRYPTION, "content": {"algorithm": 5}},
                {"type": "m.room.topic", "content": {"topic": "x"}},
            ]
        },
        {"initial_state": [ENCRYPTION, {**ENCRYPTION, "content": {}}]},
        {"preset": "public_chat", "initial_state": ""},
        {"preset": "trusted_private_chat", "invite": [], "room_version": "10"},
    ]
    for body in bodies:
        room = ann.make(body)
        assert ann.ask("GET", f"/rooms/{room}/state/m.room.encryption")[1] == ENCRYPTION["content"], body
    assert server.counts()["opt_ins preference"] - before["opt_ins preference"] == len(bodies)
    space = {"creation_content": {"type": "m.space"}}
    assert not ann.encrypts(ann.make(space))
    assert not ann.encrypts(ann.make({**space, "initial_state": [ENCRYPTION]}))
    ann.put_data(PREFERENCE, {"enabled": False})
    assert not ann.encrypts(ann.make({"initial_state": [ENCRYPTION]}))


@pytest.mark.parametrize("content", [{}, {"enabled": "true"}, {"enabled": 1}, {"enabled": [True]}, {"enabled": None}])
def test_only_true_is_a_preference(server: OptInServer, me: Person, content: dict[str, Any]) -> None:
    me.put_data(PREFERENCE, content)
    assert not me.encrypts(me.make({"initial_state": [ENCRYPTION]}))


@pytest.mark.parametrize("version", requests.VERSIONS)
def test_administrators_of_a_room_can_turn_encryption_on(
    server: OptInServer, me: Person, other: Person, version: str
) -> None:
    room = me.make({"room_version": version, "preset": "private_chat", "invite": [other.user_id]})
    other.join(room)
    assert other.turn_on(room) == 403
    assert me.turn_on(room) == 200
    assert me.encrypts(room)
    told = f"Opt-in (later): encryption was turned on in {room} by {me.user_id}"
    eventually(lambda: told in server.log, "the opt-in is told")
    # Once on, another event makes no second opt-in.
    assert me.ask("PUT", f"/rooms/{room}/state/m.room.encryption", {**ENCRYPTION["content"], "x": 1})[0] == 200
    second = me.make({"room_version": version})
    assert me.turn_on(second) == 200
    eventually(lambda: f"turned on in {second} by" in server.log, "the second room is told")
    assert server.log.count(told) == 1
    # Each is counted once, those of other tests included.
    assert server.counts()["opt_ins later"] == server.log.count("Opt-in (later): ")


@pytest.mark.parametrize(("version", "who"), list(itertools.product(requests.VERSIONS, ("me", "other"))))
def test_both_people_of_a_conversation_can_turn_encryption_on(
    me: Person, other: Person, version: str, who: str
) -> None:
    room = me.make({**copy.deepcopy(BOTH), "room_version": version, "initial_state": [ENCRYPTION]})
    other.join(room)
    assert not other.encrypts(room)
    assert {"me": me, "other": other}[who].turn_on(room) == 200
    assert me.encrypts(room)


@pytest.mark.parametrize(("encrypted", "version"), [(True, "11"), (True, "12"), (False, "12")])
def test_an_upgraded_room_stays_as_it_was(server: OptInServer, me: Person, encrypted: bool, version: str) -> None:
    room = me.make({"room_version": "10", "initial_state": [ENCRYPTION]}, OWN if encrypted else {})
    status, answer = me.ask("POST", f"/rooms/{room}/upgrade", {"new_version": version})
    assert status == 200, answer
    assert me.encrypts(answer["replacement_room"]) == encrypted
    sentinel = me.make({})
    assert me.turn_on(sentinel) == 200
    eventually(lambda: f"turned on in {sentinel} by" in server.log, "the stream was followed up to here")
    assert f"turned on in {room}" not in server.log
    assert f"turned on in {answer['replacement_room']}" not in server.log


# --- Malformed requests -----------------------------------------------------------------------------------------------

_SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=6)
_JUNK = st.recursive(
    _SCALARS,
    lambda deep: st.lists(deep, max_size=2) | st.dictionaries(st.text(max_size=4), deep, max_size=2),
    max_leaves=5,
)
_TYPES = st.sampled_from(
    [
        "m.room.encryption",
        "m.room.power_levels",
        "m.room.join_rules",
        "m.room.member",
        "m.room.create",
        "m.room.history_visibility",
        "m.room.canonical_alias",
        "m.room.guest_access",
        "m.room.name",
        "m.room.topic",
        "m.room.third_party_invite",
        "m.room.server_acl",
        "m.space.parent",
        "",
        "x",
    ]
)
_KEYS = st.sampled_from(
    ["users", "events", "users_default", "algorithm", "join_rule", "allow", "membership", "type", "alias", "name"]
)
_CONTENT = st.dictionaries(_KEYS, _JUNK, max_size=3) | _JUNK
_EVENT = st.fixed_dictionaries(
    {},
    optional={
        "type": _TYPES | _TYPES | _JUNK,
        "state_key": st.sampled_from(["", "", requests.ME, requests.OTHER]) | _JUNK,
        "content": _CONTENT | st.just(ENCRYPTION["content"]),
    },
)
_LEVELS = st.dictionaries(
    st.sampled_from(["users", "events", "users_default", "state_default", "invite", "ban", "notifications"]),
    st.dictionaries(st.sampled_from([requests.ME, "m.room.encryption", "x"]), _SCALARS, max_size=2) | _SCALARS,
    max_size=3,
)
_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "initial_state": st.lists(_EVENT, max_size=3) | st.lists(_EVENT, max_size=3) | _JUNK,
        "creation_content": st.dictionaries(
            st.sampled_from(["type", "additional_creators", "m.federate", "room_version", "predecessor"]),
            _JUNK,
            max_size=2,
        )
        | _JUNK,
        "power_level_content_override": _LEVELS | _JUNK,
        "invite": st.just([requests.OTHER]) | _JUNK,
        "invite_3pid": st.lists(
            st.fixed_dictionaries({key: _SCALARS for key in ("medium", "address", "id_server", "id_access_token")}),
            max_size=1,
        )
        | _JUNK,
        "room_alias_name": _JUNK,
        "name": _JUNK,
        "topic": _JUNK,
        "preset": st.sampled_from(["private_chat", "trusted_private_chat", "public_chat"]) | _JUNK,
        "visibility": st.sampled_from(["private", "public"]) | _JUNK,
        "room_version": st.sampled_from(["10", "12"]) | _SCALARS,
        "is_direct": _JUNK,
    },
)


@given(body=_BODIES | _JUNK)
@settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_nothing_malformed_becomes_a_500(differ: Differ, body: Any) -> None:
    differ.compare(body)


class Differ:
    """The same body to Synapse with and without the module: what is well is left alone, what is not becomes a 400."""

    def __init__(self, ours: Person, stock: Person) -> None:
        self.ours, self.stock = ours, stock

    def compare(self, body: Any) -> None:
        status, answer = self.ours.ask("POST", "/createRoom", body)
        plain_status, plain_answer = self.stock.ask("POST", "/createRoom", body)
        shown = (body, status, answer, plain_status, plain_answer)
        assert status < 500, shown
        if plain_status >= 500:
            assert (status, answer["errcode"]) == (400, "M_BAD_JSON"), shown
        elif plain_status == 200:
            odd_alias = isinstance(body, dict) and not isinstance(body.get("room_alias_name", ""), str)
            assert status == (400 if odd_alias else 200), shown
        else:
            # A malformed encryption event may be all that was wrong.
            assert status in (plain_status, 200) or (status, answer["errcode"]) == (400, "M_BAD_JSON"), shown


@pytest.fixture(scope="module")
def differ(server: OptInServer, stock: Homeserver) -> Differ:
    people = []
    for where in (server, stock):
        where.register("@fuzz:coop.example")
        people.append(Person(where, "@fuzz:coop.example", where.register("@fuzzer:coop.example")))
    return Differ(people[0], people[1])


@pytest.mark.parametrize(
    "body",
    [
        {"initial_state": None},
        {"initial_state": {"type": "m.room.encryption"}},
        {"initial_state": [ENCRYPTION, None]},
        {"initial_state": [ENCRYPTION, "m.room.encryption"]},
        {"initial_state": [{"type": "m.room.encryption"}]},
        {"initial_state": [{"type": ["m.room.encryption"], "content": {}}]},
        {"initial_state": [{"type": "m.room.encryption", "state_key": None, "content": {}}]},
        {"initial_state": [{"type": "m.room.encryption", "state_key": ["x"], "content": {}}]},
        {"initial_state": [{"type": "m.room.create", "state_key": "", "content": {}}]},
        {"creation_content": None},
        {"creation_content": ["m.space"], "initial_state": [ENCRYPTION]},
        {
            "creation_content": {"additional_creators": 5},
            "preset": "trusted_private_chat",
            "invite": [requests.OTHER],
            "room_version": "12",
        },
        {"power_level_content_override": [1]},
        {"power_level_content_override": {"users": None}, "room_version": "10"},
        {"invite": None},
        {"invite_3pid": [5]},
        {"room_alias_name": None},
        {"preset": {}},
    ],
    ids=str,
)
def test_what_synapse_answers_with_500_is_named(server: OptInServer, differ: Differ, body: dict[str, Any]) -> None:
    before = server.counts()["refusals malformed room"]
    status, answer = differ.ours.ask("POST", "/createRoom", body)
    assert (status, answer["errcode"]) == (400, "M_BAD_JSON")
    assert any(key in answer["error"] for key in body)
    assert differ.stock.ask("POST", "/createRoom", body)[0] >= 500
    assert server.counts()["refusals malformed room"] == before + 1


@pytest.mark.parametrize(
    "body",
    [
        {"name": "\ud800"},
        {"preset": "\ud800"},
        {"initial_state": [{"type": "x", "content": {"deep": [{"\udfff": 1}]}}]},
        {"room_alias_name": "a\0"},
        {"invite": ["@a\0:coop.example"]},
        {"invite_3pid": [{"medium": "email", "address": "\0", "id_server": "x", "id_access_token": "x"}]},
        {"initial_state": [{"type": "a\0", "content": {}}]},
        {"initial_state": [{"type": "x", "state_key": "\0", "content": {}}]},
        {"initial_state": [{"type": "m.room.member", "state_key": "@a:b", "content": {"displayname": "\0"}}]},
    ],
    ids=ascii,
)
def test_what_no_database_can_hold_is_refused(me: Person, body: dict[str, Any]) -> None:
    """Synapse answers 500 on PostgreSQL, or, where it would repeat a lone surrogate in its answer, nothing at all."""
    status, answer = me.ask("POST", "/createRoom", body)
    assert (status, answer["errcode"]) == (400, "M_BAD_JSON")


def test_a_nul_where_it_does_no_harm_is_left_alone(me: Person) -> None:
    assert me.make({"name": "a\0b", "initial_state": [{"type": "x", "content": {"y": "\0"}}]})


def test_a_long_list_is_no_burden(me: Person) -> None:
    """Ten thousand encryption events; Synapse takes the last of each type, here none."""
    assert not me.encrypts(me.make({"initial_state": [ENCRYPTION] * 10000}))


def test_nothing_went_wrong_behind_the_scenes(server: OptInServer) -> None:
    """Runs last in this file."""
    assert "Traceback" not in server.log
    assert "cae_matrix_opt_in - ERROR" not in server.log
