# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What another policy would cut off, read from the tables of a real Synapse in a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.federation import losses
from ansible_collections.cae.matrix.plugins.module_utils.federation.policy import policy
from ansible_collections.cae.matrix.plugins.modules import federation_losses as module
from ansible_collections.cae.matrix.tests.patience import eventually
from ansible_collections.cae.matrix.tests.unit.federating_servers import FederatingServer
from ansible_collections.cae.matrix.tests.unit.homeserver import IMPORTS, Homeserver
from ansible_collections.cae.matrix.tests.unit.public_server import Authority
from ansible_collections.cae.matrix.tests.unit.services import postgresql

HERE, CLIENT, MEMBER = "coop.example", "client.example", "member.example"
OPEN = policy("open", {}, HERE)
LIST = {"hub": "hub.example", "members": [{"domain": MEMBER}, {"domain": "hub.example"}]}
FEDERATION = policy("federation", LIST, HERE)
INTERNAL = policy("internal", {}, HERE)
HOSTILE = "Essaim\u202e\x1b[2J"

# Newer cores want to know in which form results travel.
RUN = """
import runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.read().encode()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_path(sys.argv[1], run_name="__main__")
"""
# psycopg2 is where Synapse is.
READ = """
import json, sys
from dataclasses import asdict
from ansible_collections.cae.matrix.plugins.module_utils.federation import losses
try:
    found = losses.read(*json.load(sys.stdin))
    said = losses.message(found, "open", "federation")
    print(json.dumps({"found": [asdict(one) for one in found], "said": said}))
except losses.Unknown as error:
    print(json.dumps({"unknown": str(error)}))
"""
# What a server's federation would have left: somebody elsewhere is in a room.
MEMBERSHIP = """
import json, sys
import psycopg2
arguments, rows = json.load(sys.stdin)
with psycopg2.connect(**arguments) as connection, connection.cursor() as cursor:
    for number, (room, person, membership) in enumerate(rows):
        event = f"$there{number}-{person}-{room}"
        cursor.execute("INSERT INTO current_state_events (event_id, room_id, type, state_key, membership) "
                       "VALUES (%s, %s, 'm.room.member', %s, %s)", (event, room, person, membership))
"""
DATABASE = """
import json, sys
import psycopg2
connection = psycopg2.connect(**json.load(sys.stdin))
connection.autocommit = True
connection.cursor().execute("CREATE DATABASE federated TEMPLATE template0")
"""
INVITATION = """
import json, sys
import psycopg2
arguments, room, inviter, invited = json.load(sys.stdin)
with psycopg2.connect(**arguments) as connection, connection.cursor() as cursor:
    cursor.execute("INSERT INTO room_memberships (event_id, user_id, sender, room_id, membership) "
                   "VALUES ('$invitation', %s, %s, %s, 'invite')", (invited, inviter, room))
    cursor.execute("INSERT INTO local_current_membership (room_id, user_id, event_id, membership) "
                   "VALUES (%s, %s, '$invitation', 'invite')", (room, invited))
"""


def with_psycopg2(python: str, script: str, given: Any) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, IMPORTS))}
    done = subprocess.run(
        [python, "-c", script], input=json.dumps(given), capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Tables:
    """The database of a Synapse with two people, and with others who would have come over federation."""

    def __init__(self, python: str, connection: dict[str, Any], domain: str = HERE) -> None:
        self.python, self.connection, self.domain = python, connection, domain
        self.rooms: dict[str, str] = {}

    def read(self, before: dict[str, Any], after: dict[str, Any], accepted: tuple[str, ...] = ()) -> dict[str, Any]:
        given = [self.connection, self.domain, before, after, accepted]
        result: dict[str, Any] = json.loads(with_psycopg2(self.python, READ, given))
        return result

    def lost(self, before: dict[str, Any], after: dict[str, Any], accepted: tuple[str, ...] = ()) -> list[str]:
        return [one["server"] for one in self.read(before, after, accepted)["found"]]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with postgresql() as place:
        yield place


@pytest.fixture(scope="module")
def tables(python: str, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    connection = {"host": str(place), "user": "synapse", "dbname": "postgres"}
    server = Homeserver(
        python,
        tmp_path_factory.mktemp("s"),
        {"server_name": HERE, "default_room_version": "12", "database": {"name": "psycopg2", "args": connection}},
    )
    made = Tables(python, connection)
    try:
        ann, bob = (server.register(f"@{name}:{HERE}") for name in ("ann", "bob"))
        shared = ("Chantier", HOSTILE, "", "Départ", *(f"Foule {number}" for number in range(25)))
        for name in shared:
            body: dict[str, Any] = {"name": name, "invite": [f"@bob:{HERE}"] if name == "Chantier" else []}
            status, answer = server.request("POST", "/_matrix/client/v3/createRoom", body, ann)
            assert status == 200, answer
            made.rooms[name] = answer["room_id"]
        # Whoever has been left alone in a room shares it no more.
        server.request("POST", f"/_matrix/client/v3/rooms/{made.rooms['Départ']}/leave", {}, ann)
        assert bob
    finally:
        server.stop()
    rows = [
        (made.rooms["Chantier"], f"@jo:{CLIENT}", "join"),
        (made.rooms["Chantier"], f"@ali:{CLIENT}", "invite"),
        (made.rooms["Chantier"], f"@gone:{CLIENT}", "leave"),
        (made.rooms["Chantier"], "@mia:left.example", "leave"),
        (made.rooms["Chantier"], "@eve:banned.example", "ban"),
        (made.rooms["Chantier"], f"@lea:{MEMBER}", "join"),
        (made.rooms[HOSTILE], f"@jo:{CLIENT}", "join"),
        (made.rooms[""], "@tom:port.example:8448", "join"),
        (made.rooms["Départ"], "@zoe:alone.example", "join"),
        *((made.rooms[f"Foule {number}"], "@max:crowd.example", "join") for number in range(25)),
        *((made.rooms["Foule 0"], f"@x:n{number}.many.example", "join") for number in range(30)),
    ]
    with_psycopg2(python, MEMBERSHIP, [connection, rows])
    with_psycopg2(python, INVITATION, [connection, "!elsewhere", "@ida:inviting.example", f"@bob:{HERE}"])
    return made


def test_what_a_closed_federation_would_cut_off(tables: Tables) -> None:
    lost = tables.lost(OPEN, FEDERATION)
    many = [f"n{number}.many.example" for number in range(30)]
    # With the most people first; who has left, was banned, or is in a room without people from here, is not cut off.
    assert lost == [CLIENT, "crowd.example", *sorted(["inviting.example", *many, "port.example:8448"])]
    assert MEMBER in tables.lost(OPEN, INTERNAL)
    assert HERE not in tables.lost(OPEN, INTERNAL)


def test_the_rooms_are_named(tables: Tables) -> None:
    found = {one["server"]: one for one in tables.read(OPEN, FEDERATION)["found"]}
    assert found[CLIENT] == {
        "server": CLIENT,
        "rooms": 2,
        "people": 2,
        "accepted": False,
        "listed": [
            {
                "room_id": tables.rooms["Chantier"],
                "name": "Chantier",
                "local_people": 2,
                "people": 2,
                "some": [f"@ali:{CLIENT}", f"@jo:{CLIENT}"],
            },
            {
                "room_id": tables.rooms[HOSTILE],
                "name": HOSTILE,
                "local_people": 1,
                "people": 1,
                "some": [f"@jo:{CLIENT}"],
            },
        ],
    }
    assert all(":" not in room_id for room_id in tables.rooms.values())
    invitation = found["inviting.example"]["listed"][0]
    assert (invitation["room_id"], invitation["local_people"], invitation["some"]) == (
        "!elsewhere",
        1,
        ["@ida:inviting.example"],
    )


def test_much_is_counted_instead_of_listed(tables: Tables) -> None:
    answer = tables.read(OPEN, FEDERATION)
    found = {one["server"]: one for one in answer["found"]}
    assert (found["crowd.example"]["rooms"], len(found["crowd.example"]["listed"])) == (25, losses.ROOMS)
    assert [bool(one["listed"]) for one in answer["found"]] == [True] * losses.SERVERS + [False] * 14
    assert "    and 5 more rooms\n" in answer["said"]
    assert "  and 14 more servers, with 14 people\n" in answer["said"]
    # Nobody types thirty names.
    assert answer["said"].endswith("""-e '{"federation_accepted_losses": ["*"]}'""")


def test_the_message_says_what_is_lost_and_how_to_go_on(tables: Tables) -> None:
    accepted = tuple(one for one in tables.lost(OPEN, FEDERATION) if one != CLIENT)
    answer = tables.read(OPEN, FEDERATION, accepted)
    assert [(one["server"], one["accepted"]) for one in answer["found"]][:2] == [
        (CLIENT, False),
        ("crowd.example", True),
    ]
    found = tables.read(OPEN, policy("open", {}, HERE, denied=["client.*", "port.*"]))
    lines = found["said"].splitlines()
    assert "cut people off from 2 servers" in lines[0]
    room, hostile = tables.rooms["Chantier"], tables.rooms[HOSTILE]
    assert lines[1:5] == [
        f"  {CLIENT}: 2 people of theirs, in 2 rooms",
        f'    "Chantier" ({room}): 2 from here; 2 of theirs: @ali:{CLIENT}, @jo:{CLIENT}',
        # What steers terminals or turns the writing round is not shown.
        f'    "Essaim [2J" ({hostile}): 1 from here; 1 of theirs: @jo:{CLIENT}',
        "  port.example:8448: 1 person of theirs, in 1 room",
    ]
    assert "a room without a name" in lines[5]
    assert lines[-1].endswith(f"""'{{"federation_accepted_losses": ["{CLIENT}", "port.example:8448"]}}'""")


def test_only_what_was_within_reach_can_be_lost(tables: Tables) -> None:
    assert tables.lost(FEDERATION, INTERNAL) == [MEMBER]
    assert tables.lost(INTERNAL, FEDERATION) == []
    without = policy("federation", {"hub": "hub.example", "members": [{"domain": "hub.example"}]}, HERE)
    assert tables.lost(FEDERATION, without) == [MEMBER]
    allowed = policy("federation", LIST, HERE, allowed=[CLIENT])
    assert tables.lost(allowed, FEDERATION) == [CLIENT]
    assert tables.lost(OPEN, policy("open", {}, HERE, denied=["port.example"])) == ["port.example:8448"]


def test_a_database_that_does_not_answer_is_named(tables: Tables) -> None:
    absent = Tables(tables.python, {**tables.connection, "dbname": "absent"})
    assert 'database "absent" does not exist' in absent.read(OPEN, INTERNAL)["unknown"]
    # Synapse has not run here yet.
    assert Tables(tables.python, {**tables.connection, "dbname": "template1"}).lost(OPEN, INTERNAL) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (OPEN, OPEN, False),
        (OPEN, policy("open", {}, HERE, denied=["bad.example"]), True),
        (policy("open", {}, HERE, denied=["bad.example"]), OPEN, False),
        (OPEN, FEDERATION, True),
        (OPEN, INTERNAL, True),
        (FEDERATION, OPEN, False),
        (FEDERATION, policy("open", {}, HERE, denied=["bad.example"]), True),
        (FEDERATION, policy("federation", LIST, HERE, allowed=[CLIENT]), False),
        (policy("federation", LIST, HERE, allowed=[CLIENT]), FEDERATION, True),
        (INTERNAL, OPEN, False),
        (INTERNAL, INTERNAL, False),
    ],
)
def test_nobody_is_asked_where_nothing_can_be_lost(
    before: dict[str, Any], after: dict[str, Any], expected: bool
) -> None:
    assert losses.can_lose(before, after) is expected


def test_names_of_others_are_not_offered_to_a_shell() -> None:
    said = losses.message([losses.Loss("a.test'; reboot; '", 1, 1)], "open", "internal")
    assert said.endswith("""-e '{"federation_accepted_losses": ["*"]}'""")


def test_people_who_came_over_federation_count(
    python: str, place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("f")
    authority = Authority(directory)
    with_psycopg2(python, DATABASE, {"host": str(place), "user": "synapse", "dbname": "postgres"})
    connection = {"host": str(place), "user": "synapse", "dbname": "federated"}
    extra = {"database": {"name": "psycopg2", "args": connection}}
    here = FederatingServer(python, directory / "h", "127.0.0.2", authority, extra)
    try:
        there = FederatingServer(python, directory / "t", "127.0.0.3", authority)
        try:
            ann, bob, jo = here.person("ann"), here.person("bob"), there.person("jo")
            tables = Tables(python, connection, here.name)
            assert tables.lost(OPEN, INTERNAL) == []

            theirs = ann.make({"name": "Chantier", "preset": "private_chat", "invite": [jo.user_id]})
            assert tables.lost(OPEN, INTERNAL) == [there.name]
            jo.join(theirs)
            ours = jo.make({"name": "Devis", "preset": "private_chat", "invite": [bob.user_id]})
            # The invitation is all that is known here of that room.
            (loss,) = tables.read(OPEN, INTERNAL)["found"]
            assert (loss["server"], loss["rooms"], loss["people"]) == (there.name, 2, 1)
            listed = {room["room_id"]: room for room in loss["listed"]}
            assert listed[theirs]["name"] == "Chantier"
            assert all((room["local_people"], room["some"]) == (1, [jo.user_id]) for room in listed.values())
            assert set(listed) == {theirs, ours}

            assert bob.ask("POST", f"/rooms/{ours}/leave", {})[0] == 200
            assert [room["room_id"] for room in tables.read(OPEN, INTERNAL)["found"][0]["listed"]] == [theirs]
            assert ann.ask("POST", f"/rooms/{theirs}/leave", {})[0] == 200
            eventually(lambda: tables.lost(OPEN, INTERNAL) == [], "nobody shares anything any more")
        finally:
            there.stop()
    finally:
        here.stop()


# -- the module ------------------------------------------------------------------------------------------------------


def run(config_dir: Path, after: dict[str, Any], accepted: object = (), check: bool = False) -> dict[str, Any]:
    arguments = {
        "policy": after,
        "config_dir": str(config_dir),
        "domain": HERE,
        "database": {"host": "/nonexistent", "dbname": "x", "cp_min": 5},
        "accepted": accepted,
        "_ansible_check_mode": check,
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, module.__file__],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    (tmp_path / "synapse").mkdir()
    (tmp_path / "synapse/homeserver.yaml").write_text("{}")
    return tmp_path


def record(instance: Path, content: object) -> None:
    (instance / "federation.json").write_text(json.dumps(content))


def test_a_machine_without_the_instance_has_nothing_to_lose(tmp_path: Path) -> None:
    result = run(tmp_path, INTERNAL)
    assert (result["changed"], result["losses"], result["lost_servers"]) == (False, [], 0)


@pytest.mark.parametrize("check", [True, False])
def test_without_a_record_everybody_was_within_reach(instance: Path, check: bool) -> None:
    assert not run(instance, OPEN, check=check).get("failed")
    result = run(instance, INTERNAL, check=check)
    assert result["failed"]
    assert "psycopg2 is missing" in result["msg"] or "does not let us in" in result["msg"]
    assert "nothing has been changed" in result["msg"]
    assert not run(instance, INTERNAL, ["*"], check).get("failed")


def test_the_record_decides_what_was_within_reach(instance: Path) -> None:
    record(instance, {"schema": losses.SCHEMA, **INTERNAL, "list": None})
    assert not run(instance, FEDERATION).get("failed")
    record(instance, {"schema": losses.SCHEMA, **FEDERATION, "list": None})
    assert not run(instance, FEDERATION).get("failed")
    assert run(instance, INTERNAL)["failed"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({"schema": losses.SCHEMA}),
        json.dumps({"schema": "other", **OPEN}),
        json.dumps({"schema": losses.SCHEMA, **OPEN, "allowed": "a.test"}),
        json.dumps({"schema": losses.SCHEMA, **OPEN, "denied": [1]}),
    ],
)
def test_a_broken_record_is_named(instance: Path, content: str) -> None:
    (instance / "federation.json").write_text(content)
    result = run(instance, OPEN)
    assert result["failed"]
    assert "federation.json" in result["msg"]
    assert "Put back the copy" in result["msg"]


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        (["https://client.example"], "has a scheme; write the name alone, client.example"),
        (["Client.example"], "has capitals"),
        (["@jo:client.example"], "is no server name"),
        (["*.client.example"], "is no server name"),
        ([""], "is no server name"),
        (["client example"], "is no server name"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path: Path, accepted: list[str], words: str) -> None:
    result = run(tmp_path, OPEN, accepted)
    assert result["failed"]
    assert result["msg"].startswith("federation_accepted_losses: ")
    assert words in result["msg"]
