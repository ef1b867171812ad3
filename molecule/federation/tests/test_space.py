# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The hub's space is found by its alias and open to people of members; nobody else comes in."""

from __future__ import annotations

import pytest
from federation import HUB, MEMBERS, OUTSIDER, SERVERS, Person

SPACE = f"#federation:{SERVERS[HUB].domain}"


@pytest.mark.parametrize("name", MEMBERS)
def test_members_find_the_space_and_talk_in_its_rooms(people: dict[str, Person], name: str) -> None:
    came = people[name].join(SPACE)
    assert came.status_code == 200, came.text
    children = people[name].ok("GET", f"/_matrix/client/v1/rooms/{came.json()['room_id']}/hierarchy")["rooms"]
    aliases = {room.get("canonical_alias") for room in children}
    assert {f"#{member}:{SERVERS[HUB].domain}" for member in MEMBERS if member != HUB} <= aliases
    room = people[name].join(f"#atelier:{SERVERS[HUB].domain}")
    assert room.status_code == 200, room.text
    people[name].in_room(
        room.json()["room_id"], "PUT", f"send/m.room.message/{name}", {"msgtype": "m.text", "body": "!"}
    )
    assert "m.room.encryption" not in people[name].state(room.json()["room_id"])


def test_the_outsider_does_not_come_in(people: dict[str, Person]) -> None:
    space = people[HUB].ok("GET", f"/_matrix/client/v3/directory/room/{SPACE.replace('#', '%23')}")["room_id"]
    for address in (SPACE, space):
        came = people[OUTSIDER].join(address, SERVERS[HUB].domain)
        assert came.status_code in (403, 404, 502), came.text
    # Not through a member that is open to the world either: the server ACL says who may take part.
    through = people[OUTSIDER].join(space, SERVERS["atelier"].domain)
    assert through.status_code in (403, 404, 502), through.text
