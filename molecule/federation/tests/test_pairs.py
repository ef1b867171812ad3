# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may talk to whom, from both sides, and what strangers may look up."""

from __future__ import annotations

import secrets
from urllib.parse import quote

import pytest
from ansible_collections.cae.matrix.tests.patience import START, eventually
from federation import CLOSED, MAY, MAY_NOT, MEMBERS, OUTSIDER, SERVERS, WAYS, Person, both_hear, talking

MEGOLM = {"algorithm": "m.megolm.v1.aes-sha2"}


@pytest.mark.parametrize(("one", "other"), MAY)
def test_people_of_two_servers_talk(people: dict[str, Person], one: str, other: str) -> None:
    """A room of one, an invitation to the other, messages both ways; the room is plain."""
    with talking(f"{one} et {other}", people[one], people[other]) as talk:
        both_hear(talk)
        for side in (people[one], people[other]):
            assert "m.room.encryption" not in side.state(talk.room)


@pytest.mark.parametrize(("one", "other"), MAY_NOT)
def test_nothing_passes_between_servers_that_may_not(people: dict[str, Person], one: str, other: str) -> None:
    """Neither an invitation nor a person who wants to come in; of the room, nothing is known there."""
    before = people[other].invitations()
    alias = f"pas-pour-{other}-{secrets.token_hex(3)}"
    room = people[one].make(name="Entre nous", preset="public_chat", room_alias_name=alias)
    invited = people[one].try_to(
        "POST", f"/_matrix/client/v3/rooms/{quote(room, safe='')}/invite", {"user_id": people[other].user_id}
    )
    assert invited.status_code in (403, 502), invited.text
    for address in (room, f"#{alias}:{SERVERS[one].domain}"):
        came = people[other].join(address, SERVERS[one].domain)
        assert came.status_code in (403, 404, 502), came.text
    assert people[other].invitations() == before
    assert SERVERS[other].sql(f"SELECT count(*) FROM events WHERE room_id = '{room}'").strip() == "0"
    members = people[one].in_room(room, "GET", "joined_members")["joined"]
    assert set(members) == {people[one].user_id}


def looks_up(asked: str, asking: str) -> bool:
    """Who is open to the world tells strangers nothing, and cannot tell a member from one."""
    return asked in CLOSED and asking in MEMBERS


@pytest.mark.parametrize(("asking", "asked"), WAYS)
def test_profiles_and_directories_are_told_to_members_only(people: dict[str, Person], asking: str, asked: str) -> None:
    # Somebody whom nobody has met: what a shared room tells is not asked.
    stranger = f"@support:{SERVERS[asked].domain}"
    profile = people[asking].try_to("GET", f"/_matrix/client/v3/profile/{quote(stranger)}")
    directory = people[asking].try_to("GET", f"/_matrix/client/v3/publicRooms?server={SERVERS[asked].domain}")
    if looks_up(asked, asking):
        assert (profile.status_code, directory.status_code) == (200, 200), (profile.text, directory.text)
        assert profile.json()["displayname"] == "Équipe support"
    else:
        assert profile.status_code in (403, 404, 502), profile.text
        assert directory.status_code in (403, 502), directory.text


@pytest.mark.parametrize(("inviting", "invited"), [("atelier", OUTSIDER), (OUTSIDER, "atelier")])
def test_a_guest_from_elsewhere_needs_no_account(people: dict[str, Person], inviting: str, invited: str) -> None:
    """Plain until somebody asks for more, which then holds for both; and no account is made on either side."""
    accounts = {name: SERVERS[name].sql("SELECT count(*) FROM users") for name in (inviting, invited)}
    with talking("Avec une cliente", people[inviting], people[invited]) as talk:
        both_hear(talk)
        assert "m.room.encryption" not in people[invited].state(talk.room)
        people[inviting].in_room(talk.room, "PUT", "state/m.room.encryption", MEGOLM)
        eventually(lambda: people[invited].state(talk.room).get("m.room.encryption") == MEGOLM, seconds=START)
    assert {name: SERVERS[name].sql("SELECT count(*) FROM users") for name in accounts} == accounts


def test_encryption_turned_on_elsewhere_is_offered_here(people: dict[str, Person]) -> None:
    """Somebody of another server who may do so asks for more; then the guest here is told what comes with it."""
    ours = Person(SERVERS["atelier"], f"farid-{secrets.token_hex(3)}")
    recovery = f"/_matrix/client/v3/user/{quote(ours.user_id)}/account_data/io.element.recovery"
    assert ours.try_to("GET", recovery).json() == {"enabled": False}
    with talking("Chez la cliente", people[OUTSIDER], ours) as talk:
        both_hear(talk)
        people[OUTSIDER].in_room(talk.room, "PUT", "state/m.room.encryption", MEGOLM)
        eventually(lambda: ours.try_to("GET", recovery).json() != {"enabled": False}, seconds=START)
