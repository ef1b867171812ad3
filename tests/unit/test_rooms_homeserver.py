# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rooms and spaces of a real Synapse, as declared; interrupted at every step, and made all the same, once."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import ALGORITHM, ENCRYPTION
from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import (
    CANONICAL,
    CHILD,
    CREATE,
    MEMBER,
    POWER,
    TOMBSTONE,
)
from ansible_collections.cae.matrix.plugins.module_utils.rooms import declared as rooms
from ansible_collections.cae.matrix.plugins.module_utils.rooms.declared import (
    ACL,
    GUESTS,
    HISTORY,
    JOIN_RULES,
    NAME,
    PARENT,
    TOPIC,
    Declared,
)
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import SynapseError, quote
from ansible_collections.cae.matrix.plugins.modules.matrix_room import Rooms, connected
from ansible_collections.cae.matrix.tests.patience import at_most
from ansible_collections.cae.matrix.tests.unit.homeserver import ROOT
from ansible_collections.cae.matrix.tests.unit.people import (
    ALICE,
    BRUNO,
    CHLOE,
    DENIS,
    DOMAIN,
    EMMA,
    FARID,
    Fragile,
    Killed,
    People,
)
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

VERSIONS = ("11", "12")
UNLIMITED = {"per_second": 10000, "burst_count": 10000}
# What role synapse lets the service account do, and nobody else.
PUBLISHING = [{"user_id": f"@encryption-gate:{DOMAIN}", "action": "allow"}]
MESSAGE = {"msgtype": "m.text", "body": "Bonjour"}


class World(People):
    """A server whose rooms are declared, a set of them for each test."""

    def __init__(self, python: str, directory: Path, version: str, extra: dict[str, Any] | None = None) -> None:
        self.order = directory / "order"
        configuration: dict[str, Any] = {
            "default_room_version": version,
            "room_list_publication_rules": PUBLISHING,
            "modules": [{"module": "synapse_death.Death", "config": {"order": str(self.order)}}],
            "rc_joins": {"local": UNLIMITED, "remote": UNLIMITED},
            "rc_joins_per_room": UNLIMITED,
        }
        super().__init__(python, directory, configuration | (extra or {}))
        self.version = version
        self._numbers = itertools.count(1)
        self.mine = 0

    def declare(self) -> list[dict[str, Any]]:
        """A space with rooms of each sort, under names that no other test has."""
        self.mine = next(self._numbers)
        return [
            self.entry("accueil", kind="space", name="Accueil", topic="Nos salons", join="public", listed=True),
            self.entry(
                "annonces",
                name="Annonces",
                join="space",
                parents=[self.own("accueil")],
                write="moderators",
                moderators=[BRUNO],
                administrators=[ALICE, CHLOE],
                history="world_readable",
            ),
            self.entry(
                "projets",
                kind="space",
                name="Projets",
                join="space",
                parents=[self.own("accueil")],
            ),
            self.entry(
                "entraide",
                name="Entraide",
                topic="On s'aide",
                join="public",
                parents=[self.own("projets"), self.own("accueil")],
                servers={"allow": ["*.example"], "deny": ["bad.example"]},
                listed=True,
            ),
            self.entry("bureau", name="Bureau"),
        ]

    def own(self, alias: str) -> str:
        return f"{alias}{self.mine}"

    def full(self, alias: str) -> str:
        return f"#{self.own(alias)}:{DOMAIN}"

    def entry(self, alias: str, **more: Any) -> dict[str, Any]:
        return {"alias": self.own(alias), **more}

    def runner(self, dies_after: int | None = None, check_mode: bool = False, owner: str = "alice") -> Rooms:
        return Rooms(Fragile(self.socket, self.admin_token, dies_after), DOMAIN, self.admin, owner, check_mode)

    def run(self, declared: list[dict[str, Any]], **how: Any) -> Rooms:
        runner = self.runner(**how)
        assert rooms.problems(declared, "alice", DOMAIN) == []
        runner.run([Declared.read(one, DOMAIN) for one in declared])
        runner.log_out()
        return runner

    def at(self, alias: str) -> str:
        room_id = self.behind(self.full(alias))
        assert room_id
        return room_id

    def listed(self) -> set[str]:
        chunk = self.ask("GET", "publicRooms?limit=1000")["chunk"]
        return {one["room_id"] for one in chunk}

    def say(self, room_id: str, user: str) -> int:
        path = f"rooms/{quote(room_id)}/send/m.room.message/{time.monotonic_ns()}"
        return self.status("PUT", path, MESSAGE, user)

    def outcome(self) -> dict[str, Any]:
        """All that a run decides, in words that are the same each time."""
        aliases = ("accueil", "annonces", "projets", "entraide", "bureau")
        ids = {self.behind(self.full(alias)): alias for alias in aliases}
        state: dict[str, Any] = {}
        for room_id, alias in ids.items():
            if room_id:
                state[alias] = {
                    f"{kind} {key}": content
                    for kind, key in self.room(room_id).events
                    if (content := self.room(room_id).content(kind, key)) and kind != MEMBER
                }
        text = json.dumps([state, sorted(str(ids.get(one)) for one in self.listed() if one in ids)], sort_keys=True)
        for room_id, alias in ids.items():
            if room_id:
                text = text.replace(room_id, f"!{alias}")
        for alias in aliases:
            text = text.replace(self.own(alias), alias)
        return dict(zip(("state", "listed"), json.loads(text), strict=True))


@pytest.fixture(
    scope="module",
    params=[pytest.param(version, marks=pytest.mark.xdist_group(f"rooms {version}")) for version in VERSIONS],
)
def world(request: pytest.FixtureRequest, python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(python, tmp_path_factory.mktemp("rooms"), request.param)
    try:
        yield made
    finally:
        made.server.stop()


def writes(runner: Rooms) -> list[str]:
    assert isinstance(runner.synapse, Fragile)
    return runner.synapse.writes


def result(runner: Rooms, alias: str) -> dict[str, Any]:
    return next(one for one in runner.result()["rooms"] if one["alias"] == alias)


def test_rooms_as_declared(world: World) -> None:
    before = world.rooms()
    declared = world.declare()
    run = world.run(declared)
    made = {alias: world.room(world.at(alias)) for alias in ("accueil", "annonces", "projets", "entraide", "bureau")}
    assert run.changed
    assert run.objections == {}
    assert world.rooms() - before == {room.room_id for room in made.values()}
    for alias, room in made.items():
        one = result(run, world.own(alias))
        assert (one["room_id"], one["changed"], one["notes"]) == (room.room_id, True, [])
        assert not room.encrypted
        assert (room.version, room.creator, room.members("join")) == (world.version, ALICE, [ALICE])
        assert room.content(CANONICAL) == {"alias": world.full(alias)}
        assert room.content(GUESTS) == {"guest_access": "forbidden"}
        assert world.admin not in json.dumps(list(room.events.values()))
    hall, news, projects, help_, office = made.values()
    assert [room.is_space for room in made.values()] == [True, False, True, False, False]
    assert (hall.name, hall.content(TOPIC)) == ("Accueil", {"topic": "Nos salons"})
    assert news.content(JOIN_RULES) == rooms.join_rule("space", [hall.room_id])
    assert news.content(HISTORY) == {"history_visibility": "world_readable"}
    assert news.content(TOPIC) == {}
    assert help_.content(JOIN_RULES) == {"join_rule": "public"}
    assert help_.content(ACL) == {
        "allow": ["*.example"],
        "allow_ip_literals": False,
        "deny": ["bad.example"],
    }
    assert office.content(JOIN_RULES) == {"join_rule": "invite"}
    assert office.content(HISTORY) == {"history_visibility": "shared"}
    assert (ACL, "") not in office.events
    inside = hall.of_kind(CHILD)
    assert sorted(inside, key=lambda room_id: inside[room_id]["order"]) == [
        news.room_id,
        projects.room_id,
        help_.room_id,
    ]
    assert all(child["via"] == [DOMAIN] for child in inside.values())
    assert list(projects.of_kind(CHILD)) == [help_.room_id]
    assert help_.of_kind(PARENT) == {
        projects.room_id: {"via": [DOMAIN], "canonical": True},
        hall.room_id: {"via": [DOMAIN]},
    }
    listed = world.listed()
    assert {hall.room_id, help_.room_id} <= listed
    assert not {news.room_id, projects.room_id, office.room_id} & listed

    # Farid is nobody special: he gets in through the space, reads, and cannot write where it is not for him.
    assert world.status("POST", f"join/{quote(news.room_id)}", {}, FARID) == 403
    world.join(world.full("accueil"), FARID)
    for room in (news, help_, projects):
        world.join(room.room_id, FARID)
    assert world.status("POST", f"join/{quote(office.room_id)}", {}, FARID) == 403
    assert (world.say(news.room_id, FARID), world.say(help_.room_id, FARID)) == (403, 200)
    # Bruno moderates, Chloé administers, and anybody with that power can choose encryption.
    for user in (BRUNO, CHLOE):
        world.join(world.full("accueil"), user)
        world.join(news.room_id, user)
        assert world.say(news.room_id, user) == 200
    world.ask("POST", f"rooms/{quote(news.room_id)}/kick", {"user_id": FARID}, BRUNO)
    world.put(news.room_id, ENCRYPTION, {"algorithm": ALGORITHM}, user=CHLOE)
    assert world.status("PUT", f"rooms/{quote(help_.room_id)}/state/{NAME}", {"name": "Le mien"}, FARID) == 403


def test_a_second_run_changes_nothing(world: World) -> None:
    declared = world.declare()
    world.run(declared)
    state = {alias: world.events(world.at(alias)) for alias in ("accueil", "annonces", "projets", "entraide")}
    for check_mode in (True, False):
        again = world.run(declared, check_mode=check_mode)
        assert writes(again) == []
        assert (again.changed, again.diffs, again.report()) == (False, [], "")
        assert not any(one["changed"] or one["done"] for one in again.result()["rooms"])
    assert {alias: world.events(world.at(alias)) for alias in state} == state


def test_check_mode_changes_nothing_and_says_all(world: World) -> None:
    declared = world.declare()
    before = world.rooms()
    run = world.run(declared, check_mode=True)
    assert (writes(run), run.changed) == ([], True)
    assert world.rooms() == before
    assert [one["room_id"] for one in run.result()["rooms"]] == [None] * 5
    for words in ("make the space Accueil", "make the room Bureau", "list it", f"put {world.own('annonces')} in it"):
        assert words in run.report()
    shown = "".join(diff["before"] + diff["after"] for diff in run.diffs)
    assert "On s'aide" in shown
    assert f"(#{world.own('accueil')})" in shown
    world.run(declared)
    declared[3]["topic"] = "On s'entraide"
    run = world.run(declared, check_mode=True)
    assert (writes(run), run.changed) == ([], True)
    (diff,) = run.diffs
    assert json.loads(diff["before"]) == {TOPIC: {"topic": "On s'aide"}}
    assert json.loads(diff["after"]) == {TOPIC: {"topic": "On s'entraide"}}
    assert result(run, world.own("entraide"))["done"] == ["set the topic"]


def test_what_people_made_stays(world: World) -> None:
    declared = world.declare()
    world.run(declared)
    help_, hall, news = world.at("entraide"), world.at("accueil"), world.at("annonces")
    # None of it is declared.
    powers = world.room(news).powers
    powers["users"] |= {DENIS: 75, BRUNO: 90}
    powers["ban"] = 60
    world.put(news, POWER, powers)
    world.put(news, TOPIC, {"topic": "Le mardi"})
    world.put(news, "m.room.avatar", {"url": "mxc://coop.example/a"})
    world.put(news, ENCRYPTION, {"algorithm": ALGORITHM})
    world.put(help_, HISTORY, {"history_visibility": "joined"})
    world.ask("PUT", f"directory/room/{quote(world.full('aide'))}", {"room_id": help_})
    world.put(help_, CANONICAL, {"alias": world.full("aide"), "alt_aliases": [world.full("entraide")]})
    lunch = str(world.ask("POST", "createRoom", {"name": "Midi"}, BRUNO)["room_id"])
    world.put(hall, CHILD, {"via": [DOMAIN], "order": "zz"}, lunch)
    child = world.room(hall).content(CHILD, help_)
    world.put(hall, CHILD, child | {"suggested": True}, help_)
    state = {one: world.events(one) for one in (help_, hall, news)}
    again = world.run(declared)
    assert (writes(again), again.changed) == ([], False)
    assert {one: world.events(one) for one in state} == state

    # What is declared comes back, and nothing else with it.
    world.put(help_, NAME, {"name": "Au secours"})
    world.put(help_, TOPIC, {"topic": "Au secours", "m.topic": {"m.text": [{"body": "Au secours"}]}})
    world.put(help_, JOIN_RULES, {"join_rule": "invite"})
    world.put(help_, ACL, {"allow": ["*"]})
    powers = world.room(news).powers
    powers["users"] = {user: number for user, number in powers["users"].items() if user != CHLOE}
    powers |= {"events_default": 0, "events": powers["events"] | {"m.room.message": 0}}
    world.join(hall, CHLOE)
    world.join(news, CHLOE)
    world.put(news, POWER, powers, user=CHLOE)
    world.put(hall, CHILD, {}, news)
    world.ask("PUT", f"directory/list/room/{quote(help_)}", {"visibility": "private"}, None)
    run = world.run(declared)
    assert result(run, world.own("entraide"))["done"] == [
        "set which servers can take part",
        "name it Entraide",
        "set the topic",
        "set who can come in",
        "list it in the directory",
    ]
    now = world.room(news)
    assert now.encrypted
    assert (now.power(DENIS), now.power(BRUNO), now.power(CHLOE)) == (75, 90, 100)
    assert (now.powers["ban"], now.powers["events_default"], now.powers["events"]["m.room.message"]) == (60, 50, 50)
    assert world.room(help_).content(TOPIC) == {"topic": "On s'aide"}
    assert set(world.room(hall).of_kind(CHILD)) == {news, world.at("projets"), help_, lunch}
    assert world.room(hall).content(CHILD, help_)["suggested"] is True
    assert not world.run(declared).changed


def test_order_and_place(world: World) -> None:
    declared = world.declare()
    world.run(declared)
    hall = world.at("accueil")

    def held() -> list[str]:
        inside = world.room(hall).of_kind(CHILD)
        return sorted(inside, key=lambda room_id: str(inside[room_id]["order"]))

    declared.insert(1, world.entry("direction", name="Direction", join="space", parents=[world.own("accueil")]))
    run = world.run(declared)
    assert held() == [world.at(one) for one in ("direction", "annonces", "projets", "entraide")]
    # One more is one write in the space, whatever comes after it.
    assert [one for one in writes(run) if CHILD in one] == [
        f"PUT /_matrix/client/v3/rooms/{quote(hall)}/state/{CHILD}/{quote(world.at('direction'))}"
    ]
    declared[1]["parents"] = [world.own("projets")]
    declared[4]["parents"] = []
    world.run(declared)
    assert held() == [world.at("annonces"), world.at("projets")]
    assert set(world.room(world.at("projets")).of_kind(CHILD)) == {world.at("direction")}
    room = world.room(world.at("direction"))
    assert list(room.of_kind(PARENT)) == [world.at("projets")]
    assert room.content(JOIN_RULES) == rooms.join_rule("space", [world.at("projets")])
    assert world.room(world.at("entraide")).of_kind(PARENT) == {}
    assert not world.run(declared).changed


def test_a_room_that_is_to_be_no_more(world: World) -> None:
    declared = world.declare()
    world.run(declared)
    help_, hall = world.at("entraide"), world.at("accueil")
    world.join(help_, FARID)
    assert world.say(help_, FARID) == 200
    world.ask("PUT", f"directory/room/{quote(world.full('aide'))}", {"room_id": help_})
    world.put(help_, CANONICAL, {"alias": world.full("entraide"), "alt_aliases": [world.full("aide")]})
    declared[3] = world.entry("entraide", state="absent")
    assert world.run(declared, check_mode=True).changed
    assert world.at("entraide") == help_
    run = world.run(declared)
    assert result(run, world.own("entraide"))["room_id"] == help_
    assert world.behind(world.full("entraide")) is None
    assert help_ not in world.listed()
    assert help_ not in world.room(hall).of_kind(CHILD)
    closed = world.room(help_)
    assert closed.members("join") == [ALICE, FARID]
    assert closed.content(JOIN_RULES) == {"join_rule": "invite"}
    assert closed.of_kind(PARENT) == {}
    assert closed.content(CANONICAL) == {"alt_aliases": [world.full("aide")]}
    assert world.say(help_, FARID) == 403
    read = world.ask("GET", f"rooms/{quote(help_)}/messages?dir=b&limit=20", user=FARID)["chunk"]
    said = [event["content"]["body"] for event in read if event["type"] == "m.room.message"]
    assert said == [rooms.CLOSING, "Bonjour"]
    assert not world.run(declared).changed


def test_interrupted_at_every_step(world: World) -> None:
    declared = world.declare()
    world.run(declared)
    expected = world.outcome()
    for step in itertools.count(1):
        declared = world.declare()
        before = world.rooms()
        dying = world.runner(dies_after=step)
        try:
            dying.run([Declared.read(one, DOMAIN) for one in declared])
        except Killed:
            pass
        else:
            break
        world.run(declared)
        last = writes(dying)[-1]
        assert len(world.rooms() - before) == 5, last
        assert world.outcome() == expected, last
        assert not world.run(declared).changed, last
    assert step > 10


def test_closing_interrupted_at_every_step(world: World) -> None:
    for step in itertools.count(1):
        declared = [one for one in world.declare() if one["name"] in ("Accueil", "Projets", "Entraide")]
        world.run(declared)
        help_ = world.at("entraide")
        declared[2] = world.entry("entraide", state="absent")
        dying = world.runner(dies_after=step)
        try:
            dying.run([Declared.read(one, DOMAIN) for one in declared])
        except Killed:
            pass
        else:
            break
        run = world.run(declared)
        last = writes(dying)[-1]
        assert run.objections == {}
        assert world.behind(world.full("entraide")) is None, last
        assert help_ not in world.room(world.at("accueil")).of_kind(CHILD) | world.room(world.at("projets")).of_kind(
            CHILD
        ), last
        assert help_ not in world.listed(), last
        closed = world.room(help_)
        assert rooms.closing(closed, world.full("entraide")) == [], last
        read = world.ask("GET", f"rooms/{quote(help_)}/messages?dir=b&limit=20")["chunk"]
        assert [event["content"]["body"] for event in read if event["type"] == "m.room.message"] == [rooms.CLOSING]
        assert not world.run(declared).changed, last
    assert step > 7


@pytest.mark.parametrize("moment", [CREATE, MEMBER, POWER, JOIN_RULES, NAME, CHILD])
def test_synapse_is_killed(world: World, moment: str) -> None:
    declared = world.declare()
    world.run(declared)
    expected = world.outcome()
    declared = world.declare()
    before = world.rooms()
    world.order.write_text(moment)
    try:
        with pytest.raises(SynapseError, match="does not answer"):
            world.runner().run([Declared.read(one, DOMAIN) for one in declared])
    finally:
        world.server.stop()
        world.restart()
    assert not world.order.exists()
    world.run(declared)
    assert len(world.rooms() - before) == 5
    assert world.outcome() == expected
    assert not world.run(declared).changed


def test_two_runs_at_once(world: World) -> None:
    """One of them may have to give up; there is one of each room all the same, and they are whole."""
    declared = world.declare()
    world.run(declared)
    expected = world.outcome()
    for _ in range(3):
        declared = world.declare()
        before = world.rooms()
        read = [Declared.read(one, DOMAIN) for one in declared]

        def run(read: list[Declared] = read) -> None:
            with contextlib.suppress(SynapseError):
                world.runner().run(read)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        world.run(declared)
        assert len(world.rooms() - before) == 5
        assert world.outcome() == expected


def test_a_room_that_people_made_is_kept_from_then_on(world: World) -> None:
    """As whoever has power there, where the owner has none."""
    world.declare()
    body: dict[str, Any] = {
        "name": "À nous",
        "room_alias_name": world.own("bureau"),
        "preset": "private_chat",
        "topic": "Divers",
    }
    body |= {"initial_state": [{"type": ENCRYPTION, "state_key": "", "content": {"algorithm": ALGORITHM}}]}
    office = str(world.ask("POST", "createRoom", body, EMMA)["room_id"])
    run = world.run([world.entry("bureau", name="Bureau", administrators=[ALICE])])
    room = world.room(office)
    assert run.changed
    assert result(run, world.own("bureau"))["room_id"] == office
    assert (room.name, room.content(TOPIC)["topic"], room.encrypted) == ("Bureau", "Divers", True)
    assert room.content(GUESTS) == {"guest_access": "can_join"}
    assert (room.power(EMMA) >= 100, room.power(ALICE), room.members("join")) == (True, 100, [EMMA])
    # Nobody with power is left: said, and the rest is done.
    world.ask("POST", f"rooms/{quote(office)}/invite", {"user_id": FARID}, EMMA)
    world.join(office, FARID)
    world.ask("POST", f"rooms/{quote(office)}/leave", {}, EMMA)
    entries = [world.entry("bureau", name="Grand bureau"), world.entry("entraide", name="Entraide")]
    run = world.run(entries)
    assert list(run.objections) == [world.own("bureau")]
    assert "name it Grand bureau" in run.objections[world.own("bureau")]
    assert world.room(world.at("entraide")).name == "Entraide"


def test_when_everybody_has_left(world: World) -> None:
    """The alias gets another room; what was said is not touched."""
    world.declare()
    entry = world.entry("bureau", name="Bureau")
    world.run([entry])
    office = world.at("bureau")
    assert world.say(office, ALICE) == 200
    world.ask("POST", f"rooms/{quote(office)}/leave", {})
    run = world.run([entry])
    assert world.at("bureau") != office
    assert result(run, world.own("bureau"))["done"][-1] == "make the room Bureau"
    read = world.ask("GET", f"/_synapse/admin/v1/rooms/{quote(office)}/messages?dir=b&limit=5", user=None)["chunk"]
    assert "Bonjour" in [event["content"].get("body") for event in read]
    world.ask("POST", f"rooms/{quote(world.at('bureau'))}/leave", {})
    run = world.run([world.entry("bureau", state="absent")])
    assert world.behind(world.full("bureau")) is None
    assert not world.run([world.entry("bureau", state="absent")]).changed


def test_what_cannot_be_is_said_and_the_rest_is_done(world: World) -> None:
    declared = world.declare()
    world.run(declared)
    world.put(world.at("bureau"), TOMBSTONE, {"body": "x", "replacement_room": world.at("entraide")})
    declared[3] = declared[3] | {"kind": "space"}
    declared[1]["topic"] = "Nouveau"
    help_ = world.events(world.at("entraide"))
    run = world.run(declared)
    assert set(run.objections) == {world.own("bureau"), world.own("entraide")}
    assert "is a room, and a space is declared" in run.objections[world.own("entraide")]
    assert "closed and leads to" in run.objections[world.own("bureau")]
    assert world.events(world.at("entraide")) == help_
    assert world.room(world.at("annonces")).content(TOPIC) == {"topic": "Nouveau"}
    with pytest.raises(SynapseError, match=r"@nobody:coop[.]example, whose rooms"):
        world.run(world.declare(), owner="nobody")
    world.ask("PUT", f"/_synapse/admin/v2/users/{DENIS}", {"locked": True}, user=None)
    with pytest.raises(SynapseError, match="locked"):
        world.run(world.declare(), owner="denis")


def test_links_that_cannot_be_found_now(world: World) -> None:
    declared = world.declare()
    declared[0]["links"] = ["#federation:nowhere.invalid"]
    run = world.run(declared)
    (note,) = result(run, world.own("accueil"))["notes"]
    assert "#federation:nowhere.invalid cannot be found now" in note
    again = world.run(declared)
    assert (writes(again), again.changed) == ([], False)
    assert "tried again on the next run" in again.report()


def play(directory: Path, world: World, entries: list[dict[str, Any]], *more: str) -> subprocess.CompletedProcess[str]:
    """The task of role rooms, in a playbook."""
    (task,) = yaml.safe_load((ROOT / "roles/rooms/tasks/main.yml").read_text())
    variables = {"rooms_declared": entries[:1], "rooms_generated": entries[1:], "rooms_owner": "alice"}
    variables |= {"_matrix_config_dir": str(directory), "_matrix_client_socket": world.socket, "matrix_domain": DOMAIN}
    host = {"hosts": "localhost", "gather_facts": False, "name": "Rooms", "tasks": [task], "vars": variables}
    (directory / "play.yml").write_text(json.dumps([host]))
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (directory / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"localhost": here}}}))
    return ansible_playbook(directory, "-i", "hosts.yml", "play.yml", *more)


@pytest.mark.parametrize("world", VERSIONS[-1:], indirect=True)  # a playbook knows of no room versions
def test_as_a_playbook_runs_it(world: World, tmp_path: Path) -> None:
    declared = world.declare()
    (tmp_path / "attestation.json").write_text("{}")
    (tmp_path / "gate.token").write_text(world.admin_token)
    for more, changed, words in (
        (("--check", "--diff"), 1, "On s'aide"),
        ((), 1, "changed"),
        ((), 0, "ok"),
        (("--check",), 0, "ok"),
    ):
        done = play(tmp_path, world, declared, *more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"changed={changed} " in done.stdout, done.stdout
        assert words in done.stdout, done.stdout
        assert world.admin_token not in done.stdout + done.stderr
        assert "[WARNING]" not in done.stderr, done.stderr
    done = play(tmp_path, world, [declared[0] | {"links": ["#federation:nowhere.invalid"]}, *declared[1:]])
    assert "changed=0 " in done.stdout, done.stdout + done.stderr
    assert "#federation:nowhere.invalid cannot be found now" in " ".join(done.stderr.split()), done.stderr
    before = world.events(world.at("accueil"))
    wrong = [declared[0] | {"name": "Autre"}, world.entry("b", name="B", parents=["nulle-part"]), world.entry("c")]
    done = play(tmp_path, world, wrong)
    assert done.returncode == 2
    for text in ("Nothing was changed", "nulle-part", f"rooms[3] ({world.own('c')}): name is missing"):
        assert text in done.stdout + done.stderr, done.stdout + done.stderr
    assert world.events(world.at("accueil")) == before
    world.put(world.at("bureau"), TOMBSTONE, {"body": "x", "replacement_room": ""})
    done = play(tmp_path, world, [declared[0] | {"name": "Autre"}, world.entry("bureau", name="B")])
    assert done.returncode == 2
    assert "closed and leads to nowhere" in done.stdout + done.stderr
    assert world.room(world.at("accueil")).name == "Autre"


def test_before_the_gate_has_passed(tmp_path: Path) -> None:
    params = {"socket": str(tmp_path / "none"), "config_dir": str(tmp_path), "domain": DOMAIN, "owner": "alice"}
    run = connected(params, check_mode=True)
    entries: list[dict[str, Any]] = [
        {"alias": "accueil", "kind": "space", "name": "Accueil", "links": ["#federation:hub.example"], "listed": True},
        {"alias": "bureau", "name": "Bureau", "parents": ["accueil"], "join": "space"},
        {"alias": "ancien", "state": "absent"},
    ]
    run.run([Declared.read(one, DOMAIN) for one in entries])
    assert run.changed
    assert "make the room Bureau" in run.report()
    with pytest.raises(SynapseError, match="The encryption gate has not passed"):
        connected(params, check_mode=False)


def test_where_encryption_is_forced(python: str, tmp_path: Path) -> None:
    """Rooms are plain, or there are none."""
    world = World(python, tmp_path, "11", {"encryption_enabled_by_default_for_room_type": "all"})
    try:
        declared = world.declare()
        with pytest.raises(SynapseError, match="encryption_enabled_by_default_for_room_type"):
            world.run(declared[4:])
        assert world.behind(world.full("bureau")) is None
    finally:
        world.server.stop()


def test_many_rooms_and_synapse_s_own_limits(python: str, tmp_path: Path) -> None:
    """The limits are for people: thirty rooms are made at once, and looked at in a few seconds."""
    slow = {"per_second": 0.016, "burst_count": 10}
    limits = {"rc_message": {"per_second": 0.2, "burst_count": 10}, "rc_room_creation": slow}
    world = World(python, tmp_path, "12", limits)
    try:
        declared = world.declare()[:1]
        hall = [declared[0]["alias"]]
        more = {"join": "space", "parents": hall, "servers": {"allow": ["a.example"]}}
        declared += [world.entry(f"theme{number}-", name=f"Thème {number}", **more) for number in range(30)]
        world.run(declared)
        assert len(world.room(world.at("accueil")).of_kind(CHILD)) == 30
        with at_most(5):
            again = world.run(declared)
        assert not again.changed
    finally:
        world.server.stop()
