# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Encrypted rooms of a real Synapse, replaced; interrupted at every step, and replaced all the same, once."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import ALGORITHM, ENCRYPTION
from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import (
    CANONICAL,
    CHILD,
    CREATE,
    DIRECT,
    MARK,
    MEMBER,
    POWER,
    TOMBSTONE,
    lock_alias,
)
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import SynapseError, quote
from ansible_collections.cae.matrix.plugins.modules.remedy import Remedy, connected
from ansible_collections.cae.matrix.tests.patience import START, eventually
from ansible_collections.cae.matrix.tests.unit.homeserver import ROOT
from ansible_collections.cae.matrix.tests.unit.opt_in_server import PREFERENCE, PROOF, configuration
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
from ansible_collections.cae.matrix.tests.unit.ports import free_port
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

VERSIONS = ("10", "11", "12")
ENCRYPTED = {"type": ENCRYPTION, "state_key": "", "content": {"algorithm": ALGORITHM}}


class World(People):
    """With rooms as cooperatives have them."""

    def __init__(self, python: str, directory: Path, extra: dict[str, Any] | None = None) -> None:
        super().__init__(python, directory, extra)
        self._numbers = itertools.count(1)

    def remedy(self, dies_after: int | None = None) -> Remedy:
        return Remedy(Fragile(self.socket, self.admin_token, dies_after), DOMAIN, self.admin)

    def replace(self, *rooms: str) -> Remedy:
        remedy = self.remedy()
        assert remedy.run(list(rooms), check_mode=False) == []
        remedy.log_out()
        return remedy

    def make(self, user: str = ALICE, **body: Any) -> str:
        return str(self.ask("POST", "createRoom", {"initial_state": [ENCRYPTED], **body}, user)["room_id"])

    # -- rooms as cooperatives have them ----------------------------------------------------------------------------

    def office(self, version: str) -> tuple[str, str, str]:
        """A room with everything, in a space: the room, the space, what their names end in."""
        mine = f"{next(self._numbers)}"
        space = self.make(name=f"Maison {mine}", creation_content={"type": "m.space"}, initial_state=[])
        allow = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
        room = self.make(
            name=f"Bureau {mine}",
            topic="Le quotidien",
            room_version=version,
            room_alias_name=f"bureau{mine}",
            preset="private_chat",
            visibility="public",
            invite=[BRUNO, CHLOE, EMMA],
            power_level_content_override={
                "events": {"m.room.name": 0, "m.room.message": 10, POWER: 100, TOMBSTONE: 100, "x.high": 150},
                "users": {EMMA: 50, BRUNO: 10} | ({} if version == "12" else {ALICE: 100}),
            },
            initial_state=[
                ENCRYPTED,
                {"type": "m.room.join_rules", "content": allow},
                {"type": "m.room.avatar", "content": {"url": "mxc://coop.example/avatar"}},
                {"type": "m.room.server_acl", "content": {"allow": ["*"], "deny": ["evil.example"]}},
                {"type": "m.space.parent", "state_key": space, "content": {"via": [DOMAIN], "canonical": True}},
                {"type": "m.room.pinned_events", "content": {"pinned": ["$one"]}},
            ],
        )
        for alias in (f"#accueil{mine}:{DOMAIN}", f"#ancien{mine}:{DOMAIN}"):
            self.ask("PUT", f"directory/room/{quote(alias)}", {"room_id": room})
        shown = {"alias": f"#bureau{mine}:{DOMAIN}", "alt_aliases": [f"#accueil{mine}:{DOMAIN}"]}
        self.put(room, CANONICAL, shown)
        self.join(room, BRUNO)
        self.join(room, EMMA)
        self.ask("POST", f"rooms/{quote(room)}/ban", {"user_id": DENIS, "reason": "spam"})
        self.put(space, CHILD, {"via": [DOMAIN], "order": "aa", "suggested": True}, room)
        return room, space, mine

    def chat(self, version: str, user: str = ALICE, friend: str = BRUNO) -> str:
        """A direct conversation, as clients make it."""
        room = self.make(user, preset="trusted_private_chat", is_direct=True, invite=[friend], room_version=version)
        self.join(room, friend)
        for one, other in ((user, friend), (friend, user)):
            path = f"user/{one}/account_data/{DIRECT}"
            status, direct = self.server.request("GET", f"/_matrix/client/v3/{path}", token=self.tokens[one])
            direct = direct if status == 200 else {}
            self.ask("PUT", path, direct | {other: [*direct.get(other, []), room]}, one)
        return room

    # -- what came of it ----------------------------------------------------------------------------------------

    def outcome(self, old_id: str, space: str, mine: str) -> dict[str, Any]:
        """All that a run decides, in words that are the same for every room."""
        old = self.room(old_id)
        new = self.room(str(old.replacement))

        def same(value: Any) -> Any:
            text = json.dumps(value, sort_keys=True)
            names = {old_id: "OLD", new.room_id: "NEW", space: "SPACE"}
            for name, word in names.items():
                text = text.replace(name, word)
            return json.loads(text.replace(f' {mine}"', ' N"').replace(f"{mine}:{DOMAIN}", f"N:{DOMAIN}"))

        create = new.content(CREATE)
        create.get("predecessor", {}).pop("event_id", None)
        kinds = {kind for kind, _ in new.events} - {CREATE}
        return {
            "create": same(create),
            "state": {kind: same(new.of_kind(kind)) for kind in kinds},
            "old": {kind: same(old.of_kind(kind)) for kind in (POWER, CANONICAL, TOMBSTONE, MEMBER)},
            "space": same(self.room(space).of_kind(CHILD)),
            "aliases": {one: same(self.behind(f"#{one}{mine}:{DOMAIN}")) for one in ("bureau", "accueil", "ancien")},
            "lock": self.behind(lock_alias(old_id, DOMAIN)),
            "listed": [
                self.ask("GET", f"directory/list/room/{quote(one)}")["visibility"] for one in (old_id, new.room_id)
            ],
        }


def playbook(inventory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return ansible_playbook(ROOT, "-i", inventory, ROOT / "playbooks/remedy.yml", *more)


@pytest.fixture(scope="module")
def world(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    order = tmp_path_factory.mktemp("order") / "order"
    extra: dict[str, Any] = {"modules": [{"module": "synapse_death.Death", "config": {"order": str(order)}}]}
    unlimited = {"per_second": 10000, "burst_count": 10000}
    extra |= {"rc_joins": {"local": unlimited, "remote": unlimited}, "rc_joins_per_room": unlimited}
    extra |= {"room_list_publication_rules": [{"action": "allow"}]}
    made = World(python, tmp_path_factory.mktemp("world"), extra)
    try:
        yield made
    finally:
        made.server.stop()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_room_with_everything(world: World, version: str) -> None:
    office, space, mine = world.office(version)
    before = world.rooms()
    old = world.room(office)
    run = world.replace(f"#bureau{mine}:{DOMAIN}")
    (result,) = run.results
    new = world.room(result["new"])

    assert run.changed
    assert world.rooms() == before | {new.room_id}
    assert (result["old"], result["finished"], result["actor"], result["notes"]) == (office, True, ALICE, [])
    assert not new.encrypted
    assert new.version == version
    assert new.creator == ALICE
    for kind in ("m.room.name", "m.room.topic", "m.room.avatar", "m.room.join_rules", "m.room.server_acl", POWER):
        assert new.content(kind) == old.content(kind), kind
    assert new.content("m.room.history_visibility") == old.content("m.room.history_visibility")
    assert new.content("m.space.parent", space) == {"via": [DOMAIN], "canonical": True}
    assert new.content("m.room.pinned_events") == {}
    assert new.members("invite") == [BRUNO, CHLOE, EMMA]
    assert new.members("ban") == [DENIS]
    assert new.members("join") == [ALICE]
    assert new.content(MEMBER, DENIS)["reason"] == "spam"
    assert "sans chiffrement" in new.content(MEMBER, BRUNO)["reason"]
    assert "is_direct" not in new.content(MEMBER, BRUNO)
    assert new.content(CREATE)["predecessor"]["room_id"] == office

    closed = world.room(office)
    assert closed.content(TOMBSTONE)["replacement_room"] == new.room_id
    assert closed.members("join") == [ALICE, BRUNO, EMMA]
    assert closed.membership(CHLOE) == "leave"
    outcome = world.outcome(office, space, mine)
    assert outcome["aliases"] == {"bureau": "NEW", "accueil": "NEW", "ancien": "NEW"}
    assert outcome["state"][CANONICAL] == {"": {"alias": f"#bureauN:{DOMAIN}", "alt_aliases": [f"#accueilN:{DOMAIN}"]}}
    assert outcome["old"][CANONICAL] == {}
    assert outcome["lock"] is None
    assert outcome["listed"] == ["private", "public"]
    assert outcome["space"] == {"NEW": {"via": [DOMAIN], "order": "aa", "suggested": True}}

    # Bruno could write before; now he is led on, gets in, and writes there.
    message = {"msgtype": "m.text", "body": "Bonjour"}
    assert world.status("PUT", f"rooms/{quote(office)}/send/m.room.message/1", message, BRUNO) == 403
    tombstone = world.ask("GET", f"rooms/{quote(office)}/state/{TOMBSTONE}", user=BRUNO)
    assert "fermé" in tombstone["body"]
    assert "closed" in tombstone["body"]
    world.join(tombstone["replacement_room"], BRUNO)
    world.ask("PUT", f"rooms/{quote(new.room_id)}/send/m.room.message/1", message, BRUNO)
    # The others as before: Emma moderates, Denis stays out, whoever is in the space gets in by themselves.
    world.join(new.room_id, EMMA)
    world.ask("POST", f"rooms/{quote(new.room_id)}/kick", {"user_id": BRUNO}, EMMA)
    assert world.status("POST", f"join/{quote(new.room_id)}", {}, DENIS) == 403
    assert world.status("POST", f"join/{quote(new.room_id)}", {}, FARID) == 403
    world.ask("POST", f"rooms/{quote(space)}/invite", {"user_id": FARID})
    world.join(space, FARID)
    world.join(new.room_id, FARID)
    # Encryption can still be chosen.
    world.put(new.room_id, ENCRYPTION, {"algorithm": ALGORITHM})


def test_nothing_of_the_service_account_stays(world: World) -> None:
    office, _, _ = world.office("11")
    run = world.replace(office)
    for one in (office, run.results[0]["new"]):
        assert world.admin not in json.dumps(list(world.room(one).events.values()))
    tokens = world.ask("GET", f"/_synapse/admin/v2/users/{ALICE}/devices", user=None)
    assert tokens["total"] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_direct_conversation_stays_one(world: World, version: str) -> None:
    chat = world.chat(version)
    old = world.room(chat)
    run = world.replace(chat)
    new = world.room(run.results[0]["new"])
    assert not new.encrypted
    assert new.content(MEMBER, BRUNO)["is_direct"] is True
    assert new.members("join", "invite") == [ALICE, BRUNO]
    assert new.power(BRUNO) == old.power(BRUNO)
    assert new.power(ALICE) == old.power(ALICE)
    for user, friend in ((ALICE, BRUNO), (BRUNO, ALICE)):
        rooms = world.ask("GET", f"user/{user}/account_data/{DIRECT}", user=user)[friend]
        assert rooms.count(new.room_id) == 1
        assert chat in rooms
    world.join(new.room_id, BRUNO)
    # Both can choose encryption later.
    world.put(new.room_id, ENCRYPTION, {"algorithm": ALGORITHM}, user=BRUNO)


def test_showing_changes_nothing(world: World) -> None:
    office, _, mine = world.office("11")
    before, rooms = world.events(office), world.rooms()
    remedy = world.remedy()
    assert remedy.run([f"Bureau {mine}"], check_mode=True) == []
    assert isinstance(remedy.synapse, Fragile)
    assert remedy.synapse.writes == []
    assert remedy.changed
    assert (world.events(office), world.rooms()) == (before, rooms)
    (diff,) = remedy.diffs
    assert json.loads(diff["before"])["encrypted"] is True
    assert json.loads(diff["after"])["invited"] == [BRUNO, CHLOE, EMMA]
    report = remedy.report(check_mode=True)
    for words in (office, "would be replaced", "version 11", f"#ancien{mine}", "Maison", BRUNO, DENIS, "tombstone"):
        assert words in report, (words, report)


def test_a_second_run_changes_nothing(world: World) -> None:
    office, _, mine = world.office("12")
    world.replace(office)
    (new,) = (world.room(office).replacement,)
    # The new room is its people's own.
    world.put(str(new), "m.room.name", {"name": f"Grand bureau {mine}"})
    before, rooms = world.events(str(new)), world.rooms()
    for wanted in (office, f"#bureau{mine}:{DOMAIN}", str(new), f"Bureau {mine}"):
        run = world.replace(wanted)
        assert isinstance(run.synapse, Fragile)
        assert run.synapse.writes == []
        assert not run.changed
        assert "replaced already" in run.report(check_mode=False)
    assert (world.events(str(new)), world.rooms()) == (before, rooms)


def test_old_and_new_have_the_same_name(world: World) -> None:
    office, _, mine = world.office("11")
    world.replace(office)
    run = world.replace(f"Bureau {mine}")
    assert (run.results[0]["old"], run.changed) == (office, False)


def test_interrupted_at_every_step(world: World) -> None:
    office, space, mine = world.office("11")
    world.replace(office)
    expected = world.outcome(office, space, mine)
    for step in itertools.count(1):
        office, space, mine = world.office("11")
        before = world.rooms()
        dying = world.remedy(dies_after=step)
        try:
            dying.run([office], check_mode=False)
        except Killed:
            pass
        else:
            break
        again = world.replace(f"#bureau{mine}:{DOMAIN}")
        assert isinstance(dying.synapse, Fragile)
        last = dying.synapse.writes[-1]
        assert len(world.rooms() - before) == 1, last
        assert world.outcome(office, space, mine) == expected, last
        assert (again.results[0]["old"], again.results[0]["finished"]) == (office, True), last
        assert not world.replace(office).changed, last
    assert step > 20


def test_interrupted_again_and_again(world: World) -> None:
    """Each run does one step and dies, and none does one that was done."""
    office, space, mine = world.office("12")
    world.replace(office)
    expected = world.outcome(office, space, mine)
    office, space, mine = world.office("12")
    before = world.rooms()
    for attempts in itertools.count(1):
        assert attempts < 60
        try:
            remedy = world.remedy(dies_after=1)
            remedy.run([office], check_mode=False)
        except Killed:
            continue
        break
    assert not remedy.changed
    assert len(world.rooms() - before) == 1
    assert world.outcome(office, space, mine) == expected


def test_what_cannot_be_replaced_is_said_and_nothing_changed(world: World) -> None:
    """All of it in one message, also what speaks against each of several rooms."""
    good, _, _ = world.office("11")
    plain = world.make(name="En clair", initial_state=[])
    closed = world.make(name="Clos")
    world.put(closed, TOMBSTONE, {"body": "x", "replacement_room": plain})
    powerless = world.make(invite=[BRUNO], name="Sans personne")
    world.join(powerless, BRUNO)
    world.ask("POST", f"rooms/{quote(powerless)}/leave", {})
    left = world.make(name="Vide")
    world.ask("POST", f"rooms/{quote(left)}/leave", {})
    twins = sorted(world.make(name="Jumeaux") for _ in range(2))
    squatted = world.make(name="Squat")
    squatter = world.make(BRUNO, initial_state=[], creation_content={MARK: {"room_id": squatted}})
    alias = lock_alias(squatted, DOMAIN)
    world.ask("PUT", f"directory/room/{quote(alias)}", {"room_id": squatter}, BRUNO)
    # Anybody can write that their room replaces another one.
    liar = world.make(BRUNO, name="Menteur", initial_state=[], creation_content={MARK: {"room_id": good}})
    wrong = {
        liar: ["Menteur", "is not encrypted"],
        "!nowhere:coop.example": ["there is no such room"],
        "!nonsense": ["there is no such room"],
        "#nowhere:coop.example": ["there is no such alias"],
        "#elsewhere:other.example": ["there is no such alias"],
        "#": ["there is no such alias"],
        "#pas \u202e une/adresse:coop.example": ["there is no such alias"],
        "Nulle part": ["no room has that name"],
        plain: ["En clair", "is not encrypted"],
        closed: ["Clos", "closed already", plain],
        powerless: ["Sans personne", f"made by {ALICE}", "nobody of coop.example", "power", BRUNO],
        left: ["nobody of coop.example is in that room any more"],
        "Jumeaux": ["2 rooms", *twins],
        squatted: ["Squat", alias, squatter, BRUNO],
    }
    before, rooms = world.events(good), world.rooms()
    remedy = world.remedy()
    problems = remedy.run([good, *wrong], check_mode=False)
    assert isinstance(remedy.synapse, Fragile)
    assert (remedy.synapse.writes, remedy.results, remedy.changed) == ([], [], False)
    assert (world.events(good), world.rooms()) == (before, rooms)
    assert len(problems) == len(wrong)
    for problem, (wanted, words) in zip(problems, wrong.items(), strict=True):
        for word in (wanted, *words):
            assert word in problem, (word, problem)


def test_by_whoever_has_power_and_can_be_acted_as(world: World) -> None:
    room = world.make(
        name="Relais",
        invite=[BRUNO],
        power_level_content_override={"users": {ALICE: 100, BRUNO: 100}},
        room_version="11",
    )
    world.join(room, BRUNO)
    lock = f"/_synapse/admin/v2/users/{ALICE}"
    world.ask("PUT", lock, {"locked": True}, user=None)
    try:
        run = world.replace(room)
    finally:
        world.ask("PUT", lock, {"locked": False}, user=None)
    new = world.room(run.results[0]["new"])
    assert (run.results[0]["actor"], new.creator) == (BRUNO, BRUNO)
    assert new.power(ALICE) == new.power(BRUNO) == 100
    assert new.membership(ALICE) == "invite"


def test_only_locked_people_could(world: World) -> None:
    room = world.make(name="Sous clé")
    lock = f"/_synapse/admin/v2/users/{ALICE}"
    world.ask("PUT", lock, {"locked": True}, user=None)
    try:
        (problem,) = world.remedy().run([room], check_mode=False)
    finally:
        world.ask("PUT", lock, {"locked": False}, user=None)
    assert "locked" in problem
    assert ALICE in problem


def test_who_cannot_be_invited_is_said_and_invited_later(world: World) -> None:
    """Somebody who refuses invitations must not keep the others from their new room."""
    room = world.make(name="Refus", invite=[BRUNO, CHLOE])
    world.join(room, BRUNO)
    world.join(room, CHLOE)
    refusal = f"user/{CHLOE}/account_data/m.invite_permission_config"
    world.ask("PUT", refusal, {"default_action": "block"}, CHLOE)
    run = world.replace(room)
    (result,) = run.results
    assert result["finished"]
    assert [note for note in result["notes"] if CHLOE in note]
    again = world.replace(room)
    assert again.results[0]["notes"] == result["notes"]
    assert not again.changed
    world.ask("PUT", refusal, {}, CHLOE)
    last = world.replace(room)
    assert last.results[0]["done"] == [f"invited 1: {CHLOE}"]
    assert world.room(result["new"]).membership(CHLOE) == "invite"
    assert not world.replace(room).changed


def test_whoever_cannot_be_invited_keeps_the_old_invitation(world: World) -> None:
    room = world.make(name="En attente", invite=[DENIS, EMMA])
    refusal = f"user/{EMMA}/account_data/m.invite_permission_config"
    world.ask("PUT", refusal, {"default_action": "block"}, EMMA)
    try:
        world.replace(room)
    finally:
        world.ask("PUT", refusal, {}, EMMA)
    assert world.room(room).members("invite") == [EMMA]


def test_who_has_left_the_new_room_is_left_in_peace(world: World) -> None:
    room = world.make(name="Sortie", invite=[BRUNO])
    world.join(room, BRUNO)
    new = world.replace(room).results[0]["new"]
    world.ask("POST", f"rooms/{quote(new)}/leave", {}, BRUNO)
    assert not world.replace(room).changed


@pytest.mark.parametrize("space_first", [True, False])
def test_an_encrypted_space_takes_its_rooms_along(world: World, space_first: bool) -> None:
    """Also when one of them is replaced in the same run, whichever comes first in the list."""
    space = world.make(name="Espace chiffré", creation_content={"type": "m.space"})
    room = world.make(name="Dedans")
    world.put(space, CHILD, {"via": [DOMAIN], "order": "b"}, room)
    run = world.replace(*((space, room) if space_first else (room, space)))
    by_old = {one["old"]: world.room(one["new"]) for one in run.results}
    assert by_old[space].is_space
    assert by_old[space].of_kind(CHILD) == {by_old[room].room_id: {"via": [DOMAIN], "order": "b"}}


def test_a_space_that_nobody_here_can_change(world: World) -> None:
    space = world.make(FARID, name="À Farid", creation_content={"type": "m.space"}, initial_state=[])
    room = world.make(name="Chez Farid")
    world.put(space, CHILD, {"via": [DOMAIN]}, room, user=FARID)
    world.ask("POST", f"rooms/{quote(space)}/invite", {"user_id": BRUNO}, FARID)
    world.join(space, BRUNO)
    world.ask("POST", f"rooms/{quote(space)}/leave", {}, FARID)
    (result,) = world.replace(room).results
    assert result["finished"]
    assert [note for note in result["notes"] if space in note]
    assert list(world.room(space).of_kind(CHILD)) == [room]


def test_invitations_do_not_wait_for_limits_meant_for_people(python: str, tmp_path: Path) -> None:
    """With Synapse's own limits, ten invitations are at once and each further one takes three seconds."""
    limits = {"per_second": 0.001, "burst_count": 2}
    world = World(python, tmp_path, {"rc_invites": {key: limits for key in ("per_room", "per_issuer")}})
    try:
        room = world.make(name="Tout le monde", preset="public_chat")
        for user in (BRUNO, CHLOE, DENIS, EMMA):
            world.join(room, user)
        new = world.room(world.replace(room).results[0]["new"])
        assert new.members("invite") == [BRUNO, CHLOE, DENIS, EMMA]
    finally:
        world.server.stop()


def test_somebody_who_wants_all_their_rooms_encrypted(python: str, tmp_path: Path) -> None:
    """Synapse's module encrypts what they make, but not what is made in their name to be plain."""
    (tmp_path / "attestation.json").write_text(PROOF.to_json())
    world = World(python, tmp_path, configuration(tmp_path, free_port()))
    try:
        world.ask("PUT", f"user/{ALICE}/account_data/{PREFERENCE}", {"enabled": True})
        room = world.make(name="Secret", initial_state=[])
        assert world.room(room).encrypted
        assert not world.room(world.replace(room).results[0]["new"]).encrypted
    finally:
        world.server.stop()


def test_a_server_that_encrypts_by_itself(python: str, tmp_path: Path) -> None:
    """Nothing is gained there: said, the new room removed, the old one as it was."""
    world = World(python, tmp_path, {"encryption_enabled_by_default_for_room_type": "all"})
    try:
        room = world.make(name="Forcé", invite=[BRUNO], room_alias_name="force")
        before, rooms = world.events(room), world.rooms()
        for _ in range(2):
            with pytest.raises(SynapseError, match="encryption_enabled_by_default_for_room_type"):
                world.remedy().run([room], check_mode=False)
            assert world.events(room) == before
            assert world.behind(lock_alias(room, DOMAIN)) is None
            assert world.behind(f"#force:{DOMAIN}") == room
            eventually(lambda: world.rooms() == rooms, "the new room is gone", START)
    finally:
        world.server.stop()


def test_where_nobody_may_make_aliases(python: str, tmp_path: Path) -> None:
    world = World(python, tmp_path, {"alias_creation_rules": [{"action": "deny"}]})
    try:
        room = world.make(name="Sans adresse", invite=[BRUNO])
        before, rooms = world.events(room), world.rooms()
        with pytest.raises(SynapseError, match="alias_creation_rules"):
            world.remedy().run([room], check_mode=False)
        assert (world.events(room), world.rooms()) == (before, rooms)
    finally:
        world.server.stop()


def test_a_synapse_that_somebody_else_installed(python: str, tmp_path: Path) -> None:
    """By its address, with the token of one of its administrators, who may be the one to act as."""
    port = free_port()
    resources = [{"names": ["client"]}]
    listeners = [
        {"path": str(tmp_path / "s"), "type": "http", "resources": resources},
        {"port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "resources": resources},
    ]
    world = World(python, tmp_path, {"listeners": listeners})
    try:
        world.ask("PUT", f"/_synapse/admin/v2/users/{ALICE}", {"admin": True}, user=None)
        room = world.make(name="Ailleurs", invite=[BRUNO])
        params = {"url": f"http://127.0.0.1:{port}", "ca_file": None, "domain": DOMAIN}
        for wrong, words in (
            ({"admin_token": "x"}, "not valid for coop.example"),
            ({"admin_token": world.tokens[BRUNO]}, f"does not answer to {BRUNO}"),
            ({"admin_token": world.tokens[ALICE], "domain": "other.example"}, "not valid for other.example"),
            ({"admin_token": "x", "url": "matrix.coop.example"}, "no address"),
            ({"admin_token": "x", "url": f"http://127.0.0.1:{free_port()}"}, "does not answer"),
        ):
            with pytest.raises(SynapseError, match=words):
                connected(params | wrong, check_mode=False)
        there = {"matrix_domain": DOMAIN, "remedy_homeserver_url": params["url"], "remedy_rooms": ["Ailleurs"]}
        there["remedy_admin_token"] = world.tokens[ALICE]
        inventory = {"cooperatives": {"hosts": {"ailleurs": there, "ici": {"matrix_domain": "ici.example"}}}}
        (tmp_path / "hosts.yml").write_text(json.dumps(inventory))
        for more, status, words in (
            ((), 2, "--limit"),
            (("-l", "ailleurs"), 0, "changed=0"),
            (("-l", "ailleurs", "-e", "remedy_apply=true"), 0, "changed=1"),
            (("-l", "ailleurs", "-e", "remedy_apply=true"), 0, "changed=0"),
        ):
            done = playbook(tmp_path / "hosts.yml", *more)
            output = done.stdout + done.stderr
            assert done.returncode == status, output
            assert words in output
            assert world.tokens[ALICE] not in output
        new = world.room(str(world.room(room).replacement))
        assert (new.creator, new.encrypted, new.membership(BRUNO)) == (ALICE, False, "invite")
        # The administrator's own session is still there.
        assert world.ask("GET", "account/whoami")["user_id"] == ALICE
    finally:
        world.server.stop()


def test_without_the_gate_s_account(world: World, tmp_path: Path) -> None:
    """Showing makes no account, and says what does."""
    params = {"url": None, "socket": world.socket, "config_dir": str(tmp_path), "domain": DOMAIN}
    with pytest.raises(SynapseError, match=r"cae\.matrix\.cooperative"):
        connected(params, check_mode=True)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_at_once(world: World) -> None:
    """One of them may have to give up; there is one room all the same, and it is whole."""
    office, space, mine = world.office("11")
    world.replace(office)
    expected = world.outcome(office, space, mine)
    for _ in range(3):
        office, space, mine = world.office("11")
        before = world.rooms()

        def run(room: str) -> None:
            with contextlib.suppress(SynapseError):
                world.remedy().run([room], check_mode=False)

        threads = [threading.Thread(target=run, args=[office]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        world.replace(office)
        assert len(world.rooms() - before) == 1
        assert world.outcome(office, space, mine) == expected


@pytest.mark.parametrize(
    ("moment", "version"),
    [
        *itertools.product((CREATE, MEMBER, POWER), ("11", "12")),
        ("m.room.topic", "11"),
        (CANONICAL, "11"),
        (TOMBSTONE, "12"),
    ],
)
def test_synapse_is_killed(world: World, moment: str, version: str) -> None:
    office, space, mine = world.office(version)
    world.replace(office)
    expected = world.outcome(office, space, mine)
    office, space, mine = world.office(version)
    before = world.rooms()
    Path(world._extra["modules"][0]["config"]["order"]).write_text(moment)
    try:
        with pytest.raises(SynapseError, match="does not answer"):
            world.remedy().run([office], check_mode=False)
    finally:
        world.server.stop()
        world.restart()
    world.replace(office)
    assert world.outcome(office, space, mine) == expected
    assert len(world.rooms() - before) == 1
