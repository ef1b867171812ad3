# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a remedy plans, without a server: what it keeps, who it acts as, what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption import remedy
from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import ENCRYPTION
from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import (
    CANONICAL,
    CREATE,
    MARK,
    MEMBER,
    POWER,
    TOMBSTONE,
    Mark,
    Plan,
    Room,
)
from hypothesis import given
from hypothesis import strategies as st

DOMAIN = "coop.example"
ALICE, BRUNO, CHLOE = (f"@{name}:{DOMAIN}" for name in ("alice", "bruno", "chloe"))
FAR = "@zoe:far.example"


def event(kind: str, content: Any, key: str = "", sender: str = ALICE) -> dict[str, Any]:
    return {"type": kind, "state_key": key, "content": content, "sender": sender}


def room(
    *more: dict[str, Any],
    version: str = "11",
    joined: tuple[str, ...] = (ALICE, BRUNO),
    maker: str = ALICE,
    **powers: Any,
) -> Room:
    """An encrypted room."""
    users = {} if version == "12" else {maker: 100}
    levels = {"users": users, "events": {TOMBSTONE: 150 if version == "12" else 100, POWER: 100}, **powers}
    return Room(
        "!old" if version == "12" else f"!old:{DOMAIN}",
        [
            event(CREATE, {"room_version": version}, sender=maker),
            event(ENCRYPTION, {"algorithm": "m.megolm.v1.aes-sha2"}),
            event(POWER, levels),
            *(event(MEMBER, {"membership": "join"}, user) for user in joined),
            *more,
        ],
    )


def plan(old: Room, actor: str = ALICE, version: str = "", **more: Any) -> Plan:
    given: dict[str, Any] = {"mark": Mark.of(old, [], False), "direct": {}, "parents": [], **more}
    return Plan(old=old, actor=actor, domain=DOMAIN, version=version or old.version, **given)


def objection(old: Room, replacement: Room | None = None) -> str:
    return remedy.why_not(old, replacement, DOMAIN, remedy.closers(old, DOMAIN)) or ""


def test_encryption_is_never_taken_along() -> None:
    body = plan(room(event("m.room.name", {"name": "Bureau"}))).creation("$last")
    kinds = [one["type"] for one in body["initial_state"]]
    assert "m.room.name" in kinds
    assert ENCRYPTION not in kinds
    assert ENCRYPTION not in remedy.KEPT
    assert body["creation_content"]["predecessor"] == {"room_id": f"!old:{DOMAIN}", "event_id": "$last"}


def test_what_only_means_something_there_stays_there() -> None:
    left = ("m.room.pinned_events", "m.room.third_party_invite", "m.bridge", "x.unknown", MEMBER)
    old = room(*(event(kind, {"membership": "knock", "x": 1}, "k") for kind in left), event("m.room.topic", {}))
    kinds = {kind for kind, _ in plan(old).state()}
    assert kinds == {POWER, CANONICAL, "m.room.guest_access"}


def test_kind_and_federation_of_the_room() -> None:
    made = event(CREATE, {"room_version": "11", "type": "m.space", "m.federate": False, "x": 1})
    content = plan(room(made)).creation(None)["creation_content"]
    assert content["type"] == "m.space"
    assert content["m.federate"] is False
    assert content["predecessor"] == {"room_id": f"!old:{DOMAIN}"}
    assert "x" not in content


@pytest.mark.parametrize("version", ["10", "11"])
def test_powers_before_version_12(version: str) -> None:
    old = room(version=version, users={ALICE: 100, BRUNO: 50}, events={"x": 120}, invite=50)
    planned = plan(old)
    assert planned.powers()["users"] == {ALICE: 100, BRUNO: 50}
    assert planned.powers_at_first()["users"] == {ALICE: 120, BRUNO: 50}
    new = Room("!new:coop.example", [event(POWER, planned.powers_at_first())])
    assert planned.powers_at_last(new)["users"] == {ALICE: 100, BRUNO: 50}
    assert planned.reigning == []


def test_powers_in_version_12() -> None:
    made = event(CREATE, {"room_version": "12", "additional_creators": [BRUNO, FAR]})
    old = room(made, version="12", users={CHLOE: 100})
    assert old.power(ALICE) == old.power(BRUNO) == old.power(FAR) == math.inf
    as_bruno = plan(old, BRUNO)
    content = as_bruno.creation(None)["creation_content"]
    assert content["additional_creators"] == [ALICE, FAR]
    assert as_bruno.powers()["users"] == as_bruno.powers_at_first()["users"] == {CHLOE: 100}


def test_who_becomes_a_creator_leaves_the_list() -> None:
    """In version 12 who makes a room must not be in its list of powers."""
    old = room(version="12", users={BRUNO: 100}, events={TOMBSTONE: 100})
    assert plan(old, BRUNO).powers()["users"] == {}
    from_11 = room(users={ALICE: 100, BRUNO: 100})
    assert plan(from_11, version="12").powers()["users"] == {BRUNO: 100}
    assert "additional_creators" not in plan(from_11, version="12").creation(None)["creation_content"]


def test_powers_as_text_become_numbers() -> None:
    old = room(version="9", users={ALICE: "100"}, ban="50", events={POWER: " 100", TOMBSTONE: "100"})
    assert remedy.closers(old, DOMAIN) == [ALICE]
    assert plan(old).powers() == {"users": {ALICE: 100}, "ban": 50, "events": {POWER: 100, TOMBSTONE: 100}}


def test_a_room_without_powers_is_its_makers() -> None:
    old = Room("!a:coop.example", [event(CREATE, {}), event(MEMBER, {"membership": "join"}, ALICE)])
    assert (old.power(ALICE), old.power(BRUNO)) == (100, 0)
    assert plan(old).powers()["users"] == {ALICE: 100}


def test_acts_as_whoever_made_the_room_first() -> None:
    joined = (ALICE, BRUNO, CHLOE)
    assert remedy.closers(room(joined=joined, users={BRUNO: 100, CHLOE: 100}, maker=CHLOE), DOMAIN) == [CHLOE, BRUNO]
    assert remedy.closers(room(joined=joined, users={BRUNO: 200, CHLOE: 100}, maker=CHLOE), DOMAIN) == [BRUNO, CHLOE]
    assert remedy.closers(room(joined=(BRUNO,), version="12"), DOMAIN) == []


def test_needs_the_power_to_move_the_alias_only_if_there_is_one() -> None:
    alias = f"#bureau:{DOMAIN}"
    shown = event(CANONICAL, {"alias": alias})
    old = room(shown, events={POWER: 100, TOMBSTONE: 100, CANONICAL: 110})
    assert remedy.closers(old, DOMAIN) == [ALICE]
    assert remedy.closers(old, DOMAIN, [alias]) == []


def test_closed_to_all_but_moderators() -> None:
    old = room(events_default=0, events={"m.room.message": 10, "m.reaction": 60, "m.room.name": 0})
    closed = remedy.closed_powers(old)
    assert (closed["events_default"], closed["invite"]) == (50, 50)
    assert closed["events"] == {"m.room.message": 50, "m.reaction": 60, "m.room.name": 0}
    assert remedy.closed_powers(Room(old.room_id, [event(POWER, closed)])) == closed
    assert remedy.closed_powers(room(users_default=70))["events_default"] == 71


def test_aliases_of_other_servers_stay() -> None:
    here, there = f"#bureau:{DOMAIN}", "#bureau:far.example"
    old = room(event(CANONICAL, {"alias": here, "alt_aliases": [there, f"#b:{DOMAIN}"]}))
    mark = Mark.of(old, [here, f"#b:{DOMAIN}"], listed=True)
    assert mark.canonical == {"alias": here, "alt_aliases": [f"#b:{DOMAIN}"]}
    assert mark.left(old) == {"alt_aliases": [there]}
    foreign = room(event(CANONICAL, {"alias": there}))
    assert Mark.of(foreign, [here], listed=False).canonical == {}
    assert Mark.of(foreign, [here], listed=False).left(foreign) == {"alias": there}


def test_the_mark_survives() -> None:
    mark = Mark.of(room(event(CANONICAL, {"alias": "#a:b"})), ["#a:b"], listed=True)
    assert Mark.read(Room("!n", [event(CREATE, {MARK: mark.content()})])) == mark


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "users",
                        "events",
                        "alias",
                        "alt_aliases",
                        "aliases",
                        "canonical",
                        "room_id",
                        MARK,
                        "membership",
                        "additional_creators",
                        "replacement_room",
                        "name",
                        ALICE,
                        TOMBSTONE,
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_people_can_send_anything(content: Any) -> None:
    """No content of a state event makes the plan fail."""
    for kind in (POWER, CANONICAL, CREATE, TOMBSTONE, "m.room.name", MEMBER):
        for version in ("11", "12"):
            old = room(event(kind, content, ALICE if kind == MEMBER else ""), version=version)
            objection(old)
            planned = plan(old, mark=Mark.of(old, [f"#a:{DOMAIN}"], listed=True))
            planned.creation(None)
            planned.lines()
            planned.before()
            planned.after()
            planned.powers_at_last(old)
            planned.mark.left(old)
            Mark.read(old)
            remedy.closed_powers(old)
            remedy.uninvited(old, old)
            planned.bans()


def test_invites_who_is_there_or_was_asked_and_keeps_the_banned_out() -> None:
    members = {
        "@in:x.example": "invite",
        "@out:x.example": "leave",
        "@knock:x.example": "knock",
        "@ban:x.example": "ban",
    }
    old = room(
        *(event(MEMBER, {"membership": how, "reason": "why"}, who) for who, how in members.items()), joined=(ALICE, FAR)
    )
    assert remedy.uninvited(old, None, ALICE) == ["@in:x.example", FAR]
    assert plan(old).bans() == {"@ban:x.example": {"membership": "ban", "reason": "why"}}
    seen = Room("!n", [event(MEMBER, {"membership": "leave"}, FAR)])
    assert remedy.uninvited(old, seen, ALICE) == ["@in:x.example"]


def test_withdraws_only_what_may_be_withdrawn() -> None:
    invited = event(MEMBER, {"membership": "invite"}, CHLOE)
    assert plan(room(invited)).withdrawable() == [CHLOE]
    assert plan(room(invited, kick=101)).withdrawable() == []
    assert plan(room(invited, users={ALICE: 100, CHLOE: 100})).withdrawable() == []


def test_says_that_it_is_direct() -> None:
    assert remedy.invitation(True)["is_direct"] is True
    assert "is_direct" not in remedy.invitation(False)


def test_every_text_for_people_is_in_french_and_english() -> None:
    for text in (remedy.TOMBSTONE_BODY, remedy.INVITATION, remedy.WITHDRAWN):
        french, english = text.replace("\n", " / ").split(" / ")
        assert " est fermé" in french or " fermé" in french
        assert " closed" in english


def test_a_name_cannot_paint_the_terminal() -> None:
    label = room(event("m.room.name", {"name": "Bureau\x1b[31m\u202e\nfin"})).label
    assert label == f"!old:{DOMAIN} (Bureau?[31m??fin)"


def test_refusals() -> None:
    assert objection(room()) == ""
    plain = Room("!p:coop.example", [event(CREATE, {}), event(MEMBER, {"membership": "join"}, ALICE)])
    assert "is not encrypted" in objection(plain)
    remote = room(joined=(FAR,), maker=FAR)
    assert "is remote" in objection(remote)
    assert "another server" in objection(remote)
    guests = room(joined=(FAR, BRUNO), maker=FAR)
    assert f"made by {FAR}, on another server, and nobody of coop.example" in objection(guests)
    assert BRUNO in objection(guests)
    elsewhere = room(event(TOMBSTONE, {"replacement_room": "!x:coop.example"}))
    assert "leads to !x:coop.example" in objection(elsewhere)
    assert "leads to nowhere" in objection(room(event(TOMBSTONE, {"body": "x"})))
    other = Room("!x:coop.example", [event(CREATE, {MARK: {"room_id": "!other:coop.example"}})])
    assert "leads to !x:coop.example" in objection(elsewhere, other)
    done = Room("!x:coop.example", [event(CREATE, {MARK: {"room_id": elsewhere.room_id}})])
    assert objection(elsewhere, done) == ""
    # A tombstone that was taken back closes nothing.
    assert objection(room(event(TOMBSTONE, {}))) == ""
